"""Cancel, merge and move Reshapes and Transposes so that few remain and none parts nodes that belong together.

Reshapes and Transposes sink below element-wise nodes: there they meet others and cancel, and a layer stands next
to its activation. Transposes that only move axes of size 1 are Reshapes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from projgen.ir import attrs as ir
from projgen.ir.graph import Array, Graph, Node, Value
from projgen.ir.types import TIME, Dim, static
from projgen.passes.record import Condition, Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.remove_dead import run as remove_dead
from projgen.passes.rewrite import Edit, constant, constant_name, exhaust, fresh, make, sole_reader, swap

_POINTWISE = frozenset({"unary", "add", "mul", "batch_norm"})


def drop_identity(graph: Graph, node: Node) -> Edit | None:
    """A Reshape to the same shape, a Transpose that moves nothing."""
    if not isinstance(node.attrs, ir.Reshape | ir.Transpose):
        return None
    source = node.inputs["x"]
    if graph.type(source) != graph.type(node.output) or (graph.is_output(node.output) and graph.is_input(source)):
        return None
    if isinstance(node.attrs, ir.Transpose) and node.attrs.perm != tuple(range(len(node.attrs.perm))):
        return None
    return Edit(frozenset({node.name}), redirect={node.output: source})


def merge(graph: Graph, node: Node) -> Edit | None:
    """Two Reshapes in a row, or two Transposes, are one."""
    inner = graph.producer(node.inputs["x"]) if "x" in node.inputs else None
    if inner is None or inner.op != node.op:
        return None
    if isinstance(node.attrs, ir.Reshape):
        attrs: ir.Attrs = node.attrs
    elif isinstance(node.attrs, ir.Transpose) and isinstance(inner.attrs, ir.Transpose):
        attrs = ir.Transpose(tuple(inner.attrs.perm[i] for i in node.attrs.perm))
    else:
        return None
    source = graph.arg(inner, "x")
    return swap(node, [make(node.name, node.op, attrs, {"x": source}, node.source)])


def unit_transpose(graph: Graph, node: Node) -> Edit | None:
    """A Transpose that leaves the order of the axes larger than 1 is a Reshape."""
    if not isinstance(node.attrs, ir.Transpose):
        return None
    shape = graph.type(node.inputs["x"]).shape
    larger = [axis for axis in node.attrs.perm if shape[axis] != 1]
    if TIME in shape or larger != sorted(larger):
        return None
    attrs = ir.Reshape(static(graph.type(node.output).shape))
    return swap(node, [make(node.name, "reshape", attrs, {"x": graph.arg(node, "x")}, node.source)])


def sink(graph: Graph, node: Node) -> Edit | None:
    """An element-wise node on Reshapes (or Transposes) of equal sources: compute on the sources, then reshape."""
    if node.op not in _POINTWISE:
        return None
    views = [graph.producer(value.name) for _, value in graph.activations(node)]
    first = views[0] if views else None
    if first is None or first.op not in {"reshape", "transpose"}:
        return None
    if any(view is None or view.op != first.op or view.attrs != first.attrs for view in views):
        return None
    sources = [graph.type(view.inputs["x"]).shape for view in views if view is not None]
    if len(set(sources)) != 1:
        return None
    if isinstance(first.attrs, ir.Transpose) and any(
        sole_reader(graph, v.name) is None for _, v in graph.activations(node)
    ):
        return None
    return _sunk(graph, node, first, sources[0])


def _sunk(graph: Graph, node: Node, view: Node, source: tuple[Dim, ...]) -> Edit | None:
    if not isinstance(view.attrs, ir.Reshape | ir.Transpose):
        return None
    inputs: dict[str, Value] = {}
    added: list[Value] = []
    for role, name in node.inputs.items():
        value = graph.values[name]
        if value.data is None:
            producer = graph.producer(name)
            assert producer is not None
            inputs[role] = graph.arg(producer, "x")
            continue
        if node.op == "batch_norm":
            if view.op != "reshape" or not source or source[-1] != graph.type(node.output).shape[-1]:
                return None
            inputs[role] = value
            continue
        data = _under(value.data, view.attrs, graph.type(node.output).shape, source)
        if data is None:
            return None
        inputs[role] = constant(constant_name(graph, node, role), data)
        added.append(inputs[role])
    moved = make(node.name, node.op, node.attrs, inputs, node.source)
    again = make(fresh(graph, view.name), view.op, view.attrs, {"x": moved[1]}, node.source)
    return swap(node, [moved, again], constants=added)


def _under(
    data: Array, view: ir.Reshape | ir.Transpose, after: tuple[Dim, ...], before: tuple[Dim, ...]
) -> Array | None:
    """A broadcast constant as it stands beside the source of a view, or None where it can't."""
    if isinstance(view, ir.Transpose):
        return data.transpose(np.argsort(view.perm))
    if data.size == 1:
        return data.reshape((1,) * len(before))
    if data.size == data.shape[-1] and before and before[-1] == after[-1]:
        return data.reshape((*(1,) * (len(before) - 1), data.size))
    return data.reshape(static(before)) if data.shape == after else None


def pad_after_view(graph: Graph, node: Node) -> Edit | None:
    """A Reshape that puts an axis of size 1 in front of a padded value goes before the padding."""
    padded = graph.producer(node.inputs["x"]) if isinstance(node.attrs, ir.Reshape) else None
    if padded is None or not isinstance(padded.attrs, ir.Pad) or sole_reader(graph, padded.output) is None:
        return None
    source = graph.arg(padded, "x")
    if graph.type(node.output).shape != (1, *graph.type(padded.output).shape):
        return None
    attrs = ir.Reshape((1, *static(source.type.shape)))
    view = make(node.name, "reshape", attrs, {"x": source}, node.source)
    pad = replace(padded.attrs, amounts=((0, 0), *padded.attrs.amounts))
    again = make(padded.name, "pad", pad, {"x": view[1]}, padded.source)
    dropped = frozenset({padded.name, node.name})
    return Edit(dropped, (view[0], again[0]), (view[1], again[1]), {node.output: again[1].name})


def run(graph: Graph) -> Graph:
    return remove_dead(exhaust(graph, (drop_identity, merge, unit_transpose, sink, pad_after_view)))


def _needless(graph: Graph) -> Node | None:
    return next((node for node in graph.nodes if drop_identity(graph, node) or merge(graph, node)), None)


SIMPLE_VIEWS = Condition("no view is an identity or follows one of its kind", _needless)
PASS = Pass("simplify_views", run, requires=(NO_DEAD_NODES,), ensures=(NO_DEAD_NODES, SIMPLE_VIEWS))
