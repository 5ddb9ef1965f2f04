"""Dense convolutions for MVE cores: bytes on every compiler, hard geometries, predicted instructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from projgen.ir.interpreter import trace_integer
from projgen.ir.numerics import MatrixNumerics
from projgen.ir.types import DType
from projgen.kernels.conv_mve_block import lines
from projgen.kernels.conv_mve_layouts import TapStream
from projgen.kernels.record import KernelChoice
from projgen.ops.conv import conv, sample
from projgen.ops.record import Sample
from tests.kernels.rig import TRAPS, Case, Library
from tests.kernels.single_node import build, choice_of, chosen, differing, extreme, instructions

TARGET = "cortex-m55"
KERNELS = ("pointwise_mve", "pointwise_mve_shared", "conv2d_mve", "conv2d_mve_gathered")
SAME = (1, 1, 1, 1)
GENERATED = (Phase.explicit, Phase.reuse, Phase.generate)  # an example is an image: shrinking would take minutes


def hard() -> list[Sample]:
    """Every variant of the blocks: pixels, types, odd and single outputs, tails, groups, borders, clamps, shifts."""
    return [
        sample("pw_5x5x64_64", (5, 5, 64), 64, (1, 1), conv()),
        sample("pw_7x3x70_9", (7, 3, 70), 9, (1, 1), conv()),
        sample("pw_1x1x5_3", (1, 1, 5), 3, (1, 1), conv()),
        sample("pw_1x2x3_1_relu6", (1, 2, 3), 1, (1, 1), conv(activation="relu6"), y_zero=-100),
        sample("pw_to_int16", (4, 4, 18), 6, (1, 1), conv(), y=DType.INT16),
        sample("pw_from_int16", (5, 4, 7), 5, (1, 1), conv(), x=DType.INT16),
        sample("pw_int16", (3, 4, 6), 8, (1, 1), conv(), x=DType.INT16, y=DType.INT16),
        extreme(sample("pw_far", (2, 2, 700), 3, (1, 1), conv(), saturating=True)),
        sample("pw_shift", (4, 5, 2), 3, (1, 1), conv(), y_scale=2.0**-11),
        sample("pw_stride", (9, 7, 17), 12, (1, 1), conv((2, 2))),
        sample("stem", (9, 8, 3), 8, (3, 3), conv((2, 2), (0, 1, 0, 1))),
        sample("stem_10x4", (19, 10, 1), 6, (10, 4), conv((2, 2), (4, 5, 1, 1))),
        sample("stem_7x5", (9, 7, 1), 3, (7, 5), conv(padding=(3, 3, 2, 2))),
        sample("stem_5x5x2", (6, 7, 2), 5, (5, 5), conv(padding=(4, 3, 2, 4))),
        sample("map_3x3x30", (6, 5, 30), 7, (3, 3), conv((1, 2), (1, 0, 0, 1))),
        sample("any_5x5x17", (6, 5, 17), 3, (5, 5), conv(padding=(2, 2, 2, 2), dilation=(2, 1))),
        sample("dilated", (9, 8, 5), 3, (3, 3), conv(padding=(2, 2, 2, 2), dilation=(2, 2), activation="relu")),
        sample("groups", (5, 6, 9), 6, (3, 3), conv((2, 1), SAME, groups=3)),
        sample("conv_1d", (1, 21, 6), 5, (1, 5), conv((1, 2), (0, 0, 4, 0))),
        sample("conv_1d_high", (7, 1, 20), 1, (3, 1), conv(padding=(1, 1, 0, 0))),
        sample("conv_int16", (5, 4, 3), 3, (3, 3), conv((1, 2), SAME), x=DType.INT16, y=DType.INT16),
        sample("conv_from_int16", (5, 5, 3), 6, (3, 3), conv(padding=SAME), x=DType.INT16),
        sample("conv_to_int16_relu", (5, 5, 9), 6, (3, 3), conv(padding=SAME, activation="relu"), y=DType.INT16),
        sample("conv_all_in_padding", (2, 1, 5), 4, (1, 1), conv((3, 3), (0, 2, 3, 0))),
        sample("conv_looped", (4, 5, 128), 6, (3, 3), conv(padding=SAME)),
        sample("conv_looped_odd", (3, 9, 200), 5, (3, 3), conv((2, 2), SAME, activation="relu6"), y_zero=-100),
        extreme(sample("conv_extreme", (4, 4, 70), 4, (3, 3), conv(padding=SAME), saturating=True, x_zero=-128)),
    ]


def work(samples: list[Sample]) -> list[tuple[Sample, KernelChoice]]:
    """Each sample with each kernel that fits; at least one must."""
    found = []
    for s in samples:
        choices = [c for k in KERNELS if (c := choice_of(s, k, TARGET)) is not None]
        assert choices, s.name
        found += [(s, c) for c in choices]
    return found


@pytest.mark.parametrize(
    ("compiler", "optimise"),
    [
        ("gcc", "-O0"),
        ("gcc", "-O1"),
        ("gcc", "-O2"),
        ("gcc", "-O3"),
        ("gcc", "-Os"),
        ("clang", "-O2"),
        ("clang", "-O0"),
    ],
)
def test_bytes_with_compilers(compiler: str, optimise: str, tmp_path: Path) -> None:
    todo = work(hard())
    image = build(todo, TARGET, tmp_path, compiler=compiler, optimise=optimise)
    assert differing(image, [s for s, _ in todo]) == {}


def test_rows_and_guarded_buffers_in_plain_c(tmp_path: Path) -> None:
    """Whole maps and, row by row, streamed ones; nothing is written beside the output and the scratch."""
    cases = []
    for s, choice in work(hard()):
        *_, (node, args, expected) = trace_integer(s.graph, s.inputs)
        cases.append(Case(s, node, choice, (np.ascontiguousarray(args["x"]),), np.asarray(expected)))
    assert sum(bool(case.choice.row_function) for case in cases) > 40
    assert Library(cases, tmp_path, ("gcc", "-O1", *TRAPS["gcc"])).check() > 10000


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    todo = work(hard())
    image = build(todo, "host", tmp_path, sanitize=True)
    assert differing(image, [s for s, _ in todo]) == {}


@st.composite
def geometries(draw: st.DrawFn, largest: tuple[int, int, int]) -> Sample:
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride, dilation = (draw(st.tuples(st.integers(1, hi), st.integers(1, hi))) for hi in (3, 2))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    pointwise = draw(st.booleans())
    if pointwise:
        kernel, stride, dilation, padding = (1, 1), (1, 1), (1, 1), (0, 0, 0, 0)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = draw(st.integers(max(1, span[0] - padding[0] - padding[1]), largest[0]))
    width = draw(st.integers(max(1, span[1] - padding[2] - padding[3]), largest[1]))
    inputs, outputs = draw(st.integers(1, largest[2])), draw(st.integers(1, 12))
    seed = draw(st.integers(0, 1 << 30))
    activation = draw(st.sampled_from(["none", "relu", "relu6"]))
    groups = 2 if inputs % 2 == outputs % 2 == 0 and inputs > 2 and not pointwise and draw(st.booleans()) else 1
    attrs = conv(stride, padding, dilation, groups, activation)  # type: ignore[arg-type]
    saturating = draw(st.booleans())
    x, y = (DType.INT16 if draw(st.integers(0, 5)) == 5 else DType.INT8 for _ in range(2))
    x_zero, y_zero = draw(st.integers(-128, 127)), draw(st.integers(-128, 127))
    made = sample(
        f"drawn {seed}",
        (height, width, inputs),
        outputs,
        kernel,
        attrs,
        x=x,
        y=y,
        x_zero=x_zero,
        y_zero=y_zero,
        saturating=saturating,
    )
    return extreme(made) if saturating and x is y is DType.INT8 else made


@settings(max_examples=3, deadline=None, phases=GENERATED)
@given(samples=st.lists(geometries((14, 40, 70)), min_size=8, max_size=8))
def test_drawn_geometries_in_plain_c(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work(samples)
    image = build(todo, "host", tmp_path_factory.mktemp("drawn"), sanitize=True)
    assert differing(image, [s for s, _ in todo]) == {}


@settings(max_examples=3, deadline=None, phases=GENERATED)
@given(samples=st.lists(geometries((9, 40, 70)), min_size=8, max_size=8))
def test_drawn_geometries_on_the_core(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work(samples)
    image = build(todo, TARGET, tmp_path_factory.mktemp("drawn"))
    assert differing(image, [s for s, _ in todo]) == {}


# Instructions per product, whole layers, -O2.
FIGURES: Mapping[str, tuple[Sample, str, float]] = {
    "3x3 32x32x16->16": (sample("a", (32, 32, 16), 16, (3, 3), conv(padding=SAME)), "conv2d_mve", 0.1175),
    "3x3 16x16x32->32": (sample("b", (16, 16, 32), 32, (3, 3), conv(padding=SAME)), "conv2d_mve", 0.1105),
    "3x3 8x8x64->64": (sample("c", (8, 8, 64), 64, (3, 3), conv(padding=SAME)), "conv2d_mve", 0.1025),
    "3x3 s2 32x32x16->32": (sample("d", (32, 32, 16), 32, (3, 3), conv((2, 2), (0, 1, 0, 1))), "conv2d_mve", 0.126),
    "3x3 s2 16x16x32->64": (sample("e", (16, 16, 32), 64, (3, 3), conv((2, 2), (0, 1, 0, 1))), "conv2d_mve", 0.119),
    "stem 3x3x3->16": (sample("f", (32, 32, 3), 16, (3, 3), conv(padding=SAME)), "conv2d_mve_gathered", 0.253),
    "stem 10x4x1->64": (
        sample("h", (49, 10, 1), 64, (10, 4), conv((2, 2), (4, 5, 1, 1))),
        "conv2d_mve_gathered",
        0.227,
    ),
    "1x1 125x64->64": (sample("i", (25, 5, 64), 64, (1, 1), conv()), "pointwise_mve", 0.1515),
    "1x1 576x8->16": (sample("j", (24, 24, 8), 16, (1, 1), conv()), "pointwise_mve", 0.53),
    "1x1 9x128->256": (sample("k", (3, 3, 128), 256, (1, 1), conv()), "pointwise_mve", 0.1395),
}


def test_instructions(tmp_path: Path) -> None:
    samples = [s for s, _, _ in FIGURES.values()]
    todo = [(s, chosen(s, TARGET)) for s in samples]
    assert [c.kernel for _, c in todo] == [kernel for _, kernel, _ in FIGURES.values()]
    counted = instructions(build(todo, TARGET, tmp_path), samples)
    for (name, (s, _, limit)), (_, choice), count in zip(FIGURES.items(), todo, counted, strict=True):
        products = s.graph.type("y").elements * s.graph.data(s.graph.nodes[0], "w")[0].size
        assert count <= limit * products, name
        assert choice.instructions == pytest.approx(count, rel=0.03), name


def test_where_outputs_may_lie_over_the_input() -> None:
    def overwritten(s: Sample, kernel: str) -> bool:
        choice = choice_of(s, kernel, TARGET)
        assert choice is not None
        return choice.in_place == {"x"}

    assert overwritten(sample("same", (4, 4, 8), 8, (1, 1), conv()), "pointwise_mve")
    assert not overwritten(sample("wider", (4, 4, 8), 9, (1, 1), conv()), "pointwise_mve")
    assert not overwritten(sample("longer", (4, 4, 8), 8, (1, 1), conv(), y=DType.INT16), "pointwise_mve")
    assert overwritten(sample("map", (8, 8, 8), 8, (3, 3), conv(padding=SAME)), "conv2d_mve")
    assert overwritten(sample("half", (8, 8, 8), 16, (3, 3), conv((2, 2), SAME)), "conv2d_mve")
    assert not overwritten(sample("twice", (8, 8, 8), 17, (3, 3), conv(padding=SAME)), "conv2d_mve")
    assert not overwritten(sample("grouped", (8, 8, 8), 8, (3, 3), conv(padding=SAME, groups=2)), "conv2d_mve")


def test_an_int16_output_has_no_zero_point() -> None:
    made = sample("wide", (4, 4, 8), 8, (3, 3), conv(padding=SAME), y=DType.INT16)
    node = made.graph.nodes[0]
    assert isinstance(node.numerics, MatrixNumerics)
    moved = replace(node, numerics=replace(node.numerics, requant=replace(node.numerics.requant, zero_point=1)))
    assert chosen(made, TARGET).kernel.startswith("conv2d_mve")
    assert choice_of(replace(made, graph=made.graph.with_(nodes=[moved])), "conv2d_mve", TARGET) is None


def test_columns_are_loaded_once_where_taps_share_them() -> None:
    assert sum(lines(3, 3, 1, 1, 4, 16, 1).fresh) == 6
    assert sum(lines(3, 3, 2, 1, 4, 16, 1).fresh) == 9
    assert lines(3, 3, 2, 1, 4, 16, 1).taps == (0, 2, 1)
    assert sum(lines(3, 3, 1, 2, 4, 16, 1).fresh) == 8
    assert sum(lines(3, 3, 1, 4, 4, 16, 1).fresh) == 12


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(1, 4), st.integers(1, 35)),
    groups=st.integers(1, 3),
    lanes=st.sampled_from([8, 16]),
    flat=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_stream_holds_the_constants(
    shape: tuple[int, int, int, int], groups: int, lanes: int, flat: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    full = (shape[0] * groups, *shape[1:])
    taps = (0,) if flat else tuple(int(t) for t in rng.permutation(shape[2]))
    constants: dict[str, npt.NDArray[np.generic]] = {
        "w": rng.integers(-127, 128, full).astype(np.int8),
        "b": rng.integers(-(1 << 30), 1 << 30, full[0]).astype(np.int32),
        "m": (rng.integers(0, 1 << 29, full[0]) * 4).astype(np.int32),
    }
    layout = TapStream(full, groups, taps, lanes, flat)
    table = layout.pack(constants)
    assert len(table) == groups * layout.group_words
    assert all(np.array_equal(a, constants[role]) for role, a in layout.unpack(table).items())


def test_stream_is_in_the_documented_order() -> None:
    w = np.arange(1, 7, dtype=np.int8).reshape(3, 1, 2, 1)
    constants: dict[str, npt.NDArray[np.generic]] = {
        "w": w,
        "b": np.array([10, 20, 30], np.int32),
        "m": np.array([4, 8, 12], np.int32),
    }
    packed = TapStream(w.shape, 1, (1, 0), 8).pack(constants).tolist()
    first = [2, 0, 4, 0, 1, 0, 3, 0, 10, 2, 20, 4]
    assert packed == [*first, 4, 0, 6, 0, 3, 0, 5, 0, 20, 4, 30, 6]


def test_parameters_of_16_bits_are_no_limit_of_the_width() -> None:
    wide = sample("wide", (1, 70_000, 3), 2, (1, 3), conv(padding=(0, 0, 1, 1)))
    assert {choice.kernel for _, choice in work([wide])} == {"conv2d_mve", "conv2d_mve_gathered"}
    high = sample("high", (70_000, 1, 3), 2, (3, 1), conv(padding=(1, 1, 0, 0)))
    assert all(choice_of(high, k, TARGET) is None for k in KERNELS)
