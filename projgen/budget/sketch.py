"""A layer alone, dense or projected, as a quantised graph with drawn weights: what it costs, before its factors exist.

Kernels depend on shapes and types, and on weights only through the largest sums that they could give; drawn weights of
a normal distribution, as a trained layer has them about, give the same kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from projgen.ir.attrs import Add, Attrs, Conv2d, ConvTranspose2d, Gru, Linear, Lstm
from projgen.ir.graph import Graph, Node, Port, Stage, Value
from projgen.ir.types import TensorType
from projgen.ops.common import need_quant
from projgen.pca.discover import Kind, Layer
from projgen.projection.ranks import DENSE, Choice
from projgen.quant.calibrate import Calibration
from projgen.quant.quantise import quantise
from projgen.quant.scope import Stats

_SEEN: Final = Stats(-3.0, 3.0, 1.0)
_BOUNDED: Final = Stats(-1.0, 1.0, 1.0)


@dataclass(slots=True)
class _Draft:
    """A float graph under construction: one value goes in, each step reads what the one before it made.

    ``x`` and ``y`` are the quantised types of the first and the last value.
    """

    x: TensorType
    y: TensorType
    values: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        self.values.append(Value("x", TensorType(self.x.shape)))

    @property
    def last(self) -> str:
        return self.nodes[-1].output if self.nodes else "x"

    def weights(self, role: str, shape: tuple[int, ...], falling: bool) -> str:
        """A constant: sums of products keep the spread of what they sum; a bias (one axis) is small.

        ``falling``: it reads the components of a projector, each of which matters less than the one before it.
        """
        fan = shape[0] if role.startswith("q_") else int(np.prod(shape[1:]))
        data = (self.rng.standard_normal(shape) / np.sqrt(max(fan, 1))).astype(np.float32)
        if len(shape) == 1:
            data *= 0.1
        elif falling:
            data /= np.arange(1, shape[-1] + 1, dtype=np.float32)
        name = f"{role}{len(self.nodes)}"
        self.values.append(Value(name, TensorType(shape), data))
        return name

    def add(self, op: str, attrs: Attrs, constants: Mapping[str, tuple[int, ...]], y: tuple[Any, ...]) -> None:
        projected = {"w": bool(self.nodes) or "q_in" in constants, "r": "q_out" in constants}
        weights = {role: self.weights(role, shape, projected.get(role, False)) for role, shape in constants.items()}
        inputs = {"x": self.last} | weights
        name = f"y{len(self.nodes)}"
        self.values.append(Value(name, TensorType(y)))
        self.nodes.append(Node(name, op, inputs, name, attrs, "sketch"))

    def added(self, activation: Any) -> None:
        """A second map of the last one's shape is added to it."""
        y = TensorType(self.values[-1].type.shape)
        self.values.append(Value("residual", y))
        inputs = {"a": self.last, "b": "residual"}
        self.values.append(Value("sum", y))
        self.nodes.append(Node("sum", "add", inputs, "sum", Add(activation), "sketch"))

    def quantised(self) -> Graph:
        """The graph with calibrated ranges that nothing was run for."""
        values = {v.name: v for v in self.values}
        inputs = [_port(values[name]) for name in ("x", "residual") if name in values]
        graph = Graph("sketch", Stage.FLOAT, tuple(inputs), (_port(values[self.last]),), tuple(self.nodes), values)
        stats = {v.name: _SEEN for v in self.values if v.data is None}
        stats |= {"x": _range(self.x), self.last: _range(self.y)}
        inner = {"c": _SEEN, "h": _BOUNDED, "z_in": _SEEN, "z_out": _SEEN, "z": _SEEN}
        return quantise(graph, Calibration(stats, {n.name: inner for n in self.nodes}, 1))


def _port(value: Value) -> Port:
    return Port(value.name, value.name, tuple(range(len(value.type.shape))))


