"""Let the node that computes a value also apply the relu or relu6 that alone reads it, or several in a row."""

from __future__ import annotations

from dataclasses import replace

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph, Node
from projgen.passes.record import Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.rewrite import Edit, exhaust, sole_reader


def fuse(graph: Graph, node: Node) -> Edit | None:
    if not isinstance(node.attrs, ir.Unary) or node.attrs.kind not in {"relu", "relu6"}:
        return None
    layer = graph.producer(node.inputs["x"])
    if layer is None or sole_reader(graph, layer.output) is None:
        return None
    if not isinstance(layer.attrs, ir.Linear | ir.Conv2d | ir.ConvTranspose2d | ir.Add | ir.Mul):
        return None
    kind: ir.Activation = "relu6" if "relu6" in {node.attrs.kind, layer.attrs.activation} else "relu"
    fused = replace(layer, attrs=replace(layer.attrs, activation=kind))
    return Edit(frozenset({layer.name, node.name}), (fused,), redirect={node.output: layer.output})


def run(graph: Graph) -> Graph:
    return exhaust(graph, (fuse,))


PASS = Pass("fuse_activation", run, requires=(NO_DEAD_NODES,), ensures=(NO_DEAD_NODES,))
