"""Compute once what two nodes compute alike: same operator, same attributes, same inputs."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.passes.record import Condition, Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.rewrite import Edit, exhaust


def _twin(graph: Graph, node: Node) -> Node | None:
    """An earlier node that computes the same."""
    for other in graph.nodes:
        if other is node:
            return None
        if (other.op, other.attrs, other.inputs) == (node.op, node.attrs, node.inputs):
            return other
    return None


def merge(graph: Graph, node: Node) -> Edit | None:
    twin = _twin(graph, node)
    return None if twin is None else Edit(frozenset({node.name}), redirect={node.output: twin.output})


def run(graph: Graph) -> Graph:
    return exhaust(graph, (merge,))


DISTINCT = Condition(
    "no two nodes compute the same", lambda graph: next((n for n in graph.nodes if _twin(graph, n)), None)
)
PASS = Pass("merge_duplicates", run, requires=(NO_DEAD_NODES,), ensures=(NO_DEAD_NODES, DISTINCT))