def _range(t: TensorType) -> Stats:
    """Statistics that give a type's map again."""
    quant = need_quant(t)
    low, high = (quant.scale * (edge - quant.zero_point) for edge in (t.dtype.low, t.dtype.high))
    return Stats(low, high, 1.0)


def sketch(graph: Graph, node: Node, layer: Layer, choice: Choice = DENSE) -> Graph:
    """The layer of a quantised graph's node as it would be with other ranks, with nothing around it.

    Args:
        node: linear, conv2d, conv2d_residual, conv_transpose2d, lstm or gru. layer: the same one as it is projected.
    Returns:
        A quantised graph of one to three nodes (and a sum, where the node adds a map).
    """
    x, y = (graph.type(name) for name in (node.inputs["x"], node.output))
    draft = _Draft(x, y)
    match node.attrs:
        case Linear():
            _linear(draft, node.attrs, layer, choice, y)
        case Conv2d() | ConvTranspose2d():
            _convolution(draft, graph, node, node.attrs, layer, choice, y)
        case Lstm() | Gru():
            _recurrent(draft, node.attrs, layer, choice, y)
        case _:
            raise TypeError(f"node {node.name!r} ({node.op}) is no layer that can be projected")
    return draft.quantised()


def _linear(draft: _Draft, attrs: Linear, layer: Layer, choice: Choice, y: TensorType) -> None:
    inputs = layer.inputs
    if choice.r_in is not None:
        draft.add("linear", Linear(), {"w": (choice.r_in, inputs)}, (*y.shape[:-1], choice.r_in))
        inputs = choice.r_in
    draft.add("linear", attrs, {"w": (layer.outputs, inputs), "b": (layer.outputs,)}, y.shape)


def _convolution(
    draft: _Draft,
    graph: Graph,
    node: Node,
    attrs: Conv2d | ConvTranspose2d,
    layer: Layer,
    choice: Choice,
    y: TensorType,
) -> None:
    groups, size = attrs.groups, y.shape[:-1]
    _, rows, columns, _ = graph.data(node, "w").shape
    op = "conv_transpose2d" if isinstance(attrs, ConvTranspose2d) else "conv2d"
    residual = node.op == "conv2d_residual"
    final = "none" if residual else attrs.activation
    core, channels = replace(attrs, activation="none"), layer.inputs
    if choice.r_in is not None:
        kept, height, width = groups * choice.r_in, draft.x.shape[0], draft.x.shape[1]
        if choice.separable:
            first, core = _axes(core)
            draft.add(op, first, {"w": (kept, rows, 1, channels)}, (size[0], width, kept))
            rows = 1
        else:
            draft.add("conv2d", Conv2d(groups=groups), {"w": (kept, 1, 1, channels)}, (height, width, kept))
        channels = choice.r_in
    outputs = groups * (layer.outputs if choice.r_out is None else choice.r_out)
    if choice.r_out is None:
        core = replace(core, activation=final)
    constants = {"w": (outputs, rows, columns, channels)} | ({"b": (outputs,)} if choice.r_out is None else {})
    draft.add(op, core, constants, (*size, outputs))
    if choice.r_out is not None:
        whole = groups * layer.outputs
        last = Conv2d(groups=groups, activation=final)
        draft.add("conv2d", last, {"w": (whole, 1, 1, choice.r_out), "b": (whole,)}, (*size, whole))
    if residual:
        draft.added(attrs.activation)


def _axes(attrs: Any) -> tuple[Any, Any]:
    """The settings of a kernel's rows and of its columns, each with what belongs to its axis."""
    top, bottom, left, right = attrs.padding
    made = []
    for axis, padding in ((0, (top, bottom, 0, 0)), (1, (0, 0, left, right))):

        def one(pair: tuple[int, int], neutral: int, axis: int = axis) -> tuple[int, ...]:
            return tuple(v if i == axis else neutral for i, v in enumerate(pair))

        settings = {"stride": one(attrs.stride, 1), "dilation": one(attrs.dilation, 1), "padding": padding}
        if isinstance(attrs, ConvTranspose2d):
            settings["output_padding"] = one(attrs.output_padding, 0)
        made.append(replace(attrs, **settings))
    return made[0], made[1]


