"""Chains of convolutions whose outputs lie over their inputs in the arena, on a core with MVE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import projgen
from tests.kernels.test_conv_dsp_in_place import chain


@pytest.mark.parametrize("kind", ["pointwise", "depthwise", "dense"])
@pytest.mark.parametrize(("height", "width"), [(24, 20), (13, 23)])
def test_chain_in_place(kind: str, height: int, width: int, tmp_path: Path) -> None:
    torch.manual_seed(len(kind))
    x = np.random.default_rng(0).standard_normal((4, 3, height, width)).astype(np.float32)
    artifact = projgen.compile(chain(kind).eval(), calibration=torch.tensor(x), target="cortex-m55", out=tmp_path / "c")
    artifact.verify(x[:2])
    layers = artifact.measure(x[:1]).layers
    assert all("portable" not in layer.kernel and "dsp" not in layer.kernel for layer in layers)
    assert artifact.manifest["arena_bytes"] < 2 * height * width * 16  # two maps never exist side by side
