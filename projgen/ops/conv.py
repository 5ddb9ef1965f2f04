"""Two-dimensional cross-correlation: ordinary, grouped and depthwise; a 1-D convolution has height 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from projgen.ir.attrs import Activation, Conv2d, ConvTranspose2d
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MatrixNumerics, Requant
from projgen.ir.types import DType, Quant, TensorType
from projgen.ops.common import (
    activate,
    as_attrs,
    clamp_range,
    draw,
    draw_near,
    elements,
    generator,
    need_quant,
    one_node,
    require,
    static_dim,
    windows,
)
from projgen.ops.linear import dequantised_rows, matrix_numerics, quantise_matrix_node, rescale, to_lsb
from projgen.ops.record import Args, Array, Cost, OpDef, Sample, Types
from projgen.quant.matrix import prove_matrix, quantise_rows
from projgen.quant.scope import Quantised, QuantScope

_PATCH_ELEMENTS = 1 << 22


def infer(attrs: Conv2d, types: Types) -> TensorType:
    """x (H, W, C), w (O, KH, KW, C/groups), b (O,) -> (OH, OW, O)."""
    x, w = types["x"].shape, types["w"].step_shape
    require(len(x) == 3 and len(w) == 4, f"conv2d: x {x} and w {w}", "x (H, W, C) and w (O, KH, KW, C/groups)")
    h, width, c = (static_dim("conv2d", d, i) for i, d in enumerate(x))
    require(min(attrs.stride) >= 1 and min(attrs.dilation) >= 1, f"conv2d: {attrs}", "stride and dilation from 1 up")
    require(min(attrs.padding) >= 0, f"conv2d: padding {attrs.padding}", "padding from 0 up")
    require(
        attrs.groups >= 1 and c % attrs.groups == 0 and w[0] % attrs.groups == 0,
        f"conv2d: {attrs.groups} groups of {c} input and {w[0]} output channels",
        "a number that divides both",
    )
    require(w[3] * attrs.groups == c, f"conv2d: x has {c} channels and w takes {w[3] * attrs.groups}", "equal sizes")
    if "b" in types:
        require(types["b"].shape == (w[0],), f"conv2d: b has shape {types['b'].shape}", f"({w[0]},)")
    top, bottom, left, right = attrs.padding
    oh = windows(h + top + bottom, w[1], attrs.stride[0], attrs.dilation[0])
    ow = windows(width + left + right, w[2], attrs.stride[1], attrs.dilation[1])
    require(oh >= 1 and ow >= 1, f"conv2d: a {w[1]}x{w[2]} kernel on a {h}x{width} input", "a kernel that fits")
    return TensorType((oh, ow, w[0]))


def reference(attrs: Conv2d, args: Args) -> Array:
    y = correlate(pad_hw(args["x"], attrs.padding, 0), args["w"], attrs)
    return activate(attrs.activation, y + args["b"] if "b" in args else y)


def integer(node: Node, args: Args) -> Array:
    """acc = w q_x + b exactly, then one requantisation."""
    return rescale(accumulate(node, args), args["m"], matrix_numerics(node).requant)


def accumulate(node: Node, args: Args) -> Array:
    """w q_x + b; padding holds the input's zero point."""
    attrs = as_attrs(node, Conv2d)
    x = pad_hw(args["x"].astype(np.float64), attrs.padding, matrix_numerics(node).input_zero_point)
    return np.asarray(correlate(x, args["w"].astype(np.float64), attrs).astype(np.int64) + args["b"])


def oracle(graph: Graph, node: Node, args: Args) -> Array:
    wide = dequantised_rows(graph, node, args)
    return to_lsb(graph, node, reference(replace(as_attrs(node, Conv2d), activation="none"), wide))


def quantise(scope: QuantScope, node: Node) -> Quantised:
    return quantise_matrix_node(scope, node, as_attrs(node, Conv2d).activation)


def cost(_attrs: Conv2d, types: Types, out: TensorType) -> Cost:
    taps = elements(types["w"].step_shape[1:])
    return Cost(macs=out.elements * taps, elements=out.elements)


