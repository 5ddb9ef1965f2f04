"""Kernels of the poolings."""

from __future__ import annotations

from dataclasses import dataclass

from projgen.ir.attrs import AvgPool2d, MaxPool2d
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MeanTimeNumerics, PoolNumerics
from projgen.ir.types import DType, TensorType
from projgen.kernels.costs import loop
from projgen.kernels.layouts import Computed, table
from projgen.kernels.linear import SUFFIX, requant_field
from projgen.kernels.pitched import every
from projgen.kernels.record import KernelChoice, KernelDef, TableRef
from projgen.targets import Target


def _window(attrs: MaxPool2d | AvgPool2d, x: TensorType, y: TensorType) -> tuple[int, ...]:
    """Initialiser of ``pg_pool2d_window``."""
    (in_h, in_w, channels), (out_h, out_w, _) = x.step_shape, y.step_shape
    top, _, left, _ = attrs.padding
    return (in_h, in_w, out_h, out_w, channels, *attrs.kernel, *attrs.stride, top, left)


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a pooling: output pixels, those whose window lies inside the map, rows and pixels they see."""

    pixels: int
    inside: int
    lines: int
    rows: int
    taps: int


def windows(attrs: MaxPool2d | AvgPool2d, x: TensorType, y: TensorType) -> Windows:
    """What the windows of a pooling see of the map."""
    seen = []
    for axis, padding in ((0, attrs.padding[0]), (1, attrs.padding[2])):
        size, kernel = x.step_shape[axis], attrs.kernel[axis]
        starts = [o * attrs.stride[axis] - padding for o in range(y.step_shape[axis])]
        seen.append([min(s + kernel, size) - max(s, 0) for s in starts])
    (rows, columns), (kernel_h, kernel_w) = seen, attrs.kernel
    inside = rows.count(kernel_h) * columns.count(kernel_w)
    return Windows(len(rows) * len(columns), inside, len(rows), sum(rows) * len(columns), sum(rows) * sum(columns))


def max_pool2d(graph: Graph, node: Node, target: Target) -> KernelChoice:
    if not isinstance(node.attrs, MaxPool2d):
        raise TypeError(f"node {node.name!r} is no maximum pooling")
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    seen = windows(node.attrs, x, y)
    fours, ones = divmod(y.step_shape[2], 4)
    groups = fours + ones
    per_map = seen.pixels * (40 + 9.3 * groups) + 11.1 * seen.rows * groups + seen.taps * (22.2 * fours + 7.4 * ones)
    choice = KernelChoice(
        kernel="max_pool2d_portable",
        function=f"pg_max_pool2d_{SUFFIX[x.dtype]}",
        struct="pg_max_pool2d_params",
        fields={"window": _window(node.attrs, x, y)},
        tables=(),
        sources=("pg_pool2d.h", "pg_max_pool2d.h"),
        instructions=loop(target, per_map, 1.0) + 50.0,
    )
    return every(choice, "pg_max_pool2d", x, y, typed=False)


def avg_pool2d(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    n = node.numerics
    if not isinstance(node.attrs, AvgPool2d) or not isinstance(n, PoolNumerics):
        raise TypeError(f"node {node.name!r} is no average pooling")
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    if {x.dtype, y.dtype} != {DType.INT8}:
        return None
    first = n.counts[0] if len(n.counts) > 1 else 0
    by_count = dict(zip(n.counts, n.multipliers, strict=True))
    values = tuple(by_count.get(c, 0) for c in range(n.counts[0], n.counts[-1] + 1))
    seen, channels = windows(node.attrs, x, y), y.step_shape[2]
    comment = f"[divisor - {first}]" if first else ""
    return KernelChoice(
        kernel="avg_pool2d_portable",
        function="pg_avg_pool2d",
        struct="pg_avg_pool2d_params",
        fields={
            "window": _window(node.attrs, x, y),
            "multipliers": TableRef("multipliers"),
            "first_count": first,
            "zero_point": n.input_zero_point,
            "out": requant_field(n.requant),
        },
        tables=(table("multipliers", Computed(values, "int32"), {}, comment),),
        sources=("pg_pool2d.h", "pg_avg_pool2d.h"),
        instructions=loop(target, channels * (5.5 * seen.pixels + 5 * seen.rows + 4 * seen.taps), 1.0)
        + loop(target, seen.pixels, 109.0)
        + 20.0,
    )


def _mean_time(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    n = node.numerics
    if not isinstance(n, MeanTimeNumerics):
        raise TypeError(f"node {node.name!r} has no numerics")
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    if {x.dtype, y.dtype} != {DType.INT8}:
        return None
    return KernelChoice(
        kernel="mean_time_portable",
        function="pg_mean_time",
        struct="pg_mean_time_params",
        fields={
            "features": y.elements,
            "zero_point": n.input_zero_point,
            "fraction": n.fraction,
            "multiplier": n.multiplier,
            "out": requant_field(n.requant),
        },
        tables=(),
        sources=("pg_mean_time.h",),
        instructions=loop(target, y.elements, 12.0) + 12.0,
        state_bytes=4 * y.elements,
    )


KERNELS = (
    KernelDef("max_pool2d_portable", "max_pool2d", frozenset(), max_pool2d),
    KernelDef("avg_pool2d_portable", "avg_pool2d", frozenset(), avg_pool2d),
    KernelDef("mean_time_portable", "mean_time", frozenset(), _mean_time),
)
