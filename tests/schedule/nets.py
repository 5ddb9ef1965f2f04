"""Quantised graphs of several operators, put together by hand from the operators' own sample builders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from projgen.ir.attrs import Concat, Conv2d, MaxPool2d, Reshape, Select
from projgen.ir.graph import Array, Graph, Node, Port, Stage, Value
from projgen.ir.types import DType, Quant, TensorType
from projgen.ops import conv, conv_residual, linear, registry
from projgen.ops.pool import infer_pool
from projgen.ops.record import Sample


class Net:
    """Grows a quantised graph node by node; every method returns the new value's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.inputs: list[Port] = []

    def input(self, shape: tuple[int | str, ...], perm: tuple[int, ...] | None = None, zero: int = 4) -> str:
        name = f"in{len(self.inputs)}"
        self.values[name] = Value(name, TensorType(shape, DType.INT8, Quant(0.03125, zero)))  # type: ignore[arg-type]
        self.inputs.append(Port(name, name, perm or tuple(range(len(shape)))))
        return name

    def apply(self, sample: Sample, *sources: str, source: str = "") -> str:
        """The one node of a sample's graph, reading ``sources`` instead of the sample's inputs."""
        (node,) = sample.graph.nodes
        name = f"{node.op}{len(self.nodes)}"
        free = iter(sources)
        inputs: dict[str, str] = {}
        for role, value in node.inputs.items():
            given = sample.graph.values[value]
            if given.is_constant:
                inputs[role] = f"{name}.{role}"
                self.values[inputs[role]] = replace(given, name=inputs[role])
            else:
                inputs[role] = next(free)
                have = self.values[inputs[role]].type
                assert (have.shape, have.dtype) == (given.type.shape, given.type.dtype), (name, role, have, given.type)
        return self._add(replace(node, name=name, inputs=inputs, source=source or name), sample.graph.type(node.output))

    def view(self, op: str, attrs: Reshape | Select, x: str, shape: tuple[int | str, ...]) -> str:
        t = self.values[x].type
        node = Node(f"{op}{len(self.nodes)}", op, {"x": x}, "", attrs)
        return self._add(node, t.with_shape(shape))  # type: ignore[arg-type]

    def concat(self, axis: int, *parts: str) -> str:
        t = self.values[parts[0]].type
        size = sum(int(self.values[p].type.shape[axis]) for p in parts)
        inputs = {f"x{i}": p for i, p in enumerate(parts)}
        node = Node(f"concat{len(self.nodes)}", "concat", inputs, "", Concat(axis))
        return self._add(node, t.with_shape((*t.shape[:axis], size, *t.shape[axis + 1 :])))

    def constant(self, data: Array, like: str) -> str:
        name = f"constant{len(self.values)}"
        self.values[name] = Value(name, self.values[like].type.with_shape(data.shape), data)
        return name

    def conv(self, x: str, out: int, kernel: tuple[int, int], attrs: Conv2d | None = None, **options: int) -> str:
        shape = self.values[x].type.shape
        made = conv.sample(f"{self.name}{len(self.nodes)}", shape, out, kernel, attrs or Conv2d(), **options)  # type: ignore[arg-type]
        return self.apply(made, x)

    def linear(self, x: str, n: int) -> str:
        *lead, k = self.values[x].type.shape
        made = linear.sample(f"{self.name}{len(self.nodes)}", int(k), n, lead=tuple(lead))
        return self.apply(made, x)

    def graph(self, *outputs: str) -> Graph:
        ports = tuple(Port(v, f"out{i}", tuple(range(len(self.values[v].type.shape)))) for i, v in enumerate(outputs))
        return Graph(self.name, Stage.QUANTISED, tuple(self.inputs), ports, tuple(self.nodes), self.values)

    def _add(self, node: Node, t: TensorType) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(replace(node, output=output))
        self.values[output] = Value(output, t)
        return output


def sample_of(op: str, name: str) -> Sample:
    """An operator's sample by name."""
    return next(s for s in registry()[op].samples() if s.name == name)


