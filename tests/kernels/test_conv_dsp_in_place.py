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
