"""Kernels of the element-wise operators: table, sum and product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import AddNumerics, MulNumerics
from projgen.ir.types import DType
from projgen.kernels.costs import loop, requantised_loop
from projgen.kernels.layouts import padded, plain, strides
from projgen.kernels.linear import requant_field
from projgen.kernels.record import Field, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

_RANK = 4
_HALF = 1 << 15


def _lut(graph: Graph, node: Node, target: Target) -> KernelChoice:
    x = graph.arg(node, "x").type
    return KernelChoice(
        kernel="lut_portable",
        function="pg_lut",
        struct="pg_lut_params",
        fields={"table": TableRef("table"), "count": x.elements},
        tables=(plain(graph, node, "table", "table", "int8", "y of x = -128..127"),),
        sources=("pg_lut.h",),
        instructions=loop(target, x.elements, 6.0) + 14.0,
        in_place=frozenset({"x"}),
    )


def merged(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of a and strides of b with as few axes as they need; a stride is 0 where b is repeated."""
    axes = [(m, n == m, s) for m, n, s in zip(a, b, strides(b), strict=True) if m > 1]
    shape, steps = [], []
    for full, run in groupby(axes, key=lambda axis: axis[1]):
        members = list(run)
        size = 1
        for m, _, _ in members:
            size *= m
        shape.append(size)
        steps.append(members[-1][2] if full else 0)
    return tuple(shape), tuple(steps)


def operand_shapes(graph: Graph, node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a and b of a sum or product: of one step where a has a time axis."""
    a_shape = graph.type(node.output).step_shape
    b_shape = graph.arg(node, "b").type.step_shape
    return a_shape, b_shape[len(b_shape) - len(a_shape) :]  # without the axis of 1 that stands for time


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """``merged``, filled up to four axes; None where that isn't enough."""
    shape, steps = merged(a, b)
    if len(shape) > _RANK:
        return None
    return padded(shape, _RANK, 1), padded(steps, _RANK, 0)


@dataclass(frozen=True, slots=True)
class Operand:
    """How b of a sum or product lies beside a, which has ``rows`` of ``count`` elements.

    ``same``: element by element (one row); ``channels``: every row of a meets all of b; ``pixels``: one element of b a
    row.
    """

    form: Literal["same", "channels", "pixels"]
    rows: int
    count: int


def operand(graph: Graph, node: Node) -> Operand | None:
    """The form of a sum's or product's second operand; None where it is none that the fast kernels know."""
    shape, steps = merged(*operand_shapes(graph, node))
    match steps:
        case () | (1,):
            return Operand("same", 1, math.prod(shape))
        case (0,):
            return Operand("pixels", 1, shape[0])
        case (0, 1):
            return Operand("channels", *shape)
        case (1, 0):
            return Operand("pixels", *shape)
    return None


def _numerics(node: Node) -> AddNumerics | MulNumerics:
    if not isinstance(node.numerics, AddNumerics | MulNumerics):
        raise TypeError(f"node {node.name!r} has no numerics")
    return node.numerics


def _binary(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    a, b, y = graph.arg(node, "a"), graph.arg(node, "b"), graph.type(node.output)
    a_shape, b_shape = operand_shapes(graph, node)
    shapes = broadcast(a_shape, b_shape)
    if shapes is None or {a.type.dtype, b.type.dtype, y.dtype} != {DType.INT8}:
        return None
    n = _numerics(node)
    constant = "a" if a.is_constant else "b" if b.is_constant else ""
    fields: dict[str, Field] = {"constant": TableRef("constant")} if constant else {}
    fields |= {"shape": shapes[0], "b_strides": shapes[1]}
    if isinstance(n, AddNumerics):
        fields |= {"factor_a": n.factor_a, "zero_a": n.zero_a, "factor_b": n.factor_b, "zero_b": n.zero_b}
    else:
        fields |= {"zero_a": n.zero_a, "zero_b": n.zero_b}
    in_place = {"a"} | ({"b"} if a_shape == b_shape else set())
    return KernelChoice(
        kernel=f"{node.op}_portable",
        function=f"pg_{node.op}_constant_{constant}" if constant else f"pg_{node.op}",
        struct=f"pg_{node.op}_params",
        fields={**fields, "multiplier": n.multiplier, "out": requant_field(n.requant)},
        tables=(plain(graph, node, constant, "constant", "int8"),) if constant else (),
        sources=(f"pg_{node.op}.h",),
        instructions=requantised_loop(target, y.elements, 9.0)
        + loop(target, y.elements // max(1, y.step_shape[-1]), 28.0)
        + 74.0,
        in_place=frozenset(in_place - {constant}),
    )


@dataclass(frozen=True, slots=True)
class Fitting:
    """A sum or product that emitted blocks take.

    Attributes:
        form: of b.
        constant: the operand in the parameters, "a", "b" or "".
        clamped: whether outputs are limited to less than their type.
    """

    numerics: AddNumerics | MulNumerics
    form: Operand
    constant: str
    clamped: bool


def fitting(graph: Graph, node: Node) -> Fitting | None:
    """The sum or product of a node where it is int8, b of a form that blocks take and each factor a halfword."""
    a, b, y = graph.arg(node, "a"), graph.arg(node, "b"), graph.type(node.output)
    n, form = _numerics(node), operand(graph, node)
    if form is None or {a.type.dtype, b.type.dtype, y.dtype} != {DType.INT8}:
        return None
    if isinstance(n, AddNumerics) and not all(-_HALF <= f < _HALF for f in (n.factor_a, n.factor_b)):
        return None
    clamped = (n.requant.low, n.requant.high) != (y.dtype.low, y.dtype.high)
    return Fitting(n, form, "a" if a.is_constant else "b" if b.is_constant else "", clamped)


KERNELS = (
    KernelDef("lut_portable", "lut", frozenset(), _lut),
    KernelDef("add_portable", "add", frozenset(), _binary),
    KernelDef("mul_portable", "mul", frozenset(), _binary),
)
