"""Let the weights of fully connected and recurrent layers take over Transposes beside them.

A map flattened in PyTorch's order (C, H, W) is a Transpose and a Reshape of the IR's (H, W, C): the columns of the
weights that read it are permuted instead. Likewise the rows of a layer whose output is reshaped and transposed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.types import static
from projgen.passes.record import Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.remove_dead import run as remove_dead
from projgen.passes.rewrite import Edit, exhaust, fresh, make, sole_reader, with_constants

Indices = npt.NDArray[np.intp]
_VIEWS = (ir.Reshape, ir.Transpose)


def columns(graph: Graph, node: Node) -> Edit | None:
    """Transposes before a layer: a Reshape of their source, and the columns of its input weights permuted."""
    role = _input_weights(node)
    if role is None:
        return None
    joined = graph.producer(node.inputs["x"])
    if joined is not None and joined.op == "concat" and graph.type(joined.output).shape[:-1] == ():
        return _joined_columns(graph, node, joined, role)
    found = _untransposed(graph, node.inputs["x"])
    if found is None:
        return None
    root, order = found
    view = make(
        fresh(graph, f"{node.name}.flat"),
        "reshape",
        ir.Reshape(static(graph.type(node.inputs["x"]).shape)),
        {"x": root},
        node.source,
    )
    moved, values = with_constants(graph, node, {role: _permuted(graph, node, role, order)})
    moved = replace(moved, inputs={**moved.inputs, "x": view[1].name})
    return Edit(frozenset({node.name}), (view[0], moved), (*values, view[1]))


def _input_weights(node: Node) -> str | None:
    """The constant whose features are those of the layer's input."""
    match node.attrs:
        case ir.Linear():
            return "w"
        case ir.Lstm() | ir.Gru():
            return "q_in" if node.attrs.input_projected else "w"
        case _:
            return None


def _permuted(graph: Graph, node: Node, role: str, order: Indices) -> npt.NDArray[np.generic]:
    """The weights for an input whose feature ``order[k]`` stands where feature k stood."""
    data = graph.data(node, role)
    back = np.argsort(order)
    return data[back] if role == "q_in" else data[:, back]


def _joined_columns(graph: Graph, node: Node, joined: Node, role: str) -> Edit | None:
    """The same through a Concat of vectors that only this layer reads, piece by piece."""
    if sole_reader(graph, joined.output) is None:
        return None
    orders, nodes, values = [], [], []
    inputs = dict(joined.inputs)
    start, found_any = 0, False
    for piece, name in joined.inputs.items():
        size = graph.type(name).elements
        found = _untransposed(graph, name)
        if found is None:
            orders.append(start + np.arange(size))
        else:
            found_any = True
            base = f"{joined.name}.{piece}.flat"
            made = make(fresh(graph, base), "reshape", ir.Reshape((size,)), {"x": found[0]}, joined.source)
            nodes.append(made[0])
            values.append(made[1])
            inputs[piece] = made[1].name
            orders.append(start + found[1])
        start += size
    if not found_any:
        return None
    moved, changed = with_constants(graph, node, {role: _permuted(graph, node, role, np.concatenate(orders))})
    again = replace(joined, inputs=inputs)
    return Edit(frozenset({joined.name, node.name}), (*nodes, again, moved), (*values, *changed))


def _untransposed(graph: Graph, name: str) -> tuple[Value, Indices] | None:
    """The value before a chain of views with a Transpose, if only the order within rows changes.

    Returns it and ``order``: feature k of a row is element ``order[k]`` of the same row before the chain.
    """
    chain: list[Node] = []
    t = graph.type(name)
    while (view := graph.producer(name)) is not None and isinstance(view.attrs, _VIEWS):
        chain.insert(0, view)
        name = view.inputs["x"]
    if t.has_time or not t.shape or not any(view.op == "transpose" for view in chain):
        return None
    shape = static(graph.type(name).shape)
    index = np.arange(int(np.prod(shape))).reshape(shape)
    for view in chain:
        index = _through(index, view)
    rows = index.reshape(-1, index.shape[-1])
    order = rows[0]
    regular = rows == order + rows.shape[1] * np.arange(len(rows))[:, None]
    if not regular.all() or not np.array_equal(np.sort(order), np.arange(len(order))):
        return None
    return graph.values[name], order


def _through(index: Indices, view: Node) -> Indices:
    if isinstance(view.attrs, ir.Reshape):
        return index.reshape(view.attrs.shape)
    assert isinstance(view.attrs, ir.Transpose)
    return index.transpose(view.attrs.perm)


def rows(graph: Graph, node: Node) -> Edit | None:
    """Transposes after a fully connected layer with a vector as output: the rows of its weights permuted."""
    if not isinstance(node.attrs, ir.Transpose):
        return None
    index, name = np.arange(graph.type(node.output).elements), node.output
    chain: list[Node] = []
    while (view := graph.producer(name)) is not None and isinstance(view.attrs, _VIEWS):
        chain.insert(0, view)
        name = view.inputs["x"]
        if sole_reader(graph, name) is None:
            return None
    if view is None or not isinstance(view.attrs, ir.Linear) or len(graph.type(name).shape) != 1:
        return None
    for step in chain:
        index = _through(index, step)
    order = index.reshape(-1)
    moved, values = with_constants(graph, view, {"w": graph.data(view, "w")[order], "b": graph.data(view, "b")[order]})
    shape = ir.Reshape(static(graph.type(node.output).shape))
    flat = make(fresh(graph, f"{view.name}.map"), "reshape", shape, {"x": graph.values[name]}, node.source)
    dropped = frozenset({view.name, *(step.name for step in chain)})
    return Edit(dropped, (moved, flat[0]), (*values, flat[1]), {node.output: flat[1].name})


def run(graph: Graph) -> Graph:
    return remove_dead(exhaust(graph, (columns, rows)))


PASS = Pass("absorb_layout", run, requires=(NO_DEAD_NODES,), ensures=(NO_DEAD_NODES,))
