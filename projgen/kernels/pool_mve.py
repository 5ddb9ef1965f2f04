"""Poolings on MVE cores: means of 16, maxima of 16 bytes of channels at a time."""

from __future__ import annotations

from dataclasses import replace

from projgen.ir.attrs import AvgPool2d, MaxPool2d
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import PoolNumerics
from projgen.kernels import pool
from projgen.kernels.linear import SUFFIX
from projgen.kernels.record import Block, KernelChoice, KernelDef
from projgen.targets import Target

LARGEST_SUM = 255  # values of int8 whose sum fits 16 bits


def _avg_pool2d(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    portable = pool.avg_pool2d(graph, node, target)
    n, attrs = node.numerics, node.attrs
    if not isinstance(attrs, AvgPool2d) or not isinstance(n, PoolNumerics) or portable is None:
        return None
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    channels, (rows, columns) = y.step_shape[2], attrs.kernel
    rows, columns = min(rows, x.step_shape[0]), min(columns, x.step_shape[1])
    if columns > LARGEST_SUM:
        return None
    wide = rows * columns > LARGEST_SUM
    out = n.requant
    clamped = (out.low, out.high) != (y.dtype.low, y.dtype.high)
    function = f"pg_avg_pool_mve{'_wide' if wide else ''}{f'_shift{out.shift}' if out.shift else ''}"
    function += "_clamped" if clamped else ""
    parameters = (("function", function), ("wide", int(wide)), ("shift", out.shift), ("clamped", int(clamped)))
    sixteens, eights = (0, -(-channels // 8)) if wide else (channels // 16, -(-(channels % 16) // 8))
    finish = 11 + (2 if out.shift else 0) + (4 if clamped else 0)
    around = 4 * (1 if not wide and columns == x.step_shape[1] else rows)
    per_pixel = sixteens * (6 * rows * columns + around + 8 + 2 * finish)
    per_pixel += eights * (5 * rows * columns + around + 7 + finish + (5 * rows if wide else 0))
    return replace(
        portable,
        kernel="avg_pool2d_mve",
        function=function,
        sources=("pg_pool_mve.h",),
        blocks=(Block("avg_pool_mve.h.j2", function, parameters),),
        instructions=y.elements // channels * (per_pixel + 70) + 40,
    )


def _max_pool2d(graph: Graph, node: Node, target: Target) -> KernelChoice:
    if not isinstance(node.attrs, MaxPool2d):
        raise TypeError(f"node {node.name!r} is no maximum pooling")
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    rows, columns = node.attrs.kernel
    vectors = -(-y.step_shape[2] * x.dtype.bytes // 16)
    return replace(
        pool.max_pool2d(graph, node, target),
        kernel="max_pool2d_mve",
        function=f"pg_max_pool_mve_{SUFFIX[x.dtype]}",
        sources=("pg_pool_mve.h",),
        instructions=y.elements // y.step_shape[2] * (vectors * (5 * rows * columns + 4 * rows + 9) + 34) + 40,
    )


KERNELS = (
    KernelDef("avg_pool2d_mve", "avg_pool2d", frozenset({"mve"}), _avg_pool2d),
    KernelDef("max_pool2d_mve", "max_pool2d", frozenset({"mve"}), _max_pool2d),
)
