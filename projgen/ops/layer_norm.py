"""Layer normalisation: every row of features less its mean, over its deviation, times gamma, plus beta.

The sums of a row are exact, so mean and variance are; the root and its reciprocal are integers of docs/quantisation.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from projgen.errors import UnsupportedError
from projgen.ir.attrs import LayerNorm
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.numerics import LayerNormNumerics, Requant
from projgen.ir.types import TIME, Dim, DType, Quant, TensorType
from projgen.ops.common import (
    Floats,
    as_attrs,
    constant_type,
    elementwise_cost,
    generator,
    need_quant,
    one_node,
    require,
    static_dim,
)
from projgen.ops.record import Args, Array, OpDef, Sample, Types
from projgen.quant.fixed import ACCUMULATOR_LIMIT, multipliers, nearest, real_scale, requantise
from projgen.quant.scope import Quantised, QuantScope

MAX_FEATURES = 4096
FRACTION = 11  # bits of a normalised value, and of the largest gamma
EPSILON_BITS = 8  # fraction bits of n^2 times the variance, so that a small epsilon counts


def infer(_attrs: LayerNorm, types: Types) -> TensorType:
    """x (..., N), gamma (N,), beta (N,) -> (..., N)."""
    shape = types["x"].shape
    require(len(shape) >= 1, f"layer_norm: x {shape}", "an axis of features")
    features = static_dim("layer_norm", shape[-1], len(shape) - 1)
    require(features <= MAX_FEATURES, f"layer_norm over {features} features", f"at most {MAX_FEATURES}")
    for role in ("gamma", "beta"):
        require(types[role].shape == (features,), f"layer_norm: {role} {types[role].shape}", f"({features},)")
    return TensorType(shape)


def reference(attrs: LayerNorm, args: Args) -> Array:
    x = args["x"]
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + np.asarray(attrs.epsilon, x.dtype)) * args["gamma"] + args["beta"])


def integer(node: Node, args: Args) -> Array:
    """Sums, an integer root of 16 bits and its reciprocal a row, then one requantisation a feature."""
    n = layer_norm_numerics(node)
    x = args["x"].astype(np.int64)
    features = x.shape[-1]
    total = x.sum(axis=-1, keepdims=True)
    spread = features * (x * x).sum(axis=-1, keepdims=True) - total * total
    root, exponent = roots((spread << EPSILON_BITS) + n.epsilon)
    reciprocal = (1 << 45) // root
    up = FRACTION + EPSILON_BITS // 2 - 13 - exponent
    centred = (features * x - total) << np.maximum(up, 0)
    normal = requantise(centred, reciprocal >> np.maximum(-up, 0), 0)
    acc = args["gamma"].astype(np.int64) * normal + args["beta"]
    y = n.requant.zero_point + requantise(acc, n.multiplier, n.requant.shift)
    return np.clip(y, n.requant.low, n.requant.high)


def roots(square: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(r, e) with r 2^e the root of each positive number: r = isqrt of its leading 31 or 32 bits, 2^15 .. 2^16 - 1."""
    bits = np.frexp(square.astype(np.float64))[1].astype(np.int64)  # exact: below 2^53
    exponent = (bits - 31) // 2
    mantissa = np.where(exponent > 0, square >> 2 * np.maximum(exponent, 0), square << 2 * np.maximum(-exponent, 0))
    root = np.sqrt(mantissa.astype(np.float64)).astype(np.int64)  # correctly rounded, so at most one too large
    return root - (root * root > mantissa), exponent


def oracle(graph: Graph, node: Node, args: Args) -> Array:
    n = layer_norm_numerics(node)
    x, out = need_quant(graph.arg(node, "x").type), need_quant(graph.type(node.output))
    unit = float(real_scale(n.multiplier, n.requant.shift)) * out.scale  # of the accumulator
    reals = {
        "x": (args["x"].astype(np.float64) - x.zero_point) * x.scale,
        "gamma": args["gamma"] * unit * 2.0**FRACTION,
        "beta": args["beta"] * unit,
    }
    y = reference(as_attrs(node, LayerNorm), reals)
    return np.clip(y / out.scale + out.zero_point, n.requant.low, n.requant.high)


def layer_norm_numerics(node: Node) -> LayerNormNumerics:
    if not isinstance(node.numerics, LayerNormNumerics):
        raise ValueError(f"node {node.name!r} has no layer norm numerics")
    return node.numerics


