"""Equalised low-rank intermediates: the same floats, and integers that are taken only where they are closer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.errors import UnsupportedError
from projgen.ir.attrs import Conv2d, Gru, Linear, Lstm, Select
from projgen.ir.graph import Array, Graph, Node
from projgen.ir.interpreter import run_float
from projgen.ir.numerics import LstmNumerics
from projgen.ir.types import TIME
from projgen.kernels.conv_blocks import is_packed
from projgen.kernels.recurrent_dsp import fits_pairs, joint_sides, sides
from projgen.quant import equalise
from projgen.quant.calibrate import Calibration, calibrate
from projgen.quant.equalise import LEAST_GAIN, Latent, diagonals, equalised, find_latents, rescale
from projgen.quant.model import QuantizedModel
from projgen.quant.packing import packable
from projgen.quant.probe import Sample, Sampler
from projgen.quant.quantise import quantise
from projgen.quant.scope import Stats
from tests.quant.build import Builder, normal


def product(k: int = 48, r: int = 6, n: int = 40, share: float = 1.0, seed: int = 0) -> Graph:
    """A linear pair of singular values 2^-j, a ``share`` of each (its exponent) in the first factor, the rest in the
    second: 1 leaves the second one orthonormal, as a projection does; above 1 its columns grow as z shrinks."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((rows, r)))[0] for rows in (n, k))
    sizes = 2.0 ** -np.arange(r)
    net = Builder(x=(k,))
    net.add("linear", "z", Linear(), x="x", w=(v.T * sizes[:, None] ** share).astype(np.float32))
    net.add("linear", "y", Linear(), x="z", w=(u * sizes ** (1 - share)).astype(np.float32), b=normal(n, seed=2))
    return net.graph("y")


def triple(share: float = 2.0) -> Graph:
    net = Builder(x=(6, 6, 16))
    sizes = 2.0 ** -np.arange(4.0)
    w = [normal(4, 1, 1, 16), normal(6, 3, 3, 4, seed=1), normal(16, 1, 1, 6, seed=2)]
    w = [w[0] * sizes.reshape(-1, 1, 1, 1) ** share, w[1] * sizes ** (1 - share), w[2]]
    w = [a.astype(np.float32) for a in w]
    net.add("conv2d", "z1", Conv2d(), x="x", w=w[0])
    net.add("conv2d", "z2", Conv2d(padding=(1, 1, 1, 1)), x="z1", w=w[1], b=normal(6, seed=4))
    net.add("conv2d", "y", Conv2d(activation="relu"), x="z2", w=w[2], b=normal(16, seed=3))
    return net.graph("y")


def sequence(cell: str = "lstm", *, joint: bool = False, share: float = 1.0, hidden: int = 12, d: int = 7) -> Graph:
    """A projected recurrent layer (ranks 4 and 3, joint 4), then a linear layer on its last step."""
    gates, kind = (4, Lstm) if cell == "lstm" else (3, Gru)
    ranks = (4, 4) if joint else (4, 3)
    weights: dict[str, Array] = {"b": normal(gates * hidden, seed=5)}
    for i, (role, q, width, rank) in enumerate((("w", "q_in", d, ranks[0]), ("r", "q_out", hidden, ranks[1]))):
        sizes = 2.0 ** -np.arange(rank)
        weights[role] = (normal(gates * hidden, rank, seed=i) * sizes ** (1 - share)).astype(np.float32)
        weights[q] = (normal(width, rank, seed=i + 2, scale=0.4) * sizes**share).astype(np.float32)
    attrs: Lstm | Gru = kind(hidden, True, True)
    if joint:
        attrs = replace(attrs, joint=True)
        del weights["r"]
    if cell == "gru":
        weights["b_hn"] = normal(hidden, seed=6)
    net = Builder(x=(TIME, d))
    net.add(cell, "h", attrs, x="x", **weights)
    net.add("select", "last", Select(0, -1), x="h")
    net.add("linear", "y", Linear(), x="last", w=normal(5, hidden, seed=7))
    return net.graph("y")


GRAPHS = {
    "linear": product(),
    "conv": triple(),
    "lstm": sequence(),
    "joint": sequence(joint=True),
    "gru": sequence("gru"),
}


def inputs(graph: Graph, count: int = 60, seed: int = 9) -> Array:
    shape = (8 if d == TIME else int(d) for d in graph.type(graph.inputs[0].value).shape)
    return normal(count, *shape, seed=seed)


def calibrated(graph: Graph, x: Array) -> tuple[Calibration, list[Sample]]:
    sampler = Sampler(graph, 1 << 30)
    return calibrate(graph, sampler.watch([(x,)])), sampler.samples


