"""Streamed segments as C: residual blocks and depthwise pairs on cores, and their plain C under sanitizers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.records import Kind
from projgen.targets import load_target
from tests.chain.support import Part, build, compare, draw, part
from tests.schedule.nets import depthwise_pointwise, residual_block


@cache
def parts() -> tuple[Part, ...]:
    graphs = (
        residual_block(16, 16, 16, 16, name="even"),
        residual_block(8, 6, 8, 8, name="columns"),
        residual_block(9, 7, 4, 4, name="odd"),
        residual_block(12, 9, 3, 3, name="three"),
        residual_block(24, 24, 8, 16, stride=2, name="halved"),
        residual_block(24, 24, 4, 8, stride=2, before=False, name="direct"),
        residual_block(11, 13, 5, 6, stride=2, name="odd_halved"),
        depthwise_pointwise(9, 7, 8, 8, name="depthwise"),
        depthwise_pointwise(24, 24, 8, 16, stride=2, name="depthwise_halved"),
        depthwise_pointwise(11, 5, 4, 12, name="grown"),
    )
    return tuple(part(graph, draw(graph, 3), graph.name) for graph in graphs)


def streaming(target: str) -> list[str]:
    """Names of the nets whose smallest schedule streams."""
    options = CompileOptions(optimise="ram")
    made = {one.graph.name: schedule(one.graph, load_target(target), options) for one in parts()}
    return [name for name, s in made.items() if any(x.kind is Kind.ROWS for x in s.segments)]


@pytest.mark.qemu
@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_bytes_on_cores(target: str, tmp_path: Path) -> None:
    found = streaming(target)
    assert {"even", "halved"} <= set(found) and len(found) >= len(parts()) - 2
    image = build(parts(), target, tmp_path, favour="ram")
    assert compare(image, parts()).samples == len(parts())


@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
def test_plain_c_under_sanitizers(target: str, tmp_path: Path) -> None:
    image = build(parts(), "host", tmp_path, favour="ram", generated_for=target, optimise="-O1", sanitize=True)
    assert compare(image, parts()).samples == len(parts())
