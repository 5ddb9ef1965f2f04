"""Kernels that move elements: pad, slice, select, transpose, concat. They copy bytes and know no scales."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TypeVar

from projgen.ir.attrs import Concat, Pad, Select, Slice, Transpose
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import PadNumerics
from projgen.ir.types import TensorType
from projgen.kernels.costs import loop
from projgen.kernels.layouts import padded, plain, strides
from projgen.kernels.linear import SUFFIX
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

A = TypeVar("A")
MAX_RANK = 4


def _attrs(node: Node, kind: type[A]) -> A:
    if not isinstance(node.attrs, kind):
        raise TypeError(f"node {node.name!r} is no {kind.__name__}")
    return node.attrs


def static_axis(t: TensorType, axis: int) -> int:
    """``axis`` of the type as an axis of one step; a ``ValueError`` for the time axis itself."""
    inner = axis - 1 if t.has_time else axis
    if inner < 0:
        raise ValueError(f"axis {axis} of {t} is the time axis")
    return inner


def _runs(
    graph: Graph, node: Node, target: Target, axis: int, first: int, parts: int, step: int = 0, count: int = 1
) -> KernelChoice:
    """From x, along a step axis: ``count`` runs of ``parts`` neighbouring parts, from ``first`` on, ``step`` apart."""
    x = graph.arg(node, "x").type
    shape = x.step_shape
    part = math.prod(shape[axis + 1 :]) * x.dtype.bytes
    outer = math.prod(shape[:axis])
    aligned = all(v * part % 4 == 0 for v in (shape[axis], first, step, parts))
    moved = parts * part * (1.05 if aligned else 3.8)  # the C library's memcpy
    return KernelChoice(
        kernel=f"{node.op}_portable",
        function="pg_slice",
        struct="pg_slice_params",
        fields={
            "outer": outer,
            "block": shape[axis] * part,
            "first": first * part,
            "step": step * part,
            "count": count,
            "run": parts * part,
        },
        tables=(),
        sources=("pg_slice.h",),
        instructions=loop(target, outer * count, 20.0) + loop(target, outer, 15.0) + outer * count * moved + 30.0,
    )


def _slice(graph: Graph, node: Node, target: Target) -> KernelChoice:
    attrs = _attrs(node, Slice)
    axis = static_axis(graph.arg(node, "x").type, attrs.axis)
    size = attrs.stop - attrs.start
    if attrs.step == 1:
        return _runs(graph, node, target, axis, attrs.start, size)
    return _runs(graph, node, target, axis, attrs.start, 1, attrs.step, -(-size // attrs.step))


def _select(graph: Graph, node: Node, target: Target) -> KernelChoice:
    attrs = _attrs(node, Select)
    x = graph.arg(node, "x").type
    if x.has_time and attrs.axis == 0:  # every step is copied over the one before: the last stays
        return _runs(graph, node, target, 0, 0, x.step_shape[0])
    axis = static_axis(x, attrs.axis)
    return _runs(graph, node, target, axis, attrs.index % x.step_shape[axis], 1)


def _merge_unpadded(
    shape: tuple[int, ...], amounts: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Trailing axes without padding joined with the axis before them, whose amounts grow accordingly."""
    dims, pads = list(shape), list(amounts)
    while len(dims) > 1 and pads[-1] == (0, 0):
        size = dims.pop()
        pads.pop()
        dims[-1] *= size
        pads[-1] = (pads[-1][0] * size, pads[-1][1] * size)
    return tuple(dims), tuple(pads)