def snr(graph: Graph, calibration: Calibration, x: Array, reference: Graph) -> float:
    """Of the outputs about their means, in decibels, computed without the code under test."""
    want = run_float(reference, (x,))[0].astype(np.float64)
    got = QuantizedModel(quantise(graph, calibration))(x)
    return float(10 * np.log10(((want - want.mean(0)) ** 2).sum() / ((got - want) ** 2).sum()))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("linear", [("z", "", 1, 1)]),
        ("conv", [("z1", "", 1, 1), ("z2", "", 2, 1)]),
        ("lstm", [("z_in", "n_h", 1, 1), ("z_out", "n_h", 1, 1)]),
        ("joint", [("z", "n_h", 2, 1)]),
        ("gru", [("z_in", "n_h", 1, 1), ("z_out", "n_h", 1, 1)]),
    ],
)
def test_latents_are_found(name: str, found: list[tuple[str, str, int, int]]) -> None:
    latents = find_latents(GRAPHS[name])
    assert [(x.name, x.node, len(x.before), len(x.after)) for x in latents] == found


@given(st.sampled_from(sorted(GRAPHS)), st.lists(st.integers(-12, 3), min_size=6, max_size=6))
@settings(deadline=None, max_examples=40)
def test_the_floats_stay_the_same_bit_for_bit(name: str, exponents: list[int]) -> None:
    graph = GRAPHS[name]
    x = inputs(graph, 5)
    calibration, _ = calibrated(graph, x)
    changed = graph
    for latent in find_latents(graph):
        d = [2.0**e for e in exponents[: len(latent.stats(calibration).channels)]]
        changed, calibration = rescale(changed, calibration, latent, d)
    np.testing.assert_array_equal(run_float(changed, (x,))[0], run_float(graph, (x,))[0])
    seen, _ = calibrated(changed, x)
    for latent in find_latents(changed):
        for got, want in zip(latent.stats(calibration).channels, latent.stats(seen).channels, strict=True):
            assert (got.minimum, got.maximum) == (want.minimum, want.maximum)
            assert got.energy == pytest.approx(want.energy, rel=1e-9)
        assert latent.stats(calibration).energy == pytest.approx(latent.stats(seen).energy, rel=1e-9)


def test_a_constant_with_another_reader_is_left_to_it() -> None:
    net = Builder(x=(12,))
    net.add("linear", "z", Linear(), x="x", w=normal(4, 12))
    net.add("linear", "y", Linear(), x="z", w=normal(9, 4, seed=1))
    net.add("linear", "u", Linear(), x="x", w="z.w")
    graph = net.graph("y", "u")
    (latent,) = find_latents(graph)
    x = inputs(graph, 5)
    changed, _ = rescale(graph, calibrated(graph, x)[0], latent, (1.0, 0.5, 0.25, 0.125))
    for got, want in zip(run_float(changed, (x,)), run_float(graph, (x,)), strict=True):
        np.testing.assert_array_equal(got, want)
    y, u = (next(n for n in changed.nodes if n.output == name) for name in ("y", "u"))
    assert u.inputs["w"] == "z.w" and y.inputs["w"] != "y.w"


def test_candidates_are_powers_of_two_of_the_root_and_the_whole_ratio() -> None:
    def stats(*peaks: float) -> Stats:
        channels = tuple(Stats(-p, p / 2, p * p) for p in peaks)
        return Stats(-max(peaks), max(peaks) / 2, 1.0, channels)

    assert diagonals(stats(8.0, 2.0, 0.5)) == [(1.0, 0.5, 0.25), (1.0, 0.25, 0.0625)]
    assert diagonals(stats(1.0, 0.6)) == [(1.0, 0.5)]  # the root rounds to 1: no candidate
    assert diagonals(stats(1.0, 1.0, 0.9)) == []
    assert diagonals(stats(1.0, 1e-9, 0.0)) == [(1.0, 2.0**-12, 1.0)]
    assert diagonals(stats(0.0, 0.0)) == []


@pytest.mark.parametrize(
    ("graph", "gain"),
    [(product(share=2.0), 5.0), (triple(), 1.0), (sequence(share=2.0), 1.0), (sequence(joint=True, share=2.0), 1.0)],
    ids=["linear", "conv", "lstm", "joint"],
)
def test_taken_where_it_helps(graph: Graph, gain: float) -> None:
    x = inputs(graph)
    calibration, samples = calibrated(graph, x)
    better, seen, done = equalised(graph, calibration, samples)
    assert done and all(e.gain >= LEAST_GAIN - 0.005 for e in done)
    measured = snr(better, seen, x, graph) - snr(graph, calibration, x, graph)
    assert measured == pytest.approx(sum(e.gain for e in done), abs=0.02)
    assert measured > gain
    held_out = inputs(graph, seed=10)
    assert snr(better, seen, held_out, graph) > snr(graph, calibration, held_out, graph) + gain / 2