def draw(graph: Graph, batch: int = 2, steps: int = 5, seed: int = 0) -> tuple[Array, ...]:
    """Integers over the whole range of every input, in the IR's layout."""
    rng = np.random.default_rng(seed)
    found: list[Array] = []
    for port in graph.inputs:
        t = graph.type(port.value)
        shape = (batch, *(steps if d == "T" else d for d in t.shape))
        found.append(rng.integers(t.dtype.low, t.dtype.high + 1, shape).astype(t.dtype.value))
    return tuple(found)


def equal(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def depthwise_pointwise(
    h: int = 9,
    w: int = 7,
    c: int = 8,
    out: int = 8,
    *,
    stride: int = 1,
    dilation: int = 1,
    before: bool = True,
    name: str = "dwpw",
) -> Graph:
    """(conv 1x1 ->) depthwise 3x3 -> pointwise -> (conv 1x1): the middle chain can stream, in place if it shrinks."""
    net = Net(name)
    x = net.input((h, w, c), perm=(1, 2, 0))
    if before:
        x = net.apply(sample_lut(net, x), x)
    attrs = Conv2d((stride, stride), (dilation,) * 4, (dilation, dilation), c)
    y = net.conv(x, c, (3, 3), attrs)
    y = net.conv(y, out, (1, 1), Conv2d(activation="relu"), y_zero=-128)
    if before:
        y = net.apply(sample_lut(net, y), y)
    return net.graph(y)


def sample_lut(net: Net, x: str) -> Sample:
    """A table lookup over a value of ``net``."""
    base = next(iter(registry()["lut"].samples()))
    (node,) = base.graph.nodes
    t = net.values[x].type
    values = dict(base.graph.values)
    values[node.inputs["x"]] = replace(values[node.inputs["x"]], type=t)
    values[node.output] = replace(values[node.output], type=t)
    return replace(base, graph=replace(base.graph, values=values))


def residual(h: int = 6, w: int = 5, c: int = 4, name: str = "residual", *, tap: bool = True) -> Graph:
    """Two branches from one map, joined by an add, then classified; ``tap``: the map is an output too."""
    net = Net(name)
    x = net.input((h, w, c), perm=(1, 2, 0))
    stem = net.conv(x, c, (3, 3), Conv2d((1, 1), (1, 1, 1, 1)))
    branch = net.conv(stem, c, (3, 3), Conv2d((1, 1), (1, 1, 1, 1), activation="relu"))
    joined = net.apply(add_of(net, stem, branch), stem, branch)
    flat = net.view("reshape", Reshape((h * w * c,)), joined, (h * w * c,))
    y = net.linear(flat, 7)
    return net.graph(y, stem) if tap else net.graph(y)


def residual_block(
    h: int = 8, w: int = 6, c: int = 8, out: int = 8, *, stride: int = 1, before: bool = True, name: str = "block"
) -> Graph:
    """(table ->) conv 3x3 -> conv 3x3 that adds the block's input, or a 1x1 convolution of it (-> table)."""
    net = Net(name)
    x = net.input((h, w, c), perm=(1, 2, 0))
    if before:
        x = net.apply(sample_lut(net, x), x)
    top, left = (int(stride == 1 or size % 2 == 1) for size in (h, w))
    branch = net.conv(x, out, (3, 3), Conv2d((stride, stride), (top, 1, left, 1), activation="relu"))
    side = x if stride == 1 and c == out else net.conv(x, out, (1, 1), Conv2d((stride, stride)))
    shape = net.values[branch].type.shape
    both = conv_residual.sample(f"{name}.sum", shape, out, (3, 3), Conv2d(padding=(1, 1, 1, 1)))  # type: ignore[arg-type]
    y = net.apply(both, branch, side)
    return net.graph(net.apply(sample_lut(net, y), y) if before else y)


def halves(h: int = 5, w: int = 6, c: int = 4, *, late: bool = False, name: str = "halves") -> Graph:
    """Two maps and a third of both, below each other, all of it read once more; ``late``: a wide layer between."""
    net = Net(name)
    x = net.input((h, w, c), perm=(1, 2, 0))
    a = net.apply(sample_lut(net, x), x)
    if late:
        wide = net.apply(sample_lut(net, x), x)
        wide = net.conv(wide, 8 * c, (1, 1))
        b = net.conv(net.apply(sample_lut(net, wide), wide), c, (3, 3), Conv2d(padding=(1, 1, 1, 1)))
    else:
        b = net.conv(a, c, (3, 3), Conv2d(padding=(1, 1, 1, 1)))
    both = net.concat(0, a, b)
    third = net.apply(add_of(net, a, b), a, b)
    joined = net.concat(0, both, third)
    return net.graph(net.apply(sample_lut(net, joined), joined))


Branch = tuple[str | int, ...] | list["Branch"]


def branches(
    h: int, w: int, c: int, parts: list[Branch], *, name: str = "branches", tap: bool = False, tail: bool = True
) -> Graph:
    """Branches from one map joined along the channels, then (``tail``) a 1x1 convolution.

    A branch is ("1x1", n), ("3x3", n), ("strip", n) for 1x3, ("reduced", m, n) for 1x1 and 3x3, ("half", n) and
    ("half1", n) for 3x3 and 1x1 with stride 2, ("pool",) and ("half_pool",) for the maximum of 3x3 and, with stride 2,
    of 2x2, ("depthwise",), ("table",), ("input",), ("constant", n), or a list of these. ``tap``: the first part is read
    by a table too.
    """
    net = Net(name)
    x = net.input((h, w, c), perm=(1, 2, 0))
    base = net.apply(sample_lut(net, x), x)
    made = [_branch(net, x, base, part) for part in parts]
    joined = net.concat(2, *made)
    y = net.conv(joined, 5, (1, 1)) if tail else joined
    return net.graph(y, net.apply(sample_lut(net, made[0]), made[0])) if tap else net.graph(y)


def _branch(net: Net, x: str, base: str, part: Branch) -> str:
    if isinstance(part, list):
        return net.concat(2, *(_branch(net, x, base, p) for p in part))
    kind, *sizes = part
    n = int(sizes[-1]) if sizes else 0
    same = Conv2d(padding=(1, 1, 1, 1), activation="relu")
    channels = int(net.values[base].type.shape[2])
    match kind:
        case "1x1":
            return net.conv(base, n, (1, 1))
        case "3x3":
            return net.conv(base, n, (3, 3), same)
        case "strip":
            return net.conv(base, n, (1, 3), Conv2d(padding=(0, 0, 1, 1)))
        case "reduced":
            return net.conv(net.conv(base, int(sizes[0]), (1, 1), Conv2d(activation="relu")), n, (3, 3), same)
        case "half":
            return net.conv(base, n, (3, 3), Conv2d((2, 2), (1, 1, 1, 1)))
        case "half1":
            return net.conv(base, n, (1, 1), Conv2d((2, 2)))
        case "pool":
            return net.apply(_pool(net, base, MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1))), base)
        case "half_pool":
            return net.apply(_pool(net, base, MaxPool2d((2, 2), (2, 2))), base)
        case "depthwise":
            return net.conv(base, channels, (3, 3), Conv2d(padding=(1, 1, 1, 1), groups=channels))
        case "table":
            return net.apply(sample_lut(net, base), base)
        case "input":
            return x
        case "constant":
            shape = (*net.values[base].type.shape[:2], n)
            return net.constant((np.arange(np.prod(shape)) % 200 - 100).astype(np.int8).reshape(shape), base)
    raise ValueError(f"no branch {part}")


