"""Dense convolutions on Armv7-M cores without DSP instructions: six pixels at a time, two in a word.

A word holds the same channel of two pixels 24 bits apart, so that a 64-bit multiply-accumulate adds to two sums. They
are separated exactly where |sum| < 2^23, which is proven from the weights; elsewhere the portable kernels remain.
"""

from __future__ import annotations

from functools import partial

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, TensorType
from projgen.kernels.conv import Geometry, geometry
from projgen.kernels.conv_blocks import (
    Core,
    Matrix,
    Parameters,
    gathered,
    is_clamped,
    is_packed,
    residual_copy,
    side_by_side,
)
from projgen.kernels.conv_dsp import apart
from projgen.kernels.conv_thumb2_layouts import PixelPairStream
from projgen.kernels.costs_thumb2 import matrix_block, pack_six, rest_of_six, rest_of_windows
from projgen.kernels.layouts import table
from projgen.kernels.linear import SUFFIX, matrix_numerics, rows_of
from projgen.kernels.record import Block, KernelChoice, KernelDef
from projgen.targets import Target

CORE = Core("thumb2", pixels=6, operand=12)
UNROLLED_QUADS = 16  # quads of inputs up to which the block is straight-line code
THUMB2 = frozenset({"thumb2"})


def fits(graph: Graph, node: Node) -> bool:
    """Whether two sums fit one 64-bit accumulator: int8 inputs, and |sum| < 2^23 in every row."""
    return graph.arg(node, "x").type.dtype is DType.INT8 and is_packed(graph, node)


def matrix(graph: Graph, node: Node, g: Geometry, *, looped: bool) -> Matrix:
    """The block for a node whose windows are gathered in order (KH, KW, C).

    ``looped``: the block for any number of inputs instead of straight-line code for this one.
    """
    requant, clamped = matrix_numerics(node).requant, is_clamped(graph, node)
    outputs = g.w[0] // g.attrs.groups
    residual = "residual" in node.inputs
    layout = PixelPairStream(graph.data(node, "w").shape, residual)
    unrolled = layout.quads if layout.quads <= UNROLLED_QUADS and not looped else 0
    variant = f"pairs_{SUFFIX[g.y.dtype]}{f'_shift{requant.shift}' if requant.shift else ''}"
    variant += f"{'_clamped' if clamped else ''}{'_residual' if residual else ''}{f'_q{unrolled}' if unrolled else ''}"
    function = f"pg_conv_thumb2_{variant}"
    parameters: Parameters = {
        "function": function,
        "wide": int(g.y.dtype is DType.INT16),
        "shift": requant.shift,
        "clamped": int(clamped),
        "quads": unrolled,
        "residual": int(residual),
    }
    constants = {role: graph.data(node, role) for role in ("w", "b", "m", *(["f"] if residual else []))}
    per_block = matrix_block(
        layout.quads, outputs, unrolled=unrolled > 0, shift=requant.shift > 0, clamped=clamped, residual=residual
    )
    return Matrix(
        Block("conv_thumb2_matrix.h.j2", function, tuple(parameters.items())),
        variant,
        table("stream", layout, constants, "start values, weights and multipliers in reading order"),
        layout.quads,
        (layout.quads, outputs, g.w[0] * g.y.dtype.bytes, requant.zero_point, requant.low, requant.high),
        per_block,
    )


def _pointwise(graph: Graph, node: Node, _target: Target, *, looped: bool = False) -> KernelChoice | None:
    g = geometry(graph, node)
    if not g.is_pointwise or g.attrs.stride != (1, 1) or g.attrs.groups != 1 or not fits(graph, node):
        return None
    residual = "residual" in node.inputs
    return _pixels(graph, node, g, f"pointwise{'_residual' if residual else ''}_thumb2", looped=looped)


