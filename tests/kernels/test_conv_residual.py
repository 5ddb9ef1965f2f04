"""Convolutions with a residual in the sum: bytes on cores, in place and not, and instructions against conv and add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen import kernels, ops
from projgen.ir.attrs import Conv2d
from projgen.ir.types import DType, Quant, TensorType
from projgen.kernels.conv_dsp_layouts import MatrixStream
from projgen.kernels.conv_dsp_winograd_layouts import Winograd2dStream
from projgen.kernels.packed import NATURAL, WIDENED
from projgen.kernels.record import KernelChoice, Layout
from projgen.ops import conv
from projgen.ops.conv_residual import sample
from projgen.ops.elementwise import binary_sample
from projgen.ops.record import Sample
from tests.kernels.single_node import build, choice_of, chosen, differing, extreme, instructions

KERNELS = tuple(k.name for k in kernels.registry() if k.op == "conv2d_residual")
SAME = Conv2d(padding=(1, 1, 1, 1))
RELU = replace(SAME, activation="relu")


def hard() -> list[Sample]:
    """The operator's own samples, and shapes with tails, several blocks, long sums, clamps and shifts."""
    return [
        *ops.get("conv2d_residual").samples(),
        sample("9x11x16_16", (9, 11, 16), 16, (3, 3), RELU, zeros=(-128, -5, -128)),
        sample("6x13x32_8", (6, 13, 32), 8, (3, 3), SAME),
        sample("1x3x36_4", (1, 3, 36), 4, (3, 3), SAME),
        sample("8x2x5_6_shift", (8, 2, 5), 6, (3, 3), SAME, scales=(0.03, 2.0**-8)),
        sample("valid", (7, 6, 12), 10, (3, 3), Conv2d(activation="relu6"), zeros=(2, 3, -128)),
        sample("pointwise_8x7x64", (8, 7, 64), 32, (1, 1), Conv2d(activation="relu"), zeros=(-128, 1, -128)),
        sample("pointwise_3x4x20_from_int16", (3, 4, 20), 24, (1, 1), Conv2d(), x=DType.INT16),
        sample("3x3_from_int16", (6, 7, 9), 8, (3, 3), RELU, x=DType.INT16, zeros=(0, 0, -128)),
        extreme(sample("plain_3x3x80", (4, 4, 80), 4, (3, 3), SAME, extreme=True, zeros=(-128, 127, 0))),
        extreme(sample("plain_pointwise_700", (2, 2, 700), 4, (1, 1), Conv2d(), extreme=True)),
    ]


def work(samples: list[Sample], target: str, least: int = 0) -> list[tuple[Sample, KernelChoice]]:
    """Each sample with each kernel that fits."""
    found = []
    for s in samples:
        choices = [c for k in KERNELS if (c := choice_of(s, k, target)) is not None]
        assert len(choices) > least, s.name
        found += [(s, c) for c in choices]
    return found


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "cortex-m33", "cortex-m55"])
def test_bytes_on_cores(target: str, tmp_path: Path) -> None:
    todo = work(hard(), target)
    assert differing(build(todo, target, tmp_path), [s for s, _ in todo]) == {}


@pytest.mark.parametrize(("compiler", "optimise"), [("gcc", "-O0"), ("gcc", "-Os"), ("clang", "-O2")])
def test_bytes_with_compilers(compiler: str, optimise: str, tmp_path: Path) -> None:
    todo = work(hard(), "cortex-m4")
    image = build(todo, "cortex-m4", tmp_path, compiler=compiler, optimise=optimise)
    assert differing(image, [s for s, _ in todo]) == {}


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_plain_c_under_sanitizers(target: str, tmp_path: Path) -> None:
    todo = work(hard(), target)
    assert differing(build(todo, "host", tmp_path, sanitize=True), [s for s, _ in todo]) == {}


