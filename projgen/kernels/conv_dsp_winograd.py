"""Exact Winograd convolutions on DSP cores: fewer products for more flash, and the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, TensorType
from projgen.kernels.conv import Geometry, geometry, over_residual
from projgen.kernels.conv_blocks import CTYPES, Parameters, call, is_clamped, residual_copy
from projgen.kernels.conv_dsp_winograd_layouts import Quad, Stride2Stream, Winograd1dStream, Winograd2dStream
from projgen.kernels.costs_dsp import copy
from projgen.kernels.layouts import table
from projgen.kernels.linear import SUFFIX, matrix_numerics, peak
from projgen.kernels.packed import NATURAL, WIDENED
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

UNROLLED_QUADS = 4  # quads of channels up to which the products of a 2-D tile are straight-line code
SHARED_QUADS = 16  # up to which they are the same subroutine for all
UNROLLED_ROW_QUADS = 2  # the same of the forms along a row
FARTHEST = 4095  # bytes that stores reach, and ADDW adds
LARGEST_QUADS = 31  # reach of the loads and stores of double words


def _fits(graph: Graph, node: Node, g: Geometry, scale: int) -> bool:
    """Whether the forms of kernel width 3 that multiply sums by ``scale`` are exact here.

    Whole pairs of outputs; transformed inputs, twice as large along each transformed axis, fit int16; ``scale`` times
    any sum fits int32 when it is requantised.
    """
    largest = peak(graph, node.inputs["x"])
    w, b = graph.data(node, "w").astype(np.int64), graph.data(node, "b").astype(np.int64)
    if g.w[2] != 3 or g.attrs.dilation != (1, 1) or g.attrs.groups != 1:
        return False
    if g.w[0] % 2 or (3 * g.w[0] + 1) * g.y.dtype.bytes > FARTHEST or max(2, scale) * largest > 32767:
        return False
    f = graph.data(node, "f").astype(np.int64) if "f" in node.inputs else np.zeros(len(w), np.int64)
    reach = int((np.abs(w).reshape(len(w), -1).sum(axis=1) * largest + np.abs(b) + 128 * np.abs(f)).max())
    return (scale * reach) << matrix_numerics(node).requant.shift < 1 << 31 and -(-g.w[3] // 4) <= LARGEST_QUADS


def _fields(node: Node, g: Geometry, columns: int, parts: int, chunk: int = 0) -> dict[str, Field]:
    """The parameter struct."""
    requant = matrix_numerics(node).requant
    top, _, left, _ = g.attrs.padding
    wide = -(-g.w[3] // 4) * 4
    out_h, out_w, out_c = g.y.step_shape
    pixel, residual = out_c * g.y.dtype.bytes, int("residual" in node.inputs)
    return {
        "stream": TableRef("stream"),
        "row": (*g.x.step_shape, wide, top, left, matrix_numerics(node).input_zero_point, g.x.dtype.bytes),
        "columns": columns,
        "kernel_h": g.w[1],
        "stride_h": g.attrs.stride[0],
        "parts": parts,
        "chunk": chunk,
        "planes": (wide // 4, 32 * (chunk + 2)),
        "out_h": out_h,
        "out_w": out_w,
        "out": (out_w * pixel, requant.zero_point, requant.low, requant.high, pixel, wide // 4, residual),
    }


def _order(g: Geometry) -> Quad:
    """Channels of a quad in the operand."""
    return NATURAL if g.x.dtype is DType.INT16 else WIDENED


def _row_bytes(t: TensorType) -> int:
    """Bytes of a row of a map."""
    _, width, channels = t.step_shape
    return width * channels * t.dtype.bytes


def _row_copy(g: Geometry) -> int:
    """Instructions of the padded copy of an input row."""
    _, width, channels = g.x.step_shape
    pixel, place = (c * g.x.dtype.bytes for c in (channels, -(-channels // 4) * 4))
    if pixel == place:
        return copy(width * pixel)
    # whole pixels are spread word by word, all but the last or, of int16, none of them
    spread = width - 1 if -(-pixel // 4) * 4 == place else 0
    return spread * (5 + 4 * -(-pixel // 4)) + 8 + (width - spread) * (copy(pixel) + 12)


def _padded_rows(g: Geometry, rows: int, columns: int) -> float:
    """Instructions that fill a padded row of ``columns`` and make padded copies of ``rows`` input rows."""
    height, width, channels = g.x.step_shape
    place = -(-channels // 4) * 4 * g.x.dtype.bytes
    inside = sum(0 <= y - g.attrs.padding[0] < height for y in range(rows))
    return inside * _row_copy(g) + (rows - inside) * 1.2 * width * place + 0.75 * columns * place


def _finish(graph: Graph, node: Node, outputs: int, calls: int) -> int:
    """Instructions that requantise and store ``outputs``, in ``calls`` groups that load their limits."""
    shifted = 1 if matrix_numerics(node).requant.shift else 0
    clamped = is_clamped(graph, node)
    return outputs * (3 + shifted + (5 if clamped else 0)) + (2 * calls if clamped else 0)


@dataclass(frozen=True, slots=True)
class _Products:
    """How the block of the 2-D form multiplies: straight-line code for one node, or a subroutine for many."""

    quads: int  # of channels, at most, where it is a subroutine
    unrolled: bool

    @property
    def name(self) -> str:
        return f"{4 * self.quads}" if self.unrolled else f"upto{4 * self.quads}"


def _products(quads: int, size: str) -> _Products | None:
    """Of a node with ``quads``: its own ("own", "looped": never straight-line), or ("shared") one for most nodes."""
    if size == "shared":
        most = SHARED_QUADS if quads <= SHARED_QUADS else LARGEST_QUADS
        return _Products(most, False) if quads != most else None
    if size == "looped":
        return _Products(quads, False) if quads <= UNROLLED_QUADS else None
    return _Products(quads, quads <= UNROLLED_QUADS)


def _two_dimensional(graph: Graph, node: Node, _target: Target, *, size: str = "own") -> KernelChoice | None:
    g = geometry(graph, node)
    if g.w[1] != 3 or g.attrs.stride != (1, 1) or not _fits(graph, node, g, 4):
        return None
    requant, clamped = matrix_numerics(node).requant, is_clamped(graph, node)
    (out_h, out_w, outputs) = g.y.step_shape
    residual, wide = "residual" in node.inputs, g.y.dtype is DType.INT16
    layout = Winograd2dStream(g.w, _order(g), residual)
    quads, plan, made = layout.quads, _chunks(g, residual=residual), _products(layout.quads, size)
    if made is None:
        return None
    flag: int | str = "flag" if not made.unrolled and not wide else int(residual)
    variant = f"_{SUFFIX[g.y.dtype]}{f'_shift{requant.shift}' if requant.shift else ''}{'_clamped' if clamped else ''}"
    block = f"pg_winograd2d_{'residual_' if flag == 1 else ''}{made.name}{variant}"
    source = f"pg_winograd2d_input_{SUFFIX[g.x.dtype]}"
    has_row = out_h % 2 == 0
    function = f"{block}_{SUFFIX[g.x.dtype]}_map{'' if has_row else '_odd'}{'_sum' if residual else ''}"
    products: Parameters = {
        "function": block,
        "quads": made.quads,
        "unrolled": int(made.unrolled),
        "shift": requant.shift,
        "clamped": int(clamped),
        "wide": int(wide),
        "residual": flag,
        "apart": 0,
    }
    transform: Parameters = {"function": source, "wide": int(g.x.dtype is DType.INT16)}
    names = f"{block}, {source}_rows, {source}_tiles"
    row_pairs = -(-out_h // 2)
    per_pair = 160 * quads + 126 + (0 if made.unrolled else 79) + (36 if residual else 0) + _finish(graph, node, 16, 2)
    per_pair += 0 if flag != "flag" else 12 if clamped else 6
    pairs = -(-out_w // 4)
    per_tiles = outputs // 2 * per_pair + 136 * quads + (97 if made.unrolled else 105)
    around = _partial(g, residual=residual) + residual_copy(node, g)
    new_columns = plan.columns or g.x.step_shape[1]
    per_rows = new_columns * (28 * quads + 8) + 16 * quads + 440 + (plan.chunks - 1) * (50 * quads + 100)
    products_of_map = row_pairs * (pairs * per_tiles + per_rows) + around + 100
    copied = _padded_rows(g, 2 * row_pairs + 2, 4 * plan.columns) if plan.columns else 0.0
    spill = 8 * outputs * g.y.dtype.bytes if out_w % 4 or out_h % 2 else 0
    per_call = (8 * (plan.chunk + 2) + 64) * 4 * quads + -(-spill // 4) * 4
    padded = 4 * plan.columns * 4 * quads * g.x.dtype.bytes
    held = (1 + g.attrs.padding[0] * plan.overwrites) * _row_bytes(g.x)
    constants = {role: graph.data(node, role) for role in ("w", "b", "m", *(["f"] if residual else []))}
    types = (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    choice = KernelChoice(
        kernel=f"winograd2d{'_residual' if residual else ''}_dsp{'' if size == 'own' else f'_{size}'}",
        function=function,
        struct="pg_winograd_params",
        fields=_fields(node, g, plan.columns, 16, plan.chunk),
        tables=(table("stream", layout, constants, "bias, transformed weights and multipliers in reading order"),),
        sources=("pg_winograd.h",),
        blocks=(
            Block("conv_dsp_winograd2d.h.j2", block, tuple(products.items())),
            Block("conv_dsp_winograd2d_input.h.j2", source, tuple(transform.items())),
            call(function, "pg_winograd2d_map", "pg_winograd_params", types, names, row=has_row, residual=residual),
        ),
        instructions=products_of_map + copied,
        scratch_bytes=per_call + (padded or held),
        in_place=over_residual(node) if residual else frozenset({"x"} if plan.overwrites else ()),
        row_function=f"{function}_row" if has_row else "",
        rows=2,
        row_instructions=products_of_map + (row_pairs * 4 * _row_copy(g) if plan.columns else 0.0),
        row_scratch_bytes=per_call + padded,
    )
    return choice if residual or out_h % 2 else _apart(choice, g, lambda _pitch: {"residual": 0, "apart": 1}, "apart")


def _apart(choice: KernelChoice, g: Geometry, changed: Callable[[int], dict[str, int]], suffix: str) -> KernelChoice:
    """A kernel that can write its output pixels apart, where pairs of tiles fill the rows.

    Args:
        changed: for a pitch, the parameters of its first block that differ then; ``suffix`` is that of its name.
    """

    @cache
    def pitched(pitch: int) -> KernelChoice | None:
        (_, width, outputs), out = g.y.step_shape, choice.fields["out"]
        size = g.y.dtype.bytes
        if width % 4 or 3 * pitch + size > FARTHEST or not isinstance(out, tuple):
            return None
        products, *others, last = choice.blocks
        block, function = (f"{name}_{suffix.format(pitch)}" for name in (products.function, choice.function))
        given: Parameters = {**dict(products.parameters), **changed(pitch), "function": block}
        names = str(dict(last.parameters)["blocks"]).replace(products.function, block, 1)
        handed: Parameters = {**dict(last.parameters), "function": function, "blocks": names}
        return replace(
            choice,
            function=function,
            fields={**choice.fields, "out": (width * pitch, *out[1:4], pitch, out[5], outputs * size)},
            blocks=(
                Block(products.template, block, tuple(given.items())),
                *others,
                Block(last.template, function, tuple(handed.items())),
            ),
            row_function=f"{function}_row" if choice.row_function else "",
            pitch=pitch,
            in_place=frozenset(),
        )

    return replace(choice, pitched=pitched)


def _partial(g: Geometry, *, residual: bool) -> int:
    """Instructions that copy outputs from beside the map, and residuals there, where blocks of 2 x 4 hang over it."""
    (height, width, outputs), size = g.y.step_shape, g.y.dtype.bytes
    blocks = [(min(2, height - y), min(4, width - x)) for y in range(0, height, 2) for x in range(0, width, 4)]
    rows = [(h, copy(w * outputs * size) + 14) for h, w in blocks if h * w < 8]
    return sum(40 + h * row * (2 if residual else 1) for h, row in rows)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """How the columns under a pair of output rows are transformed.

    Attributes:
        columns: of a padded copy of a row; 0 where rows are read where they lie.
        chunk: output columns whose inputs are transformed at once.
        chunks: of them in a row.
        overwrites: whether outputs may lie over the inputs.
    """

    columns: int
    chunk: int
    chunks: int
    overwrites: bool


def _chunks(g: Geometry, *, residual: bool) -> _Chunks:
    """Halves of long rows, unless outputs may lie over inputs of other rows."""
    (_, in_w, channels), (_, out_w, _) = g.x.step_shape, g.y.step_shape
    pairs, (top, _, left, _) = -(-out_w // 4), g.attrs.padding
    direct = g.x.dtype is DType.INT8 and channels % 4 == 0
    # a padded row holds what the windows of whole pairs of tiles see, and the whole input row
    columns = 0 if direct else max(4 * pairs + 2, left + in_w)
    overwrites = not residual and _row_bytes(g.y) <= _row_bytes(g.x) and top <= 2 and left <= 2
    alike = g.x.step_shape[1:] == g.y.step_shape[1:] or columns > 0
    chunks = 2 if pairs >= 4 and (alike or not overwrites) else 1
    return _Chunks(columns, 4 * -(-pairs // chunks), chunks, overwrites)


@dataclass(frozen=True, slots=True)
class _RowForm:
    """A form that transforms along the rows: its names, and how many parts a transformed row has."""

    kernel: str
    prefix: str
    parts: int
    starts: int  # instructions that begin sums where the products are a subroutine
    per_pair: int  # of two outputs and tiles beside products and subroutine calls
    per_tiles: int  # of two tiles beside outputs and pointers to rows
    transform: float  # of two tiles of one quad
    per_row: int  # of an input row beside its copy and transform


_F23 = _RowForm("winograd1d_dsp", "winograd1d", 4, 2, 22, 25, 44.5, 108)
_STRIDE2 = _RowForm("winograd_stride2_dsp", "winograd_stride2", 5, 6, 15, 13, 51.5, 94)


def _by_rows(
    graph: Graph, node: Node, form: _RowForm, layout: Winograd1dStream | Stride2Stream, *, looped: bool
) -> KernelChoice | None:
    """The choice for a node that fits ``form``."""
    g = geometry(graph, node)
    requant, clamped = matrix_numerics(node).requant, is_clamped(graph, node)
    (_, in_w, _), (out_h, out_w, outputs) = g.x.step_shape, g.y.step_shape
    kernel_h, stride = g.w[1], g.attrs.stride
    quads, pairs = layout.quads, -(-out_w // 4)
    columns = max(4 * stride[1] * pairs + 3 - stride[1], g.attrs.padding[2] + in_w)
    unrolled = quads <= UNROLLED_ROW_QUADS and not looped
    if looped and quads > UNROLLED_ROW_QUADS:
        return None
    variant = f"_{SUFFIX[g.y.dtype]}{f'_shift{requant.shift}' if requant.shift else ''}{'_clamped' if clamped else ''}"
    block = f"pg_{form.prefix}_{kernel_h}x{4 * quads}x{outputs}{variant}{'_looped' if looped else ''}"
    source = f"pg_{form.prefix}_input_{SUFFIX[g.x.dtype]}_{4 * quads}x{pairs}"
    function = f"{block}_{SUFFIX[g.x.dtype]}_{pairs}_map"
    products: Parameters = {
        "function": block,
        "rows": kernel_h,
        "quads": quads,
        "outputs": outputs,
        "pixel": outputs,
        "unrolled": int(unrolled),
        "shift": requant.shift,
        "clamped": int(clamped),
        "wide": int(g.y.dtype is DType.INT16),
    }
    transform: Parameters = {"function": source, "quads": quads, "pairs": pairs, "wide": int(g.x.dtype is DType.INT16)}
    calls = (
        form.parts * kernel_h if unrolled else form.parts * (4 + (2 if kernel_h > 1 else 0) + kernel_h) + form.starts
    )
    each = form.parts * 10 * kernel_h * quads + calls + form.per_pair + _finish(graph, node, 8, 2)
    per_tiles = outputs // 2 * each + (2 * form.parts + 3) * kernel_h + form.per_tiles
    tail = 20 + 0.9 * (out_w % 4) * outputs * g.y.dtype.bytes if out_w % 4 else 0
    rows = (out_h - 1) * stride[0] + kernel_h
    per_row = pairs * quads * form.transform + form.per_row
    transformed = rows * per_row + _padded_rows(g, rows, columns) + 100
    shorter = _row_bytes(g.y) <= _row_bytes(g.x) and g.attrs.padding[0] < kernel_h
    constants = {role: graph.data(node, role) for role in ("w", "b", "m")}
    types = (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    choice = KernelChoice(
        kernel=f"{form.kernel}{'_looped' if looped else ''}",
        function=function,
        struct="pg_winograd_params",
        fields=_fields(node, g, columns, form.parts),
        tables=(table("stream", layout, constants, "bias, transformed weights and multipliers in reading order"),),
        sources=("pg_winograd.h",),
        blocks=(
            Block(f"conv_dsp_{form.prefix}.h.j2", block, tuple(products.items())),
            Block(f"conv_dsp_{form.prefix}_input.h.j2", source, tuple(transform.items())),
            call(function, "pg_winograd_rows_map", "pg_winograd_params", types, f"{block}, {source}"),
        ),
        instructions=out_h * (pairs * per_tiles + tail + 10 * kernel_h) + transformed,
        scratch_bytes=4 * columns * quads * g.x.dtype.bytes
        + 16 * kernel_h * pairs * form.parts * quads
        + 4 * outputs * g.y.dtype.bytes,
        in_place=frozenset({"x"} if shorter else ()),
        row_function=f"{function}_row",
        row_instructions=out_h * (pairs * per_tiles + tail + kernel_h * (per_row + _row_copy(g) + 10)) + 100,
    )
    return _apart(choice, g, lambda pitch: {"pixel": pitch // g.y.dtype.bytes}, "every{}")


def _one_dimensional(graph: Graph, node: Node, _target: Target, *, looped: bool = False) -> KernelChoice | None:
    g = geometry(graph, node)
    if g.w[1] > 3 or g.attrs.stride[0] > g.w[1] or g.attrs.stride[1] != 1 or not _fits(graph, node, g, 2):
        return None
    return _by_rows(graph, node, _F23, Winograd1dStream(g.w, _order(g)), looped=looped)


def _stride2(graph: Graph, node: Node, _target: Target, *, looped: bool = False) -> KernelChoice | None:
    g = geometry(graph, node)
    if g.w[1] > 3 or g.attrs.stride[0] > g.w[1] or g.attrs.stride[1] != 2 or not _fits(graph, node, g, 1):
        return None
    return _by_rows(graph, node, _STRIDE2, Stride2Stream(g.w, _order(g)), looped=looped)


_2D = (("winograd2d_dsp", "conv2d"), ("winograd2d_residual_dsp", "conv2d_residual"))
_ROWS = (("winograd1d_dsp", _one_dimensional), ("winograd_stride2_dsp", _stride2))
_DSP = frozenset({"dsp"})
KERNELS = (
    *(
        KernelDef(f"{name}{'' if size == 'own' else f'_{size}'}", op, _DSP, partial(_two_dimensional, size=size))
        for name, op in _2D
        for size in ("own", "looped", "shared")
    ),
    *(
        KernelDef(f"{name}{'_looped' if looped else ''}", "conv2d", _DSP, partial(apply, looped=looped))
        for name, apply in _ROWS
        for looped in (False, True)
    ),
)
