"""Kernels for Armv6-M cores: bytes on every compiler, the bound of halved products, predicted instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen import ops
from projgen.kernels.conv_thumb1 import PixelStream
from projgen.kernels.depthwise_thumb1 import ColumnTaps
from projgen.kernels.record import KernelChoice, Layout
from projgen.kernels.render import render_block
from projgen.ops.conv import conv, sample
from projgen.ops.record import Sample
from tests.kernels.predicted import SMALL, drawn, predictions
from tests.kernels.single_node import build, choice_of, chosen, differing, extreme, instructions
from tests.kernels.test_conv_dsp import geometries, hard
from tests.kernels.test_conv_dsp_depthwise import geometries as depthwise_geometries
from tests.kernels.test_conv_dsp_depthwise import hard as depthwise

pytestmark = pytest.mark.qemu

M0 = "cortex-m0"
SAME = (1, 1, 1, 1)
KERNELS = (
    "pointwise_thumb1",
    "conv2d_thumb1",
    "pointwise_residual_thumb1",
    "conv2d_residual_thumb1",
    "depthwise_thumb1",
)


def work(samples: Sequence[Sample]) -> list[tuple[Sample, KernelChoice]]:
    """Each sample with each kernel that fits."""
    return [(s, c) for s in samples for k in KERNELS if (c := choice_of(s, k, M0)) is not None]


@cache
def everything() -> list[tuple[Sample, KernelChoice]]:
    found = work([*hard(), *depthwise(), *ops.registry()["conv2d_residual"].samples()])
    assert {c.kernel for _, c in found} == set(KERNELS)
    return found


def images(todo: Sequence[tuple[Sample, KernelChoice]], count: int = 14) -> list[list[tuple[Sample, KernelChoice]]]:
    """The work in parts that fit the board's flash."""
    return [list(todo[i : i + count]) for i in range(0, len(todo), count)]


@pytest.mark.parametrize(
    ("compiler", "optimise", "step"), [("gcc", "-O2", 1), ("gcc", "-O0", 6), ("gcc", "-Os", 5), ("clang", "-O2", 4)]
)
def test_bytes(compiler: str, optimise: str, step: int, tmp_path: Path) -> None:
    for i, part in enumerate(images(everything()[::step])):
        image = build(part, M0, tmp_path / str(i), compiler=compiler, optimise=optimise)
        assert differing(image, [s for s, _ in part]) == {}


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    todo = everything()[::2]
    image = build(todo, "host", tmp_path, sanitize=True)
    assert differing(image, [s for s, _ in todo]) == {}


