"""Pooling: the largest or the mean value of windows, and the mean over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from projgen.ir.attrs import AvgPool2d, MaxPool2d, MeanTime
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MeanTimeNumerics, PoolNumerics, Requant
from projgen.ir.types import TIME, DType, Quant, TensorType
from projgen.ops.common import (
    as_attrs,
    draw,
    elementwise_cost,
    exact_oracle,
    generator,
    need_quant,
    one_node,
    passes_node,
    passes_quant,
    require,
    static_dim,
    windows,
)
from projgen.ops.conv import pad_hw
from projgen.ops.elementwise import prove_scalar, scalar_rescale
from projgen.ops.record import Args, Array, OpDef, Sample, Types
from projgen.quant.fixed import Ints, multipliers, requantise, to_reals
from projgen.quant.scope import Quantised, QuantScope

MEAN_FRACTION = 8
MAX_STEPS = 1 << 22
Pool = MaxPool2d | AvgPool2d


def infer_pool(attrs: Pool, types: Types) -> TensorType:
    """x (H, W, C) -> (OH, OW, C)."""
    x = types["x"].shape
    require(len(x) == 3, f"pooling: x {x}", "x (H, W, C)")
    h, w = (static_dim("pooling", d, i) for i, d in enumerate(x[:2]))
    (kh, kw), (top, bottom, left, right) = attrs.kernel, attrs.padding
    require(min(kh, kw, *attrs.stride) >= 1, f"pooling: {attrs}", "kernel and stride from 1 up")
    require(
        min(attrs.padding) >= 0 and max(top, bottom) < kh and max(left, right) < kw,
        f"pooling: padding {attrs.padding} of a {kh}x{kw} window",
        "padding smaller than the window, so that each window sees a value",
    )
    oh, ow = windows(h + top + bottom, kh, attrs.stride[0]), windows(w + left + right, kw, attrs.stride[1])
    require(oh >= 1 and ow >= 1, f"pooling: a {kh}x{kw} window on a {h}x{w} input", "a window that fits")
    return TensorType((oh, ow, x[2]))


def taps(x: Array, attrs: Pool) -> Iterator[Array]:
    """The padded x (B, H, W, C) as each position of the window sees it, (B, OH, OW, C)."""
    (kh, kw), (sh, sw) = attrs.kernel, attrs.stride
    oh, ow = windows(x.shape[1], kh, sh), windows(x.shape[2], kw, sw)
    for i in range(kh):
        for j in range(kw):
            yield x[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]


def max_pool(attrs: MaxPool2d, args: Args) -> Array:
    parts = taps(pad_hw(args["x"], attrs.padding, -np.inf), attrs)
    y = next(parts).copy()
    for part in parts:
        np.maximum(y, part, out=y)
    return y


def max_pool_integer(node: Node, args: Args) -> Array:
    """The largest of the window; padding holds the type's lowest value and so never wins."""
    attrs = as_attrs(node, MaxPool2d)
    low = np.iinfo(args["x"].dtype).min
    return np.asarray(np.max(list(taps(pad_hw(args["x"], attrs.padding, low), attrs)), axis=0), np.int64)


def window_counts(attrs: AvgPool2d, h: int, w: int) -> Ints:
    """By how many values each window divides, (OH, OW)."""
    inside = pad_hw(np.ones((1, h, w, 1), np.int64), attrs.padding, int(attrs.count_include_pad))
    return np.asarray(np.sum(list(taps(inside, attrs)), axis=0)[0, :, :, 0], np.int64)


def window_sums(x: Array, attrs: AvgPool2d) -> Array:
    """Sum of the values inside each window, padding worth 0, (B, OH, OW, C)."""
    parts = taps(pad_hw(x, attrs.padding, 0), attrs)
    y = next(parts).copy()
    for part in parts:
        y += part
    return y


def avg_pool(attrs: AvgPool2d, args: Args) -> Array:
    x = args["x"]
    counts = window_counts(attrs, x.shape[1], x.shape[2])
    return np.asarray(window_sums(x, attrs) / counts[None, :, :, None].astype(x.dtype))


def avg_pool_integer(node: Node, args: Args) -> Array:
    """acc = sum of (q - zero point) over the values inside the map, times the multiplier of the window's count."""
    attrs, n = as_attrs(node, AvgPool2d), pool_numerics(node)
    x = args["x"].astype(np.int64)
    acc = window_sums(x - n.input_zero_point, attrs)
    counts = window_counts(attrs, x.shape[1], x.shape[2])
    m = np.asarray(n.multipliers, np.int64)[np.searchsorted(n.counts, counts)][None, :, :, None]
    return np.clip(n.requant.zero_point + requantise(acc, m, n.requant.shift), n.requant.low, n.requant.high)


