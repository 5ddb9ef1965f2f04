"""What an operator's quantisation rule may see, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from projgen.ir.graph import Graph, Node, Value
from projgen.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Stats:
    """What calibration saw of one tensor: extremes, and the mean over samples (and steps) of sum of squares.

    ``channels`` has the same of each channel (index of the last axis), for the intermediates of low-rank pairs alone.
    """

    minimum: float
    maximum: float
    energy: float
    channels: tuple[Stats, ...] = ()

    @property
    def peak(self) -> float:
        return max(abs(self.minimum), abs(self.maximum))

    def scaled(self, factors: Sequence[float]) -> Stats:
        """Of the same tensor after channel j was multiplied by ``factors[j]`` > 0."""
        if len(factors) != len(self.channels):
            raise ValueError(f"{len(factors)} factors for {len(self.channels)} channels")
        made = tuple(
            Stats(c.minimum * f, c.maximum * f, c.energy * f * f) for c, f in zip(self.channels, factors, strict=True)
        )
        return Stats(
            min(c.minimum for c in made), max(c.maximum for c in made), math.fsum(c.energy for c in made), made
        )


@dataclass(frozen=True, slots=True, eq=False)
class QuantScope:
    """Inputs of a quantisation rule.

    Attributes:
        graph: the float-stage graph.
        types: quantised type of every activation, chosen before the rules run.
        stats: calibration statistics of every activation by value name.
        inner: statistics inside recurrent nodes by node name: "c" (cell), "h" (fed back), "z_in", "z_out".
    """

    graph: Graph
    types: Mapping[str, TensorType]
    stats: Mapping[str, Stats]
    inner: Mapping[str, Mapping[str, Stats]]


@dataclass(frozen=True, slots=True)
class Quantised:
    """The node(s) that replace a float node, and their integer constants (and any helper activations)."""

    nodes: tuple[Node, ...]
    values: tuple[Value, ...]
