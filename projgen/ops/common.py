"""What several operator families share: argument checks, activations, integer ranges, one-operator graphs."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from projgen.errors import InputError
from projgen.ir.attrs import Activation
from projgen.ir.graph import Graph, Node, Port, Stage, Value
from projgen.ir.types import TIME, Dim, DType, Quant, TensorType
from projgen.ops.record import Args, Array, Cost, Sample, Types
from projgen.quant.fixed import nearest
from projgen.quant.scope import Quantised, QuantScope, Stats

Floats = npt.NDArray[np.float64]
A = TypeVar("A")
Ints = npt.NDArray[np.int64]


def require(condition: bool, what: str, allowed: str) -> None:
    """Raise ``InputError`` unless the condition holds."""
    if not condition:
        raise InputError(what, allowed, "the model")


def static_dim(op: str, dim: Dim, axis: int) -> int:
    """The size of an axis that can't be symbolic."""
    if not isinstance(dim, int):
        raise InputError(f"{op}: axis {axis} is the time axis", "an axis of fixed size", "the model")
    return dim


def as_attrs(node: Node, kind: type[A]) -> A:
    """The node's attributes, which are of this kind."""
    if not isinstance(node.attrs, kind):
        raise ValueError(f"node {node.name!r} has {type(node.attrs).__name__} attributes, not {kind.__name__}")
    return node.attrs


def elementwise_cost(_attrs: Any, _types: Types, out: TensorType) -> Cost:
    return Cost(macs=0, elements=out.elements)


def activate(kind: Activation, y: Array) -> Array:
    """The fused activation, in float."""
    if kind == "none":
        return y
    return np.maximum(y, 0) if kind == "relu" else np.clip(y, 0, 6)


def clamp_range(kind: Activation, out: TensorType) -> tuple[int, int]:
    """The integers between which the fused activation keeps an output of this type."""
    quant = need_quant(out)
    low, high = out.dtype.low, out.dtype.high
    if kind != "none":
        low = max(low, quant.zero_point)
    if kind == "relu6":
        high = min(high, quant.zero_point + int(nearest(6.0 / quant.scale)))
    return low, high


def need_quant(t: TensorType) -> Quant:
    """The affine map of a quantised activation."""
    if t.quant is None:
        raise ValueError(f"type {t} is not quantised")
    return t.quant


def passes_quant(_attrs: Any, types: Types, _stats: Stats) -> Quant:
    """``output_quant`` of operators whose output holds their input's integers."""
    return need_quant(types["x"])


def passes_node(_scope: QuantScope, node: Node) -> Quantised:
    """``quantise`` of operators that only move integers."""
    return Quantised((node,), ())


def exact_oracle(integer: Any) -> Any:
    """The oracle of an operator that only moves or looks up integers: the float reference on the same integers."""

    def oracle(_graph: Graph, node: Node, args: Args) -> Array:
        wide = {role: np.asarray(a, np.float64) for role, a in args.items()}
        return np.asarray(integer(node.attrs, wide), np.float64)

    return oracle


def generator(name: str) -> np.random.Generator:
    """A random generator that depends on the sample's name alone."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def int8_type(shape: tuple[Dim, ...], scale: float = 0.05, zero_point: int = 0) -> TensorType:
    return TensorType(shape, DType.INT8, Quant(scale, zero_point))


def draw(rng: np.random.Generator, t: TensorType, batch: int = 2, steps: int = 5) -> Array:
    """Integers of a type: a random part, one row all at the lowest and one all at the highest value."""
    shape = (batch + 2, *(steps if d == TIME else d for d in t.shape))
    x = rng.integers(t.dtype.low, t.dtype.high + 1, shape)
    x[-2], x[-1] = t.dtype.low, t.dtype.high
    return x.astype(t.dtype.value)


def draw_near(rng: np.random.Generator, t: TensorType, batch: int = 4, steps: int = 5) -> Array:
    """Integers at the zero point but for a few that are one step away: outputs of a fine scale stay in range."""
    shape = (batch, *(steps if d == TIME else d for d in t.shape))
    offsets = rng.integers(-1, 2, shape) * (rng.random(shape) < 0.2)
    return np.clip(need_quant(t).zero_point + offsets, t.dtype.low, t.dtype.high).astype(t.dtype.value)


def one_node(
    name: str,
    node: Node,
    types: Mapping[str, TensorType],
    constants: Mapping[str, Array],
    inputs: tuple[Array, ...] | None = None,
) -> Sample:
    """A quantised graph of one node; the roles without a constant are its inputs, in the node's order.

    Args:
        name: of the sample and of the graph.
        node: its inputs map each role to a value of that name.
        types: of the activations, by value name, the output included, and of constants that carry a scale.
        constants: integer constants by value name.
        inputs: integers; drawn from the name where absent.
    """
    values = [Value(v, t, constants.get(v)) for v, t in types.items()]
    values += [Value(v, constant_type(c), c) for v, c in constants.items() if v not in types]
    free = [v for v in node.inputs.values() if v not in constants]
    ports = tuple(Port(v, v, tuple(range(len(types[v].shape)))) for v in dict.fromkeys(free))
    out = Port(node.output, "y", tuple(range(len(types[node.output].shape))))
    graph = Graph(name, Stage.QUANTISED, ports, (out,), (node,), {v.name: v for v in values})
    rng = generator(name)
    return Sample(name, graph, inputs or tuple(draw(rng, types[p.value]) for p in ports))


def constant_type(data: Array, quant: Quant | None = None) -> TensorType:
    return TensorType(tuple(data.shape), DType(data.dtype.name), quant)


def windows(size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Positions of a window along an axis (already padded); 0 or less when it does not fit."""
    return (size - dilation * (kernel - 1) - 1) // stride + 1


def elements(shape: tuple[int, ...]) -> int:
    return math.prod(shape)