def pool_numerics(node: Node) -> PoolNumerics:
    if not isinstance(node.numerics, PoolNumerics):
        raise ValueError(f"node {node.name!r} has no pooling numerics")
    return node.numerics


def avg_pool_numerics(name: str, attrs: AvgPool2d, x: TensorType, y: TensorType) -> PoolNumerics:
    h, w, _ = x.step_shape
    counts = tuple(int(c) for c in np.unique(window_counts(attrs, h, w)))
    ratio = need_quant(x).scale / need_quant(y).scale
    m, shift = multipliers([ratio / c for c in counts], name)
    prove_scalar(name, 255 * max(counts), shift)
    requant = Requant(shift, need_quant(y).zero_point, y.dtype.low, y.dtype.high)
    return PoolNumerics(need_quant(x).zero_point, counts, tuple(int(v) for v in m), requant)


def quantise_avg_pool(scope: QuantScope, node: Node) -> Quantised:
    x, y = scope.types[node.inputs["x"]], scope.types[node.output]
    return Quantised((replace(node, numerics=avg_pool_numerics(node.name, as_attrs(node, AvgPool2d), x, y)),), ())


def prove_avg_pool(_graph: Graph, node: Node) -> None:
    n = pool_numerics(node)
    prove_scalar(node.name, 255 * max(n.counts), n.requant.shift)


def mean_oracle(graph: Graph, node: Node, args: Args) -> Array:
    """The float mean of the dequantised input, in the output's LSB."""
    real = to_reals(args["x"], need_quant(graph.arg(node, "x").type))
    mean = mean_time if node.op == "mean_time" else avg_pool
    y = need_quant(graph.type(node.output))
    return np.clip(mean(node.attrs, {"x": real}) / y.scale + y.zero_point, -128, 127)  # type: ignore[arg-type]


def infer_mean_time(_attrs: MeanTime, types: Types) -> TensorType:
    """x (T, F) -> (F,)."""
    x = types["x"].shape
    require(len(x) == 2 and x[0] == TIME, f"mean_time: x {x}", "x (T, F)")
    return TensorType(x[1:])


def mean_time(_attrs: MeanTime, args: Args) -> Array:
    return np.asarray(args["x"].mean(axis=1))


def mean_time_integer(node: Node, args: Args) -> Array:
    """S = sum of (q - zero point); mean = floor((S 2^f + floor(T / 2)) / T); one requantisation."""
    n = mean_numerics(node)
    x = args["x"].astype(np.int64) - n.input_zero_point
    steps = x.shape[1]
    require(1 <= steps <= MAX_STEPS, f"mean_time over {steps} steps", f"1 to {MAX_STEPS}")
    return scalar_rescale(((x.sum(axis=1) << n.fraction) + steps // 2) // steps, n.multiplier, n.requant)


def mean_numerics(node: Node) -> MeanTimeNumerics:
    if not isinstance(node.numerics, MeanTimeNumerics):
        raise ValueError(f"node {node.name!r} has no mean numerics")
    return node.numerics


def mean_time_numerics(name: str, x: TensorType, y: TensorType) -> MeanTimeNumerics:
    m, shift = multipliers([need_quant(x).scale / need_quant(y).scale / 2**MEAN_FRACTION], name)
    prove_scalar(name, 255 << MEAN_FRACTION, shift)
    requant = Requant(shift, need_quant(y).zero_point, y.dtype.low, y.dtype.high)
    return MeanTimeNumerics(need_quant(x).zero_point, MEAN_FRACTION, int(m[0]), requant)


def quantise_mean_time(scope: QuantScope, node: Node) -> Quantised:
    x, y = scope.types[node.inputs["x"]], scope.types[node.output]
    return Quantised((replace(node, numerics=mean_time_numerics(node.name, x, y)),), ())


def prove_mean_time(_graph: Graph, node: Node) -> None:
    n = mean_numerics(node)
    prove_scalar(node.name, 255 << n.fraction, n.requant.shift)


def _max_sample(name: str, shape: tuple[int, int, int], attrs: MaxPool2d, quant: Quant) -> Sample:
    x = TensorType(shape, DType.INT8, quant)
    y = TensorType(infer_pool(attrs, {"x": x}).shape, DType.INT8, quant)
    return one_node(name, Node(name, "max_pool2d", {"x": "x"}, "y", attrs), {"x": x, "y": y}, {})


def max_samples() -> Iterator[Sample]:
    quant = Quant(0.05, -3)
    yield _max_sample("max_pool_2x2", (4, 6, 5), MaxPool2d((2, 2), (2, 2)), quant)
    yield _max_sample("max_pool_2x2_odd", (5, 7, 3), MaxPool2d((2, 2), (2, 2)), quant)
    yield _max_sample("max_pool_3x3_padded", (7, 5, 4), MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)), quant)
    yield _max_sample("max_pool_asymmetric", (6, 5, 3), MaxPool2d((3, 2), (1, 2), (2, 0, 1, 0)), quant)
    yield _max_sample("max_pool_1d", (1, 9, 6), MaxPool2d((1, 3), (1, 2)), quant)
    yield _max_sample("max_pool_global", (4, 3, 7), MaxPool2d((4, 3), (1, 1)), quant)


