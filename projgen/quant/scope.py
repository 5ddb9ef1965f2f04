"""What an operator's quantisation rule may see, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from projgen.ir.graph import Graph, Node, Value
from projgen.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Stats:
    """What calibration saw of one tensor: extremes, and the mean over samples (and steps) of sum of squares."""

    minimum: float
    maximum: float
    energy: float
    finite: bool = True

    @property
    def peak(self) -> float:
        return max(abs(self.minimum), abs(self.maximum))


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