def add_of(net: Net, a: str, b: str) -> Sample:
    """An add of two values of ``net``, with the zero points of their types."""
    base = next(iter(registry()["add"].samples()))
    (node,) = base.graph.nodes
    values = dict(base.graph.values)
    for role, value in (("a", a), ("b", b)):
        values[node.inputs[role]] = replace(values[node.inputs[role]], type=net.values[value].type)
    values[node.output] = replace(values[node.output], type=net.values[a].type)
    return replace(base, graph=replace(base.graph, values=values))


def recurrent(op: str, sample: str, tail: str = "last", classes: int = 3, name: str = "sequence") -> Graph:
    """A recurrent layer over time; then a classifier after the last step ("last"), on the mean ("mean"), or at every
    step ("every")."""
    net = Net(name)
    base = sample_of(op, sample)
    t = base.graph.type(base.graph.inputs[0].value)
    x = net.input(t.shape)
    net.values[x] = replace(net.values[x], type=t)
    y = net.apply(base, x, source=op)
    hidden = int(net.values[y].type.shape[-1])
    if tail == "last":
        y = net.view("select", Select(0, -1), y, (hidden,))
    if tail == "mean":
        y = net.apply(_mean(net, y), y)
    return net.graph(net.linear(y, classes))


def _mean(net: Net, x: str) -> Sample:
    base = next(iter(registry()["mean_time"].samples()))
    (node,) = base.graph.nodes
    t = net.values[x].type
    values = dict(base.graph.values)
    values[node.inputs["x"]] = replace(values[node.inputs["x"]], type=t)
    values[node.output] = replace(values[node.output], type=t.with_shape(t.shape[1:]))
    return replace(base, graph=replace(base.graph, values=values))


