"""Projected convolutions on cores: 1x1, k x k, 1x1 row by row in one segment, on fast kernels, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

import projgen
from projgen.ir.types import DType
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.records import Kind, Schedule
from projgen.targets import load_target
from tests.chain.support import Part, build, compare, draw, part

pytestmark = pytest.mark.qemu
TARGETS = ("cortex-m4", "cortex-m55")
WHOLE = ("even", "wide")  # triples whose two middle maps are worth streaming


def triple(inputs: int, ranks: tuple[int, int], outputs: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution after projection."""
    return nn.Sequential(
        nn.Conv2d(inputs, ranks[0], 1, bias=False),
        nn.Conv2d(ranks[0], ranks[1], 3, stride=stride, padding=1, bias=False),
        nn.Conv2d(ranks[1], outputs, 1),
    )


@cache
def parts() -> tuple[Part, ...]:
    """Even and odd ranks and widths, with and without stride."""
    made = []
    for name, size, ranks, outputs, stride in (
        ("even", (16, 16), (12, 12), 16, 1),
        ("odd", (13, 11), (9, 11), 15, 1),
        ("wide", (10, 15), (14, 14), 16, 1),
        ("halved", (16, 12), (12, 16), 24, 2),
    ):
        torch.manual_seed(0)
        net = nn.Sequential(triple(16, ranks, outputs, stride), nn.ReLU(), nn.MaxPool2d(2))
        graph = projgen.quantize(net.eval(), torch.randn(8, 16, *size)).graph
        made.append(part(replace(graph, name=name), draw(graph, 3), name))
    return tuple(made)


@cache
def schedules(target: str, favour: Literal["speed", "ram"]) -> dict[str, Schedule]:
    options = CompileOptions(optimise=favour)
    return {p.graph.name: schedule(p.graph, load_target(target), options) for p in parts()}


@pytest.mark.parametrize("target", TARGETS)
def test_rows_on_fast_kernels(target: str, tmp_path: Path) -> None:
    suffix = {"cortex-m4": "_dsp", "cortex-m55": "_mve"}[target]
    for name, planned in schedules(target, "ram").items():
        kernels = [call.choice.kernel for segment in planned.segments for call in segment.calls]
        assert all(suffix in kernel or kernel == "max_pool2d_dsp" for kernel in kernels), (name, kernels)
        (rows,) = (segment for segment in planned.segments if segment.kind is Kind.ROWS)
        assert "conv2d_0.1" in {call.node.name for call in rows.calls}
        if name in WHOLE:
            assert len(rows.calls) == 3
            assert not maps(planned) & {buffer.name for buffer in planned.plan.buffers}
        assert planned.plan.with_input_bytes < schedules(target, "speed")[name].plan.with_input_bytes
    image = build(parts(), target, tmp_path, favour="ram")
    assert compare(image, parts()).samples == len(parts())


def maps(planned: Schedule) -> set[str]:
    """Names of the two int16 maps between a triple's convolutions."""
    types = {name: value.type for name, value in planned.lowered.graph.values.items()}
    found = {name for name, t in types.items() if t.dtype is DType.INT16 and len(t.shape) == 3}
    assert len(found) == 2
    return found
