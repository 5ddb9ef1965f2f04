"""Kernels of the convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.types import TensorType
from projgen.kernels.costs import loop, matrix
from projgen.kernels.layouts import TapMajor, plain, table
from projgen.kernels.linear import SUFFIX, matrix_numerics, requant_field
from projgen.kernels.pitched import every
from projgen.kernels.record import Field, KernelChoice, KernelDef, Table, TableRef
from projgen.targets import Target

_WEIGHTS = {"weights": TableRef("weights"), "bias": TableRef("bias"), "multipliers": TableRef("multipliers")}


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution node as its kernels see it."""

    attrs: Conv2d
    x: TensorType
    y: TensorType
    w: tuple[int, int, int, int]

    @property
    def suffix(self) -> str:
        return f"{SUFFIX[self.x.dtype]}_{SUFFIX[self.y.dtype]}"

    @property
    def taps(self) -> int:
        """Products summed into one output."""
        return self.w[1] * self.w[2] * self.w[3]

    @property
    def is_pointwise(self) -> bool:
        return self.w[1:3] == (1, 1) and self.attrs.groups == 1 and not any(self.attrs.padding)

    @property
    def is_depthwise(self) -> bool:
        return self.w[3] == 1 and self.attrs.groups > 1


def geometry(graph: Graph, node: Node) -> Geometry:
    """The shapes of a conv2d node; a ``TypeError`` for another node."""
    if not isinstance(node.attrs, Conv2d):
        raise TypeError(f"node {node.name!r} is no convolution")
    o, kh, kw, c = graph.data(node, "w").shape
    return Geometry(node.attrs, graph.arg(node, "x").type, graph.type(node.output), (o, kh, kw, c))


def over_residual(node: Node) -> frozenset[str]:
    """The role whose buffer outputs may overwrite where a residual is read no later: not if it is the input as well."""
    return frozenset({"residual"} if node.inputs["residual"] != node.inputs["x"] else ())


def overwrites(g: Geometry) -> bool:
    """Whether each output row may be written over the input map once the rows under it are copied, all channels at
    once."""
    (in_h, in_w, in_c), (out_h, out_w, out_c) = g.x.step_shape, g.y.step_shape
    in_row, out_row = in_w * in_c * g.x.dtype.bytes, out_w * out_c * g.y.dtype.bytes
    span = (g.w[1] - 1) * g.attrs.dilation[0] + 1
    loaded = (max(0, oy * g.attrs.stride[0] - g.attrs.padding[0] + span) for oy in range(out_h))
    return all(rows >= in_h or (oy + 1) * out_row <= rows * in_row for oy, rows in enumerate(loaded))


def window_field(g: Geometry, zero_point: int) -> tuple[int, ...]:
    """Initialiser of ``pg_window``."""
    top, _, left, _ = g.attrs.padding
    kernel = g.w[1:3]
    return (*g.x.step_shape, *g.y.step_shape, *kernel, *g.attrs.stride, *g.attrs.dilation, top, left, zero_point)


def inside(g: Geometry, axis: int) -> int:
    """Output positions along an axis whose window lies inside the map."""
    before, reach = g.attrs.padding[2 * axis], (g.w[1 + axis] - 1) * g.attrs.dilation[axis]
    starts = (o * g.attrs.stride[axis] - before for o in range(g.y.step_shape[axis]))
    return sum(s >= 0 and s + reach < g.x.step_shape[axis] for s in starts)


def rows_inside(g: Geometry) -> int:
    """Rows of windows, over all output rows, that lie inside the map."""
    starts = (o * g.attrs.stride[0] - g.attrs.padding[0] for o in range(g.y.step_shape[0]))
    taps = range(0, g.w[1] * g.attrs.dilation[0], g.attrs.dilation[0])
    return sum(0 <= s + t < g.x.step_shape[0] for s in starts for t in taps)


def _spread(g: Geometry, choice: KernelChoice) -> KernelChoice:
    """A portable kernel that can write its output pixels apart."""
    kernel = choice.function.removesuffix(f"_{g.suffix}")
    rows = "rows[0]" if kernel == "pg_pointwise" else "rows, NULL, 0"
    return every(choice, kernel, g.x, g.y, typed=True, rows=rows)


