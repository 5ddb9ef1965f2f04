"""Chains of convolutions whose outputs lie over their inputs in the arena, on a DSP core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import projgen


def chain(kind: str) -> nn.Sequential:
    def layer(channels: int) -> nn.Conv2d:
        if kind == "depthwise":
            return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        return nn.Conv2d(channels, channels, *((1,) if kind == "pointwise" else (3, 1, 1)))

    first = nn.Conv2d(3, 16, 1)
    return nn.Sequential(first, layer(16), nn.ReLU(), layer(16), layer(16), nn.Conv2d(16, 4, 3, padding=1))


@pytest.mark.parametrize("kind", ["pointwise", "depthwise", "dense"])
def test_chain_in_place(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(len(kind))
    x = np.random.default_rng(0).standard_normal((6, 3, 24, 20)).astype(np.float32)
    artifact = projgen.compile(chain(kind).eval(), calibration=torch.tensor(x), target="cortex-m4", out=tmp_path / "c")
    artifact.verify(x[:3])
    one_map = 24 * 20 * 16
    assert one_map <= artifact.manifest["arena_bytes"] < 2 * one_map  # two maps never exist side by side


def test_streamed_chain(tmp_path: Path) -> None:
    """With the smallest arena favoured, fast kernels work row by row and the bytes stay the same."""
    torch.manual_seed(5)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 16, 1),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16),
        nn.Conv2d(16, 4, 1),
    )
    x = np.random.default_rng(0).standard_normal((6, 3, 64, 60)).astype(np.float32)
    artifact = projgen.compile(
        net.eval(), calibration=torch.tensor(x), target="cortex-m4", out=tmp_path / "s", optimise="ram"
    )
    artifact.verify(x[:3])
    kernels = "+".join(layer["kernel"] for layer in artifact.manifest["layers"])
    assert "depthwise_rows_dsp" in kernels
    assert "portable" not in kernels
    assert artifact.manifest["arena_bytes"] < 32 * 30 * 16  # less than the largest map
