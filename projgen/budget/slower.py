"""Projected layers of a quantised model that a target runs slower than it would run their products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from projgen.budget.sketch import whole_sketch
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.options import Optimise
from projgen.schedule.choose import choose
from projgen.targets import Target


@dataclass(frozen=True, slots=True)
class Compared:
    """A projected layer: predicted instructions of one call (one step), and those of its product as one layer."""

    name: str
    projected: float
    dense: float

    @property
    def text(self) -> str:
        return f"{self.name} ({self.projected:,.0f} against {self.dense:,.0f} instructions, predicted)"


def slower_than_dense(graph: Graph, target: Target, optimise: Optimise = "speed") -> list[Compared]:
    """The projected layers of a quantised graph that would be faster dense, in the graph's order."""
    return [layer for layer in compared(graph, target, optimise) if layer.projected > layer.dense]


def compared(graph: Graph, target: Target, optimise: Optimise = "speed") -> list[Compared]:
    """Every projected layer of a quantised graph beside its product, but for those with groups."""
    found = []
    for chain in factor_chains(graph):
        if any(getattr(node.attrs, "groups", 1) > 1 for node in chain):
            continue
        whole = whole_sketch(graph, chain)
        now, dense = (
            sum(choose(g, node, target, "fast", optimise).instructions for node in nodes)
            for g, nodes in ((graph, chain), (whole, whole.nodes))
        )
        found.append(Compared(_name(chain), now, dense))
    return found


def factor_chains(graph: Graph) -> Iterator[list[Node]]:
    """The factors of each product: nodes that hand int16 intermediates on, and recurrent layers with projectors."""
    readers = {node.inputs["x"]: node for node in graph.nodes if "x" in node.inputs and "w" in node.inputs}
    for node in graph.nodes:
        if isinstance(node.attrs, Lstm | Gru):
            if node.attrs.input_projected or node.attrs.recurrent_projected:
                yield [node]
        elif "w" in node.inputs and graph.arg(node, "x").type.dtype is DType.INT8:
            chain = [node]
            while graph.type(chain[-1].output).dtype is DType.INT16 and chain[-1].output in readers:
                chain.append(readers[chain[-1].output])
            if len(chain) > 1:
                yield chain


def _name(chain: list[Node]) -> str:
    """What the sources of the factors have in common: the projected layer's name."""
    sources = [(node.source or node.name).split(".") for node in chain]
    if len(chain) == 1:
        return ".".join(sources[0])
    common = []
    for parts in zip(*sources, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common) or (chain[-1].source or chain[-1].name)