def integers_of(
    name: str, attrs: LayerNorm, gamma: Floats, beta: Floats, x: TensorType, y: TensorType
) -> tuple[LayerNormNumerics, dict[str, Array]]:
    """The integer side and the integer gamma and beta."""
    s_x, out = need_quant(x).scale, need_quant(y)
    features = int(x.step_shape[-1])
    largest = 2**FRACTION - 1
    unit = max(np.abs(gamma).max() / largest, np.abs(beta).max() * 2.0**-18, out.scale * 2.0**-8)
    multiplier, shift = multipliers([unit * 2.0**-FRACTION / out.scale], name)
    numerics = LayerNormNumerics(
        epsilon=max(1, int(nearest(attrs.epsilon * (features / s_x) ** 2 * 2.0**EPSILON_BITS))),
        multiplier=int(multiplier[0]),
        requant=Requant(shift, out.zero_point, -128, 127),
    )
    g, b = nearest(gamma / unit), nearest(beta / unit * 2.0**FRACTION)
    return numerics, {"gamma": g.astype(np.int16), "beta": b.astype(np.int32)}


def quantise(scope: QuantScope, node: Node) -> Quantised:
    x, y = scope.types[node.inputs["x"]], scope.types[node.output]
    gamma, beta = (scope.graph.data(node, role).astype(np.float64) for role in ("gamma", "beta"))
    numerics, constants = integers_of(node.name, as_attrs(node, LayerNorm), gamma, beta, x, y)
    names = {role: f"{node.name}.{role}" for role in constants}
    values = tuple(Value(names[role], constant_type(c), c) for role, c in constants.items())
    return Quantised((replace(node, inputs={"x": node.inputs["x"], **names}, numerics=numerics),), values)


def prove(graph: Graph, node: Node) -> None:
    """Refuse a node whose accumulators, or whose epsilon, could overflow."""
    n = layer_norm_numerics(node)
    features = graph.arg(node, "x").type.step_shape[-1]
    largest = (math.isqrt(features) + 1) << FRACTION
    gamma, beta = (np.abs(graph.data(node, role).astype(np.int64)) for role in ("gamma", "beta"))
    reach = int((gamma * largest + beta).max()) << n.requant.shift
    if reach >= ACCUMULATOR_LIMIT or n.epsilon >= 2**52:
        raise UnsupportedError(
            f"layer norm {node.name!r}: its sums could reach {max(reach, n.epsilon)}",
            "sums below 2^31, and an epsilon that is no more than the largest variance of the input",
            node.source or "the model",
        )


def sample(
    name: str,
    features: int,
    *,
    lead: tuple[Dim, ...] = (),
    x: Quant | None = None,
    y: Quant | None = None,
    epsilon: float = 1e-5,
    beta: float = 0.5,
) -> Sample:
    """A layer norm of drawn gamma (negative ones and zeros too) and beta."""
    rng = generator(name)
    attrs = LayerNorm(epsilon)
    x_type = TensorType((*lead, features), DType.INT8, x or Quant(0.05, 3))
    y_type = TensorType((*lead, features), DType.INT8, y or Quant(0.03125, -5))
    gamma = rng.standard_normal(features) * (rng.random(features) < 0.9)
    numerics, constants = integers_of(name, attrs, gamma, beta * rng.standard_normal(features), x_type, y_type)
    node = Node(name, "layer_norm", {"x": "x", "gamma": "gamma", "beta": "beta"}, "y", attrs, numerics=numerics)
    rows = (6, *(5 if d == TIME else d for d in lead), features)
    data = rng.integers(-128, 128, rows)
    data[0] = rng.integers(-3, 4, rows[1:])
    data[1] = 127
    data[2] = -128
    data[3] = np.where(np.arange(features) == 0, 127, -128)
    data[4] = 5 + (np.arange(features) == features // 2)
    return one_node(name, node, {"x": x_type, "y": y_type}, constants, (data.astype(np.int8),))


def samples() -> Iterator[Sample]:
    yield sample("layer_norm_1", 1)
    yield sample("layer_norm_2", 2, x=Quant(0.1, -128))
    yield sample("layer_norm_16", 16, y=Quant(0.02, 40))
    yield sample("layer_norm_rows_7x33", 33, lead=(7,), x=Quant(0.002, 127))
    yield sample("layer_norm_time_12", 12, lead=(TIME,), epsilon=1e-3)
    yield sample("layer_norm_500_large_epsilon", 500, epsilon=2.0, y=Quant(0.01, 0))
    yield sample("layer_norm_9_mostly_beta", 9, beta=300.0, y=Quant(4.0, 0))
    yield sample("layer_norm_4096", MAX_FEATURES, x=Quant(0.5, 0), y=Quant(0.1, 0))


OPS: tuple[OpDef, ...] = (
    OpDef(
        name="layer_norm",
        attrs=LayerNorm,
        infer=infer,
        reference=reference,
        integer=integer,
        oracle=oracle,
        output_quant=None,
        quantise=quantise,
        cost=elementwise_cost,
        samples=samples,
        prove=prove,
    ),
)