def pad_hw(x: Array, padding: tuple[int, int, int, int], value: float) -> Array:
    """x (B, H, W, C) with top, bottom, left and right borders of ``value``."""
    top, bottom, left, right = padding
    if not any(padding):
        return x
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def correlate(x: Array, w: Array, attrs: Conv2d) -> Array:
    """Valid cross-correlation of x (B, H, W, C) with w (O, KH, KW, C/groups) -> (B, OH, OW, O), in x's float type."""
    b, h, width, _ = x.shape
    o, kh, kw, cg = w.shape
    oh = windows(h, kh, attrs.stride[0], attrs.dilation[0])
    ow = windows(width, kw, attrs.stride[1], attrs.dilation[1])
    if cg == 1 and attrs.groups > 1:
        return _depthwise(x, w, attrs, oh, ow)
    y = np.empty((b, oh, ow, o), np.result_type(x, w))
    per_group = o // attrs.groups
    chunk = max(1, _PATCH_ELEMENTS // (oh * ow * kh * kw * cg))
    for group in range(attrs.groups):
        rows = slice(group * per_group, (group + 1) * per_group)
        matrix = w[rows].reshape(per_group, -1).T
        for start in range(0, b, chunk):
            part = x[start : start + chunk, :, :, group * cg : (group + 1) * cg]
            y[start : start + chunk, :, :, rows] = _patches(part, kh, kw, attrs, oh, ow) @ matrix
    return y


def _patches(x: Array, kh: int, kw: int, attrs: Conv2d, oh: int, ow: int) -> Array:
    """(B, OH, OW, KH * KW * C): what each window sees, in w's order."""
    (sh, sw), (dh, dw) = attrs.stride, attrs.dilation
    out = np.empty((len(x), oh, ow, kh, kw, x.shape[-1]), x.dtype)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
            out[:, :, :, i, j] = x[:, rows, columns]
    return out.reshape(len(x), oh, ow, -1)


def _depthwise(x: Array, w: Array, attrs: Conv2d, oh: int, ow: int) -> Array:
    """One input channel a group; ``multiplier`` outputs each."""
    (sh, sw), (dh, dw) = attrs.stride, attrs.dilation
    o, kh, kw, _ = w.shape
    wide = x if o == attrs.groups else np.repeat(x, o // attrs.groups, axis=-1)
    y = np.zeros((len(x), oh, ow, o), np.result_type(x, w))
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
            y += wide[:, rows, columns] * w[:, i, j, 0]
    return y


def quantised_sample(
    op: str,
    rule: Callable[[Any, Types], TensorType],
    name: str,
    shape: tuple[int, int, int],
    out: int,
    kernel: tuple[int, int],
    attrs: Conv2d | ConvTranspose2d,
    *,
    x: DType = DType.INT8,
    y: DType = DType.INT8,
    x_zero: int = 4,
    y_zero: int = -7,
    y_scale: float = 0.0,
    saturating: bool = False,
    batch: int = 1,
) -> Sample:
    """A sample of an operator with the weights of a convolution, with random (or, saturating, all-extreme) rows.

    Args:
        rule: the operator's shape rule. y_scale: 0 picks a fitting one.
    """
    rng = generator(name)
    w_shape = (out, *kernel, shape[2] // attrs.groups)
    w = np.where(rng.random(w_shape) < 0.5, -1.0, 1.0) if saturating else rng.standard_normal(w_shape)
    if saturating:
        w[0], w[-1] = 1.0, -1.0
    b = rng.standard_normal(out) * (0.01 if y_scale else 0.5)
    wide_in, wide_out = x is DType.INT16, y is DType.INT16
    s_x = 2.0**-9 if wide_in else 0.03125
    x_type = TensorType(shape, x, Quant(s_x, 0 if wide_in else x_zero))
    spread = float(np.abs(w).reshape(out, -1).sum(axis=1).max()) * s_x * (2000 if wide_in else 80)
    scale = y_scale or (2.0 ** np.ceil(np.log2(spread / 4095)) if wide_out else float(np.float32(spread / 255)))
    quant = Quant(scale, 0 if wide_out else y_zero)
    types = {"x": x_type, "w": TensorType(w_shape)}
    y_type = TensorType(rule(attrs, types).shape, y, quant)
    rows = quantise_rows(name, w, b, x_type, y_type)
    low, high = clamp_range(attrs.activation, y_type)
    numerics = MatrixNumerics(need_quant(x_type).zero_point, Requant(rows.shift, quant.zero_point, low, high))
    node = Node(name, op, {r: r for r in ("x", "w", "b", "m")}, "y", attrs, numerics=numerics)
    data = draw_near(rng, x_type) if y_scale else draw(rng, x_type, batch)
    if wide_in:
        data = (data // 8).astype(np.int16)
    return one_node(name, node, {"x": x_type, "y": y_type}, {"w": rows.w, "b": rows.b, "m": rows.m}, (data,))


sample = partial(quantised_sample, "conv2d", infer)


def conv(
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    activation: Activation = "none",
) -> Conv2d:
    return Conv2d(stride, padding, dilation, groups, activation)


def samples() -> Iterator[Sample]:
    same = (1, 1, 1, 1)
    yield sample("conv_1x1x1", (1, 1, 1), 1, (1, 1), conv())
    yield sample("conv_pointwise_5x4x8_16", (5, 4, 8), 16, (1, 1), conv())
    yield sample("conv_pointwise_3x3x7_5_relu", (3, 3, 7), 5, (1, 1), conv(activation="relu"), y_zero=-128)
    yield sample("conv_pointwise_stride2", (5, 7, 4), 6, (1, 1), conv((2, 2)))
    yield sample("conv_3x3_same", (6, 5, 4), 8, (3, 3), conv(padding=same))
    yield sample("conv_3x3_valid_odd", (7, 5, 3), 5, (3, 3), conv())
    yield sample("conv_3x3_stride2_asymmetric", (8, 8, 3), 4, (3, 3), conv((2, 2), (0, 1, 0, 1)))
    yield sample("conv_3x3_relu6", (6, 6, 4), 4, (3, 3), conv(padding=same, activation="relu6"), y_zero=-128)
    yield sample("conv_3x3_dilated", (9, 8, 2), 3, (3, 3), conv(padding=(2, 2, 2, 2), dilation=(2, 2)))
    yield sample("conv_2x4_dilation_1x2_stride_1x3", (5, 13, 3), 2, (2, 4), conv((1, 3), (1, 0, 2, 3), (1, 2)))
    yield sample("conv_5x5_wide_padding", (4, 4, 2), 3, (5, 5), conv(padding=(4, 3, 2, 4)))
    yield sample("conv_whole_map", (4, 3, 5), 6, (4, 3), conv())
    yield sample("conv_groups2", (5, 5, 6), 8, (3, 3), conv(padding=same, groups=2))
    yield sample("conv_groups3_stride2", (5, 6, 9), 3, (2, 2), conv((2, 2), groups=3))
    yield sample("conv_1d_k5_causal", (1, 12, 4), 6, (1, 5), conv(padding=(0, 0, 4, 0)))
    yield sample("conv_1d_k3_dilated", (1, 17, 3), 4, (1, 3), conv((1, 2), (0, 0, 1, 2), (1, 4)))
    yield sample("conv_saturating", (4, 4, 13), 4, (3, 3), conv(padding=same), saturating=True, x_zero=-128, y_zero=127)
    yield sample("conv_saturating_high", (4, 4, 12), 4, (3, 3), conv(padding=same), saturating=True, x_zero=127)
    yield sample("conv_preshift", (4, 5, 2), 3, (3, 3), conv(padding=same), y_scale=2.0**-11)
    yield sample("conv_to_int16", (5, 4, 10), 3, (1, 1), conv(), y=DType.INT16)
    yield sample("conv_3x3_int16_both", (5, 4, 3), 2, (3, 3), conv((1, 2), same), x=DType.INT16, y=DType.INT16)
    yield sample("conv_3x3_from_int16_relu", (5, 5, 3), 6, (3, 3), conv(padding=same, activation="relu"), x=DType.INT16)
    yield sample("conv_from_int16", (4, 5, 3), 9, (1, 1), conv(activation="relu6"), x=DType.INT16, y_zero=-128)
    yield sample("depthwise_3x3", (6, 5, 8), 8, (3, 3), conv(padding=same, groups=8, activation="relu"), y_zero=-128)
    yield sample("depthwise_3x3_stride2", (7, 6, 5), 5, (3, 3), conv((2, 2), (0, 1, 1, 0), groups=5))
    yield sample("depthwise_5x3_dilated", (9, 7, 3), 3, (5, 3), conv(padding=(4, 4, 1, 1), dilation=(2, 1), groups=3))
    yield sample("depthwise_multiplier_2", (5, 5, 4), 8, (3, 3), conv(padding=same, groups=4))
    yield sample("depthwise_multiplier_3_to_9", (4, 6, 3), 9, (2, 3), conv((2, 1), groups=3))
    yield sample("depthwise_1d", (1, 11, 6), 6, (1, 4), conv(padding=(0, 0, 3, 0), groups=6))
    depthwise = conv(padding=same, groups=4)
    yield sample("depthwise_saturating", (4, 4, 4), 4, (3, 3), depthwise, saturating=True, x_zero=-128, y_zero=127)
    yield sample("depthwise_int16", (4, 5, 4), 4, (3, 3), depthwise, x=DType.INT16, y=DType.INT16)


OPS: tuple[OpDef, ...] = (
    OpDef(
        name="conv2d",
        attrs=Conv2d,
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
