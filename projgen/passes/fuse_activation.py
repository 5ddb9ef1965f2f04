"""Let the node that computes a value also apply the relu or relu6 that alone reads it, or several in a row.

Nodes that only move values, and maxima, may stand in between: a clamp never falls, so it gives the same before them.
It goes there where every layer behind them then applies it, and nothing else reads what it changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from projgen.ir import attrs as ir
from projgen.ir.graph import Array, Graph, Node, Value
from projgen.ops.elementwise import unary
from projgen.passes.record import Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.rewrite import Edit, constant, constant_name, exhaust, fresh, make, sole_reader

_LAYERS = (ir.Linear, ir.Conv2d, ir.ConvTranspose2d, ir.Add, ir.Mul)
_MOVES = (ir.Concat, ir.MaxPool2d, ir.Reshape, ir.Transpose, ir.Slice, ir.Select, ir.Pad)


def _clamp(node: Node) -> ir.Unary | None:
    return node.attrs if isinstance(node.attrs, ir.Unary) and node.attrs.kind in {"relu", "relu6"} else None


def fuse(graph: Graph, node: Node) -> Edit | None:
    clamp = _clamp(node)
    if clamp is None:
        return None
    layer = graph.producer(node.inputs["x"])
    if layer is None or sole_reader(graph, layer.output) is None:
        return None
    if not isinstance(layer.attrs, _LAYERS):
        return None
    kind: ir.Activation = "relu6" if "relu6" in {clamp.kind, layer.attrs.activation} else "relu"
    fused = replace(layer, attrs=replace(layer.attrs, activation=kind))
    return Edit(frozenset({layer.name, node.name}), (fused,), redirect={node.output: layer.output})


def _fuses(graph: Graph, value: Value) -> bool:
    """Whether a clamp of a value would end in layers, or change constants, that only it reaches."""
    if value.data is not None:
        return True
    made = graph.producer(value.name)
    if made is None or sole_reader(graph, value.name) is None:
        return False
    return isinstance(made.attrs, _LAYERS) or (isinstance(made.attrs, _MOVES) and _all_fuse(graph, made))


def _all_fuse(graph: Graph, move: Node) -> bool:
    parts = [graph.values[v] for v in move.inputs.values()]
    return len(set(move.inputs.values())) == len(parts) and all(_fuses(graph, part) for part in parts)


def hoist(graph: Graph, node: Node) -> Edit | None:
    """A clamp behind a node that moves values goes before it, to each of its inputs."""
    clamp, move = _clamp(node), graph.producer(node.inputs["x"]) if "x" in node.inputs else None
    if clamp is None or move is None or not isinstance(move.attrs, _MOVES):
        return None
    if sole_reader(graph, move.output) is None or not _all_fuse(graph, move):
        return None

    def clamped(x: Array) -> Array:
        return unary(clamp, {"x": x})

    nodes: list[Node] = []
    values: list[Value] = []
    inputs: dict[str, str] = {}
    for role, name in move.inputs.items():
        part = graph.values[name]
        if part.data is None:
            made, value = make(fresh(graph, f"{node.name}.{role}"), "unary", clamp, {"x": part}, node.source)
            nodes.append(made)
        else:
            value = constant(constant_name(graph, move, role), clamped(part.data))
        values.append(value)
        inputs[role] = value.name
    attrs = move.attrs
    if isinstance(attrs, ir.Pad):
        attrs = replace(attrs, value=float(clamped(np.asarray(attrs.value))))
    nodes.append(replace(move, inputs=inputs, attrs=attrs))
    return Edit(frozenset({move.name, node.name}), tuple(nodes), tuple(values), {node.output: move.output})


def run(graph: Graph) -> Graph:
    return exhaust(graph, (fuse, hoist))


PASS = Pass("fuse_activation", run, requires=(NO_DEAD_NODES,), ensures=(NO_DEAD_NODES,))
