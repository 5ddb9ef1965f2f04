"""Poolings on MVE cores: means of 16, maxima of 16 bytes of channels at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from projgen.ir.attrs import AvgPool2d, MaxPool2d
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import PoolNumerics
from projgen.kernels import pool
from projgen.kernels.linear import SUFFIX
from projgen.kernels.pitched import every
from projgen.kernels.record import Block, KernelChoice, KernelDef
from projgen.targets import Target

LARGEST_SUM = 255  # values of int8 whose sum fits 16 bits


def _avg_pool2d(graph: Graph, node: Node, target: Target, *, whole: bool = False) -> KernelChoice | None:
    """``whole``: one window that is the map, without a walk over windows."""
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
    variant = f"{'_wide' if wide else ''}{f'_shift{out.shift}' if out.shift else ''}{'_clamped' if clamped else ''}"
    function, window = f"pg_avg_pool_mve{variant}", f"pg_avg_pool_mve_window{variant}"
    block = Block(
        "avg_pool_mve.h.j2",
        window,
        (("function", window), ("wide", int(wide)), ("shift", out.shift), ("clamped", int(clamped))),
    )
    call = Block("avg_pool_mve_call.h.j2", function, (("function", function), ("window", window), ("wide", int(wide))))
    sixteens, eights = (0, -(-channels // 8)) if wide else (channels // 16, -(-(channels % 16) // 8))
    finish = 11 + (2 if out.shift else 0) + (4 if clamped else 0)
    seen = pool.windows(attrs, x, y)
    lines = seen.pixels if not wide and columns == x.step_shape[1] else seen.rows
    vectors = sixteens * (6 * seen.taps + 3.7 * lines + seen.pixels * (9.5 + 2 * finish))
    vectors += eights * (5 * seen.taps + 3.7 * lines + seen.pixels * (8.7 + finish) + (5 * seen.rows if wide else 0))
    if whole:
        if attrs.kernel != x.step_shape[:2] or any(attrs.padding) or seen.pixels != 1:
            return None
        return replace(
            portable,
            kernel="avg_pool2d_mve_whole",
            function=window,
            struct="pg_pool_mve_window",
            fields={
                "rows": rows if wide else 1,
                "columns": columns if wide else rows * columns,
                "pixel": channels,
                "skip": 0,
                "start": -rows * columns * n.input_zero_point,
                "half_multiplier": n.multipliers[0] // 2,
                "zero_point": out.zero_point,
                "low": out.low,
                "high": out.high,
                "channels": channels,
            },
            tables=(),
            sources=("pg_pool_mve.h",),
            blocks=(block,),
            instructions=vectors + 20,
        )
    return replace(
        portable,
        kernel="avg_pool2d_mve",
        function=function,
        sources=("pg_pool_mve.h",),
        blocks=(block, call),
        instructions=vectors + 55 * seen.pixels + 20 * seen.lines + 33,
    )


def _max_pool2d(graph: Graph, node: Node, target: Target) -> KernelChoice:
    if not isinstance(node.attrs, MaxPool2d):
        raise TypeError(f"node {node.name!r} is no maximum pooling")
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    seen = pool.windows(node.attrs, x, y)
    vectors = -(-y.step_shape[2] * x.dtype.bytes // 16)
    choice = replace(
        pool.max_pool2d(graph, node, target),
        kernel="max_pool2d_mve",
        function=f"pg_max_pool_mve_{SUFFIX[x.dtype]}",
        sources=("pg_pool_mve.h",),
        instructions=vectors * (9 * seen.pixels + 4 * seen.rows + 5 * seen.taps)
        + 32 * seen.pixels
        + 22 * seen.lines
        + 27,
    )
    return every(choice, "pg_max_pool_mve", x, y, typed=False)


KERNELS = (
    KernelDef("avg_pool2d_mve", "avg_pool2d", frozenset({"mve"}), _avg_pool2d),
    KernelDef("avg_pool2d_mve_whole", "avg_pool2d", frozenset({"mve"}), partial(_avg_pool2d, whole=True)),
    KernelDef("max_pool2d_mve", "max_pool2d", frozenset({"mve"}), _max_pool2d),
)
