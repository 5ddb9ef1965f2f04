"""What every activation of a quantised graph can hold, per channel, proven for all inputs of the model.

A bound is found by running the integer meaning on extremes. An operator without a rule here is bounded by its output's
type, so a new operator needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from projgen import ops
from projgen.ir.attrs import Conv2d, ConvTranspose2d
from projgen.ir.graph import Array, Graph, Node
from projgen.ir.numerics import MatrixNumerics
from projgen.ir.types import TIME, TensorType
from projgen.quant.fixed import Ints, requantise

# Operators that never give a smaller integer for larger inputs (their multipliers and factors are positive).
_RISING: Final = frozenset(
    {"max_pool2d", "avg_pool2d", "mean_time", "add", "pad", "slice", "select", "reshape", "transpose", "concat"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Smallest and largest integer, (C,) each: one entry per index of the last axis."""

    low: Ints
    high: Ints

    @property
    def constant(self) -> Array:
        """Channels that hold one integer everywhere, whatever the input."""
        return np.asarray(self.low == self.high)


def channel_bounds(graph: Graph) -> dict[str, Bounds]:
    """Bounds of every activation of a quantised graph, by value name."""
    found = {port.value: _whole(graph.type(port.value)) for port in graph.inputs}
    for node in graph.nodes:
        found[node.output] = _bounds(graph, node, found)
    return found


def folded_constants(node: Node, x: Bounds) -> Array:
    """Channels of x whose part in every sum of a matrix node is one number: constant, and unchanged by its padding."""
    numerics = _numerics(node)
    padded = _sees_padding(node)
    return np.asarray(x.constant & (x.low == numerics.input_zero_point if padded else True))


def _bounds(graph: Graph, node: Node, found: Mapping[str, Bounds]) -> Bounds:
    y = graph.type(node.output)
    if node.op in ("linear", "conv2d", "conv2d_residual", "conv_transpose2d"):
        return _matrix(graph, node, found)
    if node.op == "lut":
        table, x = graph.data(node, "table"), found[node.inputs["x"]]
        seen = [table[low + 128 : high + 129] for low, high in zip(x.low, x.high, strict=True)]
        return Bounds(np.array([s.min() for s in seen], np.int64), np.array([s.max() for s in seen], np.int64))
    if node.op in _RISING:
        return Bounds(_at(graph, node, found, "low").min(axis=0), _at(graph, node, found, "high").max(axis=0))
    if node.op == "mul":
        corners = [_at(graph, node, found, *ends) for ends in product(("low", "high"), repeat=2)]
        return Bounds(np.min(corners, axis=(0, 1)), np.max(corners, axis=(0, 1)))
    return _whole(y)


def _whole(t: TensorType) -> Bounds:
    channels = int(t.shape[-1]) if t.step_shape else 1
    return Bounds(np.full(channels, t.dtype.low, np.int64), np.full(channels, t.dtype.high, np.int64))


def _at(graph: Graph, node: Node, found: Mapping[str, Bounds], *ends: str) -> Ints:
    """The output, (positions, C), with each activation at an end of its bounds; one end is for all, two alternate."""
    integer = ops.get(node.op).integer
    if integer is None:
        raise ValueError(f"operator {node.op!r} of node {node.name!r} has no integer meaning")
    args: dict[str, Array] = {}
    for i, role in enumerate(node.inputs):
        value = graph.arg(node, role)
        if value.data is None:
            end = ends[i % len(ends)]
            shape = (1, *(1 if d == TIME else d for d in value.type.shape))
            args[role] = np.broadcast_to(getattr(found[value.name], end), shape)
        else:
            args[role] = value.data
    y = np.asarray(integer(node, args), np.int64)
    return y.reshape(-1, y.shape[-1])


def _matrix(graph: Graph, node: Node, found: Mapping[str, Bounds]) -> Bounds:
    """Every sum at its smallest and largest; padding adds the zero point to what a tap may see."""
    numerics = _numerics(node)
    w, b, m = (graph.data(node, role).astype(np.int64) for role in ("w", "b", "m"))
    low, high = found[node.inputs["x"]].low, found[node.inputs["x"]].high
    if _sees_padding(node):
        low, high = np.minimum(low, numerics.input_zero_point), np.maximum(high, numerics.input_zero_point)
    rows = w.reshape(len(w), -1, w.shape[-1])
    rise, fall = np.maximum(rows, 0).sum(axis=1), np.minimum(rows, 0).sum(axis=1)
    groups = node.attrs.groups if isinstance(node.attrs, Conv2d | ConvTranspose2d) else 1
    group = np.arange(len(w)) // (len(w) // groups)  # of each output
    low, high = low.reshape(groups, -1)[group], high.reshape(groups, -1)[group]
    least, most = b + (rise * low + fall * high).sum(axis=1), b + (rise * high + fall * low).sum(axis=1)
    if "residual" in node.inputs:
        f, residual = graph.data(node, "f").astype(np.int64), found[node.inputs["residual"]]
        least, most = least + f * residual.low, most + f * residual.high
    requant = numerics.requant
    ends = (requantise(acc, m, requant.shift) + requant.zero_point for acc in (least, most))
    return Bounds(*(np.clip(end, requant.low, requant.high) for end in ends))


def _sees_padding(node: Node) -> bool:
    """Whether taps may meet no pixel and see the zero point: around the map, or between a transposed one's pixels."""
    if isinstance(node.attrs, Conv2d):
        return any(node.attrs.padding)
    return isinstance(node.attrs, ConvTranspose2d)


def _numerics(node: Node) -> MatrixNumerics:
    if not isinstance(node.numerics, MatrixNumerics):
        raise ValueError(f"node {node.name!r} has no matrix numerics")
    return node.numerics