@settings(max_examples=4, deadline=None)
@given(samples=st.lists(st.one_of(geometries(), depthwise_geometries()), min_size=6, max_size=6))
@pytest.mark.parametrize("target", ["host", M0])
def test_drawn(target: str, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    todo = work(samples)
    image = build(todo, target, tmp_path_factory.mktemp("drawn"))
    assert differing(image, [s for s, _ in todo]) == {}


def scaled(largest: int, m: int) -> Sample:
    """A layer whose sums reach +-largest, with the multiplier m; outputs saturate but for the smallest inputs."""
    made = extreme(sample(f"sums of {largest}", (2, 2, 3), 2, (1, 1), conv(), saturating=True))
    graph, node = made.graph, made.graph.nodes[0]
    w = graph.data(node, "w").astype(np.int64).reshape(2, -1)
    reach = largest - np.abs(w).sum(axis=1) * 128
    b = replace(graph.values[node.inputs["b"]], data=(reach * [1, -1]).astype(np.int32))
    multipliers = replace(graph.values[node.inputs["m"]], data=np.full(2, m, np.int32))
    return replace(made, graph=graph.with_(values=(b, multipliers)))


def test_products_from_halves_up_to_the_bound(tmp_path: Path) -> None:
    """|sum| / 2^16 and m / 2^16 together below 2^15 - 2: the middle products fit 32 bits, else another kernel."""
    inside = [scaled(1 << 20, (32700 << 16) - 4), scaled((1 << 30) - 1, 16000 << 16)]
    todo = work(inside)
    assert [c.kernel for _, c in todo] == ["pointwise_thumb1", "conv2d_thumb1"] * 2
    assert differing(build(todo, M0, tmp_path), [s for s, _ in todo]) == {}
    assert chosen(scaled(1 << 24, (32700 << 16) - 4), M0).kernel == "pointwise_portable"


def test_fewer_instructions_than_the_portable_c(tmp_path: Path) -> None:
    layers = {
        "pointwise": (sample("a", (5, 5, 64), 32, (1, 1), conv()), "pointwise_portable", 1.6),
        "3x3": (sample("b", (8, 8, 16), 16, (3, 3), conv(padding=SAME)), "conv2d_portable", 1.7),
        "depthwise": (sample("c", (12, 5, 16), 16, (3, 3), conv(padding=SAME, groups=16)), "depthwise_portable", 2.8),
    }
    samples = [s for s, _, _ in layers.values() for _ in range(2)]
    todo = []
    for s, portable, _ in layers.values():
        plain = choice_of(s, portable, M0)
        assert plain is not None
        todo += [(s, chosen(s, M0)), (s, plain)]
    counted = instructions(build(todo, M0, tmp_path), samples)
    for (name, (_, _, times)), fast, plain_count in zip(layers.items(), counted[::2], counted[1::2], strict=True):
        print(f"{name}: {plain_count} portable, {fast} fast, {plain_count / fast:.2f} times fewer")
        assert plain_count >= times * fast, name


def test_predicted_within_seven_per_cent() -> None:
    """Outputs that saturate take two instructions more: random layers vary."""
    samples = [s for s in drawn(1001) if s.graph.nodes[-1].op in ("conv2d", "conv2d_residual")]
    found = [p for part in (samples[::2], samples[1::2]) for p in predictions(M0, part) if "thumb1" in p.kernel]
    assert len(found) >= 8
    wrong = [p for p in found if abs(p.error) > 0.07 and abs(p.predicted - p.counted) > 0.07 * SMALL]
    assert not wrong


FAULTS = (
    ("adcs r3, r3, r6", "adds r3, r3, r6"),
    ("lsrs r7, r7, #16", "asrs r7, r7, #15"),
    ("subs r1, r1, r7", "subs r1, r1, #0"),
    ("ldrsb r7, [r2, r7]", "ldrb r7, [r2, r7]"),
    ("subs r0, r0, #12", "subs r0, r0, #8"),
    ("beq 6f", "bne 6f"),
)


@pytest.mark.parametrize(("good", "bad"), FAULTS, ids=[b for _, b in FAULTS])
def test_a_fault_is_found(good: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = [(s, c) for s, c in everything() if any(good in render_block(b) for b in c.blocks)]
    todo.sort(key=lambda one: "shift" not in one[0].name)  # where the last bit of a sum shows
    assert todo
    monkeypatch.setattr("tests.kernels.single_node.render_block", lambda block: render_block(block).replace(good, bad))
    image = build(todo[:5], M0, tmp_path)
    assert differing(image, [s for s, _ in todo[:5]]) != {}


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9)),
    residual=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_tables_hold_the_constants(shape: tuple[int, int, int, int], residual: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.integers(-128, 128, shape).astype(np.int8),
        "b": rng.integers(-(1 << 31), 1 << 31, shape[0]).astype(np.int32),
        "m": (rng.integers(1 << 20, 1 << 28, shape[0]) * 4).astype(np.int32),
    }
    taps = constants | {"w": constants["w"][..., :1]}
    if residual:
        constants["f"] = rng.integers(-(1 << 15), 1 << 15, shape[0]).astype(np.int32)
    layouts: list[tuple[Layout, dict[str, np.ndarray]]] = [
        (PixelStream(shape, residual), constants),
        (ColumnTaps((*shape[:3], 1)), taps),
    ]
    for layout, given_ in layouts:
        unpacked = layout.unpack(layout.pack(given_))
        assert set(unpacked) == set(given_)
        assert all(np.array_equal(a, given_[role]) for role, a in unpacked.items())
