"""Sums, products and poolings for DSP cores: bytes on every core and compiler, and instructions an element."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from projgen.ir.attrs import AvgPool2d, MaxPool2d
from projgen.ir.numerics import AddNumerics, MulNumerics, PoolNumerics
from projgen.ir.types import Quant
from projgen.kernels.record import KernelChoice
from projgen.ops import pool
from projgen.ops.elementwise import add_samples, mul_samples
from projgen.ops.pool import avg_sample, avg_samples, max_samples
from projgen.ops.record import Sample
from tests.kernels.single_node import build, choice_of, differing, instructions

IN, OUT = Quant(0.1, 3), Quant(0.02, -5)
SAME = (1, 1, 1, 1)


def clamped(sample: Sample) -> Sample:
    """The same node with outputs limited on both sides."""
    (node,) = sample.graph.nodes
    assert isinstance(node.numerics, AddNumerics | MulNumerics | PoolNumerics)
    numerics = replace(node.numerics, requant=replace(node.numerics.requant, low=-31, high=44))
    graph = sample.graph.with_(nodes=[replace(node, numerics=numerics)])
    return replace(sample, name=f"{sample.name} clamped", graph=graph)


def work() -> list[tuple[Sample, KernelChoice]]:
    samples = [s for s in (*add_samples(), *mul_samples()) if not s.graph.has_time]
    samples += [clamped(s) for s in samples]
    pools = [
        *avg_samples(),
        avg_sample("wide", (3, 4, 21), AvgPool2d((3, 4), (1, 1)), IN, OUT),
        avg_sample("one pixel", (1, 1, 6), AvgPool2d((1, 1), (1, 1)), IN, OUT),
        avg_sample("one turn", (2, 4, 11), AvgPool2d((2, 4), (1, 1)), IN, OUT),
        avg_sample("two turns, padded", (3, 3, 4), AvgPool2d((5, 5), (1, 1), SAME, False), IN, OUT),
        avg_sample("many channels, whole", (5, 5, 258), AvgPool2d((5, 5), (1, 1)), IN, OUT),
        avg_sample("largest windows", (17, 16, 9), AvgPool2d((16, 16), (1, 1)), IN, OUT),
        avg_sample("windows", (7, 9, 12), AvgPool2d((3, 2), (2, 2), (1, 1, 1, 0)), IN, OUT),
        avg_sample("largest", (16, 16, 9), AvgPool2d((16, 16), (1, 1)), IN, OUT),
        avg_sample("many channels", (3, 5, 258), AvgPool2d((2, 3), (1, 1)), IN, OUT),
        avg_sample("largest, odd", (15, 17, 9), AvgPool2d((15, 17), (1, 1)), IN, OUT),
    ]
    samples += [*pools, *(clamped(s) for s in pools[-2:]), *max_samples()]
    samples += [
        pool._max_sample("odd channels", (7, 6, 7), MaxPool2d((3, 2), (2, 1), (1, 1, 0, 1)), IN),
        pool._max_sample("apart", (5, 9, 16), MaxPool2d((2, 2), (2, 3)), IN),
        pool._max_sample("overlapping", (6, 9, 8), MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)), IN),
        pool._max_sample("long", (4, 5, 4), MaxPool2d((4, 5), (1, 1)), IN),
    ]
    found = [(s, choice_of(s, f"{s.graph.nodes[0].op}_dsp")) for s in samples]
    fitting = [(s, c) for s, c in found if c is not None]
    assert {c.kernel for _, c in fitting} == {"add_dsp", "mul_dsp", "avg_pool2d_dsp", "max_pool2d_dsp"}
    return fitting


@pytest.mark.parametrize(
    ("target", "compiler", "optimise"),
    [
        ("cortex-m4", "gcc", "-O2"),
        ("cortex-m7", "gcc", "-O2"),
        ("cortex-m33", "gcc", "-O2"),
        ("cortex-m4", "gcc", "-O0"),
        ("cortex-m4", "gcc", "-Os"),
        ("cortex-m4", "clang", "-O2"),
    ],
)
def test_bytes(target: str, compiler: str, optimise: str, tmp_path: Path) -> None:
    todo = work()
    image = build(todo, target, tmp_path, compiler=compiler, optimise=optimise)
    assert differing(image, [s for s, _ in todo]) == {}


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    todo = work()
    assert differing(build(todo, "host", tmp_path, sanitize=True), [s for s, _ in todo]) == {}


def test_instructions(tmp_path: Path) -> None:
    limits = {
        "mean": (avg_sample("mean", (8, 8, 64), AvgPool2d((8, 8), (1, 1)), IN, OUT), 4096, 0.95),
        "means": (avg_sample("means", (10, 10, 32), AvgPool2d((5, 5), (5, 5)), IN, OUT), 3200, 1.6),
        "maximum": (pool._max_sample("maximum", (16, 16, 32), MaxPool2d((2, 2), (2, 2)), IN), 2048, 3.35),
        "sum": (next(iter(add_samples())), 60, 8.0),
    }
    samples = [s for s, _, _ in limits.values()]
    choices = [choice_of(s, f"{s.graph.nodes[0].op}_dsp") for s in samples]
    todo = [(s, c) for s, c in zip(samples, choices, strict=True) if c is not None]
    counted = instructions(build(todo, "cortex-m4", tmp_path), samples)
    for (name, (_, elements, limit)), (_, choice), count in zip(limits.items(), todo, counted, strict=True):
        assert count <= limit * elements, name
        assert choice.instructions == pytest.approx(count, rel=0.1), name


def test_windows_of_more_than_256_pixels_stay_with_the_wide_sums() -> None:
    s = avg_sample("larger", (1, 257, 8), AvgPool2d((1, 257), (1, 1)), IN, OUT)
    assert choice_of(s, "avg_pool2d_dsp") is None
