"""Removes channels that hold one integer whatever the input, and channels that nobody reads. No output byte changes.

The quantised weights and the bounds that follow from them decide, never the calibration data. A constant is folded
into the bias of the matrices that read it; a zero-padded convolution takes only the padding's own value for a constant,
since any other one differs at the borders. Operators that work channel by channel lose their channels together with the
layer before them. The model's inputs and outputs keep theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from projgen.ir.attrs import Concat, Conv2d, ConvTranspose2d, Pad, Reshape, Select, Slice, Transpose
from projgen.ir.graph import Array, Graph, Node, Value
from projgen.ir.types import TensorType
from projgen.quant.bounds import Bounds, channel_bounds, folded_constants

Mask = npt.NDArray[np.bool_]
Kept = dict[str, Mask]  # by activation: which indices of its last axis stay


@dataclass(frozen=True, slots=True)
class RemovedChannels:
    """What a layer lost: ``removed`` of the ``total`` channels of its output."""

    layer: str
    removed: int
    total: int


def remove_dead_channels(graph: Graph) -> tuple[Graph, tuple[RemovedChannels, ...]]:
    """The graph without dead channels, and what each linear layer and convolution lost, in execution order.

    Args:
        graph: at the quantised stage. The result gives the same bytes for every input.
    """
    bounds = channel_bounds(graph)
    kept = _kept(graph, bounds)
    removed = tuple(
        RemovedChannels(node.source or node.name, int((~kept[node.output]).sum()), kept[node.output].size)
        for node in graph.nodes
        if "w" in node.inputs and not kept[node.output].all()
    )
    if all(mask.all() for mask in kept.values()):
        return graph, ()
    nodes: list[Node] = []
    values: list[Value] = []
    for node in graph.nodes:
        made, constants = _narrowed(graph, node, bounds, kept)
        nodes.append(made)
        values += constants
    values += [Value(name, _narrow_type(graph.type(name), mask)) for name, mask in kept.items()]
    return graph.with_(nodes=nodes, values=values), removed


def _kept(graph: Graph, bounds: Mapping[str, Bounds]) -> Kept:
    """The smallest sets of channels that hold what is needed and that every operator can be left with."""
    ports = {port.value for port in (*graph.inputs, *graph.outputs)}
    kept = {name: np.full(b.low.size, name in ports) for name, b in bounds.items()}
    while True:
        before = sum(int(mask.sum()) for mask in kept.values())
        for node in reversed(graph.nodes):
            _require(graph, node, bounds, kept)
        if sum(int(mask.sum()) for mask in kept.values()) > before:
            continue
        empty = next((mask for mask in kept.values() if not mask.any()), None)
        if empty is None:
            return kept
        empty[0] = True  # a tensor has at least one channel


def _require(graph: Graph, node: Node, bounds: Mapping[str, Bounds], kept: Kept) -> None:
    """Adds to the sets of a node's activations what the node asks of them."""
    y, names = kept[node.output], [value.name for _, value in graph.activations(node)]
    if "residual" in node.inputs:
        _tie(kept, [node.output, node.inputs["residual"]])
    last = len(graph.type(node.output).shape) - 1
    match node.attrs:
        case _ if node.op == "linear" or (isinstance(node.attrs, Conv2d | ConvTranspose2d) and node.attrs.groups == 1):
            name = node.inputs["x"]
            read = graph.data(node, "w")[y].reshape(-1, kept[name].size).any(axis=0)
            kept[name] |= read & ~folded_constants(node, bounds[name])
        case Conv2d(groups=groups) | ConvTranspose2d(groups=groups) if groups == kept[node.inputs["x"]].size:
            x = kept[node.inputs["x"]]
            x |= y.reshape(groups, -1).any(axis=1)
            y |= np.repeat(x, y.size // groups)
        case Concat(axis=axis) if axis == last:
            _tie_parts(graph, node, kept)
        case Slice(axis=axis) | Concat(axis=axis) if axis != last:
            _tie(kept, [node.output, *names])
        case Select(axis=axis) if axis <= last:
            _tie(kept, [node.output, *names])
        case Pad(amounts=amounts) if amounts[-1] == (0, 0):
            _tie(kept, [node.output, *names])
        case Transpose(perm=perm) if perm[-1] == last:
            _tie(kept, [node.output, *names])
        case Reshape():
            _tie_reshaped(graph, node, kept)
        case _ if node.op in ("lut", "max_pool2d", "avg_pool2d", "mean_time", "add", "mul"):
            alike = [name for name in names if kept[name].size == y.size]
            _tie(kept, [node.output, *alike])
            for name in names:
                if name not in alike:
                    kept[name][:] = True
        case _:
            for name in (node.output, *names):
                kept[name][:] = True


def _tie(kept: Kept, names: list[str]) -> None:
    """The same channels of all."""
    union = np.logical_or.reduce([kept[name] for name in names])
    for name in names:
        kept[name] |= union


def _tie_parts(graph: Graph, node: Node, kept: Kept) -> None:
    """A concat's output has the channels of its inputs; of a constant, those that are read."""
    y, start = kept[node.output], 0
    for name in node.inputs.values():
        part = y[start : start + int(graph.type(name).shape[-1])]
        if name in kept:
            part |= kept[name]
            kept[name] |= part
        start += part.size


def _tie_reshaped(graph: Graph, node: Node, kept: Kept) -> None:
    """The same elements in row-major order, as whole channels on both sides."""
    x = node.inputs["x"]
    shapes = {name: graph.type(name).step_shape for name in (x, node.output)}
    for one, other in ((x, node.output), (node.output, x)):
        elements = np.broadcast_to(kept[one], shapes[one]).reshape(-1, kept[other].size)
        kept[other] |= elements.any(axis=0)


def _narrowed(graph: Graph, node: Node, bounds: Mapping[str, Bounds], kept: Kept) -> tuple[Node, tuple[Value, ...]]:
    """The node on the channels that stay, and its changed constants."""
    y = kept[node.output]
    if node.op in ("linear", "conv2d", "conv2d_residual", "conv_transpose2d"):
        return _matrix(graph, node, bounds[node.inputs["x"]], kept[node.inputs["x"]], y)
    if isinstance(node.attrs, Reshape) and node.attrs.shape:
        return replace(node, attrs=Reshape((*node.attrs.shape[:-1], int(y.sum())))), ()
    changed: dict[str, Array] = {}
    start = 0
    joins = isinstance(node.attrs, Concat) and node.attrs.axis == len(graph.type(node.output).shape) - 1
    for role, value in ((role, graph.arg(node, role)) for role in node.inputs):
        width = int(value.type.shape[-1]) if value.type.shape else 1
        part = y[start : start + width] if joins else y
        start += width
        if value.data is not None and node.op in ("add", "mul", "concat") and part.size == width:
            changed[role] = value.data[..., part]
    return _with_constants(graph, node, changed)


def _matrix(graph: Graph, node: Node, bounds: Bounds, x: Mask, y: Mask) -> tuple[Node, tuple[Value, ...]]:
    """A linear layer or convolution: removed constants of x move into the bias."""
    w, b = graph.data(node, "w")[y], graph.data(node, "b")[y]
    rows = {role: graph.data(node, role)[y] for role in ("m", "f") if role in node.inputs}
    if isinstance(node.attrs, Conv2d | ConvTranspose2d) and node.attrs.groups > 1:
        depthwise = node.attrs.groups == x.size
        attrs = replace(node.attrs, groups=int(x.sum())) if depthwise else node.attrs
        return _with_constants(graph, replace(node, attrs=attrs), {"w": w, "b": b, **rows})
    held = np.where(bounds.constant & ~x, bounds.low, 0)
    sums = w.reshape(len(w), -1, w.shape[-1]).astype(np.int64).sum(axis=1)
    bias = b + sums @ held
    return _with_constants(graph, node, {"w": w[..., x], "b": bias.astype(np.int32), **rows})


def _with_constants(graph: Graph, node: Node, changed: Mapping[str, Array]) -> tuple[Node, tuple[Value, ...]]:
    """The node with other data in some roles; a constant that other nodes read too is left to them."""
    inputs, values = dict(node.inputs), []
    for role, data in changed.items():
        old = graph.arg(node, role)
        if len(graph.readers(old.name)) > 1:
            inputs[role] = f"{node.name}.{role}.kept"
        t = TensorType(tuple(data.shape), old.type.dtype, old.type.quant)
        values.append(Value(inputs[role], t, np.ascontiguousarray(data)))
    return replace(node, inputs=inputs), tuple(values)


def _narrow_type(t: TensorType, mask: Mask) -> TensorType:
    return t.with_shape((*t.shape[:-1], int(mask.sum()))) if t.shape else t
