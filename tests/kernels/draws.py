"""Drawn one-operator graphs: odd sizes, strides, paddings, zero points, saturating weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from projgen.ir.attrs import AvgPool2d, Concat, Conv2d, ConvTranspose2d, MaxPool2d, Pad, Slice, Transpose
from projgen.ir.graph import Node
from projgen.ir.types import TIME, DType, Quant
from projgen.ops import attention, conv, conv_transpose, elementwise, layer_norm, linear, pool, shape
from projgen.ops.common import int8_type, one_node
from projgen.ops.record import Sample

ZERO = st.integers(-128, 127)
KIND = st.sampled_from([DType.INT8, DType.INT16])
ACTIVATION = st.sampled_from(["none", "relu", "relu6"])
SMALL = st.integers(1, 3)
LEAD = st.sampled_from([(), (TIME,), (2,)])

Draw = Any


def _name(draw: Draw) -> str:
    return f"drawn_{draw(st.integers(0, 2**32 - 1))}"


@st.composite
def linears(draw: Draw, inputs: int = 300, outputs: int = 21) -> Sample:
    x, y = draw(KIND), draw(KIND)
    return linear.sample(
        _name(draw),
        draw(st.integers(1, inputs)),
        draw(st.integers(1, outputs)),
        lead=draw(LEAD),
        x=x,
        y=y,
        x_zero=draw(ZERO),
        y_zero=draw(ZERO),
        activation=draw(ACTIVATION) if y is DType.INT8 else "none",
        saturating=draw(st.booleans()),
    )


@st.composite
def convs(draw: Draw) -> Sample:
    groups, y = draw(SMALL), draw(KIND)
    kernel, dilation = (draw(SMALL), draw(SMALL)), (draw(SMALL), draw(SMALL))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    reach = tuple(dilation[i] * (kernel[i] - 1) + 1 for i in range(2))
    size = [draw(st.integers(max(1, reach[i] - padding[2 * i] - padding[2 * i + 1]), 8)) for i in range(2)]
    activation = draw(ACTIVATION) if y is DType.INT8 else "none"
    attrs = Conv2d((draw(SMALL), draw(SMALL)), padding, dilation, groups, activation)  # type: ignore[arg-type]
    return conv.sample(
        _name(draw),
        (size[0], size[1], groups * draw(SMALL)),
        groups * draw(SMALL),
        kernel,
        attrs,
        x=draw(KIND),
        y=y,
        x_zero=draw(ZERO),
        y_zero=draw(ZERO),
        saturating=draw(st.booleans()),
    )


@st.composite
def transposed_convs(draw: Draw) -> Sample:
    groups, y = draw(st.sampled_from([1, 1, 2, 3])), draw(KIND)
    kernel, stride, dilation = ((draw(st.integers(1, 4)), draw(SMALL)) for _ in range(3))
    size = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    added = tuple(draw(st.integers(0, 2)) for _ in range(2))
    padding: list[int] = []
    for i in range(2):  # at least one row and column are left
        whole = (size[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + added[i]
        before = draw(st.integers(0, min(4, whole)))
        padding += [before, draw(st.integers(0, min(4, whole - before)))]
    activation = draw(ACTIVATION) if y is DType.INT8 else "none"
    attrs = ConvTranspose2d(stride, tuple(padding), added, dilation, groups, activation)  # type: ignore[arg-type]
    return conv_transpose.sample(
        _name(draw),
        (*size, groups * draw(SMALL)),
        groups * draw(SMALL),
        kernel,
        attrs,
        x=draw(KIND),
        y=y,
        x_zero=draw(ZERO),
        y_zero=draw(ZERO),
        saturating=draw(st.booleans()),
    )


@st.composite
def depthwise(draw: Draw) -> Sample:
    channels = draw(st.integers(2, 9))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    attrs = Conv2d((draw(SMALL), draw(SMALL)), padding, (draw(SMALL), 1), channels)  # type: ignore[arg-type]
    shape_ = (draw(st.integers(7, 9)), draw(st.integers(3, 8)), channels)
    kernel = (draw(SMALL), draw(SMALL))
    return conv.sample(_name(draw), shape_, channels * draw(SMALL), kernel, attrs, x_zero=draw(ZERO), y_zero=draw(ZERO))


@st.composite
def pools(draw: Draw) -> Sample:
    kernel, stride = (draw(st.integers(1, 4)), draw(st.integers(1, 4))), (draw(SMALL), draw(SMALL))
    padding = tuple(draw(st.integers(0, kernel[i // 2] - 1)) for i in range(4))
    size = tuple(draw(st.integers(max(1, kernel[i] - padding[2 * i] - padding[2 * i + 1]), 9)) for i in range(2))
    x = Quant(0.05, draw(ZERO))
    if draw(st.booleans()):
        return pool._max_sample(_name(draw), (*size, 3), MaxPool2d(kernel, stride, padding), x)  # type: ignore[arg-type]
    attrs = AvgPool2d(kernel, stride, padding, draw(st.booleans()))  # type: ignore[arg-type]
    return pool.avg_sample(_name(draw), (*size, 3), attrs, x, Quant(draw(st.floats(0.004, 0.3)), draw(ZERO)))


@st.composite
def means(draw: Draw) -> Sample:
    x, y = Quant(0.05, draw(ZERO)), Quant(draw(st.floats(0.01, 0.2)), draw(ZERO))
    return pool.mean_sample(_name(draw), draw(st.integers(1, 5)), x, y)


@st.composite
def sums_and_products(draw: Draw) -> Sample:
    op = draw(st.sampled_from(["add", "mul"]))
    a_shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    b_shape = tuple(d if draw(st.booleans()) else 1 for d in a_shape)
    scale = st.floats(0.001, 0.5)
    a, b = (int8_type(s, float(np.float32(draw(scale))), draw(ZERO)) for s in (a_shape, b_shape))
    assert a.quant is not None
    assert b.quant is not None
    typical = a.quant.scale + b.quant.scale if op == "add" else a.quant.scale * b.quant.scale * 100
    y = Quant(float(np.float32(typical * draw(st.floats(0.3, 2)))), draw(ZERO))
    constant = np.array(draw(st.lists(ZERO, min_size=1, max_size=1)), np.int8) if draw(st.booleans()) else None
    values = None if constant is None else np.resize(constant, b_shape)
    return elementwise.binary_sample(_name(draw), op, a, b, y, activation=draw(ACTIVATION), constant=values)


@st.composite
def moves(draw: Draw) -> Sample:
    """Pad, slice, transpose, concat of any rank up to three, with and without a time axis."""
    name = _name(draw)
    static = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    over_time = draw(st.booleans())
    x = int8_type((TIME, *static) if over_time else static, 0.05, draw(ZERO))
    axes = range(1 if over_time else 0, len(x.shape))
    axis = draw(st.sampled_from(list(axes)))
    match draw(st.sampled_from(["pad", "slice", "transpose", "concat"])):
        case "pad":
            amounts = tuple(
                (draw(SMALL), draw(st.integers(0, 2))) if i in axes else (0, 0) for i in range(len(x.shape))
            )
            return shape._sample(name, "pad", Pad(amounts, draw(st.floats(-9, 9))), x, shape.infer_pad)
        case "slice":
            size = int(x.shape[axis])
            start = draw(st.integers(0, size - 1))
            attrs = Slice(axis, start, draw(st.integers(start + 1, size)), draw(SMALL))
            return shape._sample(name, "slice", attrs, x, shape.infer_slice)
        case "transpose":
            moved = tuple(draw(st.permutations(list(axes))))
            perm = (0, *moved) if over_time else moved
            return shape._sample(name, "transpose", Transpose(perm), x, shape.infer_transpose)
        case _:
            count = draw(st.integers(1, 4))
            types = {f"x{i}": x for i in range(count)}
            node = Node(name, "concat", {r: r for r in types}, "y", Concat(axis))
            return one_node(name, node, {**types, "y": shape.infer_concat(Concat(axis), types)}, {})


@st.composite
def attentions(draw: Draw) -> Sample:
    scale = st.floats(0.001, 0.5)
    return attention.sample(
        _name(draw),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 8)),
        draw(st.integers(1, 33)),
        keys=draw(st.integers(1, 40)),
        width=draw(st.integers(1, 33)),
        scales=(draw(scale), draw(scale), draw(scale)),
        zeros=(draw(ZERO), draw(ZERO), draw(ZERO)),
        y=Quant(draw(scale), draw(ZERO)),
    )


@st.composite
def layer_norms(draw: Draw) -> Sample:
    return layer_norm.sample(
        _name(draw),
        draw(st.integers(1, 200)),
        lead=draw(LEAD),
        x=Quant(draw(st.floats(0.001, 0.5)), draw(ZERO)),
        y=Quant(draw(st.floats(0.01, 0.1)), draw(ZERO)),
        epsilon=draw(st.sampled_from([1e-12, 1e-5, 1e-2, 1.0])),
    )


ALL = st.one_of(
    linears(60, 9),
    convs(),
    transposed_convs(),
    depthwise(),
    pools(),
    means(),
    sums_and_products(),
    attentions(),
    layer_norms(),
    moves(),
)


def extra() -> list[Sample]:
    """Fixed graphs for what the operators' own samples leave out: every way to broadcast, and fine means."""
    a, y = int8_type((3, 4, 2, 5), 0.05, 7), Quant(0.06, 2)
    shapes = [(3, 1, 1, 1), (3, 1, 2, 1), (1, 4, 1, 5), (3, 4, 2, 1), (1, 4, 2, 1)]
    binary = [
        elementwise.binary_sample(f"{op}_{shape_}", op, a, int8_type(shape_, 0.02, -9), y)
        for op in ("add", "mul")
        for shape_ in shapes
    ]
    constant = np.arange(-60, 60, dtype=np.int8).reshape(3, 4, 2, 5)
    made = elementwise.binary_sample("add_reversed", "add", a, int8_type(a.step_shape, 0.02, 3), y, constant=constant)
    node = made.graph.nodes[0]
    swapped = replace(node, inputs={"a": node.inputs["b"], "b": node.inputs["a"]})
    reversed_ = Sample("add_reversed", made.graph.with_(nodes=(swapped,)), made.inputs)
    return [*binary, reversed_, pool.mean_sample("mean_fine", 700, Quant(0.05, 0), Quant(0.0002, 0))]


