"""Dense convolutions on Armv7-M cores without DSP instructions: six pixels at a time, two in a word.

A word holds the same channel of two pixels 24 bits apart, so that a 64-bit multiply-accumulate adds to two sums. They
are separated exactly where |sum| < 2^23, which is proven from the weights; elsewhere the portable kernels remain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, TensorType
from projgen.kernels.conv import Geometry, geometry, over_residual, overwrites, window_field
from projgen.kernels.conv_dsp import (
    CTYPES,
    GATHER_WORDS,
    RING,
    Parameters,
    call,
    is_clamped,
    is_packed,
    residual_copy,
    rows_together,
    windows_of,
)
from projgen.kernels.conv_thumb2_layouts import PixelPairStream
from projgen.kernels.costs_dsp import copy, gather
from projgen.kernels.costs_thumb2 import matrix_block, pack_six, rest_of_six, rest_of_windows
from projgen.kernels.layouts import table
from projgen.kernels.linear import SUFFIX, matrix_numerics, rows_of
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, Table, TableRef
from projgen.targets import Target

PIXELS = 6  # of a block
UNROLLED_QUADS = 16  # quads of inputs up to which the block is straight-line code
THUMB2 = frozenset({"thumb2"})


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """The block that takes six pixels through the matrix of one node.

    Attributes:
        block: emitted code; its function is ``block.function``.
        variant: what tells its drivers apart, for their names.
        stream: the constants.
        layout: their order.
        field: initialiser of ``pg_conv_thumb2_matrix``.
        per_block: instructions for six pixels of one group.
    """

    block: Block
    variant: str
    stream: Table
    layout: PixelPairStream
    field: tuple[int, ...]
    per_block: float


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
        layout,
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
    function = f"pg_pointwise_thumb2_{made.variant}{'_sum' if residual else ''}"
    driver = f"pg_pointwise_thumb2_{'residual' if residual else SUFFIX[g.y.dtype]}"
    types = (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    per_six = made.per_block + pack_six(inputs) + 20
    spill = PIXELS * (outputs * size + inputs) if pixels % PIXELS or width % PIXELS else 0
    row_rest = rest_of_six(width % PIXELS, inputs, outputs, size, residual=residual)
    return KernelChoice(
        kernel=f"{name}{'_looped' if looped else ''}",
        function=function,
        struct="pg_pointwise_thumb2_params",
        fields={
            "stream": TableRef("stream"),
            "matrix": made.field,
            "pixels": pixels,
            "row_pixels": width,
            "inputs": inputs,
        },
        tables=(made.stream,),
        sources=("pg_pointwise_thumb2.h",),
        blocks=(
            made.block,
            call(
                function,
                driver,
                "pg_pointwise_thumb2_params",
                types,
                made.block.function,
                residual=residual,
                core="thumb2",
            ),
        ),
        instructions=-(-pixels // PIXELS) * per_six
        + rest_of_six(pixels % PIXELS, inputs, outputs, size, residual=residual)
        + residual_copy(node, g)
        + 36,
        scratch_bytes=48 * made.layout.quads + spill,
        in_place=over_residual(node) if residual else frozenset({"x"} if outputs * size <= inputs else ()),
        row_function="" if node.op == "linear" else f"{function}_row",
        row_instructions=height * (-(-width // PIXELS) * per_six + row_rest + 40),
    )


def _gathered(graph: Graph, node: Node, _target: Target, *, looped: bool = False) -> KernelChoice | None:
    g = geometry(graph, node)
    if g.is_depthwise or not fits(graph, node):
        return None
    together = rows_together(g, PIXELS)
    residual = "residual" in node.inputs
    made = matrix(graph, node, g, looped=looped)
    height, width, channels = g.y.step_shape
    _, kernel_h, kernel_w, inputs = g.w
    groups = g.attrs.groups
    channels_in, outputs_bytes = g.x.step_shape[2], channels // groups * g.y.dtype.bytes
    row_bytes = kernel_w * inputs
    straight = groups == 1 and (kernel_w == 1 or g.attrs.dilation[1] == 1)
    words = kernel_h * -(-row_bytes // 4)
    pitch = (g.x.step_shape[1] + sum(g.attrs.padding[2:])) * inputs
    padded = straight and g.attrs.dilation[0] == 1 and words <= GATHER_WORDS and kernel_h * pitch <= RING
    gather_block = f"pg_window_gather_{kernel_h}x{row_bytes}" if padded else ""
    kind = f"{kernel_h}x{row_bytes}" if padded else "any" if straight else "strided"
    function = f"pg_conv2d_thumb2_{made.variant}_{kind}{'_sum' if residual else ''}"
    types = (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    driver = f"pg_conv2d_thumb2_{'residual_' if residual else ''}{SUFFIX[g.y.dtype]}_{'padded' if padded else kind}"
    parameters: Parameters = {
        "function": driver,
        "x": types[0],
        "y": types[1],
        "straight": int(straight),
        "padded": int(padded),
        "residual": int(residual),
        "core": "thumb2",
        "pixels": PIXELS,
        "operand": 2 * PIXELS,
    }
    blocks = [made.block]
    if padded:
        rows: Parameters = {"function": gather_block, "rows": kernel_h, "bytes": row_bytes}
        blocks.append(Block("window_gather.h.j2", gather_block, tuple(rows.items())))
    blocks.append(Block("conv_im2col.h.j2", driver, tuple(parameters.items())))
    names = f"{made.block.function}, {gather_block}" if padded else made.block.function
    blocks.append(call(function, driver, "pg_conv2d_thumb2_params", types, names, residual=residual, core="thumb2"))
    quads, pixels = made.layout.quads, height * width
    ring = 72 * quads + -(-PIXELS * outputs_bytes // 4) * 4
    fields: dict[str, Field] = {
        "stream": TableRef("stream"),
        "matrix": made.field,
        "window": window_field(g, matrix_numerics(node).input_zero_point),
        "groups": groups,
        "group_words": channels // groups * made.layout.output_words,
        "pitch": pitch,
        "ring": ring,
        "rows": together,
    }
    per_six = made.per_block + pack_six(4 * quads) + 20
    if padded:
        kept = max(kernel_h - g.attrs.stride[0], 0)
        line = copy(g.x.step_shape[1] * channels_in) + 47
        shifted = height * (copy(kept * pitch) + 22)
        gathered = pixels * (gather(kernel_h, row_bytes) + 24)
        windows: float = shifted + (height * (kernel_h - kept) + kept) * line + gathered
        streamed: float = gathered + height * kernel_h * (line + 0.7 * pitch)
    else:
        windows = windows_of(g, straight=straight)
        streamed = windows_of(g, straight=False)
    calls = height // together
    return KernelChoice(
        kernel=f"conv2d{'_residual' if residual else ''}_thumb2{'_looped' if looped else ''}",
        function=function,
        struct="pg_conv2d_thumb2_params",
        fields=fields,
        tables=(made.stream,),
        sources=("pg_conv2d_thumb2.h",),
        blocks=tuple(blocks),
        instructions=groups
        * (
            -(-pixels // PIXELS) * per_six
            + windows
            + rest_of_windows(pixels % PIXELS, outputs_bytes, residual=residual)
        )
        + 28 * quads
        + 80
        + (0.7 * pitch * kernel_h if padded else 0)
        + residual_copy(node, g),
        scratch_bytes=ring + (kernel_h * pitch if padded else 0),
        in_place=over_residual(node) if residual else frozenset({"x"} if padded and overwrites(g) else ()),
        row_function=f"{function}_row",
        rows=together,
        row_instructions=groups * (calls * -(-together * width // PIXELS) * per_six + streamed)
        + calls
        * (28 * quads + 100 + groups * rest_of_windows(together * width % PIXELS, outputs_bytes, residual=residual)),
    )


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
