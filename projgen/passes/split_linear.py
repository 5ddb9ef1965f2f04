"""Part a fully connected layer whose outputs are only read in pieces: one layer for each piece, on the same input.

The queries, keys and values of an attention come from one layer. Cutting its output would copy it row by row, and all
three would share one scale. Layers with one row of outputs are left alone: there a piece is part of the buffer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.types import static
from projgen.passes.record import Condition, Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.remove_dead import run as remove_dead
from projgen.passes.rewrite import Edit, constant, exhaust, fresh, make

Indices = npt.NDArray[np.intp]


def part(graph: Graph, node: Node) -> Edit | None:
    """The layers of a fully connected one's pieces, each with a Reshape to the piece's shape."""
    t = graph.type(node.output)
    if not isinstance(node.attrs, ir.Linear) or t.has_time or len(t.shape) < 2 or t.elements == t.shape[-1]:
        return None
    pieces = _pieces(graph, node.output, np.arange(t.elements).reshape(static(t.shape)))
    if pieces is None:
        return None
    width = int(t.step_shape[-1])
    chosen = [_rows(index, width) for _, index in pieces]
    found = [rows for rows in chosen if rows is not None]
    if len(found) < len(pieces) or len({int(n) for rows in found for n in rows}) < sum(len(rows) for rows in found):
        return None
    nodes: list[Node] = []
    values: list[Value] = []
    redirect: dict[str, str] = {}
    for number, ((piece, _), rows) in enumerate(zip(pieces, found, strict=True)):
        name = fresh(graph, f"{node.name}.part{number}")
        w = constant(f"{name}.w", graph.data(node, "w")[rows])
        b = constant(f"{name}.b", graph.data(node, "b")[rows])
        layer = make(name, "linear", node.attrs, {"x": graph.arg(node, "x"), "w": w, "b": b}, node.source)
        shape = ir.Reshape(static(graph.type(piece.output).shape))
        view = make(f"{name}.view", "reshape", shape, {"x": layer[1]}, node.source)
        nodes += [layer[0], view[0]]
        values += [w, b, layer[1], view[1]]
        redirect[piece.output] = view[1].name
    return Edit(frozenset({node.name, *(piece.name for piece, _ in pieces)}), tuple(nodes), tuple(values), redirect)


def _pieces(graph: Graph, name: str, index: Indices) -> list[tuple[Node, Indices]] | None:
    """The Slices and Selects behind a value and its views, with the elements of the layer that each one takes.

    None where something else reads the value.
    """
    if graph.is_output(name):
        return None
    found: list[tuple[Node, Indices]] = []
    for reader in graph.readers(name):
        match reader.attrs:
            case ir.Reshape(shape):
                inner = _pieces(graph, reader.output, index.reshape(shape))
            case ir.Transpose(perm):
                inner = _pieces(graph, reader.output, index.transpose(perm))
            case ir.Slice(axis, start, stop, step):
                along = (slice(None),) * axis
                inner = [(reader, index[(*along, slice(start, stop, step))])]
            case ir.Select(axis, at):
                inner = [(reader, np.asarray(index.take(at, axis)))]
            case _:
                inner = None
        if inner is None:
            return None
        found += inner
    return found


def _rows(index: Indices, width: int) -> Indices | None:
    """The layer's outputs that a piece holds of every vector, in its order; None if it holds others of some."""
    if index.shape[-1] > width or index.ndim < 2:
        return None
    vectors = index.reshape(-1, index.shape[-1])
    rows = vectors[0]
    regular = np.array_equal(vectors, rows + width * np.arange(len(vectors))[:, None])
    return rows if regular and len(vectors) > 1 and rows.max() < width else None


def run(graph: Graph) -> Graph:
    return remove_dead(exhaust(graph, (part,)))


WHOLE = Condition(
    "no layer's outputs are only read in pieces", lambda graph: next((n for n in graph.nodes if part(graph, n)), None)
)
PASS = Pass("split_linear", run, requires=(NO_DEAD_NODES,), ensures=(NO_DEAD_NODES, WHOLE))