def _tables(graph: Graph, node: Node, weights: Table) -> tuple[Table, ...]:
    return (
        weights,
        plain(graph, node, "b", "bias", "int32", "[out_c], input zero point folded in"),
        plain(graph, node, "m", "multipliers", "int32", "[out_c]"),
    )


def _conv2d(graph: Graph, node: Node, target: Target) -> KernelChoice:
    g, numerics = geometry(graph, node), matrix_numerics(node)
    copied = g.y.elements // g.w[0] * g.attrs.groups * g.taps
    pixels = loop(target, copied // g.w[3], 30.0)  # each pixel of each window is one call
    fields: dict[str, Field] = {
        **_WEIGHTS,
        "window": window_field(g, numerics.input_zero_point),
        "groups": g.attrs.groups,
        "out": requant_field(numerics.requant),
    }
    choice = KernelChoice(
        kernel="conv2d_portable",
        function=f"pg_conv2d_{g.suffix}",
        struct="pg_conv2d_params",
        fields=fields,
        tables=_tables(graph, node, plain(graph, node, "w", "weights", "int8", "[out_c][kh][kw][in_c / groups]")),
        sources=("pg_matrix.h", "pg_window.h", "pg_conv2d.h"),
        instructions=matrix(target, g.y.elements * g.taps, g.y.elements) + loop(target, copied, 3.0) + pixels,
        scratch_bytes=g.taps * g.x.dtype.bytes,
        row_function=f"pg_conv2d_row_{g.suffix}",
    )
    return _spread(g, choice)


def _pointwise(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    if not g.is_pointwise:
        return None
    (_, in_w, in_c), (out_h, out_w, out_c) = g.x.step_shape, g.y.step_shape
    fields: dict[str, Field] = {
        **_WEIGHTS,
        "out_h": out_h,
        "out_w": out_w,
        "in_c": in_c,
        "out_c": out_c,
        "row_step": g.attrs.stride[0] * in_w * in_c,
        "column_step": g.attrs.stride[1] * in_c,
        "out": requant_field(matrix_numerics(node).requant),
    }
    choice = KernelChoice(
        kernel="pointwise_portable",
        function=f"pg_pointwise_{g.suffix}",
        struct="pg_pointwise_params",
        fields=fields,
        tables=_tables(graph, node, plain(graph, node, "w", "weights", "int8", "[out_c][in_c]")),
        sources=("pg_matrix.h", "pg_pointwise.h"),
        instructions=matrix(target, g.y.elements * in_c, g.y.elements),
        row_function=f"pg_pointwise_row_{g.suffix}",
    )
    return _spread(g, choice)


def _depthwise(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    g, numerics = geometry(graph, node), matrix_numerics(node)
    if not g.is_depthwise:
        return None
    layout = TapMajor("w", g.w)
    fields: dict[str, Field] = {
        **_WEIGHTS,
        "window": window_field(g, numerics.input_zero_point),
        "out": requant_field(numerics.requant),
    }
    in_c = g.x.step_shape[2]
    whole = inside(g, 0) * inside(g, 1)
    gathered = (g.y.elements // g.w[0] - whole) * g.taps
    window = g.y.elements * (1.3 * g.taps + 6.0 * g.w[1] + 15.0) + gathered * (28.0 + 0.75 * in_c)
    choice = KernelChoice(
        kernel="depthwise_portable",
        function=f"pg_depthwise_{g.suffix}",
        struct="pg_depthwise_params",
        fields=fields,
        tables=_tables(graph, node, table("weights", layout, {"w": graph.data(node, "w")}, "[kh][kw][out_c]")),
        sources=("pg_window.h", "pg_depthwise.h"),
        instructions=matrix(target, g.y.elements * g.taps, g.y.elements) + loop(target, window, 1.0),
        scratch_bytes=g.taps * in_c * g.x.dtype.bytes,
        row_function=f"pg_depthwise_row_{g.suffix}",
    )
    return _spread(g, choice)


KERNELS = (
    KernelDef("pointwise_portable", "conv2d", frozenset(), _pointwise),
    KernelDef("depthwise_portable", "conv2d", frozenset(), _depthwise),
    KernelDef("conv2d_portable", "conv2d", frozenset(), _conv2d),
)