def _recurrent(draft: _Draft, attrs: Lstm | Gru, layer: Layer, choice: Choice, y: TensorType) -> None:
    rows, hidden, (r_in, r_out) = layer.outputs, layer.hidden, choice[:2]
    constants: dict[str, tuple[int, ...]] = {"w": (rows, layer.inputs if r_in is None else r_in)}
    if not choice.joint:
        constants["r"] = (rows, hidden if r_out is None else r_out)
    constants["b"] = (rows,)
    if isinstance(attrs, Gru):
        constants["b_hn"] = (hidden,)
    if r_in is not None:
        constants["q_in"] = (layer.inputs, r_in)
    if r_out is not None:
        constants["q_out"] = (hidden, r_out)
    flags = (r_in is not None, r_out is not None, False, attrs.reverse)
    made = Lstm(hidden, *flags, choice.joint) if isinstance(attrs, Lstm) else Gru(hidden, *flags)
    draft.add("lstm" if isinstance(attrs, Lstm) else "gru", made, constants, (*y.shape[:-1], hidden))


def whole_sketch(graph: Graph, chain: Sequence[Node]) -> Graph:
    """The product of a chain of factors as one layer, with nothing around it.

    Args:
        chain: linear layers, or convolutions of which at most one, or a pair of rows and columns, is larger than 1x1;
            or one recurrent layer.
    """
    first, last = chain[0], chain[-1]
    x, y = graph.type(first.inputs["x"]), graph.type(last.output)
    rows = len(graph.data(last, "w"))
    if isinstance(last.attrs, Lstm | Gru):
        kind = Kind.LSTM if isinstance(last.attrs, Lstm) else Kind.GRU
        layer = Layer("", "", kind, inputs=x.step_shape[-1], outputs=rows, hidden=last.attrs.hidden)
        return sketch(graph, last, layer)
    draft = _Draft(x, y)
    columns = int(graph.data(first, "w").shape[-1])
    if isinstance(last.attrs, Linear):
        draft.add("linear", last.attrs, {"w": (rows, columns), "b": (rows,)}, y.shape)
        return draft.quantised()
    shapes = [graph.data(node, "w").shape for node in chain]
    kernel = tuple(max(shape[axis] for shape in shapes) for axis in (1, 2))
    transposed = next((n for n in chain if isinstance(n.attrs, ConvTranspose2d)), None)
    residual = last.op == "conv2d_residual"
    parts: list[Any] = [node.attrs for node in chain]
    largest = {
        name: tuple(max(values) for values in zip(*(getattr(a, name) for a in parts if hasattr(a, name)), strict=True))
        for name in ("stride", "padding", "dilation", "output_padding")
        if transposed is not None or name != "output_padding"
    }
    attrs: Any = replace(
        parts[0] if transposed is None else transposed.attrs,
        **largest,
        activation="none" if residual else parts[-1].activation,
    )
    op = "conv2d" if transposed is None else "conv_transpose2d"
    draft.add(op, attrs, {"w": (rows, *kernel, columns), "b": (rows,)}, y.shape)
    if residual:
        draft.added(parts[-1].activation)
    return draft.quantised()


def layer_nodes(graph: Graph, layers: Iterable[Layer]) -> dict[str, Node]:
    """The node of each layer, by the layer's name; those that the graph has no node of its own for are left out."""
    found: dict[str, Node] = {}
    for layer in layers:
        mine = [n for n in graph.nodes if n.source == layer.module_name and "w" in n.inputs]
        cells = layer.cell if layer.hidden else 0
        if cells < len(mine) and isinstance(mine[cells].attrs, Lstm | Gru) == bool(layer.hidden):
            found[layer.name] = mine[cells]
    return found