def static_recurrent(op: str, sample: str, rows: int = 4, *, last: bool = True, name: str = "rows") -> Graph:
    """A recurrent layer over a fixed number of rows of an image, then a classifier on its last row, or all of them."""
    net = Net(name)
    base = sample_of(op, sample)
    (node,) = base.graph.nodes
    width = int(base.graph.type(base.graph.inputs[0].value).shape[-1])
    hidden = int(base.graph.type(node.output).shape[-1])
    values = dict(base.graph.values)
    for value, shape in ((node.inputs["x"], (rows, width)), (node.output, (rows, hidden))):
        values[value] = replace(values[value], type=values[value].type.with_shape(shape))
    x = net.input((rows, width))
    net.values[x] = replace(net.values[x], type=values[node.inputs["x"]].type)
    y = net.apply(replace(base, graph=replace(base.graph, values=values)), x)
    if last:
        y = net.view("select", Select(0, rows - 1), y, (hidden,))
    else:
        y = net.view("reshape", Reshape((rows * hidden,)), y, (rows * hidden,))
    return net.graph(net.linear(y, 3))


def random_net(choices: Sequence[int], h: int, w: int, c: int, outputs: int, name: str = "random") -> Graph:
    """Tables, adds and convolutions over maps of one shape; ``choices`` decide each node and what it reads."""
    net = Net(name)
    made = [net.input((h, w, c), perm=(1, 2, 0))]
    for pick in choices:
        a, b = made[pick // 3 % len(made)], made[-1 - pick // 50 % len(made)]
        if pick % 3 == 0:
            made.append(net.apply(sample_lut(net, a), a))
        elif pick % 3 == 1:
            made.append(net.apply(add_of(net, a, b), a, b))
        else:
            made.append(net.conv(a, c, (3, 3), Conv2d((1, 1), (1, 1, 1, 1), (1, 1), c if pick % 2 else 1)))
    return net.graph(*made[-outputs:])


def _pool(net: Net, x: str, attrs: MaxPool2d) -> Sample:
    """A maximum pooling of a value of ``net``."""
    base = next(iter(registry()["max_pool2d"].samples()))
    (node,) = base.graph.nodes
    t = net.values[x].type
    values = dict(base.graph.values)
    values[node.inputs["x"]] = replace(values[node.inputs["x"]], type=t)
    values[node.output] = replace(values[node.output], type=t.with_shape(infer_pool(attrs, {"x": t}).shape))
    return replace(base, graph=replace(base.graph, nodes=(replace(node, attrs=attrs),), values=values))


def wide_branches(h: int = 6, w: int = 6, name: str = "wide") -> Graph:
    """Two branches that are widest before their ends, joined along the channels."""
    net = Net(name)
    x = net.input((h, w, 4), perm=(1, 2, 0))
    ends = []
    for _ in range(2):
        wide = net.conv(net.conv(x, 40, (1, 1)), 40, (3, 3), Conv2d(padding=(1, 1, 1, 1)))
        ends.append(net.conv(wide, 20, (1, 1)))
    return net.graph(net.conv(net.concat(2, *ends), 3, (1, 1)))
