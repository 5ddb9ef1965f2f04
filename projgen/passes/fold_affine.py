"""Fold BatchNorm, and constants added to or multiplied with channels, into a neighbouring layer.

y = scale * x + shift per channel merges into the convolution or fully connected layer before it, else into the
layer after it (a shift only where that layer neither pads nor is transposed), else it becomes a depthwise 1x1
convolution. Behind a symbolic time axis, where a map can't be formed, that last form is a fully connected layer with a
diagonal matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from projgen.ir import attrs as ir
from projgen.ir.graph import Array, Graph, Node
from projgen.ir.types import static
from projgen.passes.record import Condition, Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.rewrite import Edit, apply, constant, exhaust, fresh, make, sole_reader, swap, with_constants

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """scale * x + shift, one pair per channel (the last axis)."""

    scale: Floats
    shift: Floats

    @property
    def uniform(self) -> bool:
        """Whether all channels have one pair."""
        return len(np.unique(self.scale)) == 1 and len(np.unique(self.shift)) == 1


def affine(graph: Graph, node: Node) -> Affine | None:
    """A node as scale and shift per channel, if it is nothing but that."""
    if isinstance(node.attrs, ir.BatchNorm):
        mean, variance, gamma, beta = (
            graph.data(node, role).astype(np.float64) for role in ("mean", "variance", "gamma", "beta")
        )
        scale = gamma / np.sqrt(variance + node.attrs.epsilon)
        return Affine(scale, beta - mean * scale)
    if not isinstance(node.attrs, ir.Add | ir.Mul) or node.attrs.activation != "none":
        return None
    b = graph.arg(node, "b")
    channels = graph.type(node.output).shape[-1:]
    if b.data is None or not channels or b.data.size != b.data.shape[-1]:
        return None
    numbers = np.broadcast_to(b.data.reshape(-1).astype(np.float64), static(channels))
    if isinstance(node.attrs, ir.Add):
        return Affine(np.ones_like(numbers), numbers)
    return Affine(numbers, np.zeros_like(numbers))


def source(node: Node) -> str:
    return node.inputs["a" if node.op in {"add", "mul"} else "x"]


def into_producer(graph: Graph, node: Node) -> Edit | None:
    """conv, then scale and shift: its kernels times scale, its bias times scale plus shift."""
    form = affine(graph, node)
    layer = graph.producer(source(node)) if form is not None else None
    if form is None or layer is None or sole_reader(graph, layer.output) is None:
        return None
    if not isinstance(layer.attrs, ir.Linear | ir.Conv2d | ir.ConvTranspose2d) or layer.attrs.activation != "none":
        return None
    w, b = graph.data(layer, "w").astype(np.float64), graph.data(layer, "b").astype(np.float64)
    scaled = w * form.scale.reshape(-1, *(1,) * (w.ndim - 1))
    folded, values = with_constants(graph, layer, {"w": scaled, "b": b * form.scale + form.shift})
    return Edit(frozenset({layer.name, node.name}), (folded,), values, {node.output: layer.output})


def into_reader(graph: Graph, node: Node) -> Edit | None:
    """scale and shift, then a layer: its weights times scale, its bias plus weights times shift."""
    views: list[Node] = []
    value = node.inputs.get("x", "")
    while sole_reader(graph, value) is not None:
        before = graph.producer(value)
        if before is None or not isinstance(before.attrs, ir.Reshape | ir.Transpose):
            break
        views.insert(0, before)
        value = before.inputs["x"]
    first = graph.producer(value)
    form = affine(graph, first) if first is not None and sole_reader(graph, value) is not None else None
    if first is None or form is None:
        return None
    numbers = [_at_layer(graph, v, value, views) for v in (form.scale, form.shift)]
    if numbers[0] is None or numbers[1] is None:
        return None
    changed = _scaled_input(graph, node, numbers[0], numbers[1])
    if changed is None:
        return None
    folded, values = with_constants(graph, node, changed)
    if not views:
        folded = replace(folded, inputs={**folded.inputs, "x": source(first)})
    return Edit(frozenset({first.name, node.name}), (folded,), values, {first.output: source(first)})


def _at_layer(graph: Graph, v: Floats, value: str, views: list[Node]) -> Floats | None:
    """Numbers per channel of a value as numbers per feature of what the layer reads through views."""
    if not views:
        return v
    t = graph.type(value)
    if t.has_time:
        return None
    whole = np.broadcast_to(v, static(t.shape))
    for view in views:
        whole = whole.reshape(view.attrs.shape) if isinstance(view.attrs, ir.Reshape) else _moved(whole, view)
    row = whole.reshape(-1, whole.shape[-1])[0] if whole.ndim else None
    return row if row is not None and np.array_equal(whole, np.broadcast_to(row, whole.shape)) else None


def _moved(v: Floats, view: Node) -> Floats:
    assert isinstance(view.attrs, ir.Transpose)
    return v.transpose(view.attrs.perm)


def _scaled_input(graph: Graph, node: Node, scale: Floats, shift: Floats) -> dict[str, Array] | None:
    """The layer's weights and bias for an input that lacks scale and shift; None where it can't take them."""
    if not isinstance(node.attrs, ir.Linear | ir.Conv2d | ir.ConvTranspose2d | ir.Lstm | ir.Gru):
        return None
    w, b = graph.data(node, "w").astype(np.float64), graph.data(node, "b").astype(np.float64)
    if isinstance(node.attrs, ir.Conv2d | ir.ConvTranspose2d):
        sees_all = isinstance(node.attrs, ir.Conv2d) and not any(node.attrs.padding)
        if shift.any() and not sees_all:
            return None
        group = np.arange(len(w)) // (len(w) // node.attrs.groups)
        scales, shifts = (v.reshape(node.attrs.groups, -1)[group][:, None, None, :] for v in (scale, shift))
        return {"w": w * scales, "b": b + (w * shifts).sum(axis=(1, 2, 3))}
    if isinstance(node.attrs, ir.Lstm | ir.Gru) and node.attrs.input_projected:
        q = graph.data(node, "q_in").astype(np.float64)
        return {"q_in": q * scale[:, None], "b": b + w @ (q.T @ shift)}
    return {"w": w * scale, "b": b + w @ shift}


def merge_uniform(graph: Graph, node: Node) -> Edit | None:
    """Sums and products with single numbers, one after the other: at most one product, then one sum."""
    outer = affine(graph, node)
    before = graph.producer(source(node)) if outer is not None else None
    inner = affine(graph, before) if before is not None else None
    if outer is None or not outer.uniform or node.op == "batch_norm":
        return None
    if inner is None or before is None or not inner.uniform or sole_reader(graph, before.output) is None:
        keep = not (outer.scale == 1).all() or outer.shift.any()
        passes_input = graph.is_output(node.output) and graph.is_input(source(node))
        return None if keep or passes_input else Edit(frozenset({node.name}), redirect={node.output: source(node)})
    if (before.op, node.op) == ("mul", "add"):
        return None
    x = graph.values[source(before)]
    nodes, values = [], []
    factor, term = outer.scale[0] * inner.scale[0], outer.scale[0] * inner.shift[0] + outer.shift[0]
    steps: tuple[tuple[str, str, ir.Add | ir.Mul, float, float], ...] = (
        (before.name, "mul", ir.Mul(), factor, 1.0),
        (node.name, "add", ir.Add(), term, 0.0),
    )
    for name, op, attrs, number, neutral in steps:
        if number != neutral:
            b = constant(fresh(graph, f"{name}.{op}"), np.full((1,) * len(x.type.shape), number))
            made, x = make(name, op, attrs, {"a": x, "b": b}, node.source)
            nodes.append(made)
            values += [b, x]
    if not nodes and graph.is_output(node.output) and graph.is_input(x.name):
        return None
    return Edit(frozenset({before.name, node.name}), tuple(nodes), tuple(values), {node.output: x.name})


def _is_left(graph: Graph, node: Node) -> bool:
    """Whether a scale and shift still needs a layer of its own; one number for all channels stays a sum or product."""
    form = affine(graph, node)
    return form is not None and not (node.op in {"add", "mul"} and form.uniform)


def into_own_layer(graph: Graph, node: Node) -> Edit | None:
    form = affine(graph, node) if _is_left(graph, node) else None
    if form is None:
        return None
    x = graph.values[source(node)]
    channels = len(form.scale)
    name, bias = node.name, constant(fresh(graph, f"{node.name}.shift"), form.shift)
    if x.type.has_time:
        w = constant(fresh(graph, f"{node.name}.scale"), np.diag(form.scale))
        layer = make(name, "linear", ir.Linear(), {"x": x, "w": w, "b": bias}, node.source)
        return swap(node, [layer], constants=(w, bias))
    shape = static(x.type.shape)
    made = []
    if len(shape) != 3:
        flat = ir.Reshape((1, x.type.elements // channels, channels))
        made.append(make(fresh(graph, f"{node.name}.map"), "reshape", flat, {"x": x}, node.source))
        x = made[-1][1]
    w = constant(fresh(graph, f"{node.name}.scale"), form.scale.reshape(channels, 1, 1, 1))
    conv = ir.Conv2d(groups=channels)
    made.append(make(name, "conv2d", conv, {"x": x, "w": w, "b": bias}, node.source))
    if len(shape) != 3:
        inputs = {"x": made[-1][1]}
        made.append(make(fresh(graph, f"{node.name}.view"), "reshape", ir.Reshape(shape), inputs, node.source))
    return swap(node, made, constants=(w, bias))


def into_attention(graph: Graph, node: Node) -> Edit | None:
    """A product of queries or keys with one number: exporters scale them instead of the scores."""
    if not isinstance(node.attrs, ir.Attention):
        return None
    for role in ("q", "k"):
        value = node.inputs[role]
        alone = list(node.inputs.values()).count(value) == 1
        before = graph.producer(value)
        while before is not None and isinstance(before.attrs, ir.Reshape | ir.Transpose):
            alone = alone and sole_reader(graph, value) is not None
            value = before.inputs["x"]
            before = graph.producer(value)
        form = affine(graph, before) if before is not None and alone else None
        if before is None or form is None or before.op != "mul" or not form.uniform:
            continue
        if sole_reader(graph, value) is not None:
            folded = replace(node, attrs=ir.Attention(node.attrs.scale * float(form.scale[0])))
            if node.inputs[role] == value:
                folded = replace(folded, inputs={**folded.inputs, role: source(before)})
            return Edit(frozenset({before.name, node.name}), (folded,), redirect={value: source(before)})
    return None


_RULES = (merge_uniform, into_producer, into_reader, into_attention)


def run(graph: Graph) -> Graph:
    graph = exhaust(graph, _RULES)
    while (node := _unfolded(graph)) is not None:
        edit = into_own_layer(graph, node)
        assert edit is not None
        graph = exhaust(apply(graph, node, edit), _RULES)
    return graph


def _unfolded(graph: Graph) -> Node | None:
    return next((node for node in graph.nodes if _is_left(graph, node)), None)


FOLDED = Condition("no BatchNorm and no scale or shift per channel stands alone", _unfolded)
PASS = Pass("fold_affine", run, requires=(NO_DEAD_NODES,), ensures=(NO_DEAD_NODES, FOLDED))
