"""The search for schedules with less RAM."""

from __future__ import annotations

import torch
from torch import nn

import projgen
from projgen.kernels.code_size import code_units
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.lower import Overrides
from projgen.schedule.records import Kind, Schedule
from projgen.schedule.share import SHARE_A_BYTE
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


def priced(made: Schedule, byte: float) -> float:
    """Instructions, and those that the code is worth, code that layers share once."""
    code: dict[str, float] = {}
    for segment in made.segments:
        for call in segment.calls:
            code |= code_units(call.choice, by_rows=segment.kind is Kind.ROWS)
    return made.instructions + byte * sum(code.values())


def test_residual_blocks_stream_for_nothing() -> None:
    q = projgen.quantize(Block().eval(), torch.randn(8, 3, 24, 24))
    target, one_map = load_target("cortex-m4"), 24 * 24 * 16
    plain = schedule(q.graph, target, CompileOptions(), Overrides())
    assert plain.plan.arena_bytes > 2 * one_map
    for objective in ("speed", "ram", "flash"):
        found = schedule(q.graph, target, CompileOptions(optimise=objective))  # type: ignore[arg-type]
        assert found.plan.with_input_bytes < 1.7 * one_map
        assert [len(s.calls) for s in found.segments if s.kind is Kind.ROWS] == [2]
    fast = schedule(q.graph, target, CompileOptions())
    byte = SHARE_A_BYTE * plain.instructions
    assert priced(fast, byte) < 1.025 * priced(plain, byte)
    dear = schedule(q.graph, target, CompileOptions(optimise="ram"))
    quickest = {c.node.name: c.choice for s in plain.segments for c in s.calls}
    kernels = {c.node.name: c.choice for s in dear.segments for c in s.calls}
    assert all(kernels[n].instructions <= 2.5 * quickest[n].instructions for n in kernels)
