"""Kernels for Armv7-M cores without DSP instructions: bytes, the bounds of paired sums, predicted instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen import ops
from projgen.ir.types import DType
from projgen.kernels.conv_thumb2_layouts import PixelPairStream
from projgen.kernels.linear_thumb2 import OutputPairStream
from projgen.kernels.packed import LIMIT
from projgen.kernels.record import KernelChoice, Layout
from projgen.kernels.render import render_block
from projgen.ops import linear
from projgen.ops.conv import conv, sample
from projgen.ops.record import Sample
from tests.kernels import draws
from tests.kernels.predicted import SMALL, drawn, predictions
from tests.kernels.single_node import build, choice_of, chosen, differing, extreme, instructions
from tests.kernels.test_conv_dsp import geometries, hard
from tests.kernels.test_conv_dsp_depthwise import geometries as depthwise_geometries
from tests.kernels.test_conv_dsp_depthwise import hard as depthwise

pytestmark = pytest.mark.qemu

M3 = "cortex-m3"
SAME = (1, 1, 1, 1)
KINDS = ("pointwise", "conv2d", "pointwise_residual", "conv2d_residual", "linear", "linear_pixels")
KERNELS = (*(f"{kind}_thumb2{form}" for kind in KINDS for form in ("", "_looped")), "depthwise_thumb2")


def vectors() -> list[Sample]:
    """Fully connected layers: tails of inputs and outputs, rows, types, the largest weights, sums beyond pairs."""
    return [
        linear.sample("fc_200x9_from_int16_shift", 200, 9, x=DType.INT16),
        extreme(linear.sample("fc_519", 519, 5, saturating=True, x_zero=-128)),
        linear.sample("fc_640x12", 640, 12),
        linear.sample("fc_30x7_relu6", 30, 7, activation="relu6", y_zero=-100),
        linear.sample("fc_rows", 61, 5, lead=(7,)),
        linear.sample("fc_to_int16", 43, 6, y=DType.INT16),
        extreme(linear.sample("fc_510", 510, 6, saturating=True, x_zero=-128)),
        at_the_bound(510, 0),
        at_the_bound(7, 0),
        *(s for s in ops.registry()["linear"].samples() if not s.graph.has_time),
    ]


def work(samples: Sequence[Sample], *, alternate: bool = False) -> list[tuple[Sample, KernelChoice]]:
    """Each sample with each kernel that fits; ``alternate``: looped or straight-line code in turn."""
    return [
        (s, c)
        for i, s in enumerate(samples)
        for k in KERNELS
        if not (alternate and k != "depthwise_thumb2" and k.endswith("_looped") is (i % 2 == 0))
        and (c := choice_of(s, k, M3)) is not None
    ]


@cache
def everything() -> list[tuple[Sample, KernelChoice]]:
    samples = [*hard(), *depthwise(), *ops.registry()["conv2d_residual"].samples(), *vectors()]
    found = work(samples, alternate=True)
    assert {c.kernel for _, c in found} == set(KERNELS)
    return found


@pytest.mark.parametrize(
    ("compiler", "optimise", "step"), [("gcc", "-O2", 1), ("gcc", "-O0", 5), ("gcc", "-Os", 4), ("clang", "-O2", 3)]
)
def test_bytes(compiler: str, optimise: str, step: int, tmp_path: Path) -> None:
    todo = everything()[::step]
    image = build(todo, M3, tmp_path, compiler=compiler, optimise=optimise)
    assert differing(image, [s for s, _ in todo]) == {}


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    todo = everything()[::2]
    image = build(todo, "host", tmp_path, sanitize=True)
    assert differing(image, [s for s, _ in todo]) == {}


@settings(max_examples=4, deadline=None)
@given(samples=st.lists(st.one_of(geometries(), depthwise_geometries(), draws.linears()), min_size=8, max_size=8))
@pytest.mark.parametrize("target", ["host", M3])
def test_drawn(target: str, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work([s for s in samples if not s.graph.has_time])
    image = build(todo, target, tmp_path_factory.mktemp("drawn"))
    assert differing(image, [s for s, _ in todo]) == {}


def at_the_bound(inputs: int, beyond: int) -> Sample:
    """Rows of 127 whose sums reach 2^23 - 1 + beyond in both directions, by the largest inputs of one sign each."""
    made = extreme(linear.sample(f"bound {inputs} {beyond}", inputs, 4, saturating=True))
    graph, node = made.graph, made.graph.nodes[0]
    w, b = graph.data(node, "w").astype(np.int64), graph.values[node.inputs["b"]]
    reach = LIMIT - 1 + beyond - np.abs(w).sum(axis=1) * 128
    data = np.where(np.arange(4) % 2, -reach, reach).astype(np.int32)
    x = np.stack([sign * np.where(row < 0, 127, -128) for row in w for sign in (1, -1)]).clip(-128, 127)
    return replace(made, graph=graph.with_(values=(replace(b, data=data),)), inputs=(x.astype(np.int8),))


def test_sums_up_to_the_bound(tmp_path: Path) -> None:
    samples = [at_the_bound(510, 0), at_the_bound(3, 0)]
    todo = work(samples)
    assert len(todo) == 8
    image = build(todo, M3, tmp_path)
    assert differing(image, [s for s, _ in todo]) == {}
    beyond = work([at_the_bound(510, 1), at_the_bound(518, 0)])
    assert {(c.kernel, dict(c.blocks[0].parameters)["packed"]) for _, c in beyond[:2]} == {
        ("linear_thumb2", 0),
        ("linear_thumb2_looped", 0),
    }
    assert differing(build(beyond, M3, tmp_path / "beyond"), [s for s, _ in beyond]) == {}


def test_depthwise_sums_up_to_the_bound(tmp_path: Path) -> None:
    """Sums of 2^22 - 1 in both directions in both halves; one more, and another kernel is taken."""

    def bound(beyond: int) -> Sample:
        made = extreme(sample(f"bound {beyond}", (6, 4, 2), 2, (3, 3), conv(padding=SAME, groups=2)))
        graph, node = made.graph, made.graph.nodes[0]
        reach = (1 << 22) - 1 + beyond - 9 * 127 * 128
        b = replace(graph.values[node.inputs["b"]], data=np.array([reach, -reach], np.int32))
        w = replace(graph.values[node.inputs["w"]], data=np.full((2, 3, 3, 1), 127, np.int8))
        x = np.stack([np.full((6, 4, 2), v, np.int8) for v in (-128, 127)])
        return replace(made, graph=graph.with_(values=(b, w)), inputs=(x,))

    todo = work([bound(0)])
    assert len(todo) == 1
    assert differing(build(todo, M3, tmp_path), [bound(0)]) == {}
    assert chosen(bound(1), M3).kernel == "depthwise_portable"


def test_a_core_with_dsp_has_no_use_for_them() -> None:
    s = sample("map", (8, 8, 16), 16, (3, 3), conv(padding=SAME))
    assert chosen(s, M3).kernel == "conv2d_thumb2"
    assert "thumb2" not in chosen(s, "cortex-m4").kernel
    assert choice_of(s, "conv2d_thumb2", "cortex-m4") is None


# Instructions per product, whole layers, -O2.
FIGURES: Mapping[str, tuple[Sample, float]] = {
    "pointwise 125x64->64": (sample("a", (25, 5, 64), 64, (1, 1), conv()), 1.02),
    "pointwise 36x128->128": (sample("c", (6, 6, 128), 128, (1, 1), conv()), 0.97),
    "stem 3x3x3->16": (sample("f", (32, 32, 3), 16, (3, 3), conv(padding=SAME)), 1.45),
    "3x3 16x16x32->32": (sample("g", (16, 16, 32), 32, (3, 3), conv(padding=SAME)), 1.02),
    "fully connected 640->128": (linear.sample("h", 640, 128), 1.27),
    "depthwise 25x5x64": (sample("i", (25, 5, 64), 64, (3, 3), conv(padding=SAME, groups=64)), 2.32),
    "depthwise 24x24x16": (sample("j", (24, 24, 16), 16, (3, 3), conv(padding=SAME, groups=16)), 2.4),
    "depthwise 48x48x4 stride 2": (sample("k", (48, 48, 4), 4, (3, 3), conv((2, 2), (0, 1, 0, 1), groups=4)), 4.0),
}


def test_instructions(tmp_path: Path) -> None:
    samples = [s for s, _ in FIGURES.values()]
    counted = instructions(build([(s, chosen(s, M3)) for s in samples], M3, tmp_path), samples)
    for (name, (s, limit)), count in zip(FIGURES.items(), counted, strict=True):
        node = s.graph.nodes[0]
        assert count <= limit * s.graph.type("y").elements * s.graph.data(node, "w")[0].size, name


def test_predicted_within_five_per_cent() -> None:
    found = [p for p in predictions(M3, list(drawn(1001))) if "thumb2" in p.kernel]
    assert len(found) >= 18
    wrong = [p for p in found if abs(p.error) > 0.05 and abs(p.predicted - p.counted) > 0.05 * SMALL]
    assert not wrong


FAULTS = (
    ("and r2, r3, r10, ror #16", "and r2, r3, r10, ror #8"),
    ("smlal r8, r9, r12, lr", "smlal r8, r9, r11, lr"),
    ("sbfx r10, r4, #0, #24", "sbfx r10, r4, #0, #23"),
    ("adc r4, r4, r5, lsl #8", "add r4, r4, r5, lsl #8"),
    ("lsls.w r5, r5, #1", "lsls.w r5, r5, #2"),
    ("ldrsb r5, [r7, r3]", "ldrsb r5, [r7]"),
    ("adc r6, r6, r7, lsl #9", "add r6, r6, r7, lsl #9"),
    ("mov r2, r11", "mov r2, r10"),
    ("smlal r6, r7, lr, r10", "smlal r6, r7, r12, r10"),
)


@pytest.mark.parametrize(("good", "bad"), FAULTS, ids=[b for _, b in FAULTS])
def test_a_fault_is_found(good: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = [(s, c) for s, c in everything() if any(good in render_block(b) for b in c.blocks)]
    # Where the last bit of a sum shows, and the first.
    todo.sort(key=lambda one: "shift" not in one[0].name and "bound" not in one[0].name)
    assert todo
    monkeypatch.setattr(
        "tests.kernels.single_node.render_block", lambda block: render_block(block).replace(good, bad, 1)
    )
    image = build(todo[:6], M3, tmp_path)
    assert differing(image, [s for s, _ in todo[:6]]) != {}


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9)),
    residual=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_streams_hold_the_constants(shape: tuple[int, int, int, int], residual: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.integers(-128, 128, shape).astype(np.int8),
        "b": rng.integers(1 - LIMIT, LIMIT, shape[0]).astype(np.int32),
        "m": (rng.integers(1 << 20, 1 << 28, shape[0]) * 4).astype(np.int32),
    }
    matrix = constants | {"w": constants["w"].reshape(shape[0], -1)}
    if residual:
        constants["f"] = rng.integers(-(1 << 15), 1 << 15, shape[0]).astype(np.int32)
    wide = matrix | {"b": rng.integers(-(1 << 31), 1 << 31, shape[0]).astype(np.int32)}
    layouts: list[tuple[Layout, dict[str, np.ndarray]]] = [
        (PixelPairStream(shape, residual), constants),
        (OutputPairStream(*matrix["w"].shape), matrix),
        (OutputPairStream(*matrix["w"].shape, packed=False), wide),
        (OutputPairStream(*matrix["w"].shape, packed=False, multipliers=False), {r: wide[r] for r in ("w", "b")}),
    ]
    for layout, given_ in layouts:
        unpacked = layout.unpack(layout.pack(given_))
        assert set(unpacked) == set(given_)
        assert all(np.array_equal(a, given_[role]) for role, a in unpacked.items())
