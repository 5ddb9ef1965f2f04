"""Dense convolutions that take a few pixels at a time through an emitted block: what they have in common on all cores.

Pixels stand side by side (1x1, fully connected) or are the windows of any geometry, gathered in order (KH, KW, C); the
last ones are computed beside the output and copied to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv import Geometry, inside, over_residual, overwrites, rows_inside, window_field
from projgen.kernels.costs_dsp import copy, gather
from projgen.kernels.linear import matrix_numerics, peak
from projgen.kernels.packed import LIMIT, largest_accumulator
from projgen.kernels.record import Block, KernelChoice, Table, TableRef

GATHER_WORDS = 48  # words of a window up to which its gathering is straight-line code
RING = 4096  # bytes of padded rows up to which windows are gathered from a copy
Parameters = dict[str, int | str | tuple[int, ...]]
CTYPES = {DType.INT8: "int8_t", DType.INT16: "int16_t"}


@dataclass(frozen=True, slots=True)
class Core:
    """Cores that share a block.

    Attributes:
        name: in the names of their C functions, "dsp", "thumb2" or "thumb1".
        pixels: that a block takes.
        operand: words that it reads per quad of inputs.
    """

    name: str
    pixels: int
    operand: int


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """The block that takes a core's pixels through the matrix of one node, and what surrounds it.

    Attributes:
        block: emitted code; its function is ``block.function``.
        variant: what tells its drivers apart, for their names.
        stream: the constants, of all groups.
        quads: of inputs.
        field: initialiser of ``pg_conv_CORE_matrix``.
        per_block: instructions for a core's pixels of one group.
    """

    block: Block
    variant: str
    stream: Table
    quads: int
    field: tuple[int, ...]
    per_block: float


def is_packed(graph: Graph, node: Node) -> bool:
    """Whether weights can be packed in pairs: |accumulator| < 2^23 in every row, proven from the weights."""
    w, b = graph.data(node, "w"), graph.data(node, "b")
    return largest_accumulator(w.reshape(len(w), -1), b, peak(graph, node.inputs["x"])) < LIMIT


def is_clamped(graph: Graph, node: Node) -> bool:
    """Whether outputs are limited to less than their type."""
    requant, y = matrix_numerics(node).requant, graph.type(node.output)
    return (requant.low, requant.high) != (y.dtype.low, y.dtype.high)


def residual_copy(node: Node, g: Geometry) -> int:
    """Instructions that copy the residual that a node adds to its sums into y; 0 where there is none."""
    return copy(g.y.elements) + 25 if "residual" in node.inputs else 0


def call(
    function: str,
    driver: str,
    struct: str,
    types: tuple[str, str],
    blocks: str,
    *,
    row: bool = True,
    residual: bool = False,
    core: str = "dsp",
    apart: bool = False,
) -> Block:
    """The C function that hands ``blocks`` (names, as arguments) to a driver, the ``residual`` in y.

    Args:
        core: whose blocks they are, "dsp", "thumb2" or "thumb1".
        apart: whether the driver writes pixels apart; it gets the types of x and y as flags.
    """
    parameters: Parameters = {
        "function": function,
        "driver": driver,
        "struct": struct,
        "x": types[0],
        "y": types[1],
        "blocks": blocks,
        "row": int(row),
        "residual": int(residual),
        "core": core,
        "apart": int(apart),
    }
    return Block("conv_call.h.j2", function, tuple(parameters.items()))


def side_by_side(
    core: Core,
    node: Node,
    g: Geometry,
    made: Matrix,
    *,
    kernel: str,
    driver: str,
    instructions: float,
    row_instructions: float,
    scratch_bytes: int,
) -> KernelChoice:
    """Pixels side by side through the matrix.

    Args:
        driver: the C function behind the kernel's own.
        instructions, row_instructions, scratch_bytes: of the choice.
    """
    residual = "residual" in node.inputs
    _, width, outputs = g.y.step_shape
    inputs = g.w[3]
    function = f"pg_pointwise_{core.name}_{made.variant}{'_sum' if residual else ''}"
    struct, types = f"pg_pointwise_{core.name}_params", (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    shrinks = outputs * g.y.dtype.bytes <= inputs * g.x.dtype.bytes
    return KernelChoice(
        kernel=kernel,
        function=function,
        struct=struct,
        fields={
            "stream": TableRef("stream"),
            "matrix": made.field,
            "pixels": g.y.elements // outputs,
            "row_pixels": width,
            "inputs": inputs,
        },
        tables=(made.stream,),
        sources=(f"pg_pointwise_{core.name}.h",),
        blocks=(
            made.block,
            call(function, driver, struct, types, made.block.function, residual=residual, core=core.name),
        ),
        instructions=instructions,
        scratch_bytes=scratch_bytes,
        in_place=over_residual(node) if residual else frozenset({"x"} if shrinks else ()),
        row_function="" if node.op == "linear" else f"{function}_row",
        row_instructions=row_instructions,
    )


def gathered(
    core: Core,
    node: Node,
    g: Geometry,
    made: Matrix,
    *,
    kernel: str,
    driver: str,
    asks: int | str,
    per_block: float,
    rest: Callable[[int], float],
) -> KernelChoice:
    """Windows of any geometry through the matrix, from a padded copy of the rows under them where that is short.

    Args:
        driver: start of the name of the C function behind the kernel's own.
        asks: whether that adds residuals, 0 or 1, or "flag": where the block's parameters say so.
        per_block: instructions of a block and its operand.
        rest: instructions for that many windows too few for a block.
    """
    residual = "residual" in node.inputs
    height, width, channels = g.y.step_shape
    _, kernel_h, kernel_w, inputs = g.w
    groups, itemsize, quads, pixels = g.attrs.groups, g.x.dtype.bytes, made.quads, height * width
    row_bytes = kernel_w * inputs * itemsize
    straight = groups == 1 and (kernel_w == 1 or g.attrs.dilation[1] == 1)
    words = kernel_h * -(-row_bytes // 4)
    pitch = (g.x.step_shape[1] + sum(g.attrs.padding[2:])) * inputs
    padded = straight and g.attrs.dilation[0] == 1 and words <= GATHER_WORDS and kernel_h * pitch * itemsize <= RING
    kind = f"{kernel_h}x{row_bytes}" if padded else "any" if straight else "strided"
    function = f"pg_conv2d_{core.name}_{made.variant}_{kind}{'_sum' if residual else ''}"
    driver = f"{driver}_{'padded' if padded else kind}"
    struct, types = f"pg_conv2d_{core.name}_params", (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    parameters: Parameters = {
        "function": driver,
        "x": types[0],
        "y": types[1],
        "straight": int(straight),
        "padded": int(padded),
        "residual": asks,
        "core": core.name,
        "pixels": core.pixels,
        "operand": core.operand,
    }
    blocks, names = [made.block], made.block.function
    if padded:
        rows: Parameters = {"function": f"pg_window_gather_{kind}", "rows": kernel_h, "bytes": row_bytes}
        blocks.append(Block("window_gather.h.j2", f"pg_window_gather_{kind}", tuple(rows.items())))
        names += f", pg_window_gather_{kind}"
    blocks.append(Block("conv_im2col.h.j2", driver, tuple(parameters.items())))
    blocks.append(call(function, driver, struct, types, names, residual=residual, core=core.name))
    together = rows_together(g, core.pixels)
    ring = 4 * quads * (core.operand + core.pixels * itemsize)
    ring += -(-core.pixels * channels // groups * g.y.dtype.bytes // 4) * 4
    if padded:
        kept = max(kernel_h - g.attrs.stride[0], 0)
        line = copy(g.x.step_shape[1] * inputs * itemsize) + 47
        shifted = height * (copy(kept * pitch * itemsize) + 22)
        collected = pixels * (gather(kernel_h, row_bytes) + 24)
        filled = 0.7 * pitch * itemsize
        windows = shifted + (height * (kernel_h - kept) + kept) * line + collected + filled * kernel_h
        streamed = collected + height * kernel_h * (line + filled)
    else:
        windows = windows_of(g, straight=straight)
        streamed = windows_of(g, straight=False)
    calls, zeroed = height // together, 28 * quads * itemsize
    return KernelChoice(
        kernel=kernel,
        function=function,
        struct=struct,
        fields={
            "stream": TableRef("stream"),
            "matrix": made.field,
            "window": window_field(g, matrix_numerics(node).input_zero_point),
            "groups": groups,
            "group_words": made.stream.data.size // groups,
            "pitch": pitch,
            "ring": ring // itemsize,
            "rows": together,
        },
        tables=(made.stream,),
        sources=(f"pg_conv2d_{core.name}.h",),
        blocks=tuple(blocks),
        instructions=groups * (-(-pixels // core.pixels) * per_block + windows + rest(pixels % core.pixels))
        + zeroed
        + 80
        + residual_copy(node, g),
        scratch_bytes=ring + (kernel_h * pitch * itemsize if padded else 0),
        in_place=over_residual(node) if residual else frozenset({"x"} if padded and overwrites(g) else ()),
        row_function=f"{function}_row",
        rows=together,
        row_instructions=groups * (calls * -(-together * width // core.pixels) * per_block + streamed)
        + calls * (zeroed + 100 + groups * rest(together * width % core.pixels)),
    )


def rows_together(g: Geometry, pixels: int) -> int:
    """Output rows of one call for rows: more than one where they fill blocks of so many pixels better."""
    height, width, _ = g.y.step_shape
    best = 1
    for rows in (2, 3, 4):
        saved = -(-best * width // pixels) / best - -(-rows * width // pixels) / rows
        if height % rows == 0 and g.attrs.dilation[0] == 1 and g.attrs.groups == 1 and saved > 0.01 * width / pixels:
            best = rows
    return best


def windows_of(g: Geometry, *, straight: bool) -> float:
    """Instructions that gather every window of one group: rows inside the map at once, others tap by tap."""
    (height, width, _), (_, kernel_h, kernel_w, inputs) = g.y.step_shape, g.w
    row_bytes = kernel_w * inputs * g.x.dtype.bytes
    seen, empty = rows_inside(g), height * kernel_h - rows_inside(g)
    across, down = (inside(g, 1), kernel_h * inside(g, 0)) if straight else (0, 0)
    per_byte = 0.95 if inputs * g.x.dtype.bytes % 4 == 0 else 2.3  # the C library's memcpy
    by_rows = across * (down * (copy(row_bytes) + 18) + (seen - down) * (45 + per_byte * row_bytes))
    by_taps = (width - across) * seen * (32 + 39 * kernel_w + per_byte * row_bytes)
    return 36 * height * width + by_rows + by_taps + width * empty * (32 + 0.97 * row_bytes)