def _pad(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    attrs = _attrs(node, Pad)
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    if not isinstance(node.numerics, PadNumerics):
        raise TypeError(f"node {node.name!r} has no pad numerics")
    shape, amounts = _merge_unpadded(x.step_shape, attrs.amounts[1:] if x.has_time else attrs.amounts)
    if len(shape) > MAX_RANK:
        return None
    before = tuple(a for a, _ in amounts)
    out = tuple(n + a + b for n, (a, b) in zip(shape, amounts, strict=True))
    sizes = (shape[-1], before[-1], out[-1])
    unaligned = 1.5 * math.prod(shape) if any(v * x.dtype.bytes % 4 for v in sizes) else 0.0
    return KernelChoice(
        kernel="pad_portable",
        function=f"pg_pad_{SUFFIX[x.dtype]}",
        struct="pg_pad_params",
        fields={
            "in": padded(shape, MAX_RANK, 1),
            "before": padded(before, MAX_RANK, 0),
            "out": padded(out, MAX_RANK, 1),
            "value": node.numerics.value,
        },
        tables=(),
        sources=("pg_pad.h",),
        instructions=loop(target, y.elements, 0.85) + 90.0 * math.prod(out[:-1]) + unaligned + 63.0,
    )


def _transpose(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    attrs = _attrs(node, Transpose)
    x = graph.arg(node, "x").type
    shape = x.step_shape
    perm = tuple(static_axis(x, a) for a in attrs.perm[1:]) if x.has_time else attrs.perm
    if len(shape) > MAX_RANK:
        return None
    steps = strides(shape)
    return KernelChoice(
        kernel="transpose_portable",
        function=f"pg_transpose_{SUFFIX[x.dtype]}",
        struct="pg_transpose_params",
        fields={
            "out": padded(tuple(shape[a] for a in perm), MAX_RANK, 1),
            "strides": padded(tuple(steps[a] for a in perm), MAX_RANK, 0),
        },
        tables=(),
        sources=("pg_transpose.h",),
        instructions=loop(target, x.elements, 5.0) + loop(target, x.elements // max(1, shape[perm[-1]]), 17.5) + 31.0,
    )


def _concat(graph: Graph, node: Node, target: Target) -> KernelChoice:
    return concat(graph, node, target, frozenset())


def concat(graph: Graph, node: Node, target: Target, held: frozenset[str], pitch: int = 0) -> KernelChoice:
    """The copy of a Concat's parts into its output.

    Args:
        held: parts (values) that are there already.
        pitch: bytes from one pixel of the output to the next, of a Concat along the channels.
    """
    attrs = _attrs(node, Concat)
    y = graph.type(node.output)
    axis = static_axis(y, attrs.axis)
    outer = math.prod(y.step_shape[:axis])
    parts = [graph.values[v] for v in node.inputs.values()]
    runs = tuple(part.type.nbytes // outer for part in parts)
    there = tuple(i for i, part in enumerate(parts) if part.name in held)
    copied = [run for i, run in enumerate(runs) if i not in there]
    constants = tuple(i for i, part in enumerate(parts) if part.is_constant)
    names = [*(f"constant{i}" for i in constants), *(f"held{i}" for i in there)]
    function = "_".join(["pg_concat", str(len(runs)), *names])
    fields: dict[str, Field] = {"outer": outer, "block": pitch or sum(runs), "runs": runs}
    roles = tuple(node.inputs)
    parameters = (("function", function), ("inputs", len(runs)), ("constants", constants), ("held", there))
    moved = 3.7 if any(run % 4 for run in runs) or pitch % 4 else 1.1
    choice = KernelChoice(
        kernel="concat_portable",
        function=function,
        struct=f"{function}_params",
        fields=fields | {f"x{i}": TableRef(f"x{i}") for i in constants},
        tables=tuple(plain(graph, node, roles[i], f"x{i}", parts[i].type.dtype.value) for i in constants),
        sources=("pg_concat.h",),
        blocks=(Block("concat.h.j2", function, parameters),),
        instructions=loop(target, outer * len(copied), 24.0) + loop(target, outer * sum(copied), moved) + 50.0,
        pitch=pitch,
    )
    if axis < len(y.step_shape) - 1 or pitch:
        return choice
    return replace(choice, pitched=partial(concat, graph, node, target, held))


KERNELS = (
    KernelDef("pad_portable", "pad", frozenset(), _pad),
    KernelDef("slice_portable", "slice", frozenset(), _slice),
    KernelDef("select_portable", "select", frozenset(), _select),
    KernelDef("transpose_portable", "transpose", frozenset(), _transpose),
    KernelDef("concat_portable", "concat", frozenset(), _concat),
)
