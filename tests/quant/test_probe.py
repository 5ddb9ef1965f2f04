"""Samples kept of a stream, and the noise measured on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from projgen.ir.attrs import Linear, Select
from projgen.ir.attrs import Lstm as LstmAttrs
from projgen.ir.graph import Array, Graph
from projgen.ir.interpreter import run_float
from projgen.ir.types import TIME
from projgen.quant.calibrate import calibrate
from projgen.quant.model import QuantizedModel
from projgen.quant.probe import LEAST, Probe, Sampler, decibels, sample_macs, within
from projgen.quant.quantise import quantise
from tests.quant.build import Builder, normal


def two_outputs() -> Graph:
    net = Builder(x=(5,))
    net.add("linear", "h", Linear("relu"), x="x", w=normal(7, 5), b=normal(7, seed=1))
    net.add("linear", "y", Linear(), x="h", w=normal(2, 7, seed=2), b=normal(2, seed=3, scale=9.0))
    return net.graph("y", "h")


def sequence() -> Graph:
    net = Builder(x=(TIME, 3))
    weights = {"w": normal(16, 3), "r": normal(16, 4, seed=1), "b": normal(16, seed=2)}
    net.add("lstm", "h", LstmAttrs(4), x="x", **weights)
    net.add("select", "last", Select(0, -1), x="h")
    net.add("linear", "y", Linear(), x="last", w=normal(2, 4, seed=3))
    return net.graph("y")


def watched(graph: Graph, macs: int, batches: list[Array]) -> Sampler:
    sampler = Sampler(graph, macs)

    def once() -> Iterator[tuple[Array]]:
        for x in batches:
            yield (x,)

    assert [len(b[0]) for b in sampler.watch(once())] == [len(x) for x in batches]
    return sampler


def test_cost_of_a_sample_counts_its_steps() -> None:
    graph = sequence()
    assert sample_macs(graph, (normal(2, 6, 3),)) == 6 * (16 * 3 + 16 * 4) + 8
    assert sample_macs(two_outputs(), (normal(9, 5),)) == 35 + 14


@pytest.mark.parametrize("sizes", [(100,), (1,) * 100, (33, 1, 66)])
def test_samples_are_spread_evenly_whatever_the_batches(sizes: tuple[int, ...]) -> None:
    x = normal(100, 5)
    batches = np.split(x, np.cumsum(sizes)[:-1])
    every = watched(two_outputs(), 100 * 49, batches).samples
    assert [s.index for s in every] == list(range(100))
    quarter = watched(two_outputs(), 49 * 49, batches).samples
    assert [s.index for s in quarter] == list(range(0, 100, 4))
    np.testing.assert_array_equal(np.stack([s.inputs[0] for s in quarter]), x[::4])
    few = watched(two_outputs(), 1, batches).samples
    assert LEAST <= len(few) < 2 * LEAST
    assert [s.index for s in within(every, 49 * 49)] == [s.index for s in quarter]
    assert LEAST <= len(within(every, 1)) < 2 * LEAST


def test_noise_is_the_mean_of_the_outputs_shares() -> None:
    graph = two_outputs()
    x = normal(80, 5, seed=4)
    sampler = Sampler(graph, 1 << 30)
    quantised = quantise(graph, calibrate(graph, sampler.watch([(x,)])))
    want, got = run_float(graph, (x,)), QuantizedModel(quantised)(x)
    shares = [((g - w) ** 2).sum() / ((w - w.mean(0)) ** 2).sum() for g, w in zip(got, want, strict=True)]
    probe = Probe(graph, sampler.samples)
    assert [len(g) for g in probe.groups] == [64, 16]
    assert probe.noise(quantised) == pytest.approx(np.mean(shares), rel=1e-5)
    assert decibels(0.001) == pytest.approx(30.0)


def test_sequences_of_several_lengths_are_grouped() -> None:
    graph = sequence()
    batches = [normal(3, 6, 3), normal(2, 4, 3, seed=1), normal(1, 6, 3, seed=2)]
    sampler = Sampler(graph, 1 << 30)
    quantised = quantise(graph, calibrate(graph, sampler.watch([(b,) for b in batches])))
    probe = Probe(graph, sampler.samples)
    assert [[s.index for s in group] for group in probe.groups] == [[0, 1, 2, 5], [3, 4]]
    outputs = [QuantizedModel(quantised)(b) for b in batches]
    np.testing.assert_array_equal(probe.run(quantised)[0][0], np.concatenate([outputs[0], outputs[2]]))
    np.testing.assert_array_equal(probe.run(quantised)[1][0], outputs[1])


def test_an_output_that_never_varies_is_measured_against_itself() -> None:
    net = Builder(x=(3,))
    net.add("linear", "y", Linear(), x="x", w=np.zeros((2, 3), np.float32), b=np.array([1.0, 2.0], np.float32))
    graph = net.graph("y")
    sampler = Sampler(graph, 1 << 30)
    quantised = quantise(graph, calibrate(graph, sampler.watch([(normal(20, 3),)])))
    assert 0.0 <= Probe(graph, sampler.samples).noise(quantised) < 1e-4
