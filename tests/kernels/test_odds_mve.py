"""Sums, products, tables and poolings for MVE cores: bytes on every compiler, and instructions an element."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from projgen.ir.attrs import AvgPool2d, MaxPool2d
from projgen.ir.graph import Node
from projgen.ir.types import DType, Quant, TensorType
from projgen.kernels.elementwise_mve import ByUnsignedByte
from projgen.kernels.record import KernelChoice
from projgen.ops import pool
from projgen.ops.common import int8_type, one_node
from projgen.ops.elementwise import add_samples, binary_sample, lut_samples, mul_samples
from projgen.ops.pool import avg_sample, avg_samples, max_samples
from projgen.ops.record import Sample
from tests.kernels.single_node import EVERY_BUILD, build, check, choice_of, instructions
from tests.kernels.test_odds_dsp import IN, OUT, clamped

TARGET = "cortex-m55"


def binary(op: str, elements: int) -> Sample:
    a, b = (int8_type((elements,), scale, zero) for scale, zero in ((0.05, 3), (0.02, -90)))
    return binary_sample(f"{op}_{elements}", op, a, b, Quant(0.06 if op == "add" else 0.1, 11))


def wide_maximum() -> Sample:
    """A maximum over int16 windows of 11 channels."""
    types = {v: TensorType(shape, DType.INT16, Quant(0.01)) for v, shape in (("x", (6, 5, 11)), ("y", (3, 3, 11)))}
    node = Node("wide maximum", "max_pool2d", {"x": "x"}, "y", MaxPool2d((3, 3), (2, 2), (1, 0, 1, 1)))
    return one_node("wide maximum", node, types, {})


def work() -> list[tuple[Sample, KernelChoice]]:
    samples = [s for s in (*add_samples(), *mul_samples()) if not s.graph.has_time]
    samples += [binary(op, elements) for op in ("add", "mul") for elements in (1, 7, 8, 9, 33)]
    samples += [clamped(s) for s in samples]
    pools = [
        *avg_samples(),
        avg_sample("wide", (3, 4, 21), AvgPool2d((3, 4), (1, 1)), IN, OUT),
        avg_sample("sixteens", (3, 4, 48), AvgPool2d((2, 4), (1, 1)), IN, OUT),
        avg_sample("windows", (7, 9, 12), AvgPool2d((3, 2), (2, 2), (1, 1, 1, 0)), IN, OUT),
        avg_sample("largest", (15, 17, 9), AvgPool2d((15, 17), (1, 1)), IN, OUT),
        avg_sample("larger", (16, 17, 21), AvgPool2d((16, 16), (1, 1)), IN, OUT),
        avg_sample("larger map", (16, 17, 24), AvgPool2d((16, 17), (1, 1)), IN, OUT),
        avg_sample("padded map", (4, 4, 24), AvgPool2d((4, 4), (9, 9), (1, 1, 1, 1)), IN, OUT),
    ]
    samples += [*pools, *(clamped(s) for s in pools[-6:]), *max_samples()]
    samples += [
        pool._max_sample("odd channels", (7, 6, 7), MaxPool2d((3, 2), (2, 1), (1, 1, 0, 1)), IN),
        pool._max_sample("many channels", (4, 5, 35), MaxPool2d((4, 5), (1, 1)), IN),
        wide_maximum(),
        *(s for s in lut_samples() if not s.graph.has_time),
    ]
    found = [(s, choice_of(s, f"{s.graph.nodes[0].op}_mve", TARGET)) for s in samples]
    found += [(s, choice_of(s, "avg_pool2d_mve_whole", TARGET)) for s in pools + [clamped(s) for s in pools]]
    fitting = [(s, c) for s, c in found if c is not None]
    assert {c.kernel for _, c in fitting} == {
        *(f"{op}_mve" for op in ("add", "mul", "lut", "avg_pool2d", "max_pool2d")),
        "avg_pool2d_mve_whole",
    }
    whole = {c.function.removeprefix("pg_avg_pool_mve_window") for _, c in fitting if c.kernel.endswith("_whole")}
    assert whole >= {"", "_clamped", "_wide", "_wide_clamped"}
    assert any("_wide" in c.function for _, c in fitting)
    assert any(s.graph.type(s.graph.inputs[0].value).dtype is DType.INT16 for s, _ in fitting)
    return fitting


@EVERY_BUILD
def test_bytes(compiler: str, optimise: str, tmp_path: Path) -> None:
    check(work(), TARGET, tmp_path, compiler=compiler, optimise=optimise)


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    check(work(), "host", tmp_path, sanitize=True)


def test_instructions(tmp_path: Path) -> None:
    limits = {
        "mean": (avg_sample("mean", (25, 5, 64), AvgPool2d((25, 5), (1, 1)), IN, OUT), 8000, 0.43),
        "mean of a map": (avg_sample("mean", (5, 5, 24), AvgPool2d((5, 5), (1, 1)), IN, OUT), 600, 0.7),
        "maximum": (pool._max_sample("maximum", (16, 16, 32), MaxPool2d((2, 2), (2, 2)), IN), 2048, 4.5),
        "sum": (binary("add", 4096), 4096, 2.27),
        "product": (binary("mul", 4096), 4096, 1.77),
        "table": (next(iter(lut_samples())), 24, 1.5),
    }
    samples = [s for s, _, _ in limits.values()]
    wholes = [name == "mean of a map" for name in limits]
    choices = [
        choice_of(s, f"{s.graph.nodes[0].op}_mve{'_whole' if whole else ''}", TARGET)
        for s, whole in zip(samples, wholes, strict=True)
    ]
    todo = [(s, c) for s, c in zip(samples, choices, strict=True) if c is not None]
    counted = instructions(build(todo, TARGET, tmp_path), samples)
    for (name, (_, elements, limit)), (_, choice), count in zip(limits.items(), todo, counted, strict=True):
        assert count <= limit * elements, name
        assert choice.instructions == pytest.approx(count, rel=0.06, abs=5), name


def test_table_is_in_the_order_of_unsigned_bytes() -> None:
    y = np.arange(-128, 128).astype(np.int8)[::-1].copy()
    packed = ByUnsignedByte("table").pack({"table": y})
    assert [packed[0], packed[127], packed[128], packed[255]] == [y[128], y[255], y[0], y[127]]
    assert np.array_equal(ByUnsignedByte("table").unpack(packed)["table"], y)
