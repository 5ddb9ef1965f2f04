"""Let the model's inputs and outputs take over Transposes that stand at its border.

A port states its axes' order, so a Transpose that alone reads an input (perhaps behind element-wise nodes or
padding), or that produces an output, costs nothing there.
"""

from __future__ import annotations

from dataclasses import replace

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph, Node, Port, Value
from projgen.passes.record import Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.rewrite import constant, fresh


def run(graph: Graph) -> Graph:
    for port in graph.inputs:
        graph = _absorb_input(graph, port)
    for index in range(len(graph.outputs)):
        graph = _absorb_output(graph, index)
    return graph


def _absorb_input(graph: Graph, port: Port) -> Graph:
    """Move the axes of an input, and of the nodes that lead from it to Transposes, all alike."""
    carriers: dict[str, Node] = {}
    ends: dict[str, Node] = {}
    perms: set[tuple[int, ...]] = set()
    pending = [port.value]
    while pending:
        value = pending.pop()
        if graph.is_output(value):
            return graph
        for node in graph.readers(value):
            if isinstance(node.attrs, ir.Transpose):
                ends[node.output] = node
                perms.add(node.attrs.perm)
            elif not _is_carrier(graph, node, value):
                return graph
            elif node.name not in carriers:
                carriers[node.name] = node
                pending.append(node.output)
    if len(perms) != 1 or any(graph.is_output(value) for value in ends):
        return graph
    (perm,) = perms
    values = [_permuted(graph.values[v], perm) for v in (port.value, *(n.output for n in carriers.values()))]
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.output in ends:
            continue
        kept, extra = _moved(graph, node, perm) if node.name in carriers else (node, [])
        values += extra
        inputs = {role: ends[v].inputs["x"] if v in ends else v for role, v in kept.inputs.items()}
        nodes.append(replace(kept, inputs=inputs))
    ports = tuple(replace(p, perm=tuple(p.perm[i] for i in perm)) if p is port else p for p in graph.inputs)
    return graph.with_(nodes=nodes, values=values, inputs=ports)


def _is_carrier(graph: Graph, node: Node, value: str) -> bool:
    """Whether a node means the same on permuted axes, once its attributes and constants are permuted too."""
    if node.op in {"unary", "pad"}:
        return True
    return node.op in {"add", "mul"} and node.inputs["a"] == value and graph.arg(node, "b").is_constant


def _permuted(value: Value, perm: tuple[int, ...]) -> Value:
    return replace(value, type=value.type.with_shape(tuple(value.type.shape[i] for i in perm)))


def _moved(graph: Graph, node: Node, perm: tuple[int, ...]) -> tuple[Node, list[Value]]:
    if isinstance(node.attrs, ir.Pad):
        return replace(node, attrs=replace(node.attrs, amounts=tuple(node.attrs.amounts[i] for i in perm))), []
    if node.op == "unary":
        return node, []
    moved = constant(fresh(graph, node.inputs["b"]), graph.data(node, "b").transpose(perm))
    return replace(node, inputs={**node.inputs, "b": moved.name}), [moved]


def _absorb_output(graph: Graph, index: int) -> Graph:
    port = graph.outputs[index]
    node = graph.producer(port.value)
    if node is None or not isinstance(node.attrs, ir.Transpose) or graph.readers(node.output):
        return graph
    if sum(p.value == port.value for p in graph.outputs) > 1 or graph.is_input(node.inputs["x"]):
        return graph
    inverse = sorted(range(len(node.attrs.perm)), key=node.attrs.perm.__getitem__)
    moved = replace(port, value=node.inputs["x"], perm=tuple(port.perm[i] for i in inverse))
    outputs = tuple(moved if p is port else p for p in graph.outputs)
    return graph.with_(nodes=[n for n in graph.nodes if n is not node], outputs=outputs)


PASS = Pass("absorb_ports", run, requires=(NO_DEAD_NODES,))
