"""Depthwise convolutions for DSP cores: bytes on every core, hard geometries, in place, predicted instructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.kernels.conv_dsp_depthwise import TapTable, TripleTable
from projgen.kernels.conv_dsp_depthwise_rows import PixelStream
from projgen.kernels.record import KernelChoice
from projgen.ops.conv import conv, sample
from projgen.ops.record import Sample
from tests.kernels.single_node import build, choice_of, differing, extreme, instructions

SAME = (1, 1, 1, 1)


def depthwise(
    name: str, shape: tuple[int, int, int], kernel: tuple[int, int], multiplier: int = 1, **attrs: object
) -> Sample:
    zeros = {k: attrs.pop(k) for k in ("x_zero", "y_zero", "y_scale") if k in attrs}
    made = conv(groups=shape[2], **attrs)  # type: ignore[arg-type]
    return sample(name, shape, shape[2] * multiplier, kernel, made, **zeros)  # type: ignore[arg-type]


def hard() -> list[Sample]:
    """Both blocks: odd and even heights and pads, strides, tails of channels, clamps, long rows, loops, shifts."""
    return [
        depthwise("same", (25, 5, 8), (3, 3), padding=SAME),
        depthwise("even", (12, 7, 9), (3, 3), padding=SAME, activation="relu"),
        depthwise("loop_with_rest", (31, 4, 4), (3, 3), padding=SAME, y_zero=-128),
        depthwise("two_above", (6, 5, 6), (3, 3), 2, padding=(2, 0, 1, 3)),
        depthwise("valid", (7, 6, 5), (3, 3)),
        depthwise("few_channels", (6, 5, 3), (3, 3), padding=SAME, activation="relu6", y_zero=-90),
        depthwise("stride", (13, 11, 10), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)),
        depthwise("stride_odd", (8, 6, 4), (3, 3), 3, stride=(2, 1), padding=(1, 1, 0, 2)),
        depthwise("narrow", (9, 4, 5), (3, 1), padding=(1, 1, 0, 0)),
        depthwise("two_wide", (9, 4, 5), (3, 2), dilation=(1, 2), padding=(1, 0, 2, 1)),
        depthwise("long_rows", (5, 17, 260), (3, 3), padding=SAME),
        depthwise("shifted", (6, 5, 4), (3, 3), padding=SAME, y_scale=2.0**-11),
        depthwise(
            "rows_even_taps", (9, 7, 8), (2, 4), stride=(2, 2), padding=(1, 1, 0, 2), activation="relu6", y_zero=-90
        ),
        depthwise("rows_shifted", (6, 5, 12), (3, 3), dilation=(2, 1), padding=(2, 2, 1, 1), y_scale=2.0**-11),
        depthwise("any_5x5", (11, 6, 7), (5, 5), padding=(2, 2, 2, 2)),
        depthwise("any_stride_3", (14, 9, 6), (4, 5), 2, stride=(3, 2), padding=(3, 0, 1, 2), activation="relu6"),
        depthwise("any_dilated", (12, 9, 5), (3, 3), dilation=(2, 3), padding=(2, 2, 3, 3)),
        depthwise("any_1d", (1, 20, 9), (1, 4), padding=(0, 0, 3, 0)),
        depthwise("any_whole", (4, 3, 5), (4, 3)),
        depthwise("only_padding", (1, 1, 4), (3, 3), padding=(3, 0, 3, 0)),
        extreme(depthwise("extreme", (5, 5, 6), (3, 3), padding=SAME, x_zero=127)),
        extreme(depthwise("extreme_any", (7, 5, 6), (7, 5), padding=(3, 3, 2, 2), x_zero=-128), 127),
    ]


def planar(samples: list[Sample]) -> list[tuple[Sample, KernelChoice]]:
    """Each sample with the kernel over planes, which fits them all."""
    found = [(s, choice_of(s, "depthwise_dsp")) for s in samples]
    assert all(c is not None for _, c in found)
    return [(s, c) for s, c in found if c is not None]


def work(samples: list[Sample]) -> list[tuple[Sample, KernelChoice]]:
    """Each sample with every kernel that fits."""
    others = ("depthwise_dsp_shared", "depthwise_rows_dsp")
    return planar(samples) + [(s, c) for k in others for s in samples if (c := choice_of(s, k)) is not None]


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_bytes_on_cores(target: str, tmp_path: Path) -> None:
    todo = work(hard())
    assert len({c.kernel for _, c in todo}) == 3
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
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (3, 1), (3, 2), (1, 5), (5, 5), (2, 4), (4, 1)]))
    stride, dilation = (draw(st.tuples(st.integers(1, hi), st.integers(1, hi))) for hi in (3, 2))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = draw(st.integers(max(1, span[0] - padding[0] - padding[1]), 30))
    width = draw(st.integers(max(1, span[1] - padding[2] - padding[3]), 12))
    channels, multiplier = draw(st.integers(2, 20)), draw(st.integers(1, 2))
    attrs = {"stride": stride, "dilation": dilation, "padding": padding}
    activation = draw(st.sampled_from(["none", "relu", "relu6"]))
    zeros = {"x_zero": draw(st.integers(-128, 127)), "y_zero": draw(st.integers(-128, 127))}
    seed = draw(st.integers(0, 1 << 30))
    return depthwise(
        f"drawn {seed}", (height, width, channels), kernel, multiplier, **attrs, activation=activation, **zeros
    )


@settings(max_examples=5, deadline=None)
@given(samples=st.lists(geometries(), min_size=8, max_size=8))
@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_drawn_geometries(target: str, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work(samples)
    image = build(todo, target, tmp_path_factory.mktemp("drawn"))
    assert differing(image, [s for s, _ in todo]) == {}


FIGURES = {  # instructions per product, whole layers, -O2
    "25x5x64": (depthwise("a", (25, 5, 64), (3, 3), padding=SAME), 1.67),
    "24x24x32": (depthwise("b", (24, 24, 32), (3, 3), padding=SAME), 1.67),
    "6x6x128": (depthwise("c", (6, 6, 128), (3, 3), padding=SAME), 1.97),
    "24x24x32 stride 2": (depthwise("d", (24, 24, 32), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)), 2.85),
}


def test_instructions(tmp_path: Path) -> None:
    todo = planar([s for s, _ in FIGURES.values()])
    counted = instructions(build(todo, "cortex-m4", tmp_path), [s for s, _ in todo])
    for (name, (s, limit)), (_, choice), count in zip(FIGURES.items(), todo, counted, strict=True):
        assert count <= limit * 9 * s.graph.type("y").elements, name
        assert choice.instructions == pytest.approx(count, rel=0.08), name


def test_only_equal_shapes_may_share_memory() -> None:
    same, multiplied, strided = planar(
        [
            depthwise("same", (5, 5, 4), (3, 3), padding=SAME),
            depthwise("multiplied", (5, 5, 4), (3, 3), 2, padding=SAME),
            depthwise("strided", (5, 5, 4), (3, 3), stride=(2, 2), padding=(3, 3, 3, 3)),
        ]
    )
    assert same[1].in_place == {"x"}
    assert multiplied[1].in_place == strided[1].in_place == frozenset()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 6), st.integers(1, 6)),
    paired=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_tables_hold_the_constants(shape: tuple[int, int, int], paired: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.integers(-127, 128, (*shape, 1)).astype(np.int8),
        "b": rng.integers(-(1 << 22), 1 << 22, shape[0]).astype(np.int32),
        "m": (rng.integers(1 << 20, 1 << 28, shape[0]) * 4).astype(np.int32),
    }
    layouts: list[TapTable | TripleTable | PixelStream] = [TapTable((*shape, 1), paired)]
    if shape[1] == 3:
        layouts.append(TripleTable((*shape, 1)))
    if shape[0] % 4 == 0:
        layouts.append(PixelStream((*shape, 1)))
    for layout in layouts:
        found = layout.unpack(layout.pack(constants))
        assert all(np.array_equal(found[role], data) for role, data in constants.items())