@st.composite
def geometries(draw: st.DrawFn) -> Sample:
    kernel = draw(st.sampled_from([(1, 1), (3, 3)]))
    padding = tuple(draw(st.integers(0, 2)) if kernel == (3, 3) else 0 for _ in range(4))
    attrs = Conv2d(padding=padding, activation=draw(st.sampled_from(["none", "relu", "relu6"])))  # type: ignore[arg-type]
    shape = (draw(st.integers(3, 10)), draw(st.integers(3, 15)), draw(st.integers(1, 70)))
    zeros = tuple(draw(st.integers(-128, 127)) for _ in range(3))
    seed, scale = draw(st.integers(0, 1 << 30)), draw(st.sampled_from([0.01, 0.031, 0.2]))
    wide = draw(st.integers(0, 5)) == 0
    return sample(
        f"drawn {seed}",
        shape,
        2 * draw(st.integers(1, 9)),
        kernel,
        attrs,
        x=DType.INT16 if wide else DType.INT8,
        zeros=zeros,  # type: ignore[arg-type]
        scales=(scale, 1.0),
        extreme=draw(st.booleans()),
    )


@settings(max_examples=3, deadline=None)
@given(samples=st.lists(geometries(), min_size=10, max_size=10))
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_drawn_geometries(target: str, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work(samples, target, least=1)  # more than the portable kernel
    assert differing(build(todo, target, tmp_path_factory.mktemp("drawn")), [s for s, _ in todo]) == {}


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
@pytest.mark.parametrize(
    ("shape", "outputs", "kernel"),
    [((16, 16, 16), 16, (3, 3)), ((8, 8, 32), 32, (3, 3)), ((10, 9, 24), 48, (1, 1)), ((6, 6, 128), 16, (3, 3))],
)
def test_a_sum_in_the_accumulator_is_faster_than_beside_it(
    target: str, shape: tuple[int, int, int], outputs: int, kernel: tuple[int, int], tmp_path: Path
) -> None:
    attrs = SAME if kernel == (3, 3) else Conv2d()
    both = sample("sum", shape, outputs, kernel, attrs)
    alone = conv.sample("alone", shape, outputs, kernel, attrs)
    maps = [TensorType((*shape[:2], outputs), DType.INT8, Quant(s, z)) for s, z in ((0.03, 4), (0.05, -3))]
    add = binary_sample("add", "add", maps[0], maps[1], Quant(0.06, 0))
    samples = [both, alone, add]
    image = build([(s, chosen(s, target)) for s in samples], target, tmp_path)
    one, first, second = instructions(image, samples)
    assert one < first + second
    assert chosen(both, target).instructions == pytest.approx(one, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1 << 30), st.integers(1, 40), st.integers(1, 3), st.booleans(), st.sampled_from([NATURAL, WIDENED])
)
def test_streams_are_reversible(
    seed: int, inputs: int, pairs: int, packed: bool, order: tuple[int, int, int, int]
) -> None:
    rng = np.random.default_rng(seed)
    shape = (2 * pairs, 1, 2, inputs)
    per_output = {role: rng.integers(-(2**20), 2**20, 2 * pairs).astype(np.int32) for role in ("b", "m", "f")}
    constants: dict[str, np.ndarray] = {"w": rng.integers(-127, 128, shape).astype(np.int8), **per_output}
    layout = MatrixStream(shape, 1, packed, order, True)
    assert layout.pack(constants).size == layout.group_words
    assert same(layout, constants)
    square = (2 * pairs, 3, 3, inputs)
    constants["w"] = rng.integers(-127, 128, square).astype(np.int8)
    constants["m"] &= ~3
    assert same(Winograd2dStream(square, order, True), constants)


def same(layout: Layout, constants: Mapping[str, np.ndarray]) -> bool:
    """Whether every constant comes back."""
    found = layout.unpack(layout.pack(constants))
    return set(found) == set(constants) and all(np.array_equal(found[r], c) for r, c in constants.items())
