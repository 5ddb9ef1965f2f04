"""Diagonal equalisation: components of low-rank intermediates get more equal ranges before they are rounded.

y = W z, z = Q x is the same function as y = (W D) (D^-1 Q x) for every diagonal D > 0. The int16 z has one scale for
all components, set by the largest: D below 1 makes the small ones larger, so that they are rounded less, and W's
columns for them smaller, which a row of W with one scale gains or loses by. Whether the whole gains is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from projgen.errors import InputError
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node, Value
from projgen.quant.calibrate import Calibration
from projgen.quant.fixed import Floats
from projgen.quant.low_rank import find_low_rank
from projgen.quant.packing import packable
from projgen.quant.probe import Probe, Sample, decibels, within
from projgen.quant.quantise import quantise
from projgen.quant.scope import Stats

MACS: Final = 1 << 27  # most multiply-accumulates of one measurement
LEAST_GAIN: Final = 0.1  # decibels
EXPONENTS: Final = (0.5, 1.0)  # half of the way to equal ranges, and all of it
_SMALLEST: Final = -12  # a component 2^-12 of the largest is below one step of z's 13 bits


@dataclass(frozen=True, slots=True)
class Use:
    """A constant that a node uses in a role, and the axis of it that runs over z's components."""

    node: str
    role: str
    axis: int


@dataclass(frozen=True, slots=True)
class Latent:
    """The int16 intermediate z of a low-rank product.

    Attributes:
        name: of the value, or of the trace ("z_in", "z_out", "z") inside the recurrent node ``node``.
        layer: in the user's model.
        before, after: constants whose slices are divided, and multiplied, by the diagonal.
    """

    name: str
    node: str
    layer: str
    before: tuple[Use, ...]
    after: tuple[Use, ...]

    def stats(self, calibration: Calibration) -> Stats:
        return calibration.inner[self.node][self.name] if self.node else calibration.stats[self.name]


@dataclass(frozen=True, slots=True)
class Equalised:
    """An intermediate that was equalised: its layer and name, and the decibels that the model's outputs gained."""

    layer: str
    name: str
    gain: float


def equalised(
    graph: Graph, calibration: Calibration, samples: Sequence[Sample]
) -> tuple[Graph, Calibration, tuple[Equalised, ...]]:
    """The same float model with those intermediates equalised that bring its integers closer to its floats.

    One intermediate after the other, in execution order, is tried with the diagonals of ``EXPONENTS``; each trial
    quantises the whole model and runs its integers on the samples. The best one stays if the outputs' signal-to-noise
    ratio grows by 0.1 dB or more, and if every accumulator that provably fits 23 bits (pairs of weights are multiplied
    at once then) still does.

    Args:
        graph: float stage, canonical.
        calibration: of this very graph.
        samples: of the calibration inputs.
    Raises:
        UnsupportedError: as ``quantise``, of the model as it is. A trial that can't be quantised is no candidate.
    """
    latents = find_latents(graph)
    if not latents:
        return graph, calibration, ()
    probe = Probe(graph, within(samples, MACS))
    current = quantise(graph, calibration)
    best, packs = decibels(probe.noise(current)), packable(current)
    done: list[Equalised] = []
    for latent in latents:
        found: tuple[float, Graph, Calibration] | None = None
        for d in diagonals(latent.stats(calibration)):
            trial, seen = rescale(graph, calibration, latent, d)
            try:
                quantised = quantise(trial, seen)
            except InputError:
                continue
            ratio = decibels(probe.noise(quantised))
            if packable(quantised) >= packs and ratio >= (best + LEAST_GAIN if found is None else found[0]):
                found = ratio, trial, seen
        if found is not None:
            done.append(Equalised(latent.layer, latent.name, round(found[0] - best, 2)))
            best, graph, calibration = found
    return graph, calibration, tuple(done)


def find_latents(graph: Graph) -> list[Latent]:
    """Every intermediate of a low-rank product that is quantised to int16, in execution order."""
    low_rank = find_low_rank(graph)
    found: list[Latent] = []
    for node in graph.nodes:
        if node.output in low_rank:
            before = tuple(Use(node.name, role, 0) for role in ("w", "b") if role in node.inputs)
            after = tuple(Use(r.name, "w", graph.data(r, "w").ndim - 1) for r in graph.readers(node.output))
            found.append(Latent(node.output, "", node.source or node.name, before, after))
        if isinstance(node.attrs, Lstm | Gru):
            found += _inside(node)
    return found


def _inside(node: Node) -> list[Latent]:
    """The intermediates of a projected recurrent layer; a joint one (without r) has one for both operands."""
    layer = node.source or node.name
    factors = [role for role in ("q_in", "q_out") if role in node.inputs]
    if "r" not in node.inputs:
        return [Latent("z", node.name, layer, tuple(Use(node.name, q, 1) for q in factors), (Use(node.name, "w", 1),))]
    made = {"q_in": ("z_in", "w"), "q_out": ("z_out", "r")}
    return [
        Latent(trace, node.name, layer, (Use(node.name, q, 1),), (Use(node.name, gates, 1),))
        for q in factors
        for trace, gates in (made[q],)
    ]


def diagonals(stats: Stats) -> list[tuple[float, ...]]:
    """Candidates for D: d_j = (max|z_j| / max|z|)^e for each exponent e, as a power of two; none where all are 1.

    Powers of two change no float of the model but by their own factor, and leave the rows of Q the same integers.
    """
    peaks = np.array([channel.peak for channel in stats.channels])
    ratio: Floats = np.ones(len(peaks))
    np.divide(peaks, peaks.max(initial=0.0), out=ratio, where=peaks > 0.0)
    found: list[tuple[float, ...]] = []
    for exponent in EXPONENTS:
        d = tuple((2.0 ** np.clip(np.rint(exponent * np.log2(ratio)), _SMALLEST, 0)).tolist())
        if d not in found and any(x != 1.0 for x in d):
            found.append(d)
    return found


def rescale(graph: Graph, calibration: Calibration, latent: Latent, d: Sequence[float]) -> tuple[Graph, Calibration]:
    """The model with z's components divided by ``d`` and their readers multiplied; what calibration sees of it."""
    nodes = {node.name: node for node in graph.nodes}
    values: list[Value] = []
    inverse = [1.0 / x for x in d]
    for use, factors in (*((u, inverse) for u in latent.before), *((u, d) for u in latent.after)):
        node = nodes[use.node]
        old = graph.constant(node.inputs[use.role])
        shape = [1] * old.ndim
        shape[use.axis] = len(d)
        data = old * np.asarray(factors, old.dtype).reshape(shape)
        name = f"{node.name}.{use.role}.by_{latent.name}"  # the constant may have other readers
        values.append(Value(name, graph.type(node.inputs[use.role]), data))
        nodes[use.node] = replace(node, inputs={**node.inputs, use.role: name})
    graph = graph.with_(nodes=nodes.values(), values=values)
    scaled = latent.stats(calibration).scaled(inverse)
    if not latent.node:
        return graph, replace(calibration, stats={**calibration.stats, latent.name: scaled})
    inner = {**calibration.inner[latent.node], latent.name: scaled}
    return graph, replace(calibration, inner={**calibration.inner, latent.node: inner})
