"""Dense convolutions on DSP cores: three pixels at a time through a matrix, straight from the map or gathered."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, partial

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, TensorType
from projgen.kernels.conv import Geometry, geometry, inside, over_residual, overwrites, rows_inside, window_field
from projgen.kernels.conv_dsp_layouts import MatrixStream
from projgen.kernels.costs_dsp import copy, gather, matrix_block, operand_of_three, rest_of_three
from projgen.kernels.layouts import table
from projgen.kernels.linear import SUFFIX, matrix_numerics, peak, rows_of
from projgen.kernels.packed import LIMIT, NATURAL, WIDENED, largest_accumulator
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, Table, TableRef
from projgen.targets import Target

UNROLLED_QUADS = 16  # quads of inputs up to which the block is straight-line code
GATHER_WORDS = 48  # words of a window up to which its gathering is straight-line code
RING = 4096  # bytes of padded rows up to which windows are gathered from a copy
SIZES = ("own", "entered", "looped", "shared")  # of the block, see matrix()
Parameters = dict[str, int | str | tuple[int, ...]]
CTYPES = {DType.INT8: "int8_t", DType.INT16: "int16_t"}


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """The block that takes three pixels through the matrix of one node, and what surrounds it.

    Attributes:
        block: emitted code; its function is ``block.function``.
        variant: what tells its drivers apart, for their names.
        stream: the constants.
        layout: their order.
        field: initialiser of ``pg_conv_dsp_matrix``.
        per_block: instructions for three pixels of one group.
    """

    block: Block
    variant: str
    stream: Table
    layout: MatrixStream
    field: tuple[int, ...]
    per_block: float


def is_packed(graph: Graph, node: Node) -> bool:
    """Whether weights can be packed in pairs: |accumulator| < 2^23 in every row, proven from the weights."""
    w, b = graph.data(node, "w"), graph.data(node, "b")
    return largest_accumulator(w.reshape(len(w), -1), b, peak(graph, node.inputs["x"])) < LIMIT


def residual_copy(node: Node, g: Geometry) -> int:
    """Instructions that copy the residual that a node adds to its sums into y; 0 where there is none."""
    return copy(g.y.elements) + 25 if "residual" in node.inputs else 0


def is_clamped(graph: Graph, node: Node) -> bool:
    """Whether outputs are limited to less than their type."""
    requant, y = matrix_numerics(node).requant, graph.type(node.output)
    return (requant.low, requant.high) != (y.dtype.low, y.dtype.high)


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


def matrix(graph: Graph, node: Node, g: Geometry, *, size: str) -> Matrix:
    """The block for a convolution node whose windows are gathered in order (KH, KW, C).

    ``size``: straight-line code for this number of inputs where it is short ("own"), that for the largest such number,
    which fewer inputs enter in the middle ("entered"), the block for any number ("looped"), or that which adds
    residuals too where a layer has them ("shared").
    """
    requant = matrix_numerics(node).requant
    packed, clamped = is_packed(graph, node), is_clamped(graph, node)
    wide_x, wide_y = g.x.dtype is DType.INT16, g.y.dtype is DType.INT16
    groups = g.attrs.groups
    outputs = g.w[0] // groups
    order = WIDENED if packed is not wide_x else NATURAL
    added = int("residual" in node.inputs)
    layout = MatrixStream(graph.data(node, "w").shape, groups, packed, order, bool(added))
    entered = size == "entered"
    unrolled = UNROLLED_QUADS if entered else layout.quads if layout.quads <= UNROLLED_QUADS and size == "own" else 0
    residual: int | str = added if unrolled else "flag" if added or size == "shared" else 0
    odd = outputs % 2
    variant = f"{'packed' if packed else 'plain'}_{SUFFIX[g.y.dtype]}{'_odd' if odd else ''}"
    variant += f"{f'_shift{requant.shift}' if requant.shift else ''}{'_clamped' if clamped else ''}"
    variant += "_residual" if residual else ""
    variant += f"_{'to' if entered else 'q'}{unrolled}" if unrolled else ""
    function = f"pg_conv_dsp_{variant}"
    parameters: Parameters = {
        "function": function,
        "packed": int(packed),
        "wide": int(wide_y),
        "odd": odd,
        "shift": requant.shift,
        "clamped": int(clamped),
        "quads": unrolled,
        "entered": int(entered),
        "residual": residual,
    }
    constants = {role: graph.data(node, role) for role in ("w", "b", "m", *(["f"] if added else []))}
    bytes_y = g.y.dtype.bytes
    per_block = matrix_block(
        layout.quads,
        outputs,
        packed=packed,
        unrolled=unrolled > 0,
        entered=entered,
        shift=requant.shift > 0,
        clamped=clamped,
        residual=added > 0,
        flag=residual == "flag",
    )
    return Matrix(
        Block("conv_dsp_matrix.h.j2", function, tuple(parameters.items())),
        f"{SUFFIX[g.x.dtype]}_{variant}",
        table("stream", layout, constants, "bias, weights and multipliers in reading order"),
        layout,
        (layout.quads, outputs, g.w[0] * bytes_y, requant.zero_point, requant.low, requant.high, added),
        per_block,
    )


def apart(choice: KernelChoice, made: Matrix, y: TensorType, driver: str = "") -> KernelChoice:
    """A kernel of this block, without residual and groups, that can write its output pixels apart.

    Args:
        driver: that for such pixels, where it is another.
    """

    @cache
    def pitched(pitch: int) -> KernelChoice | None:
        fields = {**choice.fields, "matrix": (*made.field[:2], pitch, *made.field[3:])}
        window = fields.get("window")
        if isinstance(window, tuple):
            fields["window"] = (*window[:5], pitch // y.dtype.bytes, *window[6:])
        other = replace(choice, fields=fields, pitch=pitch, in_place=frozenset())
        if not driver:
            return other
        kept, old = choice.blocks[:-1], dict(choice.blocks[-1].parameters)
        function, types = f"{choice.function}_apart", (str(old["x"]), str(old["y"]))
        block = call(function, driver, choice.struct, types, str(old["blocks"]), row=bool(old["row"]), apart=True)
        row = f"{function}_row" if choice.row_function else ""
        return replace(other, function=function, row_function=row, blocks=(*kept, block))

    return replace(choice, pitched=pitched)


def no_other(node: Node, g: Geometry, size: str) -> bool:
    """Whether a block of this ``size`` is no other than the looped one, or does not take the inputs or outputs."""
    if size == "entered":
        return -(-math.prod(g.w[1:]) // 4) > UNROLLED_QUADS
    return size == "shared" and (
        "residual" in node.inputs or g.y.dtype is DType.INT16 or g.w[0] // g.attrs.groups % 2 > 0
    )


def _pointwise(graph: Graph, node: Node, _target: Target, *, size: str = "own") -> KernelChoice | None:
    g = geometry(graph, node)
    residual = "residual" in node.inputs
    if not g.is_pointwise or g.attrs.stride != (1, 1) or g.attrs.groups != 1 or (residual and g.w[0] % 2):
        return None
    return _pixels(graph, node, g, f"pointwise{'_residual' if residual else ''}_dsp", size=size)


def _fully_connected(graph: Graph, node: Node, _target: Target, *, size: str = "own") -> KernelChoice | None:
    """A fully connected layer as a row of pixels: slower than its own block, but its code may be there already."""
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    outputs, inputs = graph.data(node, "w").shape
    rows = rows_of(x)
    maps = (TensorType((1, rows, inputs), x.dtype), TensorType((1, rows, outputs), y.dtype))
    return _pixels(graph, node, Geometry(Conv2d(), *maps, (outputs, 1, 1, inputs)), "linear_pixels_dsp", size=size)


def _pixels(graph: Graph, node: Node, g: Geometry, name: str, *, size: str) -> KernelChoice | None:
    """Pixels side by side, three at a time."""
    if no_other(node, g, size):
        return None
    residual = "residual" in node.inputs
    made = matrix(graph, node, g, size=size)
    height, width, outputs = g.y.step_shape
    inputs, pixels = g.w[3], height * width
    function = f"pg_pointwise_dsp_{made.variant}{'_sum' if residual else ''}"
    suffix = f"{SUFFIX[g.x.dtype]}_{SUFFIX[g.y.dtype]}"
    types = (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    quads, sizes = made.layout.quads, (g.x.dtype.bytes, g.y.dtype.bytes)
    filled = operand_of_three(inputs, sizes[0])
    shrinks = outputs * sizes[1] <= inputs * sizes[0]
    driver = f"pg_pointwise_dsp_{suffix}"
    choice = KernelChoice(
        kernel=f"{name}{'' if size == 'own' else f'_{size}'}",
        function=function,
        struct="pg_pointwise_dsp_params",
        fields={
            "stream": TableRef("stream"),
            "matrix": made.field,
            "pixels": pixels,
            "row_pixels": width,
            "inputs": inputs,
        },
        tables=(made.stream,),
        sources=("pg_pointwise_dsp.h",),
        blocks=(
            made.block,
            call(function, driver, "pg_pointwise_dsp_params", types, made.block.function, residual=residual),
        ),
        instructions=-(-pixels // 3) * (made.per_block + filled + 19)
        + rest_of_three(pixels % 3, inputs * sizes[0], outputs * sizes[1], residual)
        + residual_copy(node, g)
        + 36,
        scratch_bytes=24 * quads + (_spill(g) if pixels % 3 or width % 3 else 0),
        in_place=over_residual(node) if residual else frozenset({"x"} if shrinks else ()),
        row_function="" if node.op == "linear" else f"{function}_row",
        row_instructions=height * (-(-width // 3) * (made.per_block + filled + 20) + (150 if width % 3 else 40)),
    )
    return choice if residual else apart(choice, made, g.y, "pg_pointwise_dsp_apart")


def _spill(g: Geometry) -> int:
    """Bytes of scratch for the last one or two pixels of a row and their outputs."""
    return -(-3 * g.w[0] // 4) * 4 * g.y.dtype.bytes + 3 * g.w[3] * g.x.dtype.bytes


def _gathered(graph: Graph, node: Node, _target: Target, *, size: str = "own") -> KernelChoice | None:
    g = geometry(graph, node)
    together = rows_together(g, 3)
    residual = "residual" in node.inputs
    if g.is_depthwise or (residual and g.w[0] // g.attrs.groups % 2) or no_other(node, g, size):
        return None
    made = matrix(graph, node, g, size=size)
    height, width, channels = g.y.step_shape
    _, kernel_h, kernel_w, inputs = g.w
    groups, itemsize = g.attrs.groups, g.x.dtype.bytes
    channels_in, outputs_bytes = g.x.step_shape[2], channels // groups * g.y.dtype.bytes
    row_bytes = kernel_w * inputs * itemsize
    straight = groups == 1 and (kernel_w == 1 or g.attrs.dilation[1] == 1)
    words = kernel_h * -(-row_bytes // 4)
    pitch = (g.x.step_shape[1] + sum(g.attrs.padding[2:])) * inputs
    padded = straight and g.attrs.dilation[0] == 1 and words <= GATHER_WORDS and kernel_h * pitch * itemsize <= RING
    gather_block = f"pg_window_gather_{kernel_h}x{row_bytes}" if padded else ""
    kind = f"{kernel_h}x{row_bytes}" if padded else "any" if straight else "strided"
    function = f"pg_conv2d_dsp_{made.variant}_{kind}{'_sum' if residual else ''}"
    types = (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    driver = f"pg_conv2d_dsp_{SUFFIX[g.x.dtype]}_{SUFFIX[g.y.dtype]}_{'padded' if padded else kind}"
    parameters: Parameters = {
        "function": driver,
        "x": types[0],
        "y": types[1],
        "straight": int(straight),
        "padded": int(padded),
        "residual": "flag",
        "core": "dsp",
        "pixels": 3,
        "operand": 6,
    }
    blocks = [made.block]
    if padded:
        rows: Parameters = {"function": gather_block, "rows": kernel_h, "bytes": row_bytes}
        blocks.append(Block("window_gather.h.j2", gather_block, tuple(rows.items())))
    blocks.append(Block("conv_im2col.h.j2", driver, tuple(parameters.items())))
    names = f"{made.block.function}, {gather_block}" if padded else made.block.function
    blocks.append(call(function, driver, "pg_conv2d_dsp_params", types, names, residual=residual))
    quads, pixels = made.layout.quads, height * width
    ring = 24 * quads + 12 * quads * itemsize + -(-3 * channels // groups // 4) * 4 * g.y.dtype.bytes
    fields: dict[str, Field] = {
        "stream": TableRef("stream"),
        "matrix": made.field,
        "window": window_field(g, matrix_numerics(node).input_zero_point),
        "groups": groups,
        "group_words": made.layout.group_words,
        "pitch": pitch,
        "ring": ring // itemsize,
        "rows": together,
    }
    per_three = made.per_block + operand_of_three(4 * quads, itemsize)
    if padded:
        kept = max(kernel_h - g.attrs.stride[0], 0)
        line = copy(g.x.step_shape[1] * channels_in * itemsize) + 47
        shifted = height * (copy(kept * pitch * itemsize) + 22)
        windows = (
            float(shifted) + (height * (kernel_h - kept) + kept) * line + pixels * (gather(kernel_h, row_bytes) + 24)
        )
        windows += 0.7 * pitch * kernel_h * itemsize
        streamed: float = pixels * (gather(kernel_h, row_bytes) + 24) + height * kernel_h * (
            line + 0.7 * pitch * itemsize
        )
    else:
        windows = windows_of(g, straight=straight)
        streamed = windows_of(g, straight=False)
    left = rest_of_three(pixels % 3, 0, outputs_bytes, residual)
    calls = height // together
    choice = KernelChoice(
        kernel=f"conv2d{'_residual' if residual else ''}_dsp{'' if size == 'own' else f'_{size}'}",
        function=function,
        struct="pg_conv2d_dsp_params",
        fields=fields,
        tables=(made.stream,),
        sources=("pg_conv2d_dsp.h",),
        blocks=tuple(blocks),
        instructions=groups * (-(-pixels // 3) * per_three + windows + left)
        + 28 * quads * itemsize
        + 80
        + residual_copy(node, g),
        scratch_bytes=ring + (kernel_h * pitch * itemsize if padded else 0),
        in_place=over_residual(node) if residual else frozenset({"x"} if padded and overwrites(g) else ()),
        row_function=f"{function}_row",
        rows=together,
        row_instructions=groups * (calls * -(-together * width // 3) * per_three + streamed)
        + calls
        * (28 * quads * itemsize + 100 + groups * rest_of_three(together * width % 3, 0, outputs_bytes, residual)),
    )
    return choice if residual or groups > 1 else apart(choice, made, g.y)


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


_FORMS = (
    ("pointwise_dsp", "conv2d", _pointwise),
    ("linear_pixels_dsp", "linear", _fully_connected),
    ("conv2d_dsp", "conv2d", _gathered),
    ("pointwise_residual_dsp", "conv2d_residual", _pointwise),
    ("conv2d_residual_dsp", "conv2d_residual", _gathered),
)
KERNELS = tuple(
    KernelDef(f"{name}{'' if size == 'own' else f'_{size}'}", op, frozenset({"dsp"}), partial(apply, size=size))
    for name, op, apply in _FORMS
    for size in SIZES
    if size != "shared" or "residual" not in op
)
