"""Exact Winograd convolutions for DSP cores: bytes on every core, extremes, hard geometries, predicted instructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.ir.types import DType
from projgen.kernels.conv_dsp_winograd_layouts import Quad, Stride2Stream, Winograd1dStream, Winograd2dStream
from projgen.kernels.packed import NATURAL, WIDENED
from projgen.kernels.record import KernelChoice
from projgen.ops.conv import conv, sample
from projgen.ops.record import Sample
from tests.kernels.single_node import after_int16, build, choice_of, chosen, differing, extreme, instructions

FORMS = (
    "winograd2d_dsp",
    "winograd2d_dsp_looped",
    "winograd2d_dsp_shared",
    "winograd1d_dsp",
    "winograd_stride2_dsp",
)
SAME = (1, 1, 1, 1)


def hard() -> list[Sample]:
    """All forms: odd heights and widths, uneven padding, channels off the quad, clamps, shifts, extremes, 1-D."""
    zeros = {"x_zero": 127, "y_zero": -100}
    return [
        sample("straight", (7, 9, 6), 4, (3, 3), conv(padding=SAME)),
        sample("subroutine", (6, 5, 19), 6, (3, 3), conv(padding=(2, 0, 0, 3), activation="relu6"), y_zero=-90),
        sample("valid", (8, 6, 3), 2, (3, 3), conv()),
        sample("one_pixel", (3, 3, 5), 8, (3, 3), conv()),
        sample("shifted", (4, 5, 4), 4, (3, 3), conv(padding=SAME), y_scale=2.0**-10),
        extreme(sample("highest", (5, 6, 64), 4, (3, 3), conv(padding=SAME), saturating=True, x_zero=-128)),
        extreme(sample("lowest", (5, 6, 16), 4, (3, 3), conv(padding=SAME), saturating=True, **zeros)),
        sample("stride", (9, 11, 6), 4, (3, 3), conv((2, 2), SAME)),
        sample("stride_subroutine", (8, 9, 21), 6, (3, 3), conv((2, 2), (0, 1, 0, 1), activation="relu")),
        sample("stride_two_rows", (5, 9, 9), 6, (2, 3), conv((2, 2), (2, 0, 0, 3))),
        sample("stride_across", (8, 6, 3), 2, (3, 3), conv((1, 2))),
        extreme(sample("stride_highest", (7, 8, 20), 4, (3, 3), conv((2, 2), SAME), saturating=True, x_zero=-128)),
        sample("down_alone", (9, 7, 5), 4, (3, 3), conv((2, 1), (1, 1, 0, 2))),
        sample("one_row", (1, 30, 7), 8, (1, 3), conv(padding=(0, 0, 2, 0))),
        sample("one_row_subroutine", (1, 21, 34), 8, (1, 3), conv(padding=(0, 0, 1, 1))),
        sample("one_row_stride", (1, 30, 7), 8, (1, 3), conv((1, 2))),
        sample("two_rows_subroutine", (6, 7, 18), 2, (2, 3), conv()),
        sample("to_int16", (7, 9, 5), 6, (3, 3), conv(padding=SAME), y=DType.INT16),
        after_int16(sample("from_int16", (7, 9, 8), 4, (3, 3), conv(padding=SAME), x=DType.INT16)),
        after_int16(sample("int16", (6, 9, 21), 6, (3, 3), conv(padding=SAME), x=DType.INT16, y=DType.INT16)),
        after_int16(sample("int16_stride", (8, 9, 6), 4, (3, 3), conv((2, 2), SAME), x=DType.INT16, y=DType.INT16)),
        after_int16(sample("int16_row", (1, 30, 7), 8, (1, 3), conv(padding=(0, 0, 1, 1)), x=DType.INT16)),
    ]


def work(samples: list[Sample]) -> list[tuple[Sample, KernelChoice]]:
    """Each sample in each form that fits; at least one must."""
    found = []
    for s in samples:
        choices = [c for k in FORMS if (c := choice_of(s, k)) is not None]
        assert choices, s.name
        found += [(s, c) for c in choices]
    return found


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_bytes_on_cores(target: str, tmp_path: Path) -> None:
    todo = work(hard())
    assert {c.kernel for _, c in todo} == set(FORMS)
    assert differing(build(todo, target, tmp_path), [s for s, _ in todo]) == {}


@pytest.mark.parametrize(("compiler", "optimise"), [("gcc", "-O0"), ("gcc", "-O3"), ("gcc", "-Os"), ("clang", "-O2")])
def test_bytes_with_compilers(compiler: str, optimise: str, tmp_path: Path) -> None:
    todo = work(hard())
    image = build(todo, "cortex-m4", tmp_path, compiler=compiler, optimise=optimise)
    assert differing(image, [s for s, _ in todo]) == {}


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    todo = work(hard())
    assert differing(build(todo, "host", tmp_path, sanitize=True), [s for s, _ in todo]) == {}


@st.composite
def geometries(draw: st.DrawFn) -> Sample:
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (3, 3), (1, 3), (2, 3)]))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2)])) if kernel[0] > 1 else (1, draw(st.integers(1, 2)))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    height = draw(st.integers(max(1, kernel[0] - padding[0] - padding[1]), 10))
    width = draw(st.integers(max(1, 3 - padding[2] - padding[3]), 24))
    inputs, outputs = draw(st.integers(1, 40)), 2 * draw(st.integers(1, 5))
    activation = draw(st.sampled_from(["none", "relu", "relu6"]))
    saturating = draw(st.booleans())
    zeros = {"x_zero": draw(st.integers(-128, 127)), "y_zero": draw(st.integers(-128, 127))}
    attrs = conv(stride, padding, activation=activation)  # type: ignore[arg-type]
    seed = draw(st.integers(0, 1 << 30))
    shape = (height, width, inputs)
    drawn = sample(f"drawn {seed}", shape, outputs, kernel, attrs, saturating=saturating, **zeros)
    return extreme(drawn) if saturating else drawn


@settings(max_examples=5, deadline=None)
@given(samples=st.lists(geometries(), min_size=6, max_size=6))
@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_drawn_geometries(target: str, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work(samples)
    image = build(todo, target, tmp_path_factory.mktemp("drawn"))
    assert differing(image, [s for s, _ in todo]) == {}


# Instructions per product of the direct convolution, whole layers, -O2.
FIGURES = (
    ("winograd2d_dsp", (32, 32, 16), 16, (1, 1), 0.43),
    ("winograd2d_dsp", (16, 16, 32), 32, (1, 1), 0.37),
    ("winograd2d_dsp", (8, 8, 64), 64, (1, 1), 0.33),
    ("winograd1d_dsp", (32, 32, 16), 16, (1, 1), 0.54),
    ("winograd1d_dsp", (16, 16, 32), 32, (1, 1), 0.48),
    ("winograd_stride2_dsp", (32, 32, 16), 32, (2, 2), 0.64),
    ("winograd_stride2_dsp", (16, 16, 32), 64, (2, 2), 0.58),
)


def test_instructions(tmp_path: Path) -> None:
    todo = []
    for kernel, shape, outputs, stride, _ in FIGURES:
        padding = SAME if stride == (1, 1) else (0, 1, 0, 1)
        s = sample(f"{kernel} {shape}", shape, outputs, (3, 3), conv(stride, padding))
        choice = choice_of(s, kernel)
        assert choice is not None
        todo.append((s, choice))
    counted = instructions(build(todo, "cortex-m4", tmp_path), [s for s, _ in todo])
    for (s, choice), (*_, limit), count in zip(todo, FIGURES, counted, strict=True):
        products = s.graph.type("y").elements * s.graph.data(s.graph.nodes[0], "w")[0].size
        assert count <= limit * products, s.name
        assert choice.instructions == pytest.approx(count, rel=0.05), s.name


def test_speed_takes_the_fewest_products_and_flash_the_smallest_tables() -> None:
    s = sample("map", (16, 16, 16), 16, (3, 3), conv(padding=SAME))
    assert chosen(s).kernel == "winograd2d_dsp"
    assert not chosen(s, optimise="flash").kernel.startswith("winograd")
    strided = sample("strided", (16, 16, 16), 16, (3, 3), conv((2, 2), (0, 1, 0, 1)))
    assert chosen(strided).kernel == "winograd_stride2_dsp"


def test_output_may_lie_over_the_input_where_its_rows_are_no_longer() -> None:
    def in_place(shape: tuple[int, int, int], outputs: int, kernel: str, **attrs: object) -> bool:
        choice = choice_of(sample("one", shape, outputs, (3, 3), conv(**attrs)), kernel)  # type: ignore[arg-type]
        assert choice is not None
        return "x" in choice.in_place

    for kernel in ("winograd2d_dsp", "winograd1d_dsp"):
        assert in_place((8, 8, 8), 8, kernel, padding=SAME)
        assert not in_place((8, 8, 8), 10, kernel, padding=SAME)
        assert not in_place((8, 8, 8), 8, kernel, padding=(3, 0, 1, 1))
    assert in_place((8, 8, 8), 16, "winograd_stride2_dsp", stride=(2, 2), padding=(0, 1, 0, 1))


def test_int16_maps_whose_range_is_not_proven_are_refused() -> None:
    s = sample("unproven", (7, 9, 8), 4, (3, 3), conv(padding=SAME), x=DType.INT16)
    assert [choice_of(s, form) for form in FORMS] == [None] * len(FORMS)
    assert choice_of(after_int16(s), "winograd2d_dsp") is not None


@pytest.mark.parametrize(("outputs", "inputs", "kernel"), [(3, 8, (3, 3)), (4, 128, (3, 3)), (4, 8, (5, 5))])
def test_what_does_not_fit_is_refused(outputs: int, inputs: int, kernel: tuple[int, int]) -> None:
    s = sample("odd", (8, 8, inputs), outputs, kernel, conv(padding=(2, 2, 2, 2)))
    assert [choice_of(s, form) for form in FORMS] == [None] * len(FORMS)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9)),
    order=st.sampled_from([NATURAL, WIDENED]),
    seed=st.integers(0, 1 << 30),
)
def test_streams_hold_the_constants(shape: tuple[int, int, int], order: Quad, seed: int) -> None:
    rng = np.random.default_rng(seed)
    full = (2 * shape[0], shape[1], 3, shape[2])
    constants = {
        "w": rng.integers(-127, 128, full).astype(np.int8),
        "b": rng.integers(-(1 << 28), 1 << 28, full[0]).astype(np.int32),
        "m": (rng.integers(1 << 20, 1 << 28, full[0]) * 4).astype(np.int32),
    }
    layouts = [Winograd1dStream(full, order), Stride2Stream(full, order)]
    layouts += [Winograd2dStream(full, order)] if full[1] == 3 else []
    for layout in layouts:
        found = layout.unpack(layout.pack(constants))
        assert all(np.array_equal(found[role], data) for role, data in constants.items()), layout