def low_rank(rank: int, *, fine: bool = False) -> Sample:
    """A low-rank pair, 64 -> rank (int16) -> 10; with ``fine`` the middle's scale is too small for packed pairs."""
    first = linear.sample(f"first_{rank}", 64, rank, y=DType.INT16, y_scale=2.0**-11 if fine else 0.0, batch=5)
    second = linear.sample(f"second_{rank}", rank, 10, x=DType.INT16)
    rename = {"x": "z", "w": "w2", "b": "b2", "m": "m2", "y": "out"}
    values = [replace(v, name=rename[n]) for n, v in second.graph.values.items() if n != "x"]
    node = second.graph.nodes[0]
    inputs = {role: rename[value] for role, value in node.inputs.items()}
    tail = replace(node, name="second", inputs=inputs, output="out")
    head = replace(first.graph.nodes[0], name="first", output="z")
    middle = replace(first.graph.values["y"], name="z")
    port = replace(second.graph.outputs[0], value="out")
    graph = first.graph.with_(nodes=(head, tail), values=[*values, middle], outputs=(port,))
    return Sample(f"low_rank_{rank}{'_fine' if fine else ''}", graph, first.inputs)


def collect(strategy: st.SearchStrategy[Sample], count: int) -> list[Sample]:
    """``count`` draws, so that one image can hold them all."""
    drawn: list[Sample] = []

    @settings(deadline=None, max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(strategy)
    def add(sample: Sample) -> None:
        drawn.append(sample)

    add()
    return drawn
