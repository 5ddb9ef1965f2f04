"""Dense convolutions for DSP cores: bytes on every core and compiler, hard geometries, predicted instructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.ir.types import DType
from projgen.kernels.conv_dsp_layouts import MatrixStream
from projgen.kernels.packed import NATURAL, WIDENED
from projgen.ops.conv import conv, sample
from projgen.ops.record import Sample
from tests.kernels.single_node import after_int16, build, choice_of, chosen, differing, extreme, instructions

KERNELS = tuple(
    f"{form}{size}"
    for form in ("pointwise_dsp", "conv2d_dsp", "conv2d_direct_dsp")
    for size in ("", "_entered", "_looped", "_shared")
)
SAME = (1, 1, 1, 1)


def hard() -> list[Sample]:
    """Every variant of the blocks: widths, types, odd outputs, tails, groups, borders, clamps, shifts, no packing."""
    return [
        sample("pw_5x5x64_64", (5, 5, 64), 64, (1, 1), conv()),
        sample("pw_loop_7x3x70_9", (7, 3, 70), 9, (1, 1), conv()),
        sample("pw_9_quads", (2, 2, 36), 4, (1, 1), conv()),
        sample("pw_17_quads", (2, 2, 65), 3, (1, 1), conv()),
        sample("pw_1x1x5_3", (1, 1, 5), 3, (1, 1), conv()),
        sample("pw_1x2x3_1_relu6", (1, 2, 3), 1, (1, 1), conv(activation="relu6"), y_zero=-100),
        sample("pw_to_int16", (4, 4, 18), 6, (1, 1), conv(), y=DType.INT16),
        sample("pw_from_int16", (5, 4, 7), 5, (1, 1), conv(), x=DType.INT16),
        sample("pw_int16", (3, 4, 6), 8, (1, 1), conv(), x=DType.INT16, y=DType.INT16),
        extreme(sample("pw_plain", (2, 2, 700), 3, (1, 1), conv(), saturating=True)),
        extreme(sample("pw_plain_from_int16", (2, 3, 22), 4, (1, 1), conv(), x=DType.INT16)),
        extreme(sample("pw_almost_plain", (2, 3, 510), 4, (1, 1), conv(), saturating=True, x_zero=-128)),
        sample("pw_shift", (4, 5, 2), 3, (1, 1), conv(), y_scale=2.0**-11),
        sample("pw_stride", (9, 7, 17), 12, (1, 1), conv((2, 2))),
        sample("stem", (9, 8, 3), 8, (3, 3), conv((2, 2), (0, 1, 0, 1))),
        sample("stem_10x4", (19, 10, 1), 6, (10, 4), conv((2, 2), (4, 5, 1, 1))),
        sample("stem_5x5x2", (6, 7, 2), 5, (5, 5), conv(padding=(4, 3, 2, 4))),
        sample("map_3x3x30", (6, 5, 30), 7, (3, 3), conv((1, 2), (1, 0, 0, 1))),
        sample("any_5x5x17", (6, 5, 17), 3, (5, 5), conv(padding=(2, 2, 2, 2), dilation=(2, 1))),
        sample("dilated", (9, 8, 5), 3, (3, 3), conv(padding=(2, 2, 2, 2), dilation=(2, 2), activation="relu")),
        sample("groups", (5, 6, 9), 6, (3, 3), conv((2, 1), SAME, groups=3)),
        sample("conv_1d", (1, 21, 6), 5, (1, 5), conv((1, 2), (0, 0, 4, 0))),
        sample("conv_int16", (5, 4, 3), 3, (3, 3), conv((1, 2), SAME), x=DType.INT16, y=DType.INT16),
        sample("conv_from_int16", (5, 5, 3), 6, (3, 3), conv(padding=SAME), x=DType.INT16),
        after_int16(sample("conv_packed_int16", (5, 5, 6), 6, (3, 3), conv(padding=SAME), x=DType.INT16)),
        after_int16(sample("pw_packed_int16", (5, 7, 8), 6, (1, 1), conv(), x=DType.INT16)),
        sample("quads_3x3x8", (6, 7, 8), 5, (3, 3), conv((1, 1), (2, 1, 0, 3), activation="relu6"), y_zero=-90),
        sample("quads_stride", (7, 9, 12), 6, (3, 3), conv((2, 2), SAME)),
        sample("quads_to_int16", (4, 5, 8), 3, (2, 3), conv((1, 2)), y=DType.INT16),
        after_int16(sample("quads_int16", (5, 4, 4), 6, (3, 3), conv(padding=SAME), x=DType.INT16, y=DType.INT16)),
        sample("quads_from_int16", (5, 8, 6), 5, (3, 2), conv((2, 1), SAME), x=DType.INT16),
        extreme(sample("conv_plain", (4, 4, 70), 4, (3, 3), conv(padding=SAME), saturating=True, x_zero=-128)),
    ]


def work(samples: list[Sample], target: str) -> list:
    """Each sample with each kernel that fits; at least one must."""
    found = []
    for s in samples:
        choices = [c for k in KERNELS if (c := choice_of(s, k, target)) is not None]
        assert choices, s.name
        found += [(s, c) for c in choices]
    return found


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_bytes_on_cores(target: str, tmp_path: Path) -> None:
    todo = work(hard(), target)
    image = build(todo, target, tmp_path)
    assert differing(image, [s for s, _ in todo]) == {}


@pytest.mark.parametrize(
    ("compiler", "optimise"), [("gcc", "-O0"), ("gcc", "-O1"), ("gcc", "-O3"), ("gcc", "-Os"), ("clang", "-O2")]
)
def test_bytes_with_compilers(compiler: str, optimise: str, tmp_path: Path) -> None:
    todo = work(hard(), "cortex-m4")
    image = build(todo, "cortex-m4", tmp_path, compiler=compiler, optimise=optimise)
    assert differing(image, [s for s, _ in todo]) == {}


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    todo = work(hard(), "cortex-m4")
    image = build(todo, "host", tmp_path, sanitize=True)
    assert differing(image, [s for s, _ in todo]) == {}


@st.composite
def geometries(draw: st.DrawFn) -> Sample:
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride, dilation = (draw(st.tuples(st.integers(1, hi), st.integers(1, hi))) for hi in (3, 2))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    height = draw(st.integers(max(1, span[0] - padding[0] - padding[1]), 14))
    width = draw(st.integers(max(1, span[1] - padding[2] - padding[3]), 24))
    inputs, outputs = draw(st.integers(1, 70)), draw(st.integers(1, 12))
    pointwise = draw(st.booleans())
    if pointwise:
        kernel, stride, dilation, padding = (1, 1), (1, 1), (1, 1), (0, 0, 0, 0)
    seed = draw(st.integers(0, 1 << 30))
    activation = draw(st.sampled_from(["none", "relu", "relu6"]))
    attrs = conv(stride, padding, dilation, 1, activation)  # type: ignore[arg-type]
    saturating = draw(st.booleans())
    wide = {"x": DType.INT16} if draw(st.integers(0, 5)) == 0 else {"y": DType.INT16} if seed % 6 == 0 else {}
    zeros = {"x_zero": draw(st.integers(-128, 127)), "y_zero": draw(st.integers(-128, 127))}
    shape = (height, width, inputs)
    drawn = sample(f"drawn {seed}", shape, outputs, kernel, attrs, saturating=saturating, **wide, **zeros)
    return extreme(drawn) if saturating and not wide else drawn


@settings(max_examples=5, deadline=None)
@given(samples=st.lists(geometries(), min_size=8, max_size=8))
@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_drawn_geometries(target: str, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work(samples, "cortex-m4")
    image = build(todo, target, tmp_path_factory.mktemp("drawn"))
    assert differing(image, [s for s, _ in todo]) == {}


# Instructions per product, whole layers, -O2.
FIGURES: Mapping[str, tuple[Sample, float]] = {
    "pointwise 125x64->64": (sample("a", (25, 5, 64), 64, (1, 1), conv()), 0.82),
    "pointwise 576x32->32": (sample("b", (24, 24, 32), 32, (1, 1), conv()), 0.92),
    "pointwise 36x128->128": (sample("c", (6, 6, 128), 128, (1, 1), conv()), 0.79),
    "pointwise 256x16->32 stride 2": (sample("d", (32, 32, 16), 32, (1, 1), conv((2, 2))), 1.21),
    "stem 10x4x1->64": (sample("e", (49, 10, 1), 64, (10, 4), conv((2, 2), (4, 5, 1, 1))), 0.92),
    "stem 3x3x3->16": (sample("f", (32, 32, 3), 16, (3, 3), conv(padding=SAME)), 1.14),
}


def test_instructions(tmp_path: Path) -> None:
    samples = [s for s, _ in FIGURES.values()]
    todo = [(s, next(c for k in KERNELS if (c := choice_of(s, k)) is not None)) for s in samples]
    counted = instructions(build(todo, "cortex-m4", tmp_path), samples)
    for (name, (s, limit)), (_, choice), count in zip(FIGURES.items(), todo, counted, strict=True):
        node = s.graph.nodes[0]
        products = s.graph.type("y").elements * s.graph.data(node, "w")[0].size
        assert count <= limit * products, name
        assert choice.instructions == pytest.approx(count, rel=0.06), name


def test_pointwise_may_write_over_its_input() -> None:
    same = choice_of(sample("same", (4, 4, 8), 8, (1, 1), conv()), "pointwise_dsp")
    wider = choice_of(sample("wider", (4, 4, 8), 9, (1, 1), conv()), "pointwise_dsp")
    longer = choice_of(sample("longer", (4, 4, 8), 8, (1, 1), conv(), y=DType.INT16), "pointwise_dsp")
    assert [c.in_place for c in (same, wider, longer) if c is not None] == [{"x"}, frozenset(), frozenset()]


def test_dsp_kernels_win_on_dsp_cores_alone() -> None:
    s = sample("map", (8, 8, 16), 16, (5, 5), conv(padding=(2, 2, 2, 2)))
    assert chosen(s, "cortex-m4").kernel == "conv2d_direct_dsp"
    assert chosen(s, "cortex-m3").kernel == "conv2d_thumb2"


def test_pairs_are_packed_only_below_the_bound() -> None:
    def stream(inputs: int) -> str:
        s = extreme(sample(f"k{inputs}", (2, 2, inputs), 2, (1, 1), conv(), saturating=True))
        choice = choice_of(s, "pointwise_dsp")
        assert choice is not None
        return choice.blocks[0].function

    assert "_packed_" in stream(500)
    assert "_plain_" in stream(520)  # 520 * 127 * 128 > 2^23


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9)),
    groups=st.integers(1, 3),
    packed=st.booleans(),
    order=st.sampled_from([NATURAL, WIDENED]),
    seed=st.integers(0, 1 << 30),
)
def test_stream_holds_the_constants(
    shape: tuple[int, int, int, int], groups: int, packed: bool, order: tuple[int, int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    full = (shape[0] * groups, *shape[1:])
    constants = {
        "w": rng.integers(-128 if not packed else -127, 128, full).astype(np.int8),
        "b": rng.integers(-(1 << 22), 1 << 22, full[0]).astype(np.int32),
        "m": (rng.integers(1 << 20, 1 << 28, full[0]) * 4).astype(np.int32),
    }
    layout = MatrixStream(full, groups, packed, order)
    table = layout.pack(constants)
    assert len(table) == groups * layout.group_words
    assert all(np.array_equal(a, constants[role]) for role, a in layout.unpack(table).items())
