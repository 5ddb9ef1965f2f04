"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from projgen.ir.attrs import Activation, Linear
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.numerics import MatrixNumerics, Requant
from projgen.ir.types import TIME, Dim, DType, Quant, TensorType
from projgen.ops.common import (
    activate,
    as_attrs,
    clamp_range,
    constant_type,
    draw,
    draw_near,
    generator,
    need_quant,
    one_node,
    require,
)
from projgen.ops.record import Args, Array, Cost, OpDef, Sample, Types
from projgen.quant.fixed import real_scale, requantise
from projgen.quant.matrix import prove_matrix, quantise_rows
from projgen.quant.scope import Quantised, QuantScope


def infer(_attrs: Linear, types: Types) -> TensorType:
    """x (..., K), w (N, K), b (N,) -> (..., N)."""
    x, w = types["x"].shape, types["w"].shape
    require(len(x) >= 1 and len(w) == 2, f"linear: x {x} and w {w}", "x (..., K) and w (N, K)")
    require(x[-1] == w[1], f"linear: x has {x[-1]} features and w takes {w[1]}", "equal sizes")
    if "b" in types:
        require(types["b"].shape == (w[0],), f"linear: b has shape {types['b'].shape}", f"({w[0]},)")
    return TensorType((*x[:-1], w[0]))


def reference(attrs: Linear, args: Args) -> Array:
    y = args["x"] @ args["w"].T
    return activate(attrs.activation, y + args["b"] if "b" in args else y)


def integer(node: Node, args: Args) -> Array:
    """acc = w q_x + b exactly (float64 holds every partial sum below 2^53), then one requantisation."""
    numerics = matrix_numerics(node)
    acc = (args["x"].astype(np.float64) @ args["w"].astype(np.float64).T).astype(np.int64) + args["b"]
    return rescale(acc, args["m"], numerics.requant)


def oracle(graph: Graph, node: Node, args: Args) -> Array:
    wide = dequantised_rows(graph, node, args)
    return to_lsb(graph, node, reference(replace(as_attrs(node, Linear), activation="none"), wide))


def quantise(scope: QuantScope, node: Node) -> Quantised:
    return quantise_matrix_node(scope, node, as_attrs(node, Linear).activation)


def cost(_attrs: Linear, types: Types, out: TensorType) -> Cost:
    return Cost(macs=out.elements * types["w"].step_shape[1], elements=out.elements)


# What linear and conv share: roles x, w, b, m and one MatrixNumerics.


def matrix_numerics(node: Node) -> MatrixNumerics:
    if not isinstance(node.numerics, MatrixNumerics):
        raise ValueError(f"node {node.name!r} has no matrix numerics")
    return node.numerics


def rescale(acc: Array, m: Array, requant: Requant) -> Array:
    """y = clamp(zero point + RQ(acc, m, p), low, high); m runs over the last axis."""
    return np.clip(requant.zero_point + requantise(acc, m, requant.shift), requant.low, requant.high)


def dequantised_rows(graph: Graph, node: Node, args: Args) -> dict[str, Array]:
    """The real x, w and b that the integers of a matrix node stand for, in float64."""
    numerics = matrix_numerics(node)
    s_x = need_quant(graph.arg(node, "x").type).scale
    s_y = need_quant(graph.type(node.output)).scale
    acc_scale = real_scale(args["m"], numerics.requant.shift) * s_y
    w = args["w"].astype(np.float64)
    bias = args["b"] + numerics.input_zero_point * w.reshape(len(w), -1).sum(axis=1)
    shape = (-1, *[1] * (w.ndim - 1))
    return {
        "x": (args["x"].astype(np.float64) - numerics.input_zero_point) * s_x,
        "w": w * (acc_scale / s_x).reshape(shape),
        "b": bias * acc_scale,
    }


def to_lsb(graph: Graph, node: Node, y: Array) -> Array:
    """Reals in units of the output's LSB, zero point added, kept within the node's clamps."""
    requant = matrix_numerics(node).requant
    return np.clip(y / need_quant(graph.type(node.output)).scale + requant.zero_point, requant.low, requant.high)


def quantise_matrix_node(scope: QuantScope, node: Node, activation: Activation) -> Quantised:
    """Integer w, b and m for a float linear or convolution node."""
    x, y = scope.types[node.inputs["x"]], scope.types[node.output]
    bias = scope.graph.data(node, "b") if "b" in node.inputs else None
    rows = quantise_rows(node.name, scope.graph.data(node, "w"), bias, x, y)
    low, high = clamp_range(activation, y)
    numerics = MatrixNumerics(need_quant(x).zero_point, Requant(rows.shift, need_quant(y).zero_point, low, high))
    constants: dict[str, Array] = {"w": rows.w, "b": rows.b, "m": rows.m}
    names = {role: f"{node.name}.{role}" for role in constants}
    values = tuple(Value(names[role], constant_type(c), c) for role, c in constants.items())
    return Quantised((replace(node, inputs={"x": node.inputs["x"], **names}, numerics=numerics),), values)


