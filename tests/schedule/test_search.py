"""The search for the smallest arena."""

from __future__ import annotations

import torch
from torch import nn

import projgen
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.targets import load_target


class Block(nn.Module):
    """A residual block: both of its convolutions need the whole input beside their scratch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.second(torch.relu(self.first(x))) + x)
        y: torch.Tensor = self.head(x.mean((2, 3)))
        return y


def test_kernels_that_shrink_the_arena_only_together_are_found() -> None:
    q = projgen.quantize(Block().eval(), torch.randn(8, 3, 24, 24))
    target = load_target("cortex-m4")
    fast, small = (schedule(q.graph, target, CompileOptions(optimise=o)) for o in ("speed", "ram"))
    assert small.plan.with_input_bytes < fast.plan.with_input_bytes - 3000
    kernels = [c.choice for s in small.segments for c in s.calls]
    quickest = [c.choice for s in fast.segments for c in s.calls]
    assert sum(a.kernel != b.kernel for a, b in zip(kernels, quickest, strict=True)) >= 2
    assert all(a.instructions <= 2.5 * b.instructions for a, b in zip(kernels, quickest, strict=True))
