"""A convolution that adds another map before it rounds: the residual joins the sum, which is rounded once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.numerics import MatrixNumerics, Requant
from projgen.ir.types import DType, Quant, TensorType
from projgen.ops import conv
from projgen.ops.common import (
    activate,
    as_attrs,
    clamp_range,
    constant_type,
    draw,
    generator,
    need_quant,
    one_node,
    require,
)
from projgen.ops.linear import dequantised_rows, matrix_numerics, rescale, to_lsb
from projgen.ops.record import Args, Array, OpDef, Sample, Types
from projgen.quant.fixed import real_scale, to_reals
from projgen.quant.matrix import prove_matrix, quantise_rows
from projgen.quant.scope import Quantised, QuantScope


def infer(attrs: Conv2d, types: Types) -> TensorType:
    """x, w, b as conv2d; residual (OH, OW, O) -> (OH, OW, O)."""
    y, residual = conv.infer(attrs, types), types["residual"].shape
    require(residual == y.shape, f"conv2d_residual: residual {residual}", f"the output's shape {y.shape}")
    return y


def reference(attrs: Conv2d, args: Args) -> Array:
    return activate(attrs.activation, conv.reference(replace(attrs, activation="none"), args) + args["residual"])


def integer(node: Node, args: Args) -> Array:
    """acc = w q_x + f q_r + b exactly, then one requantisation."""
    acc = conv.accumulate(node, args) + args["f"].astype(np.int64) * args["residual"].astype(np.int64)
    return rescale(acc, args["m"], matrix_numerics(node).requant)


def oracle(graph: Graph, node: Node, args: Args) -> Array:
    residual = graph.arg(node, "residual").type
    wide = dequantised_rows(graph, node, args)
    unit = real_scale(args["m"], matrix_numerics(node).requant.shift) * need_quant(graph.type(node.output)).scale
    wide["b"] = wide["b"] + args["f"] * need_quant(residual).zero_point * unit
    wide["residual"] = to_reals(args["residual"], need_quant(residual))
    return to_lsb(graph, node, reference(replace(as_attrs(node, Conv2d), activation="none"), wide))


def quantise(scope: QuantScope, node: Node) -> Quantised:
    x, y = scope.types[node.inputs["x"]], scope.types[node.output]
    bias = scope.graph.data(node, "b") if "b" in node.inputs else None
    residual = scope.types[node.inputs["residual"]]
    made, constants = _made(node, scope.graph.data(node, "w"), bias, (x, residual, y))
    names = {role: f"{node.name}.{role}" for role in constants}
    values = tuple(Value(names[role], constant_type(c), c) for role, c in constants.items())
    inputs = {"x": node.inputs["x"], "residual": node.inputs["residual"], **names}
    return Quantised((replace(made, inputs=inputs),), values)


def _made(
    node: Node, w: Array, b: Array | None, types: tuple[TensorType, TensorType, TensorType]
) -> tuple[Node, dict[str, Array]]:
    """The node with its numerics, and its integer constants."""
    x, residual, y = types
    rows = quantise_rows(node.name, w, b, x, y, residual)
    low, high = clamp_range(as_attrs(node, Conv2d).activation, y)
    requant = Requant(rows.shift, need_quant(y).zero_point, low, high)
    constants: dict[str, Array] = {"w": rows.w, "b": rows.b, "m": rows.m, "f": rows.f}
    return replace(node, numerics=MatrixNumerics(need_quant(x).zero_point, requant)), constants


def sample(
    name: str,
    shape: tuple[int, int, int],
    out: int,
    kernel: tuple[int, int],
    attrs: Conv2d,
    *,
    x: DType = DType.INT8,
    zeros: tuple[int, int, int] = (4, 9, -7),
    scales: tuple[float, float] = (0.031, 1.0),
    extreme: bool = False,
) -> Sample:
    """A quantised convolution with a residual.

    Args:
        zeros: zero points of x, the residual and the output.
        scales: of the residual, and the factor on an output scale that fits.
        extreme: all weights of the largest size.
    """
    rng = generator(name)
    w = rng.standard_normal((out, *kernel, shape[2] // attrs.groups)) * 0.3
    if extreme:
        w = np.where(w < 0, -0.3, 0.3)
        w[0], w[-1] = 0.3, -0.3
    wide = x is DType.INT16
    s_x = 2.0**-9 if wide else 0.03125
    x_type = TensorType(shape, x, Quant(s_x, 0 if wide else zeros[0]))
    y_shape = conv.infer(attrs, {"x": x_type, "w": TensorType(w.shape)}).shape
    residual = TensorType(y_shape, DType.INT8, Quant(scales[0], zeros[1]))
    spread = float(np.abs(w).reshape(out, -1).sum(axis=1).max()) * s_x * (2000 if wide else 80) + 80 * scales[0]
    y = TensorType(y_shape, DType.INT8, Quant(float(np.float32(spread / 255 * scales[1])), zeros[2]))
    roles = {role: role for role in ("x", "residual", "w", "b", "m", "f")}
    made, constants = _made(
        Node(name, "conv2d_residual", roles, "y", attrs), w, rng.standard_normal(out) * 0.5, (x_type, residual, y)
    )
    data = (draw(rng, x_type, 1) // (8 if wide else 1)).astype(x_type.dtype.value)
    against = draw(rng, residual, 1)[[0, 2, 1]]  # the largest residual meets the smallest input
    return one_node(name, made, {"x": x_type, "residual": residual, "y": y}, constants, (data, against))


def samples() -> Iterator[Sample]:
    same = (1, 1, 1, 1)
    attrs = Conv2d(padding=same)
    yield sample("residual_1x1x1", (1, 1, 1), 1, (1, 1), Conv2d())
    yield sample("residual_3x3", (6, 5, 4), 8, (3, 3), attrs)
    yield sample("residual_3x3_relu", (7, 9, 8), 6, (3, 3), replace(attrs, activation="relu"), zeros=(-128, -128, -128))
    yield sample("residual_3x3_relu6", (4, 4, 4), 4, (3, 3), replace(attrs, activation="relu6"), zeros=(3, 5, -128))
    yield sample("residual_3x3_16", (5, 8, 16), 16, (3, 3), replace(attrs, activation="relu"), zeros=(-128, 0, -128))
    yield sample("residual_3x3_20", (6, 6, 20), 4, (3, 3), attrs)
    yield sample("residual_pointwise", (5, 4, 8), 16, (1, 1), Conv2d())
    yield sample("residual_pointwise_odd", (3, 5, 7), 5, (1, 1), Conv2d(activation="relu"), zeros=(0, 3, -128))
    yield sample("residual_pointwise_72", (3, 5, 72), 6, (1, 1), Conv2d(), zeros=(127, -128, 127))
    yield sample("residual_pointwise_stride2", (5, 7, 4), 6, (1, 1), Conv2d((2, 2)))
    yield sample("residual_2x4_dilated", (5, 13, 3), 2, (2, 4), Conv2d((1, 3), (1, 0, 2, 3), (1, 2)))
    yield sample("residual_groups", (5, 5, 6), 8, (3, 3), replace(attrs, groups=2))
    yield sample("residual_depthwise", (5, 4, 6), 6, (3, 3), replace(attrs, groups=6))
    yield sample("residual_coarse", (5, 4, 8), 4, (3, 3), attrs, scales=(0.4, 1.0))
    yield sample("residual_fine", (5, 4, 8), 4, (3, 3), attrs, scales=(0.0008, 1.0))
    yield sample("residual_saturating", (4, 4, 12), 4, (3, 3), attrs, zeros=(-128, 127, 127), extreme=True)
    yield sample("residual_preshift", (4, 5, 2), 4, (3, 3), attrs, scales=(0.031, 2.0**-9))
    yield sample("residual_from_int16", (4, 5, 6), 10, (1, 1), Conv2d(activation="relu"), x=DType.INT16)
    yield sample("residual_3x3_from_int16", (5, 5, 4), 6, (3, 3), attrs, x=DType.INT16)


OPS: tuple[OpDef, ...] = (
    OpDef(
        name="conv2d_residual",
        attrs=Conv2d,
        infer=infer,
        reference=reference,
        integer=integer,
        oracle=oracle,
        output_quant=None,
        quantise=quantise,
        cost=conv.cost,
        samples=samples,
        prove=prove_matrix,
    ),
)
