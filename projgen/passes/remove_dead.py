"""Remove nodes whose output nobody reads; constants nobody reads go with them."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.passes.record import Condition, Pass


def _unread(graph: Graph) -> Node | None:
    read = {name for node in graph.nodes for name in node.inputs.values()} | {port.value for port in graph.outputs}
    return next((node for node in graph.nodes if node.output not in read), None)


NO_DEAD_NODES = Condition("every node is read", _unread)


def run(graph: Graph) -> Graph:
    needed = {port.value for port in graph.outputs}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs.values())
    return graph.with_(nodes=reversed(kept))


PASS = Pass("remove_dead", run, ensures=(NO_DEAD_NODES,))
