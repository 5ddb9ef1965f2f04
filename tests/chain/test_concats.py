"""Branches that meet in a concat as C: written between each other's pixels, byte for byte, or copied alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.lower import Overrides
from projgen.targets import load_target
from tests.chain.support import Part, build, compare, draw, part
from tests.schedule.nets import Branch, branches

CORES = ("cortex-m0", "cortex-m4", "cortex-m55")
NETS: dict[str, list[Branch]] = {
    "two": [("1x1", 3), ("3x3", 5)],
    "even": [("1x1", 8), ("3x3", 16), ("reduced", 4, 8)],
    "nested": [("1x1", 3), [("3x3", 5), ("depthwise",)], ("strip", 2)],
    "mixed": [("1x1", 4), ("input",), ("3x3", 6), ("constant", 2), ("table",)],
    "deep": [("1x1", 8), [[("3x3", 8), ("input",)], ("1x1", 1)], ("reduced", 6, 8)],
}
SHAPES = {"odd": (5, 7, 3), "whole": (8, 8, 8), "pixels": (1, 2, 5), "long": (6, 12, 20)}


@cache
def parts() -> tuple[Part, ...]:
    made = [
        branches(*shape, net, name=f"{name}_{size}", tap=size == "long", tail=size != "pixels")
        for name, net in NETS.items()
        for size, shape in SHAPES.items()
    ]
    made.append(branches(16, 16, 8, [("half", 8), ("half1", 5)], name="halved"))
    return tuple(part(graph, draw(graph, 3), graph.name) for graph in made)


def written_apart(target: str) -> set[str]:
    """Kernels that write a part of some concat in its place."""
    made = (schedule(p.graph, load_target(target), CompileOptions(), Overrides()) for p in parts())
    return {c.choice.kernel for m in made for s in m.segments for c in s.calls if c.choice.pitch}


@pytest.mark.qemu
@pytest.mark.parametrize("target", CORES)
def test_bytes_on_cores(target: str, tmp_path: Path) -> None:
    image = build(parts(), target, tmp_path)
    assert compare(image, parts()).samples == len(parts())


@pytest.mark.parametrize("target", ["host", *CORES])
def test_plain_c_under_sanitizers(target: str, tmp_path: Path) -> None:
    image = build(parts(), "host", tmp_path, favour="ram", generated_for=target, optimise="-O1", sanitize=True)
    assert compare(image, parts()).samples == len(parts())


def test_the_nets_write_apart_by_every_kind_of_kernel() -> None:
    concat = "concat_portable"
    assert written_apart("host") == {"pointwise_portable", "conv2d_portable", "depthwise_portable", concat}
    m4 = {"pointwise_dsp", "conv2d_dsp", "conv2d_direct_dsp", "winograd1d_dsp", "winograd2d_dsp"}
    assert written_apart("cortex-m4") >= m4 | {"winograd_stride2_dsp", concat}
    m55 = {"pointwise_mve", "conv2d_mve", "conv2d_mve_gathered", concat}
    assert written_apart("cortex-m55") >= m55
