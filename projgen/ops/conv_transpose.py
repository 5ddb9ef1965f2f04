"""Two-dimensional transposed convolution; a 1-D one has height 1.

Its meaning is that of a convolution of stride 1, with the kernel turned by 180 degrees, over the map spread out: pixels
``stride`` apart, what lies between and around them being 0 (in integers: the input's zero point).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from projgen.ir.attrs import Activation, Conv2d, ConvTranspose2d
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, TensorType
from projgen.ops import conv
from projgen.ops.common import activate, as_attrs, require, static_dim
from projgen.ops.linear import dequantised_rows, matrix_numerics, quantise_matrix_node, rescale, to_lsb
from projgen.ops.record import Args, Array, Cost, OpDef, Sample, Types
from projgen.quant.matrix import prove_matrix
from projgen.quant.scope import Quantised, QuantScope

OP = "conv_transpose2d"


def infer(attrs: ConvTranspose2d, types: Types) -> TensorType:
    """x (H, W, C), w (O, KH, KW, C/groups), b (O,) -> (OH, OW, O)."""
    x, w = types["x"].shape, types["w"].step_shape
    require(len(x) == 3 and len(w) == 4, f"{OP}: x {x} and w {w}", "x (H, W, C) and w (O, KH, KW, C/groups)")
    h, width, c = (static_dim(OP, d, i) for i, d in enumerate(x))
    require(min(attrs.stride) >= 1 and min(attrs.dilation) >= 1, f"{OP}: {attrs}", "stride and dilation from 1 up")
    require(min(attrs.padding) >= 0, f"{OP}: padding {attrs.padding}", "padding from 0 up")
    require(min(attrs.output_padding) >= 0, f"{OP}: output padding {attrs.output_padding}", "numbers from 0 up")
    require(
        attrs.groups >= 1 and c % attrs.groups == 0 and w[0] % attrs.groups == 0,
        f"{OP}: {attrs.groups} groups of {c} input and {w[0]} output channels",
        "a number that divides both",
    )
    require(w[3] * attrs.groups == c, f"{OP}: x has {c} channels and w takes {w[3] * attrs.groups}", "equal sizes")
    if "b" in types:
        require(types["b"].shape == (w[0],), f"{OP}: b has shape {types['b'].shape}", f"({w[0]},)")
    oh, ow = (output_size(attrs, axis, size, w[1 + axis]) for axis, size in enumerate((h, width)))
    require(oh >= 1 and ow >= 1, f"{OP}: an output of {oh}x{ow}", "less padding")
    return TensorType((oh, ow, w[0]))


def output_size(attrs: ConvTranspose2d, axis: int, size: int, kernel: int) -> int:
    """Length of an axis (0 height, 1 width) after the kernel has been laid at every pixel and the padding cut off."""
    before, after = attrs.padding[2 * axis : 2 * axis + 2]
    reach = attrs.dilation[axis] * (kernel - 1) + 1
    return (size - 1) * attrs.stride[axis] + reach - before - after + attrs.output_padding[axis]


def reference(attrs: ConvTranspose2d, args: Args) -> Array:
    y = _correlated(attrs, args["x"], args["w"], 0)
    return activate(attrs.activation, y + args["b"] if "b" in args else y)


def integer(node: Node, args: Args) -> Array:
    """acc = w q_x + b exactly, a tap that meets no pixel seeing the zero point; then one requantisation."""
    numerics = matrix_numerics(node)
    x, w = args["x"].astype(np.float64), args["w"].astype(np.float64)
    sums = _correlated(as_attrs(node, ConvTranspose2d), x, w, numerics.input_zero_point)
    return rescale(sums.astype(np.int64) + args["b"], args["m"], numerics.requant)


def oracle(graph: Graph, node: Node, args: Args) -> Array:
    wide = dequantised_rows(graph, node, args)
    return to_lsb(graph, node, reference(replace(as_attrs(node, ConvTranspose2d), activation="none"), wide))


def quantise(scope: QuantScope, node: Node) -> Quantised:
    return quantise_matrix_node(scope, node, as_attrs(node, ConvTranspose2d).activation)


def cost(attrs: ConvTranspose2d, types: Types, out: TensorType) -> Cost:
    """One product for each tap that meets a pixel and lands inside the output."""
    x, w = types["x"].step_shape, types["w"].step_shape
    pairs = [_meetings(attrs, axis, x[axis], w[1 + axis], out.step_shape[axis]) for axis in (0, 1)]
    return Cost(macs=pairs[0] * pairs[1] * w[3] * w[0], elements=out.elements)


def _meetings(attrs: ConvTranspose2d, axis: int, size: int, kernel: int, out: int) -> int:
    taps, pixels = np.arange(kernel) * attrs.dilation[axis], np.arange(size) * attrs.stride[axis]
    landing = taps[:, None] + pixels - attrs.padding[2 * axis]
    return int(((landing >= 0) & (landing < out)).sum())


def spread(attrs: ConvTranspose2d, x: Array, kernel: tuple[int, int], value: float) -> Array:
    """x (B, H, W, C) as the map that the turned kernel slides over: its pixels ``stride`` apart, else ``value``."""
    sizes, places, inside = [], [], []
    for axis in (0, 1):
        reach = attrs.dilation[axis] * (kernel[axis] - 1)
        size = output_size(attrs, axis, x.shape[1 + axis], kernel[axis]) + reach
        at = np.arange(x.shape[1 + axis]) * attrs.stride[axis] + reach - attrs.padding[2 * axis]
        kept = np.flatnonzero((at >= 0) & (at < size))
        sizes.append(size)
        places.append(at[kept])
        inside.append(kept)
    canvas = np.full((len(x), *sizes, x.shape[-1]), value, x.dtype)
    canvas[:, places[0][:, None], places[1]] = x[:, inside[0][:, None], inside[1]]
    return canvas


def _correlated(attrs: ConvTranspose2d, x: Array, w: Array, value: float) -> Array:
    plain = Conv2d(dilation=attrs.dilation, groups=attrs.groups)
    return conv.correlate(spread(attrs, x, (w.shape[1], w.shape[2]), value), w[:, ::-1, ::-1], plain)


sample = partial(conv.quantised_sample, OP, infer)


def transposed(
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    output_padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    activation: Activation = "none",
) -> ConvTranspose2d:
    return ConvTranspose2d(stride, padding, output_padding, dilation, groups, activation)


def samples() -> Iterator[Sample]:
    one, two = (1, 1, 1, 1), (2, 2)
    yield sample("transposed_1x1x1", (1, 1, 1), 1, (1, 1), transposed())
    yield sample("transposed_2x2_stride2", (4, 3, 8), 6, (2, 2), transposed(two))
    yield sample("transposed_4x4_stride2", (4, 5, 4), 8, (4, 4), transposed(two, one, activation="relu"), y_zero=-128)
    yield sample("transposed_3x3_stride2", (5, 4, 5), 3, (3, 3), transposed(two, one, (1, 1)))
    yield sample("transposed_3x3", (5, 4, 4), 6, (3, 3), transposed(padding=one, activation="relu6"), y_zero=-128)
    yield sample("transposed_3x3_dilated", (4, 4, 3), 5, (3, 3), transposed(padding=(2, 0, 1, 3), dilation=two))
    yield sample("transposed_3x5_stride3x2_dilated2x3", (3, 4, 2), 3, (3, 5), transposed((3, 2), one, (2, 1), (2, 3)))
    yield sample("transposed_1x1_stride3", (3, 3, 4), 4, (1, 1), transposed((3, 3), output_padding=two))
    yield sample("transposed_2x3_much_cut", (5, 6, 3), 4, (2, 3), transposed((2, 1), (4, 3, 5, 1)))
    yield sample("transposed_groups2", (4, 3, 6), 8, (3, 3), transposed(two, (1, 0, 0, 1), groups=2))
    yield sample("transposed_depthwise", (4, 3, 5), 5, (4, 4), transposed(two, one, groups=5), x_zero=-128)
    yield sample("transposed_1d_k5_stride3", (1, 7, 4), 6, (1, 5), transposed((1, 3), (0, 0, 2, 1), (0, 1)))
    yield sample("transposed_saturating", (3, 4, 13), 4, (3, 3), transposed(two, one), saturating=True, x_zero=127)
    yield sample("transposed_preshift", (4, 3, 2), 3, (3, 3), transposed(two, one), y_scale=2.0**-11)
    yield sample("transposed_to_int16", (3, 4, 10), 3, (4, 4), transposed(two, one), y=DType.INT16)
    yield sample("transposed_int16_both", (4, 3, 3), 2, (3, 3), transposed(two, one), x=DType.INT16, y=DType.INT16)
    yield sample("transposed_from_int16", (4, 3, 4), 8, (2, 2), transposed(two, activation="relu"), x=DType.INT16)


OPS: tuple[OpDef, ...] = (
    OpDef(
        name=OP,
        attrs=ConvTranspose2d,
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
