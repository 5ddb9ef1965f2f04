"""Several convolutions in one model on a core with MVE: over their inputs, streamed, and with shared blocks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import projgen
from projgen.ir.types import DType
from projgen.kernels import conv_mve, conv_mve_depthwise
from projgen.kernels.record import Block
from projgen.ops.conv import conv, sample
from projgen.targets import load_target
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


@pytest.mark.parametrize("target", ["host", "cortex-m55"])
def test_streamed_chain(target: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, (3, 4), 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 24, 1),
        nn.Conv2d(24, 24, (5, 3), padding=(2, 1), groups=24),
        nn.Conv2d(24, 24, 3, (2, 1), 1),
        nn.Conv2d(24, 12, (3, 2), dilation=(1, 2), groups=2),
    )
    x = np.random.default_rng(0).standard_normal((3, 3, 41, 38)).astype(np.float32)
    q = projgen.quantize(net.eval(), torch.tensor(x))
    small = projgen.compile(q, target=target, out=tmp_path / "small", optimise="ram")
    small.verify(x)
    fast = projgen.compile(q, target=target, out=tmp_path / "fast")
    fast.verify(x[:1])
    assert small.manifest["arena_with_input_bytes"] <= fast.manifest["arena_with_input_bytes"]
    assert any(segment["kind"] == "rows" for segment in small.manifest["segments"])
    if target == "cortex-m55":
        source = (tmp_path / "small" / "model.c").read_text()
        assert len(set(re.findall(r"pg_conv2d_mve_\w+_row\(", source))) >= 2


def test_names_tell_blocks_apart() -> None:
    """Layers of one model share a block where, and only where, its text is the same."""
    rng = np.random.default_rng(5)
    seen: dict[str, Block] = {}
    kernels = [*conv_mve.KERNELS, *conv_mve_depthwise.KERNELS]
    shared = 0
    for i in range(400):
        channels = int(rng.choice([1, 3, 4, 8, 16]))
        groups = int(rng.choice([1, channels]))
        kernel, stride, dilation = (tuple(int(v) for v in rng.integers(1, n, 2)) for n in (4, 3, 3))
        height, width = (
            (k - 1) * d + int(rng.choice([1, 2, 3, 4, 9, 10])) for k, d in zip(kernel, dilation, strict=True)
        )
        attrs = conv(stride, tuple(int(v) for v in rng.integers(0, 2, 4)), dilation, groups)  # type: ignore[arg-type]
        types = {role: DType.INT16 if rng.integers(4) == 0 else DType.INT8 for role in ("x", "y")}
        outputs = channels if groups > 1 else int(rng.choice([1, 4, 5, 8]))
        made = sample(f"s{i}", (height, width, channels), outputs, kernel, attrs, **types)  # type: ignore[arg-type]
        for definition in kernels:
            if definition.op != "conv2d":
                continue
            choice = definition.apply(made.graph, made.graph.nodes[0], load_target("cortex-m55"))
            for block in choice.blocks if choice else ():
                shared += block.function in seen
                assert seen.setdefault(block.function, block) == block
    assert len(seen) > 300
    assert shared > 300