def test_refused_where_it_hurts() -> None:
    graph = product(share=1.0)
    x = inputs(graph)
    calibration, samples = calibrated(graph, x)
    assert equalised(graph, calibration, samples) == (graph, calibration, ())
    (latent,) = find_latents(graph)
    candidates = diagonals(latent.stats(calibration))
    assert candidates
    for d in candidates:
        assert snr(*rescale(graph, calibration, latent, d), x, graph) < snr(graph, calibration, x, graph) + LEAST_GAIN


def test_a_trial_that_can_not_be_proven_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = product(share=2.0)
    calibration, samples = calibrated(graph, inputs(graph))
    assert equalised(graph, calibration, samples)[2]

    def strict(trial: Graph, seen: Calibration) -> Graph:
        if trial is not graph:
            raise UnsupportedError("an accumulator could overflow")
        return quantise(trial, seen)

    monkeypatch.setattr(equalise, "quantise", strict)
    assert equalised(graph, calibration, samples) == (graph, calibration, ())


def test_sums_that_fit_23_bits_still_do(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = product(share=2.0)
    calibration, samples = calibrated(graph, inputs(graph))
    better, seen, done = equalised(graph, calibration, samples)
    assert done and packable(quantise(better, seen)) >= packable(quantise(graph, calibration))
    before = quantise(graph, calibration)
    monkeypatch.setattr(equalise, "packable", lambda g: {n.name for n in g.nodes} if same(g, before) else set())
    assert equalised(graph, calibration, samples) == (graph, calibration, ())


def same(a: Graph, b: Graph) -> bool:
    return all(np.array_equal(a.constant(v.name), v.data) for v in b.values.values() if v.data is not None)


def multiplies_pairs(graph: Graph, node: Node) -> bool:
    if isinstance(node.attrs, Linear | Conv2d):
        return is_packed(graph, node)
    low_rank = node.numerics.joint_low_rank if isinstance(node.numerics, LstmNumerics) else None
    both = sides(graph, node) if low_rank is None else joint_sides(graph, node, low_rank)
    return both is not None and fits_pairs(graph, node, *both)


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_23_bits_of_every_kind_of_layer(name: str) -> None:
    """The same layers that the kernels multiply pairs of weights in; none with huge biases."""
    graph = GRAPHS[name]
    quantised = quantise(graph, calibrated(graph, inputs(graph))[0])
    paired = {n.name for n in quantised.nodes if "w" in n.inputs and multiplies_pairs(quantised, n)}
    assert packable(quantised) == paired != set()
    wide = [replace(v, data=np.full_like(v.data, 2**23)) for v in quantised.values.values() if v.name.endswith(".b")]
    assert packable(quantised.with_(values=wide)) == set()


def test_quantising_twice_gives_the_same_model() -> None:
    graph = sequence(share=2.0)
    x = inputs(graph)
    models = []
    for batches in ([(x,)], [(x[:7],), (x[7:8],), (x[8:],)]):
        sampler = Sampler(graph, 1 << 20)
        calibration = calibrate(graph, sampler.watch(batches))
        better, seen, done = equalised(graph, calibration, sampler.samples)
        assert done
        models.append(QuantizedModel(quantise(better, seen)).digest())
    assert models[0] == models[1]


def test_nothing_to_do_without_low_rank_products() -> None:
    net = Builder(x=(5,))
    net.add("linear", "y", Linear(), x="x", w=normal(7, 5))
    graph = net.graph("y")
    calibration, samples = calibrated(graph, inputs(graph))
    assert equalised(graph, calibration, samples) == (graph, calibration, ())


def test_only_intermediates_are_recorded_by_channel() -> None:
    graph = sequence()
    calibration, _ = calibrated(graph, inputs(graph))
    assert all(not stats.channels for stats in calibration.stats.values())
    inner = calibration.inner["n_h"]
    assert {name: len(stats.channels) for name, stats in inner.items()} == {"h": 0, "c": 0, "z_in": 4, "z_out": 3}
    z: Any = find_latents(graph)[0]
    assert isinstance(z, Latent)
    with pytest.raises(ValueError, match="3 factors for 4 channels"):
        inner["z_in"].scaled((1.0, 1.0, 1.0))
