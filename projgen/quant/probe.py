"""A sample of the calibration inputs, kept to measure how far a model's integers are from its floats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from projgen import ops
from projgen.ir.graph import Array, Graph
from projgen.ir.interpreter import run_float, run_integer
from projgen.quant.boundary import dequantise_output, quantise_input
from projgen.quant.fixed import Floats

Batch = tuple[Array, ...]
LEAST: Final = 16  # samples that stay, whatever they cost
_ELEMENTS: Final = 1 << 24  # of all inputs that are kept
_TOGETHER: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One input of the stream: its place there, one array per port in the user's layout, and what running it costs."""

    index: int
    inputs: Batch
    macs: int


@dataclass(slots=True)
class Sampler:
    """Keeps samples of a stream that may be read once only, evenly spread over it.

    Every ``stride``-th one is kept. When they cost more than ``macs`` multiply-accumulates, or too much memory, every
    second one goes and the stride doubles. Nothing is drawn at random: the same stream gives the same samples.
    """

    graph: Graph
    macs: int
    samples: list[Sample] = field(default_factory=list)
    seen: int = 0
    _stride: int = 1
    _cost: int = 0

    def watch(self, batches: Iterable[Sequence[Array]]) -> Iterator[Sequence[Array]]:
        """The batches as they come; each is sampled after its reader has accepted it."""
        for batch in batches:
            yield batch
            macs = sample_macs(self.graph, batch)
            for row in range(len(batch[0])):
                self._see(tuple(x[row] for x in batch), macs)

    def _see(self, inputs: Batch, macs: int) -> None:
        if self.seen % self._stride == 0:
            self.samples.append(Sample(self.seen, tuple(x.copy() for x in inputs), macs))
            self._cost += macs
            elements = len(self.samples) * sum(x.size for x in inputs)
            if len(self.samples) >= 2 * LEAST and (self._cost > self.macs or elements > _ELEMENTS):
                self.samples = self.samples[::2]
                self._stride *= 2
                self._cost = sum(s.macs for s in self.samples)
        self.seen += 1


def within(samples: Sequence[Sample], macs: int) -> Sequence[Sample]:
    """The samples, or evenly spread ones of them, that cost at most ``macs``; at least 16 stay."""
    while len(samples) >= 2 * LEAST and sum(s.macs for s in samples) > macs:
        samples = samples[::2]
    return samples


def sample_macs(graph: Graph, batch: Sequence[Array]) -> int:
    """Multiply-accumulates of a float graph for one sample of a batch in the user's layout."""
    steps = max(
        (p.to_ir(x).shape[1] for p, x in zip(graph.inputs, batch, strict=True) if graph.type(p.value).has_time),
        default=1,
    )
    total = 0
    for node in graph.nodes:
        out = graph.type(node.output)
        types = {role: graph.type(value) for role, value in node.inputs.items()}
        total += ops.get(node.op).cost(node.attrs, types, out).macs * (steps if out.has_time else 1)
    return total


class Probe:
    """Compares quantised forms of one float graph with it, on samples of its inputs.

    Attributes:
        groups: samples of equal shapes, in the order of the stream.
        wanted: the float outputs of each group.
    """

    def __init__(self, graph: Graph, samples: Sequence[Sample]) -> None:
        found: dict[tuple[tuple[int, ...], ...], list[Sample]] = {}
        for sample in samples:
            found.setdefault(tuple(x.shape for x in sample.inputs), []).append(sample)
        self.groups = [g[i : i + _TOGETHER] for g in found.values() for i in range(0, len(g), _TOGETHER)]
        self._inputs = [_stacked(graph, group) for group in self.groups]
        self.wanted = [run_float(graph, inputs) for inputs in self._inputs]
        self._signal = [_spread([w[i] for w in self.wanted]) for i in range(len(graph.outputs))]

    def run(self, quantised: Graph) -> list[tuple[Array, ...]]:
        """Real outputs of the integers, per group."""
        made = []
        for inputs in self._inputs:
            types = [quantised.type(port.value) for port in quantised.inputs]
            integers = [quantise_input(x, t) for x, t in zip(inputs, types, strict=True)]
            outputs = zip(run_integer(quantised, integers), quantised.outputs, strict=True)
            made.append(tuple(dequantise_output(y, quantised.type(port.value)) for y, port in outputs))
        return made

    def noise(self, quantised: Graph) -> float:
        """Power of the difference over power of the signal (an output's part that varies), mean of the outputs."""
        return self.noise_of(self.run(quantised))

    def noise_of(self, outputs: Sequence[tuple[Array, ...]]) -> float:
        """The same of what ``run`` gave."""
        found = [0.0] * len(self._signal)
        for got, wanted in zip(outputs, self.wanted, strict=True):
            for i, (y, w) in enumerate(zip(got, wanted, strict=True)):
                found[i] += float(np.square(np.subtract(y, w, dtype=np.float64)).sum())
        return float(np.mean([error / signal for error, signal in zip(found, self._signal, strict=True)]))


def _stacked(graph: Graph, group: Sequence[Sample]) -> list[Array]:
    """The inputs of samples of equal shapes as one batch in the IR's layout."""
    columns = zip(*(sample.inputs for sample in group), strict=True)
    return [port.to_ir(np.stack(x)) for port, x in zip(graph.inputs, columns, strict=True)]


def decibels(noise: float) -> float:
    """The signal-to-noise ratio of a relative noise power."""
    return -10.0 * float(np.log10(max(noise, 1e-30)))


def _spread(parts: Sequence[Array]) -> float:
    """Power of an output about its channels' means; of the whole where nothing varies; never 0."""
    rows: Floats = np.concatenate([np.asarray(p, np.float64).reshape(-1, p.shape[-1]) for p in parts])
    return float(np.square(rows - rows.mean(axis=0)).sum()) or float(np.square(rows).sum()) or 1.0