def _fully_connected(graph: Graph, node: Node, _target: Target, *, looped: bool = False) -> KernelChoice | None:
    """A fully connected layer as a row of pixels: for many rows, or where the code is there already."""
    if not fits(graph, node):
        return None
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    outputs, inputs = graph.data(node, "w").shape
    rows = rows_of(x)
    maps = (TensorType((1, rows, inputs), x.dtype), TensorType((1, rows, outputs), y.dtype))
    g = Geometry(Conv2d(), *maps, (outputs, 1, 1, inputs))
    return _pixels(graph, node, g, "linear_pixels_thumb2", looped=looped)


def _pixels(graph: Graph, node: Node, g: Geometry, name: str, *, looped: bool) -> KernelChoice:
    """Pixels side by side, six at a time."""
    residual = "residual" in node.inputs
    made = matrix(graph, node, g, looped=looped)
    height, width, outputs = g.y.step_shape
    inputs, pixels, size = g.w[3], height * width, g.y.dtype.bytes
    per_six = made.per_block + pack_six(inputs) + 20
    spill = CORE.pixels * (outputs * size + inputs) if pixels % CORE.pixels or width % CORE.pixels else 0
    row_rest = rest_of_six(width % CORE.pixels, inputs, outputs, size, residual=residual)
    return side_by_side(
        CORE,
        node,
        g,
        made,
        kernel=f"{name}{'_looped' if looped else ''}",
        driver=f"pg_pointwise_thumb2_{'residual' if residual else SUFFIX[g.y.dtype]}",
        instructions=-(-pixels // CORE.pixels) * per_six
        + rest_of_six(pixels % CORE.pixels, inputs, outputs, size, residual=residual)
        + residual_copy(node, g)
        + 36,
        row_instructions=height * (-(-width // CORE.pixels) * per_six + row_rest + 40),
        scratch_bytes=48 * made.quads + spill,
    )


def _gathered(graph: Graph, node: Node, _target: Target, *, looped: bool = False) -> KernelChoice | None:
    g = geometry(graph, node)
    if g.is_depthwise or not fits(graph, node):
        return None
    residual, outputs = "residual" in node.inputs, g.w[0] // g.attrs.groups
    made = matrix(graph, node, g, looped=looped)
    choice = gathered(
        CORE,
        node,
        g,
        made,
        kernel=f"conv2d{'_residual' if residual else ''}_thumb2{'_looped' if looped else ''}",
        driver=f"pg_conv2d_thumb2_{'residual_' if residual else ''}{SUFFIX[g.y.dtype]}",
        asks=int(residual),
        per_block=made.per_block + pack_six(4 * made.quads) + 20,
        rest=lambda windows: rest_of_windows(windows, outputs * g.y.dtype.bytes, residual=residual),
    )
    return choice if residual or g.attrs.groups > 1 else apart(choice, made, g.y)


KERNELS = (
    KernelDef("pointwise_thumb2", "conv2d", THUMB2, _pointwise),
    KernelDef("pointwise_thumb2_looped", "conv2d", THUMB2, partial(_pointwise, looped=True)),
    KernelDef("linear_pixels_thumb2", "linear", THUMB2, _fully_connected),
    KernelDef("linear_pixels_thumb2_looped", "linear", THUMB2, partial(_fully_connected, looped=True)),
    KernelDef("conv2d_thumb2", "conv2d", THUMB2, _gathered),
    KernelDef("conv2d_thumb2_looped", "conv2d", THUMB2, partial(_gathered, looped=True)),
    KernelDef("pointwise_residual_thumb2", "conv2d_residual", THUMB2, _pointwise),
    KernelDef("pointwise_residual_thumb2_looped", "conv2d_residual", THUMB2, partial(_pointwise, looped=True)),
    KernelDef("conv2d_residual_thumb2", "conv2d_residual", THUMB2, _gathered),
    KernelDef("conv2d_residual_thumb2_looped", "conv2d_residual", THUMB2, partial(_gathered, looped=True)),
)
