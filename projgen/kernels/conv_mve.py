"""Dense convolutions on MVE cores: two outputs x four pixels at a time over lines copied to scratch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

from projgen.ir.graph import Graph, Node
from projgen.kernels import conv_mve_block as blocks
from projgen.kernels.conv import Geometry, geometry, overwrites
from projgen.kernels.linear import matrix_numerics
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

OPERAND = 1024  # bytes of pixels that a pointwise convolution copies at once
SLACK = 16  # bytes after the last pixel that a vector load may touch
ROW_BYTES = 128  # of a window's row up to which windows are gathered
_LARGEST = (1 << 16) - 1  # of what parameters keep in 16 bits


def word_pitch(channels: int, itemsize: int) -> int:
    """Bytes of a pixel whose successor is word-aligned."""
    return -(-channels * itemsize // 4) * 4


def copied(pixels: int, channels: int, itemsize: int, pitch: int, *, dense: bool = True) -> float:
    """Instructions of ``pg_conv_mve_pixels`` from a row, which is ``dense`` where no channels of others lie between."""
    count = channels * itemsize
    if count == pitch and dense:
        return pixels * count / 7.1 + 14
    return pixels * (6 + 3 * -(-count // 16)) + 8


def _pixels(total: int, width: int) -> int:
    """Pixels of a block: three on maps of three columns, else as many as there are, up to four."""
    return 3 if width == 3 else min(4, total)


def _pointwise(graph: Graph, node: Node, _target: Target, *, shared: bool) -> KernelChoice | None:
    """The choice for a node; ``shared``: with pixels of whole vectors, whose block serves more widths."""
    g = geometry(graph, node)
    if not g.is_pointwise or g.attrs.stride != (1, 1) or not blocks.fits(node, g):
        return None
    height, width, outputs = g.y.step_shape
    inputs, total, itemsize = g.w[3], height * width, g.x.dtype.bytes
    vectors = -(-inputs * itemsize // 16)
    pixels, pitch = _pixels(total, width), 16 * vectors if shared else word_pitch(inputs, itemsize)
    if shared and pitch == word_pitch(inputs, itemsize):
        return None
    made = blocks.make(graph, node, g, blocks.lines(1, 1, 1, 1, pixels, pitch, vectors), flat=True)
    if made is None or max(inputs * itemsize, pitch) > _LARGEST:
        return None
    operand = pixels * max(1, min(total // pixels, OPERAND // (pixels * pitch)))
    function = f"pg_pointwise_mve_{made.variant}_v{vectors}_p{pixels}_b{pitch}"
    residual = "residual" in node.inputs
    has_row = width >= pixels and not (residual and width % pixels)  # no output is computed twice
    function += "" if has_row else "_map"
    struct = "pg_pointwise_mve_params"
    call = call_of(function, "pg_pointwise_mve", struct, g, (made.block,), residual=int(residual), row=int(has_row))
    whole, rest = total // pixels, total % pixels > 0
    calls = -(-whole * pixels // operand) + 2 * rest
    shrinks = outputs * g.y.dtype.bytes <= inputs * itemsize
    last = width % pixels > 0  # of each row by itself, a block that computes some pixels again
    in_row = width // pixels + last
    copies = copied(width, inputs, itemsize, pitch) + last * copied(pixels, inputs, itemsize, pitch)
    choice = KernelChoice(
        kernel=f"pointwise{'_residual' if residual else ''}_mve{'_shared' if shared else ''}",
        function=function,
        struct=struct,
        fields={
            "stream": TableRef("stream"),
            "block": made.field,
            "pixels": total,
            "row_pixels": width,
            "together": pixels,
            "inputs": inputs * itemsize,
            "outputs": outputs * g.y.dtype.bytes,
            "pitch": pitch,
            "operand": operand,
        },
        tables=(made.stream,),
        sources=("pg_pointwise_mve.h",),
        blocks=(made.block, call),
        instructions=(whole + rest) * made.per_block + copied(total, inputs, itemsize, pitch) + calls * 60 + 75,
        scratch_bytes=(operand + pixels) * pitch + SLACK,
        in_place=_in_place(node, shrinks, whole=not rest and outputs % 2 == 0),
        row_function=f"{function}_row" if has_row else "",
        row_instructions=height * (in_row * made.per_block + copies + (1 + 2 * last) * 60),
    )
    return _spread(node, g, made, choice)


def _spread(node: Node, g: Geometry, made: blocks.Made, choice: KernelChoice) -> KernelChoice:
    """A kernel that can write its output pixels apart: only its block and its steps between pixels know."""
    if "residual" in node.inputs or g.attrs.groups > 1:
        return choice

    @cache
    def pitched(pitch: int) -> KernelChoice | None:
        field, step = blocks.spread(made, g, pitch), "out" if "out" in choice.fields else "outputs"
        if field is None:
            return None
        fields = {**choice.fields, "block": field, step: pitch}
        return replace(choice, fields=fields, pitch=pitch, in_place=frozenset())

    return replace(choice, pitched=pitched)


def _in_place(node: Node, over_x: bool, *, whole: bool) -> frozenset[str]:
    """The roles that outputs may overwrite.

    Args:
        over_x: whether x is read before.
        whole: no output is computed twice, so that a residual is read once.
    """
    same = node.inputs.get("residual") == node.inputs["x"]
    roles = {"x"} if over_x and (whole or not same) else set()
    if "residual" in node.inputs and whole and (over_x or not same):
        roles.add("residual")
    return frozenset(roles)


@dataclass(frozen=True, slots=True)
class Ring:
    """The padded lines under the windows of one output row.

    Attributes:
        pitch: bytes of a pixel.
        line: bytes of a line.
        count: lines.
        columns: pixels of a row that lie under windows.
        filled: instructions to fill and load the lines for all output rows of one group.
        loads: instructions to load one line.
    """

    pitch: int
    line: int
    count: int
    columns: int
    filled: float
    loads: float

    @property
    def bytes(self) -> int:
        return self.count * self.line


def ring(g: Geometry, pitch: int, channels: int) -> Ring:
    """The lines of a convolution with pixels of ``pitch`` bytes, ``channels`` of which are loaded at once."""
    (in_h, in_w, _), (out_h, out_w, _) = g.x.step_shape, g.y.step_shape
    top, left, stride = g.attrs.padding[0], g.attrs.padding[2], g.attrs.stride
    count, width = ((g.w[1 + i] - 1) * g.attrs.dilation[i] + 1 for i in range(2))
    width += (out_w - 1) * stride[1]
    columns = max(0, min(in_w, width - left))
    line = -(-width * pitch // 4) * 4
    touched = {oy * stride[0] + i for oy in range(out_h) for i in range(count)}
    inside = sum(0 <= row - top < in_h for row in touched)
    loads = copied(columns, channels, g.x.dtype.bytes, pitch, dense=channels == g.x.step_shape[2]) + 68
    filled = inside * loads + (len(touched) - inside) * (line / 8 + 40)
    return Ring(pitch, line, count, columns, filled, loads)


def _over_lines(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    if g.is_depthwise or not blocks.fits(node, g):
        return None
    height, width, _ = g.y.step_shape
    _, kernel_h, kernel_w, inputs = g.w
    itemsize, pixels = g.x.dtype.bytes, _pixels(width, width)
    lines = ring(g, word_pitch(inputs, itemsize), inputs)
    vectors = -(-inputs * itemsize // 16)
    walk = blocks.lines(kernel_h, kernel_w, g.attrs.stride[1], g.attrs.dilation[1], pixels, lines.pitch, vectors)
    made = blocks.make(graph, node, g, walk, flat=False)
    fields = None if made is None else _fields(node, g, made, lines, 0, 0)
    if made is None or fields is None:
        return None
    function = made.block.function.replace("pg_conv_mve_", "pg_conv2d_mve_")
    residual, outputs = "residual" in node.inputs, g.w[0] // g.attrs.groups
    struct = "pg_conv2d_mve_params"
    call = call_of(function, "pg_conv2d_mve", struct, g, (made.block,), residual=int(residual), row=1)
    per_row = -(-width // pixels) * made.per_block + (2 if width % pixels else 1) * (35 + 4 * kernel_h)
    per_row += 45 + 9 * kernel_h
    choice = KernelChoice(
        kernel="conv2d_residual_mve" if residual else "conv2d_mve",
        function=function,
        struct=struct,
        fields=fields,
        tables=(made.stream,),
        sources=("pg_conv2d_mve.h",),
        blocks=(made.block, call),
        instructions=g.attrs.groups * (height * per_row + lines.filled) + 90,
        scratch_bytes=lines.bytes + SLACK,
        in_place=_in_place(
            node,
            g.attrs.groups == 1 and overwrites(g),
            whole=width % pixels == 0 and outputs % 2 == 0,
        ),
        row_function=f"{function}_row",
        row_instructions=height * (per_row + g.attrs.groups * kernel_h * (lines.loads + 20)) + 90,
    )
    return _spread(node, g, made, choice)


def _fields(
    node: Node, g: Geometry, made: blocks.Made, lines: Ring, operand: int, window: int
) -> dict[str, Field] | None:
    zero_point = matrix_numerics(node).input_zero_point
    over_lines = line_fields(
        g, lines, zero_point, groups=g.attrs.groups, together=made.pixels, operand=operand, window=window
    )
    if over_lines is None:
        return None
    return {
        "stream": TableRef("stream"),
        "block": made.field,
        **over_lines,
        "group_words": made.layout.group_words,
    }


def line_fields(
    g: Geometry, lines: Ring, zero_point: int, *, groups: int, together: int, operand: int = 0, window: int = 0
) -> dict[str, Field] | None:
    """What ``pg_conv2d_mve_params`` says of the maps and of the lines; None where a number takes more than 16 bits."""
    (in_h, in_w, in_c), (out_h, out_w, out_c) = g.x.step_shape, g.y.step_shape
    itemsize, size = g.x.dtype.bytes, g.y.dtype.bytes
    word = (zero_point & 0xFF) * 0x01010101 if itemsize == 1 else (zero_point & 0xFFFF) * 0x00010001
    narrow = {
        "in_h": in_h,
        "out_h": out_h,
        "kernel_h": g.w[1],
        "stride_h": g.attrs.stride[0],
        "dilation_h": g.attrs.dilation[0],
        "pad_top": g.attrs.padding[0],
        "count": lines.count,
        "left": g.attrs.padding[2] * lines.pitch,
        "pitch": lines.pitch,
        "step": g.attrs.stride[1] * lines.pitch,
        "pixel": in_c * itemsize,
        "inputs": in_c // groups * itemsize,
        "out": out_c * size,
        "outputs": out_c // groups * size,
        "groups": groups,
        "together": together,
        "operand": operand,
        "window": window,
    }
    if max(narrow.values()) > _LARGEST:
        return None
    return {
        "padding": word,
        "row": in_w * in_c * itemsize,
        "line": lines.line,
        "out_w": out_w,
        "columns": lines.columns,
        **narrow,
    }


def call_of(function: str, driver: str, struct: str, g: Geometry, used: tuple[Block, ...], **flags: int) -> Block:
    """The function that gives a driver its blocks.

    Args:
        flags: whether there is a ``residual``, and a function for one ``row``.
    """
    parameters: blocks.Parameters = {
        "function": function,
        "driver": driver,
        "struct": struct,
        "blocks": ", ".join(b.function for b in used),
        "x": blocks.CTYPES[g.x.dtype],
        "y": blocks.CTYPES[g.y.dtype],
        **flags,
    }
    return Block("conv_mve_call.h.j2", function, tuple(parameters.items()))


def _gathered(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    _, kernel_h, kernel_w, inputs = g.w
    itemsize = g.x.dtype.bytes
    row_bytes = kernel_w * inputs * itemsize
    if g.attrs.groups > 1 or (kernel_w > 1 and g.attrs.dilation[1] > 1) or row_bytes > ROW_BYTES:
        return None
    height, width, _ = g.y.step_shape
    total = height * width
    pixels = _pixels(total, width)
    chunks = 0 if row_bytes in (1, 2, 4) else -(-row_bytes // 16)
    # A window's last row is written in whole vectors: they must not reach the next window, gathered before it.
    pitch = word_pitch(max(kernel_h * row_bytes, (kernel_h - 1) * row_bytes + 16 * chunks), 1)
    vectors = -(-kernel_h * row_bytes // 16)
    made = blocks.make(graph, node, g, blocks.lines(1, 1, 1, 1, pixels, pitch, vectors), flat=True)
    if made is None or not blocks.fits(node, g):
        return None
    lines, step = ring(g, inputs * itemsize, inputs), g.attrs.stride[1] * inputs * itemsize
    operand = pixels * max(1, min(total // pixels, OPERAND // (pixels * pitch)))
    fields = _fields(node, g, made, lines, operand, pitch)
    if fields is None:
        return None
    gather = f"pg_conv_mve_gather_{kernel_h}x{row_bytes}_{step}_{pitch}"
    window: blocks.Parameters = {
        "function": gather,
        "kernel_h": kernel_h,
        "bytes": row_bytes,
        "step": step,
        "pitch": pitch,
    }
    function = f"pg_conv2d_mve_{made.variant}_{kernel_h}x{row_bytes}_{step}_p{pixels}_b{pitch}"
    gathering = Block("conv_mve_gather.h.j2", gather, tuple(window.items()))
    struct, has_row = "pg_conv2d_mve_params", width >= pixels
    function += "" if has_row else "_map"
    used = (made.block, gathering)
    call = call_of(function, "pg_conv2d_mve_gathered", struct, g, used, residual=0, row=int(has_row))
    calls = -(-total // operand)
    held = kernel_h <= 6  # row pointers in registers
    per_window = kernel_h * (2 * max(1, chunks) + (0 if held else 2 if chunks else 1)) + 3
    gathers = height + total // operand
    choice = KernelChoice(
        kernel="conv2d_mve_gathered",
        function=function,
        struct=struct,
        fields=fields,
        tables=(made.stream,),
        sources=("pg_conv2d_mve.h",),
        blocks=(*used, call),
        instructions=-(-total // pixels) * made.per_block
        + calls * 45
        + total * per_window
        + gathers * (20 + 2 * kernel_h)
        + lines.filled
        + height * (8 + 9 * kernel_h)
        + 100,
        scratch_bytes=(operand + pixels - 1) * pitch + SLACK + lines.bytes + SLACK,
        in_place=frozenset({"x"} if overwrites(g) else ()),
        row_function=f"{function}_row" if has_row else "",
        row_instructions=height * (-(-width // pixels) * made.per_block + width * per_window + 200)
        + height * (g.w[1] * (lines.loads + 20) + 20),
    )
    return _spread(node, g, made, choice)


_MVE = frozenset({"mve"})
KERNELS = (
    KernelDef("pointwise_mve", "conv2d", _MVE, partial(_pointwise, shared=False)),
    KernelDef("pointwise_mve_shared", "conv2d", _MVE, partial(_pointwise, shared=True)),
    KernelDef("conv2d_mve", "conv2d", _MVE, _over_lines),
    KernelDef("conv2d_mve_gathered", "conv2d", _MVE, _gathered),
    KernelDef("pointwise_residual_mve", "conv2d_residual", _MVE, partial(_pointwise, shared=False)),
    KernelDef("pointwise_residual_mve_shared", "conv2d_residual", _MVE, partial(_pointwise, shared=True)),
    KernelDef("conv2d_residual_mve", "conv2d_residual", _MVE, _over_lines),
)