def avg_sample(name: str, shape: tuple[int, int, int], attrs: AvgPool2d, x: Quant, y: Quant) -> Sample:
    x_type = TensorType(shape, DType.INT8, x)
    y_type = TensorType(infer_pool(attrs, {"x": x_type}).shape, DType.INT8, y)
    numerics = avg_pool_numerics(name, attrs, x_type, y_type)
    node = Node(name, "avg_pool2d", {"x": "x"}, "y", attrs, numerics=numerics)
    return one_node(name, node, {"x": x_type, "y": y_type}, {})


def avg_samples() -> Iterator[Sample]:
    x, y = Quant(0.05, 6), Quant(0.03, -20)
    same = (1, 1, 1, 1)
    yield avg_sample("avg_pool_2x2", (4, 6, 5), AvgPool2d((2, 2), (2, 2)), x, y)
    yield avg_sample("avg_pool_global", (5, 3, 8), AvgPool2d((5, 3), (1, 1)), x, Quant(0.01, 40))
    yield avg_sample("avg_pool_3x3_padded", (5, 6, 3), AvgPool2d((3, 3), (2, 2), same), x, y)
    yield avg_sample("avg_pool_3x3_valid_count", (5, 6, 3), AvgPool2d((3, 3), (1, 1), same, False), x, y)
    asymmetric = AvgPool2d((3, 4), (2, 3), (0, 2, 3, 1), False)
    yield avg_sample("avg_pool_asymmetric_count", (6, 9, 4), asymmetric, Quant(0.05, -128), Quant(0.05, -127))
    yield avg_sample("avg_pool_1x1_preshift", (3, 3, 2), AvgPool2d((1, 1), (2, 2)), x, Quant(0.004, 0))
    yield avg_sample("avg_pool_1d", (1, 10, 4), AvgPool2d((1, 4), (1, 3)), x, y)


def mean_sample(name: str, features: int, x: Quant, y: Quant, steps: int = 5) -> Sample:
    x_type, y_type = TensorType((TIME, features), DType.INT8, x), TensorType((features,), DType.INT8, y)
    node = Node(name, "mean_time", {"x": "x"}, "y", MeanTime(), numerics=mean_time_numerics(name, x_type, y_type))
    return one_node(name, node, {"x": x_type, "y": y_type}, {}, (draw(generator(name), x_type, steps=steps),))


def mean_samples() -> Iterator[Sample]:
    yield mean_sample("mean_time_8", 8, Quant(0.05, 6), Quant(0.02, -10))
    yield mean_sample("mean_time_1", 1, Quant(2.0**-7, 0), Quant(2.0**-7, 0))
    yield mean_sample("mean_time_13_fine", 13, Quant(0.05, -128), Quant(0.009, -128), steps=1)
    yield mean_sample("mean_time_5_long", 5, Quant(0.05, 127), Quant(0.04, 127), steps=300)


OPS: tuple[OpDef, ...] = (
    OpDef(
        name="max_pool2d",
        attrs=MaxPool2d,
        infer=infer_pool,
        reference=max_pool,
        integer=max_pool_integer,
        oracle=exact_oracle(max_pool),
        output_quant=passes_quant,
        quantise=passes_node,
        cost=elementwise_cost,
        samples=max_samples,
    ),
    OpDef(
        name="avg_pool2d",
        attrs=AvgPool2d,
        infer=infer_pool,
        reference=avg_pool,
        integer=avg_pool_integer,
        oracle=mean_oracle,
        output_quant=None,
        quantise=quantise_avg_pool,
        cost=elementwise_cost,
        samples=avg_samples,
        prove=prove_avg_pool,
    ),
    OpDef(
        name="mean_time",
        attrs=MeanTime,
        infer=infer_mean_time,
        reference=mean_time,
        integer=mean_time_integer,
        oracle=mean_oracle,
        output_quant=None,
        quantise=quantise_mean_time,
        cost=elementwise_cost,
        samples=mean_samples,
        prove=prove_mean_time,
    ),
)
