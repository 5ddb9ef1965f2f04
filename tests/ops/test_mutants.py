"""Faults planted in the interpreter's operators: each must be found by the samples' checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from projgen import ops
from projgen.ops import (
    attention,
    conv,
    conv_residual,
    conv_transpose,
    elementwise,
    layer_norm,
    linear,
    pool,
    shape,
    softmax,
)
from projgen.quant import fixed
from tests.ops.checks import check

requantise, pad_hw, rescale, scalar = fixed.requantise, conv.pad_hw, linear.rescale, elementwise.scalar_rescale


def rounded(constant: int) -> Callable[..., Any]:
    return lambda acc, m, p: ((np.asarray(acc, np.int64) << p) * np.asarray(m, np.int64) + constant) >> 32


def no_shift(acc: Any, m: Any, _p: int) -> Any:
    return requantise(acc, m, 0)


def late_shift(acc: Any, m: Any, p: int) -> Any:
    """Shifting after the product loses the low bits."""
    return requantise(acc, m, 0) << p


def zero_padding(x: Any, padding: Any, _value: float) -> Any:
    return pad_hw(x, padding, 0)


def shifted_padding(x: Any, padding: Any, value: float) -> Any:
    top, bottom, left, right = padding
    return pad_hw(x, (bottom, top, right, left), value)


def off_by_one(acc: Any, m: Any, q: Any) -> Any:
    return np.clip(rescale(acc, m, q) + 1, q.low, q.high)


def no_clamp(acc: Any, m: Any, q: Any) -> Any:
    return np.clip(q.zero_point + requantise(acc, m, q.shift), -128, 127)


def wrong_low(acc: Any, m: Any, q: Any) -> Any:
    return np.clip(q.zero_point + scalar(acc, m, q) - q.zero_point, -128, q.high - 1)


def reversed_weights(x: Any, w: Any, attrs: Any) -> Any:
    return CORRELATE(x, w[:, ::-1], attrs)


def swapped_stride(x: Any, w: Any, attrs: Any) -> Any:
    return CORRELATE(x, w, replace(attrs, dilation=attrs.dilation[::-1]))


def no_rounding_softmax(_node: Any, args: Any) -> Any:
    x = args["x"].astype(np.int64)
    e = args["table"].astype(np.int64)[x.max(axis=-1, keepdims=True) - x]
    return np.minimum((512 * e) // (2 * e.sum(axis=-1, keepdims=True)), 255) - 128


def first_as_largest_softmax(node: Any, args: Any) -> Any:
    x = args["x"].astype(np.int64)
    return softmax.integer(node, {**args, "x": np.minimum(x, x[..., :1])})


def attention_of(**changed: int) -> Callable[[Any, Any], Any]:
    return lambda node, args: attention.integer(replace(node, numerics=replace(node.numerics, **changed)), args)


def attention_with_keys_as_queries(node: Any, args: Any) -> Any:
    return attention.integer(node, {**args, "v": args["v"][:, ::-1]})


def layer_norm_of(**changed: int) -> Callable[[Any, Any], Any]:
    return lambda node, args: layer_norm.integer(replace(node, numerics=replace(node.numerics, **changed)), args)


def lut_from_127(_node: Any, args: Any) -> Any:
    return args["table"].astype(np.int64)[np.minimum(args["x"].astype(np.int64) + 129, 255)]


def all_taps(attrs: Any, h: int, w: int) -> Any:
    return np.full_like(COUNTS(attrs, h, w), attrs.kernel[0] * attrs.kernel[1])


def mean_without_half(node: Any, args: Any) -> Any:
    n = pool.mean_numerics(node)
    x = args["x"].astype(np.int64) - n.input_zero_point
    return scalar((x.sum(axis=1) << n.fraction) // x.shape[1], n.multiplier, n.requant)


def mean_without_fraction(node: Any, args: Any) -> Any:
    n = pool.mean_numerics(node)
    x = args["x"].astype(np.int64) - n.input_zero_point
    return scalar(((x.sum(axis=1) + x.shape[1] // 2) // x.shape[1]) << n.fraction, n.multiplier, n.requant)


def add_without_zero(node: Any, args: Any) -> Any:
    n = node.numerics
    acc = n.factor_a * (args["a"].astype(np.int64) - n.zero_a) + n.factor_b * args["b"].astype(np.int64)
    return scalar(acc, n.multiplier, n.requant)


def mul_without_zero(node: Any, args: Any) -> Any:
    n = node.numerics
    acc = args["a"].astype(np.int64) * (args["b"].astype(np.int64) - n.zero_b)
    return scalar(acc, n.multiplier, n.requant)


def pad_with_zero(node: Any, args: Any) -> Any:
    return np.pad(args["x"].astype(np.int64), ((0, 0), *node.attrs.amounts))


def residual_with_one_factor(node: Any, args: Any) -> Any:
    return conv_residual.integer(node, {**args, "f": np.full_like(args["f"], args["f"][0])})


def spread_zeros(attrs: Any, x: Any, kernel: Any, _value: float) -> Any:
    return SPREAD(attrs, x, kernel, 0)


def move(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda node, args: function(node.attrs, args).astype(np.int64)


ROOTS = layer_norm.roots
CORRELATE, COUNTS, SPREAD = conv.correlate, pool.window_counts, conv_transpose.spread
# (operator, what is replaced, by what); a target "integer" replaces the record's own integer meaning.
MUTANTS: dict[str, tuple[str, str, Any]] = {
    "linear: floor instead of rounding": ("linear", "projgen.ops.linear.requantise", rounded(0)),
    "linear: rounding constant 2^30": ("linear", "projgen.ops.linear.requantise", rounded(2**30)),
    "linear: no pre-shift": ("linear", "projgen.ops.linear.requantise", no_shift),
    "linear: pre-shift after the product": ("linear", "projgen.ops.linear.requantise", late_shift),
    "linear: output zero point": ("linear", "projgen.ops.linear.rescale", off_by_one),
    "linear: activation dropped": ("linear", "projgen.ops.linear.rescale", no_clamp),
    "conv: floor instead of rounding": ("conv2d", "projgen.ops.linear.requantise", rounded(0)),
    "conv: padding of 0": ("conv2d", "projgen.ops.conv.pad_hw", zero_padding),
    "conv: padding on the other side": ("conv2d", "projgen.ops.conv.pad_hw", shifted_padding),
    "conv: output zero point": ("conv2d", "projgen.ops.conv.rescale", off_by_one),
    "conv: kernel upside down": ("conv2d", "projgen.ops.conv.correlate", reversed_weights),
    "conv: dilation swapped": ("conv2d", "projgen.ops.conv.correlate", swapped_stride),
    "residual: one factor for all": ("conv2d_residual", "integer", residual_with_one_factor),
    "residual: padding of 0": ("conv2d_residual", "projgen.ops.conv.pad_hw", zero_padding),
    "residual: floor instead of rounding": ("conv2d_residual", "projgen.ops.linear.requantise", rounded(0)),
    "transposed: zeros between the pixels": ("conv_transpose2d", "projgen.ops.conv_transpose.spread", spread_zeros),
    "transposed: kernel the other way round": ("conv_transpose2d", "projgen.ops.conv.correlate", reversed_weights),
    "transposed: rounding": ("conv_transpose2d", "projgen.ops.linear.requantise", rounded(2**30)),
    "max pool: padding of 0": ("max_pool2d", "projgen.ops.pool.pad_hw", zero_padding),
    "average pool: ties rounded down": ("avg_pool2d", "projgen.ops.pool.requantise", rounded(2**31 - 1)),
    "average pool: padding on the other side": ("avg_pool2d", "projgen.ops.pool.pad_hw", shifted_padding),
    "average pool: padding counted": ("avg_pool2d", "projgen.ops.pool.window_counts", all_taps),
    "mean: half of T dropped": ("mean_time", "integer", mean_without_half),
    "mean: fraction dropped": ("mean_time", "integer", mean_without_fraction),
    "softmax: S not added": ("softmax", "integer", no_rounding_softmax),
    "softmax: wrong largest": ("softmax", "integer", first_as_largest_softmax),
    "attention: zero point of the queries": ("attention", "integer", attention_of(query_zero_point=0)),
    "attention: zero point of the values": ("attention", "integer", attention_of(value_zero_point=0)),
    "attention: no pre-shift of the scores": ("attention", "integer", attention_of(score_shift=0)),
    "attention: weights of 14 bits": ("attention", "integer", attention_of(drop=1)),
    "attention: values in another order": ("attention", "integer", attention_with_keys_as_queries),
    "attention: rounding": ("attention", "projgen.ops.attention.requantise", rounded(2**30)),
    "attention: a coarser power of two": ("attention", "projgen.ops.attention.FINE", np.full(32, 32768)),
    "layer norm: no epsilon": ("layer_norm", "integer", layer_norm_of(epsilon=1)),
    "layer norm: rounding": ("layer_norm", "projgen.ops.layer_norm.requantise", rounded(0)),
    "layer norm: root one too large": (
        "layer_norm",
        "projgen.ops.layer_norm.roots",
        lambda v: (ROOTS(v)[0] + 1, ROOTS(v)[1]),
    ),
    "lut: offset": ("lut", "integer", lut_from_127),
    "add: zero point of b": ("add", "integer", add_without_zero),
    "add: rounding": ("add", "projgen.ops.elementwise.requantise", rounded(0)),
    "add: clamp": ("add", "projgen.ops.elementwise.scalar_rescale", wrong_low),
    "mul: zero point of a": ("mul", "integer", mul_without_zero),
    "mul: rounding": ("mul", "projgen.ops.elementwise.requantise", rounded(2**31 + 2**29)),
    "pad: zero instead of the zero point": ("pad", "integer", pad_with_zero),
    "slice: from the start": ("slice", "integer", move(lambda a, s: shape.slice_(a, {"x": np.roll(s["x"], 1, -1)}))),
    "select: the first step": ("select", "integer", move(lambda a, s: s["x"].take(0, axis=a.axis + 1))),
    "reshape: column order": (
        "reshape",
        "integer",
        move(lambda a, s: s["x"].reshape(len(s["x"]), -1)[:, ::-1].reshape(-1, *a.shape)),
    ),
    "transpose: nothing moved": (
        "transpose",
        "integer",
        move(lambda a, s: s["x"].reshape(shape.transpose(a, s).shape)),
    ),
    "concat: other order": (
        "concat",
        "integer",
        move(lambda a, s: shape.concat(a, dict(reversed(list(s.items()))))),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_killed(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, target, fault = MUTANTS[mutant]
    record = ops.get(op)
    made = list(record.samples())
    for sample in made:
        check(sample)
    if target == "integer":
        broken = {**ops.registry(), op: replace(record, integer=fault)}
        monkeypatch.setattr(ops, "registry", lambda: broken)
    else:
        monkeypatch.setattr(target, fault)
    killed = 0
    for sample in made:
        try:
            check(sample)
        except (AssertionError, ValueError, KeyError):
            killed += 1
    assert killed, f"no sample of {op} notices: {mutant}"
