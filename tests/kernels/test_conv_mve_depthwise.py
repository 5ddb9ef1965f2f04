"""Depthwise convolutions for MVE cores: bytes on every compiler, all numbers of positions and columns, instructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from projgen.ir.attrs import Activation
from projgen.ir.interpreter import trace_integer
from projgen.ir.types import DType
from projgen.kernels.conv_mve_layouts import LaneStream, PatchStream
from projgen.kernels.record import KernelChoice
from projgen.ops.conv import conv, sample
from projgen.ops.record import Sample
from tests.kernels.rig import TRAPS, Case, Library
from tests.kernels.single_node import build, choice_of, chosen, differing, extreme, instructions

TARGET = "cortex-m55"
SAME = (1, 1, 1, 1)
KERNELS = ("depthwise_mve", "depthwise_mve_any")
GENERATED = (Phase.explicit, Phase.reuse, Phase.generate)  # an example is an image: shrinking would take minutes


def depthwise(
    name: str,
    shape: tuple[int, int, int],
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = SAME,
    dilation: tuple[int, int] = (1, 1),
    activation: Activation = "none",
    y_scale: float = 0.0,
    x_zero: int = 4,
    saturating: bool = False,
) -> Sample:
    attrs = conv(stride, padding, dilation, shape[2], activation)
    return sample(name, shape, shape[2], kernel, attrs, y_scale=y_scale, x_zero=x_zero, saturating=saturating)


def hard() -> list[Sample]:
    """Every number of positions and columns up to eight in some order, and every variant of the blocks."""
    sizes = [(h, w) for h in range(1, 9) for w in (1, 2, 3, 5, 8)]
    maps = [depthwise(f"map_{h}x{w}", (h, w, (3, 16, 17)[i % 3])) for i, (h, w) in enumerate(sizes)]
    return [
        *maps,
        depthwise("kernel_3x2", (6, 7, 4), (3, 2)),
        depthwise("kernel_4x4", (9, 7, 5), (4, 4)),
        depthwise("kernel_4x1_high", (9, 1, 18), (4, 1), padding=(3, 0, 0, 0)),
        depthwise("kernel_1x3_wide", (1, 19, 5), (1, 3), padding=(0, 0, 2, 0)),
        depthwise("dilated", (9, 7, 5), (4, 2), (1, 2), dilation=(2, 1), activation="relu6"),
        depthwise("dilated_twice", (9, 8, 5), padding=(2, 2, 2, 2), dilation=(2, 2), activation="relu"),
        depthwise("stride_2", (11, 9, 33), stride=(2, 2), padding=(0, 1, 0, 1)),
        depthwise("stride_1x2", (11, 9, 5), stride=(1, 2), activation="relu"),
        depthwise("stride_2x1", (8, 9, 5), stride=(2, 1)),
        depthwise("wide_padding", (4, 5, 5), padding=(2, 2, 2, 2)),
        depthwise("no_padding", (6, 7, 33), padding=(0, 0, 0, 0)),
        depthwise("shifted", (5, 6, 4), y_scale=2.0**-11),
        depthwise("shifted_high", (7, 1, 4), y_scale=2.0**-11),
        depthwise("kernel_5x5", (9, 8, 20), (5, 5), padding=(2, 2, 2, 2)),
        depthwise("kernel_7x7", (11, 9, 5), (7, 7), (2, 2), (3, 3, 3, 3), activation="relu6"),
        depthwise("kernel_3x5_dilated", (13, 12, 6), (3, 5), padding=(3, 3, 4, 4), dilation=(3, 2)),
        depthwise("kernel_3x5_shifted", (6, 7, 4), (3, 5), y_scale=2.0**-11),
        depthwise("far_columns", (4, 4, 200)),
        sample("twice", (5, 6, 4), 8, (3, 3), conv(padding=SAME, groups=4)),
        sample("thrice", (4, 6, 3), 9, (2, 3), conv((2, 1), groups=3)),
        sample("int16", (4, 5, 4), 4, (3, 3), conv(padding=SAME, groups=4), x=DType.INT16, y=DType.INT16),
        sample("from_int16", (4, 5, 7), 7, (3, 3), conv(padding=SAME, groups=7, activation="relu"), x=DType.INT16),
        sample("from_int16_twice", (4, 5, 3), 6, (3, 3), conv(padding=SAME, groups=3), x=DType.INT16),
        sample("to_int16", (4, 5, 9), 9, (1, 9), conv(padding=(0, 0, 8, 0), groups=9), y=DType.INT16),
        extreme(depthwise("extreme", (5, 6, 4), x_zero=-128, saturating=True)),
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
    ("compiler", "optimise"), [("gcc", "-O0"), ("gcc", "-O2"), ("gcc", "-O3"), ("gcc", "-Os"), ("clang", "-O2")]
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
    assert Library(cases, tmp_path, ("gcc", "-O1", *TRAPS["gcc"])).check() > 10000


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    todo = work(hard()[::2])
    image = build(todo, "host", tmp_path, sanitize=True)
    assert differing(image, [s for s, _ in todo]) == {}


@st.composite
def geometries(draw: st.DrawFn) -> Sample:
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride, dilation = (draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) for _ in range(2))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = draw(st.integers(max(1, span[0] - padding[0] - padding[1]), 14))
    width = draw(st.integers(max(1, span[1] - padding[2] - padding[3]), 40))
    activation: Activation = draw(st.sampled_from(["none", "relu", "relu6"]))
    return depthwise(
        f"drawn {draw(st.integers(0, 1 << 30))}",
        (height, width, draw(st.integers(2, 70))),
        kernel,
        stride,
        padding,
        dilation,
        activation,
        x_zero=draw(st.integers(-128, 127)),
        saturating=draw(st.booleans()),
    )


@settings(max_examples=3, deadline=None, phases=GENERATED)
@given(samples=st.lists(geometries(), min_size=10, max_size=10))
@pytest.mark.parametrize("target", ["host", TARGET])
def test_drawn_geometries(target: str, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work(samples)
    image = build(todo, target, tmp_path_factory.mktemp("drawn"))
    assert differing(image, [s for s, _ in todo]) == {}


# Instructions per product, whole layers, -O2.
FIGURES: Mapping[str, tuple[Sample, float]] = {
    "25x5x64": (depthwise("a", (25, 5, 64)), 0.535),
    "24x24x32": (depthwise("b", (24, 24, 32)), 0.465),
    "12x12x64": (depthwise("c", (12, 12, 64)), 0.52),
    "6x6x128": (depthwise("d", (6, 6, 128)), 0.64),
    "48x48x16 s2": (depthwise("e", (48, 48, 16), stride=(2, 2), padding=(0, 1, 0, 1)), 0.8),
    "24x24x32 s2": (depthwise("f", (24, 24, 32), stride=(2, 2), padding=(0, 1, 0, 1)), 0.885),
}


def test_instructions(tmp_path: Path) -> None:
    samples = [s for s, _ in FIGURES.values()]
    todo = [(s, chosen(s, TARGET)) for s in samples]
    assert {c.kernel for _, c in todo} == {"depthwise_mve"}
    counted = instructions(build(todo, TARGET, tmp_path), samples)
    for (name, (s, limit)), (_, choice), count in zip(FIGURES.items(), todo, counted, strict=True):
        assert count <= limit * 9 * s.graph.type("y").elements, name
        assert choice.instructions == pytest.approx(count, rel=0.04), name


def test_where_outputs_may_lie_over_the_input() -> None:
    def overwritten(s: Sample) -> bool:
        choice = choice_of(s, "depthwise_mve", TARGET)
        assert choice is not None
        return choice.in_place == {"x"}

    assert overwritten(depthwise("same", (8, 6, 8)))
    assert not overwritten(depthwise("smaller", (8, 6, 8), padding=(0, 0, 0, 0)))
    assert not overwritten(depthwise("half", (8, 6, 8), stride=(2, 2)))
    wider = choice_of(sample("wider", (8, 6, 8), 16, (3, 3), conv(padding=SAME, groups=8)), "depthwise_mve_any", TARGET)
    assert wider is not None
    assert not wider.in_place


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 4), st.integers(1, 4), st.just(1)),
    across=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_stream_holds_the_constants(shape: tuple[int, int, int, int], across: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    constants: dict[str, npt.NDArray[np.generic]] = {
        "w": rng.integers(-127, 128, shape).astype(np.int8),
        "b": rng.integers(-(1 << 30), 1 << 30, shape[0]).astype(np.int32),
        "m": (rng.integers(0, 1 << 29, shape[0]) * 4).astype(np.int32),
    }
    layout = PatchStream(shape, across)
    table = layout.pack(constants)
    assert len(table) == 6 * shape[0]
    assert all(np.array_equal(a, constants[role]) for role, a in layout.unpack(table).items())


def test_stream_is_in_the_documented_order() -> None:
    w = np.arange(1, 7, dtype=np.int8).reshape(1, 2, 3, 1)
    constants: dict[str, npt.NDArray[np.generic]] = {
        "w": w,
        "b": np.array([-1], np.int32),
        "m": np.array([8], np.int32),
    }
    assert PatchStream(w.shape, False).pack(constants).tolist() == [0x030201, 0x060504, 0, 0, 0xFFFFFFFF, 4]
    assert PatchStream(w.shape, True).pack(constants).tolist() == [0x0401, 0x0502, 0x0603, 0, 0xFFFFFFFF, 4]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.just(1)),
    multiplier=st.integers(1, 3),
    itemsize=st.sampled_from([1, 2]),
    seed=st.integers(0, 1 << 30),
)
def test_lanes_hold_the_constants(shape: tuple[int, int, int, int], multiplier: int, itemsize: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = (shape[0] * multiplier, *shape[1:])
    constants: dict[str, npt.NDArray[np.generic]] = {
        "w": rng.integers(-127, 128, full).astype(np.int8),
        "b": rng.integers(-(1 << 30), 1 << 30, full[0]).astype(np.int32),
        "m": (rng.integers(0, 1 << 29, full[0]) * 4).astype(np.int32),
    }
    layout = LaneStream(full, shape[0], itemsize)
    table = layout.pack(constants)
    assert len(table) == -(-full[0] // 4) * (8 + shape[1] * shape[2] + (2 if multiplier > 1 else 0))
    assert all(np.array_equal(a, constants[role]) for role, a in layout.unpack(table).items())
