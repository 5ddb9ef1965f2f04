"""Scaled dot-product attention: every query's weighted mean of the values, head by head, as one operator.

The integers are those of docs/quantisation.md. Scores never exist as a matrix: a row of weights at a time is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from projgen.errors import UnsupportedError
from projgen.ir.attrs import Attention
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import AttentionNumerics, Requant
from projgen.ir.types import DType, Quant, TensorType
from projgen.ops.common import Ints, as_attrs, draw, generator, int8_type, need_quant, one_node, require, static_dim
from projgen.ops.record import Args, Array, Cost, OpDef, Sample, Types
from projgen.quant.fixed import ACCUMULATOR_LIMIT, multipliers, nearest, requantise
from projgen.quant.scope import Quantised, QuantScope

MAX_KEYS = 1024  # beyond, a weight would have so few bits that many small ones are lost
OCTAVE = 1024  # steps of a score's distance from the largest in which its weight halves

# 2^(-i/32) and 2^(-i/1024): their product is 2^(-n/1024) for the ten lower bits of n.
COARSE: Ints = nearest(32767.0 * 2.0 ** (-np.arange(32) / 32.0))
FINE: Ints = nearest(32768.0 * 2.0 ** (-np.arange(32) / 1024.0))


def infer(_attrs: Attention, types: Types) -> TensorType:
    """q (T, H, D), k (S, H, D), v (S, H, E) -> (T, H, E)."""
    shapes = {role: types[role].shape for role in ("q", "k", "v")}
    q, k, v = shapes.values()
    require(
        len(q) == len(k) == len(v) == 3, f"attention: shapes {shapes}", "(time, heads, features) for q, k and v alike"
    )
    for shape in (q, k, v):
        static_dim("attention", shape[0], 0)
    require(
        q[1:] == k[1:] and k[:2] == v[:2],
        f"attention: shapes {shapes}",
        "as many heads everywhere, features of q and k alike, as many values as keys",
    )
    keys = static_dim("attention", k[0], 0)
    require(keys <= MAX_KEYS, f"attention over {keys} keys", f"at most {MAX_KEYS}")
    return TensorType((q[0], q[1], v[2]))


def reference(attrs: Attention, args: Args) -> Array:
    scores = np.einsum("bthd,bshd->bhts", args["q"], args["k"]) * np.asarray(attrs.scale, args["q"].dtype)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(np.einsum("bhts,bshe->bthe", e / e.sum(axis=-1, keepdims=True), args["v"]))


def weights(distance: Ints, numerics: AttentionNumerics) -> Ints:
    """The weights E of scores that lie ``distance`` below the largest one of their row."""
    d = np.minimum(distance, (ACCUMULATOR_LIMIT - 1) >> numerics.score_shift)
    n = requantise(d, numerics.score_multiplier, numerics.score_shift)
    shift = np.minimum(15 + numerics.drop + (n >> 10), 31)
    return np.asarray((COARSE[(n >> 5) & 31] * FINE[n & 31] + (1 << (shift - 1))) >> shift, np.int64)


def integer(node: Node, args: Args) -> Array:
    """Scores less their zero points, weights of 15 bits, their mean of the values through one reciprocal a row."""
    n = attention_numerics(node)
    q, k, v = (args[role].astype(np.int64) for role in ("q", "k", "v"))
    acc = np.einsum("bthd,bshd->bhts", q - n.query_zero_point, k)
    e = weights(acc.max(axis=-1, keepdims=True) - acc, n)
    total = e.sum(axis=-1)  # (B, H, T)
    up = 23 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    reciprocal = (1 << 47) // (total << up)
    centred = np.einsum("bhts,bshe->bhte", e, v) - (n.value_zero_point * total)[..., None]
    mean = ((centred << up[..., None]) * reciprocal[..., None] + (1 << 31)) >> 32
    y = n.requant.zero_point + requantise(mean, n.value_multiplier, n.requant.shift)
    return np.clip(y, n.requant.low, n.requant.high).transpose(0, 2, 1, 3)


def oracle(graph: Graph, node: Node, args: Args) -> Array:
    reals = {}
    for role in ("q", "k", "v"):
        quant = need_quant(graph.arg(node, role).type)
        reals[role] = (args[role].astype(np.float64) - quant.zero_point) * quant.scale
    out = need_quant(graph.type(node.output))
    return np.clip(reference(as_attrs(node, Attention), reals) / out.scale + out.zero_point, -128.0, 127.0)


def attention_numerics(node: Node) -> AttentionNumerics:
    if not isinstance(node.numerics, AttentionNumerics):
        raise ValueError(f"node {node.name!r} has no attention numerics")
    return node.numerics


def numerics_of(
    name: str, attrs: Attention, q: TensorType, k: TensorType, v: TensorType, y: TensorType
) -> AttentionNumerics:
    """The integer side, from the types of the operands and the output."""
    s_q, s_k, s_v, s_y = (need_quant(t) for t in (q, k, v, y))
    factor = s_q.scale * s_k.scale * attrs.scale * OCTAVE / np.log(2.0)
    score, score_shift = multipliers([factor], f"the scores of {name!r}")
    value, shift = multipliers([s_v.scale / (s_y.scale * 2.0**15)], name)
    keys = static_dim("attention", k.shape[0], 0)
    return AttentionNumerics(
        query_zero_point=s_q.zero_point,
        value_zero_point=s_v.zero_point,
        score_multiplier=int(score[0]),
        score_shift=score_shift,
        drop=max(0, keys.bit_length() - 8),
        value_multiplier=int(value[0]),
        requant=Requant(shift, s_y.zero_point, -128, 127),
    )


def quantise(scope: QuantScope, node: Node) -> Quantised:
    q, k, v = (scope.types[node.inputs[role]] for role in ("q", "k", "v"))
    attrs = as_attrs(node, Attention)
    numerics = numerics_of(node.name, attrs, q, k, v, scope.types[node.output])
    return Quantised((replace(node, numerics=numerics),), ())


def prove(graph: Graph, node: Node) -> None:
    """Refuse features so many that a distance of scores, or means so much finer than the values that one overflows."""
    features = graph.arg(node, "q").type.step_shape[2]
    if 255 * 255 * features >= ACCUMULATOR_LIMIT:
        raise UnsupportedError(
            f"attention {node.name!r} with {features} features a head: its scores could overflow int32",
            f"at most {(ACCUMULATOR_LIMIT - 1) // 255**2} features a head",
            node.source or "the model",
        )
    shift = attention_numerics(node).requant.shift
    if (255 * 2**15 + 1) << shift >= ACCUMULATOR_LIMIT:
        raise UnsupportedError(
            f"attention {node.name!r}: its output's scale is so much finer than its values' that sums could overflow",
            "a pre-shift of at most 8",
            "the calibration data, which must drive this layer's output away from 0",
        )


def cost(_attrs: Attention, types: Types, out: TensorType) -> Cost:
    queries, heads, features = types["q"].step_shape
    keys, _, width = types["v"].step_shape
    return Cost(macs=queries * keys * heads * (features + width), elements=queries * keys * heads + out.elements)


def sample(
    name: str,
    queries: int,
    heads: int,
    features: int,
    *,
    keys: int = 0,
    width: int = 0,
    scales: tuple[float, float, float] = (0.05, 0.04, 0.03),
    zeros: tuple[int, int, int] = (3, -7, 11),
    y: Quant | None = None,
    scale: float = 0.0,
    shared: bool = False,
) -> Sample:
    """Attention of drawn queries, keys and values; ``keys``, ``width`` and ``scale`` of 0 are those of self-attention.

    ``shared``: one value is all three.
    """
    keys, width = keys or queries, width or features
    attrs = Attention(scale or features**-0.5)
    shapes = ((queries, heads, features), (keys, heads, features), (keys, heads, width))
    q, k, v = (int8_type(s, f, z) for s, f, z in zip(shapes, scales, zeros, strict=True))
    if shared:
        k = v = q
    out = TensorType((queries, heads, width), DType.INT8, y or need_quant(v))
    roles = dict.fromkeys(("q", "k", "v"), "q") if shared else {role: role for role in ("q", "k", "v")}
    node = Node(name, "attention", roles, "y", attrs, numerics=numerics_of(name, attrs, q, k, v, out))
    rng = generator(name)
    types = {"q": q, "y": out} if shared else {"q": q, "k": k, "v": v, "y": out}
    free = ("q",) if shared else ("q", "k", "v")
    drawn = [draw(rng, types[role]) for role in free]
    if not shared:  # the last two samples are extreme: values of both ends where scores are largest and smallest
        drawn[1][-2:, ::2] = -128
        drawn[1][-1, 1::2] = 127
        drawn[2][-2:, 1::2] = -128
    return one_node(name, node, types, {}, tuple(drawn))


def samples() -> Iterator[Sample]:
    yield sample("attention_1x1x1", 1, 1, 1)
    yield sample("attention_6x2x4", 6, 2, 4)
    yield sample("attention_9x3x5", 9, 3, 5, zeros=(127, -128, -128), y=Quant(0.02, -5))
    yield sample("attention_17x1x33", 17, 1, 33, zeros=(-128, 127, 127), y=Quant(0.03, 60))
    yield sample("attention_8x4x8_sharp", 8, 4, 8, scales=(0.9, 0.8, 0.05))
    yield sample("attention_8x4x8_sharpest", 8, 4, 8, scales=(90.0, 80.0, 0.05))
    yield sample("attention_12x2x6_flat", 12, 2, 6, scales=(0.002, 0.001, 0.05), y=Quant(0.02, 0))
    yield sample("attention_5_of_7x2x4_width_3", 5, 2, 4, keys=7, width=3, scale=0.3)
    yield sample("attention_1_of_130x1x2", 1, 1, 2, keys=130)
    yield sample("attention_2_of_300x1x3", 2, 1, 3, keys=300, scales=(0.02, 0.03, 0.05), y=Quant(0.04, -9))
    yield sample("attention_1_of_1024x1x1", 1, 1, 1, keys=MAX_KEYS, scales=(0.001, 0.001, 0.05))
    yield sample("attention_7x2x5_shared", 7, 2, 5, shared=True)


OPS: tuple[OpDef, ...] = (
    OpDef(
        name="attention",
        attrs=Attention,
        infer=infer,
        reference=reference,
        integer=integer,
        oracle=oracle,
        output_quant=None,
        quantise=quantise,
        cost=cost,
        samples=samples,
        prove=prove,
    ),
)
