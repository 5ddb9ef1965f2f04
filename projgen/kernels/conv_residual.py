"""Kernels of the convolution that adds a residual to its sums."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.kernels.conv import geometry, over_residual, window_field
from projgen.kernels.costs import loop, matrix
from projgen.kernels.layouts import plain
from projgen.kernels.linear import SUFFIX, matrix_numerics, requant_field
from projgen.kernels.record import KernelChoice, KernelDef, TableRef
from projgen.targets import Target


def _portable(graph: Graph, node: Node, target: Target) -> KernelChoice:
    g, numerics = geometry(graph, node), matrix_numerics(node)
    positions = g.y.elements // g.w[0]
    copied = positions * g.attrs.groups * g.taps
    pixels = loop(target, copied // g.w[3], 30.0)  # each pixel of each window is one call
    return KernelChoice(
        kernel="conv2d_residual_portable",
        function=f"pg_conv2d_residual_{SUFFIX[g.x.dtype]}",
        struct="pg_conv2d_residual_params",
        fields={
            "weights": TableRef("weights"),
            "bias": TableRef("bias"),
            "multipliers": TableRef("multipliers"),
            "factors": TableRef("factors"),
            "window": window_field(g, numerics.input_zero_point),
            "groups": g.attrs.groups,
            "out": requant_field(numerics.requant),
        },
        tables=(
            plain(graph, node, "w", "weights", "int8", "[out_c][kh][kw][in_c / groups]"),
            plain(graph, node, "b", "bias", "int32", "[out_c], zero points folded in"),
            plain(graph, node, "m", "multipliers", "int32", "[out_c]"),
            plain(graph, node, "f", "factors", "int32", "[out_c], of the residual"),
        ),
        sources=("pg_matrix.h", "pg_window.h", "pg_conv2d_residual.h"),
        instructions=matrix(target, g.y.elements * g.taps, g.y.elements)
        + loop(target, copied, 3.0)
        + loop(target, g.y.elements, 6.0)
        + pixels,
        scratch_bytes=4 * g.w[0] + g.taps * g.x.dtype.bytes,
        in_place=over_residual(node),
        row_function=f"pg_conv2d_residual_row_{SUFFIX[g.x.dtype]}",
    )


KERNELS = (KernelDef("conv2d_residual_portable", "conv2d_residual", frozenset(), _portable),)