def sample(
    name: str,
    k: int,
    n: int,
    *,
    lead: tuple[Dim, ...] = (),
    x: DType = DType.INT8,
    y: DType = DType.INT8,
    x_zero: int = 3,
    y_zero: int = -5,
    y_scale: float = 0.0,
    w_scale: float = 1.0,
    activation: Activation = "none",
    saturating: bool = False,
    batch: int = 2,
) -> Sample:
    """A quantised linear layer with random (or, saturating, all-extreme) rows; y_scale 0 picks a fitting scale."""
    rng = generator(name)
    w = np.where(rng.random((n, k)) < 0.5, -1.0, 1.0) if saturating else rng.standard_normal((n, k))
    if saturating:
        w[0], w[-1] = 1.0, -1.0
    w *= w_scale
    b = rng.standard_normal(n) * (0.01 if y_scale else 0.5) * w_scale
    s_x = 2.0**-9 if x is DType.INT16 else 0.03125
    x_type = TensorType((*lead, k), x, Quant(s_x, x_zero if x is DType.INT8 else 0))
    spread = float(np.abs(w).sum(axis=1).max()) * s_x * (80 if x is DType.INT8 else 2000)
    wide = DType.INT16 is y
    scale = y_scale or (2.0 ** np.ceil(np.log2(spread / 4095)) if wide else float(np.float32(spread / 255)))
    y_type = TensorType((*lead, n), y, Quant(scale, 0 if wide else y_zero))
    rows = quantise_rows(name, w, b, x_type, y_type)
    low, high = clamp_range(activation, y_type)
    numerics = MatrixNumerics(
        need_quant(x_type).zero_point, Requant(rows.shift, need_quant(y_type).zero_point, low, high)
    )
    inputs = {"x": "x", "w": "w", "b": "b", "m": "m"}
    node = Node(name, "linear", inputs, "y", Linear(activation), numerics=numerics)
    constants: dict[str, Array] = {"w": rows.w, "b": rows.b, "m": rows.m}
    # int16 operands are low-rank intermediates: 13 bits used, 3 of headroom.
    data = draw_near(rng, x_type) if y_scale else draw(rng, x_type, batch)
    if x is DType.INT16:
        data = (data // 8).astype(np.int16)
    return one_node(name, node, {"x": x_type, "y": y_type}, constants, (data,))


def samples() -> Iterator[Sample]:
    yield sample("linear_1x1", 1, 1)
    yield sample("linear_7x3", 7, 3)
    yield sample("linear_12x9_relu", 12, 9, activation="relu", y_zero=-128)
    yield sample("linear_16x16_relu6", 16, 16, activation="relu6", y_zero=-128)
    yield sample("linear_33x5_relu_zero_inside", 33, 5, activation="relu", y_zero=-20)
    yield sample("linear_64x32", 64, 32)
    yield sample("linear_100x9", 100, 9)
    yield sample("linear_129x4_saturating", 129, 4, saturating=True, x_zero=-128, y_zero=127)
    yield sample("linear_130x6_saturating", 130, 6, saturating=True, x_zero=127, y_zero=-128)
    yield sample("linear_9x8_preshift", 9, 8, y_scale=2.0**-11)
    yield sample("linear_5x4_preshift_far", 5, 4, y_scale=2.0**-16, w_scale=0.05)
    yield sample("linear_time_12x8", 12, 8, lead=(TIME,))
    yield sample("linear_rows_3x10x6", 10, 6, lead=(3,))
    yield sample("linear_40x6_to_int16", 40, 6, y=DType.INT16)
    yield sample("linear_time_13x4_to_int16", 13, 4, lead=(TIME,), y=DType.INT16)
    yield sample("linear_6x40_from_int16", 6, 40, x=DType.INT16)
    yield sample("linear_7x10_from_int16_relu", 7, 10, x=DType.INT16, activation="relu", y_zero=-128)
    yield sample("linear_20x5_int16_to_int16", 20, 5, x=DType.INT16, y=DType.INT16)


OPS: tuple[OpDef, ...] = (
    OpDef(
        name="linear",
        attrs=Linear,
        infer=infer,
        reference=reference,
        integer=integer,
        oracle=oracle,
        output_quant=None,
        quantise=quantise,
        cost=cost,
        samples=samples,
        prove=prove_matrix,
    ),
)
