"""Networks whose reshapes hold sizes as constants."""

from __future__ import annotations

import torch
from torch import nn

import projgen


class Fixed(nn.Module):
    """A reshape that holds the number of channels as a constant, as ONNX files do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(3, 16, 3), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv(x))
        return self.fc(y.reshape(-1, 16, 1, 8).mean(dim=(2, 3)))


def test_channels_behind_a_fixed_reshape_are_left_alone() -> None:
    torch.manual_seed(0)
    model, x = Fixed().eval(), torch.randn(64, 3, 10)
    small, _ = projgen.compress(model, x, learnables_reduction_goal=0.3, prune=True, unpack=True, verbosity="off")
    assert small(x).shape == (64, 4)
