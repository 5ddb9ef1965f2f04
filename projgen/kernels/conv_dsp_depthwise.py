"""Depthwise convolutions on DSP cores: four channels at a time as int16 planes with the padding in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv import Geometry, geometry
from projgen.kernels.conv_blocks import Parameters, call, is_clamped
from projgen.kernels.conv_dsp_layouts import as_words, halves, signed, words
from projgen.kernels.layouts import table
from projgen.kernels.linear import matrix_numerics
from projgen.kernels.record import Block, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

Array = npt.NDArray[np.generic]

STRAIGHT = 4  # pairs of rows up to which a column is straight-line code
ANY_WORDS = 48  # words of weights up to which the block of any kernel is emitted
LDRD_REACH = 1020
LDR_REACH = 4095


@dataclass(frozen=True, slots=True)
class TripleTable:
    """w (O, 3, KW, 1), b, m: per channel and column tap (w0, w1), (w1, w2) as halfwords; then b, m."""

    shape: tuple[int, int, int, int]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b, m = (np.asarray(constants[role]).astype(np.int64) for role in ("w", "b", "m"))
        taps = w[..., 0].transpose(0, 2, 1)
        pairs = words(taps[..., [0, 1, 1, 2]]).reshape(len(w), -1)
        return as_words([np.concatenate([pairs, b[:, None], m[:, None]], axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(self.shape[0], -1)
        taps = halves(rows[:, :-2].reshape(len(rows), self.shape[2], 2))[..., [0, 1, 3]]
        return {
            "w": np.ascontiguousarray(taps.transpose(0, 2, 1)).reshape(self.shape).astype(np.int8),
            "b": signed(rows[:, -2]).astype(np.int32),
            "m": signed(rows[:, -1]).astype(np.int32),
        }


@dataclass(frozen=True, slots=True)
class TapTable:
    """w (O, KH, KW, 1), b, m: per channel b; per column tap its weights, two a word if ``paired``, else one; m."""

    shape: tuple[int, int, int, int]
    paired: bool

    @property
    def step(self) -> int:
        """Halfwords of a column tap."""
        return self.shape[1] + self.shape[1] % 2 if self.paired else 2 * self.shape[1]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b, m = (np.asarray(constants[role]).astype(np.int64) for role in ("w", "b", "m"))
        taps = np.zeros((len(w), self.shape[2], self.step), np.int64)
        taps[..., : self.shape[1] * (1 if self.paired else 2) : 1 if self.paired else 2] = w[..., 0].transpose(0, 2, 1)
        return as_words([np.concatenate([b[:, None], words(taps).reshape(len(w), -1), m[:, None]], axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(self.shape[0], -1)
        taps = halves(rows[:, 1:-1].reshape(len(rows), self.shape[2], -1))
        taps = taps[..., : self.shape[1]] if self.paired else taps[..., 0::2]
        return {
            "w": np.ascontiguousarray(taps.transpose(0, 2, 1)).reshape(self.shape).astype(np.int8),
            "b": signed(rows[:, 0]).astype(np.int32),
            "m": signed(rows[:, -1]).astype(np.int32),
        }


@dataclass(frozen=True, slots=True)
class Planes:
    """The planes of a node: rows and columns with padding, and which of them come from the map."""

    pitch: int  # bytes of a column, words whole
    columns: int
    copied_columns: int
    lead: int
    pairs: int
    tail: int
    first: int  # words to the first that is copied

    @property
    def bytes(self) -> int:
        """Of one plane."""
        return self.pitch * self.columns

    @property
    def instructions(self) -> float:
        """To copy four channels."""
        return self.copied_columns * (17 * self.pairs + 12 * self.lead + 11 * self.tail + 22) + 8


def planes(g: Geometry, *, whole_words: bool) -> Planes:
    """What the windows of ``g`` can see.

    Args:
        whole_words: blocks read words of rows 2 i and 2 i + 1 alone; others reach one row farther.
    """
    (top, _, left, _), (sh, sw), (dh, dw) = g.attrs.padding, g.attrs.stride, g.attrs.dilation
    (height, width, _), (rows, columns, _) = g.x.step_shape, g.y.step_shape
    _, kh, kw, _ = g.w
    seen = (rows - 1) * sh + (kh - 1) * dh + 1
    held = seen + seen % 2 + (0 if whole_words else 2)
    across = (columns - 1) * sw + (kw - 1) * dw + 1
    copied = max(0, min(height, seen - top))
    lead = top % 2 if copied else 0
    pairs, tail = divmod(copied - lead, 2)
    pitch = 2 * held
    return Planes(
        pitch, across, max(0, min(width, across - left)), lead, pairs, tail, (left * pitch + top // 2 * 4) // 4
    )


def _unrolled(steps: int) -> int:
    """Steps of straight-line code in a column."""
    if steps <= STRAIGHT:
        return max(1, steps)
    return next((u for u in (4, 3, 5) if steps % u == 0), 4)


def advance(step: int) -> int:
    """Instructions that move a pointer."""
    return 0 if step == 0 else 1 if abs(step) <= LDR_REACH else 2 + (abs(step) > 0xFFFF)


def _stores(rows: int, row: int) -> tuple[int, int]:
    """Instructions that move the pointer to outputs while ``rows`` of them are stored, and what it was moved by."""
    moves, at = 0, 0
    for to in range(0, rows * row, row):
        if to - at > LDR_REACH:
            moves, at = moves + advance(to - at), to
    return moves, at


def _fast(g: Geometry, p: Planes, shift: int, clamped: bool, shared: bool) -> tuple[Parameters, float] | None:
    """Parameters of the block for kernel height 3 and its instructions a channel; ``shared``: for any channels."""
    _, kh, kw, _ = g.w
    (sh, sw), (dh, dw) = g.attrs.stride, g.attrs.dilation
    if kh != 3 or kw > 3 or dh != 1 or sh > 2:
        return None
    rows, columns, channels = g.y.step_shape
    per_step = 2 if sh == 1 else 1
    steps = rows // per_step
    unroll = _unrolled(steps)
    if (kw - 1) * dw * p.pitch + 4 * (unroll + 1) > LDRD_REACH:
        return None
    finish = per_step * (3 + (1 if shift else 0) + (5 if clamped else 0)) + (1 if clamped else 0)
    step = 1 + kw * (5 if sh == 1 else 3) + finish
    single = (1 + kw * 3 + finish // per_step) * (rows % per_step)
    loops, rest = steps // unroll, rows - steps // unroll * unroll * per_step
    far, at = _stores(unroll * per_step, columns * channels) if loops else (0, 0)
    moves = loops * (far + advance(unroll * per_step * columns * channels - at) + 1)
    far, at = _stores(rest, columns * channels)
    moves += far + advance(channels - at - (rows - rest) * columns * channels)
    if shared:
        moves = 2 * (steps + rows % per_step) + loops + 2
    column = steps * step + single + moves + (3 * loops + 2 if loops > 1 else 0) + 5
    parameters: Parameters = {
        "taps": kw,
        "stride": sh,
        "rows": rows,
        "columns": columns,
        "tap_step": dw * p.pitch,
        "column_step": sw * p.pitch,
        "row": 0 if shared else columns * channels,
        "pixel": 0 if shared else channels,
        "unroll": unroll,
        "shift": shift,
        "clamped": int(clamped),
    }
    return parameters, columns * column + 9 + (2 if clamped else 0) + (6 if shared else 0)


def _any(g: Geometry, p: Planes, shift: int, clamped: bool) -> tuple[Parameters, float] | None:
    """Parameters of the block for any kernel and its instructions a channel."""
    _, kh, kw, _ = g.w
    (sh, sw), (dh, dw) = g.attrs.stride, g.attrs.dilation
    paired = dh == 1 and kh > 1
    per_tap = (kh + 1) // 2 if paired else kh
    reach = (kw - 1) * dw * p.pitch + (per_tap - 1) * (4 if paired else 2 * dh) + 6 * sh
    if per_tap * kw > ANY_WORDS or reach > LDR_REACH:
        return None
    rows, columns, channels = g.y.step_shape
    blocks = -(-rows // 4)
    row = columns * channels
    requantised = 3 + advance(row) + (1 if shift else 0) + (5 if clamped else 0)
    column = per_tap * kw * (2 * rows + blocks) + rows * requantised + rows // 4 * 9 + (blocks if clamped else 0)
    column += (2 + rows % 4 if rows % 4 else 0) + (1 if rows >= 4 else 0) + 3 + advance(channels - rows * row)
    parameters: Parameters = {
        "taps_h": kh,
        "taps_w": kw,
        "paired": int(paired),
        "stride": sh,
        "rows": rows,
        "columns": columns,
        "tap_row": 2 * dh,
        "tap_step": dw * p.pitch,
        "column_step": sw * p.pitch,
        "row": columns * channels,
        "pixel": channels,
        "shift": shift,
        "clamped": int(clamped),
    }
    return parameters, columns * column + 12


def _depthwise(graph: Graph, node: Node, _target: Target, *, shared: bool) -> KernelChoice | None:
    g = geometry(graph, node)
    if not g.is_depthwise or {g.x.dtype, g.y.dtype} != {DType.INT8}:
        return None
    requant, zero = matrix_numerics(node).requant, matrix_numerics(node).input_zero_point
    p, clamped = planes(g, whole_words=True), is_clamped(graph, node)
    layout: TripleTable | TapTable
    found = _fast(g, p, requant.shift, clamped, shared)
    if found is not None:
        kind, layout = "depthwise", TripleTable(g.w)
    elif shared:
        return None
    else:
        p = planes(g, whole_words=False)
        found = _any(g, p, requant.shift, clamped)
        if found is None:
            return None
        kind, layout = "depthwise_any", TapTable(g.w, bool(found[0]["paired"]))
    parameters, per_channel = found
    block = f"pg_{kind}_dsp_" + "_".join(str(v) for v in parameters.values())
    function = f"{block}_map"
    constants = {role: graph.data(node, role) for role in ("w", "b", "m")}
    made = table("table", layout, constants, "weights, bias and multiplier of each channel in reading order")
    (_, width, inputs), channels = g.x.step_shape, g.w[0]
    pad = (zero & 0xFFFF) * 0x10001
    same = g.x.step_shape == g.y.step_shape and g.attrs.stride == (1, 1)
    choice = KernelChoice(
        kernel=f"depthwise_dsp{'_shared' if shared else ''}",
        function=function,
        struct="pg_depthwise_dsp_params",
        fields={
            "table": TableRef("table"),
            "plane": (width * inputs, inputs, p.copied_columns, p.pairs, p.pitch, p.bytes, pad, p.lead, p.tail),
            "out": (requant.zero_point, requant.low, requant.high, channels),
            "channels": inputs,
            "multiplier": channels // inputs,
            "table_words": made.data.size // channels,
            "first": p.first,
        },
        tables=(made,),
        sources=("pg_depthwise_dsp.h",),
        blocks=(
            Block(f"conv_dsp_{kind}.h.j2", block, (("function", block), *parameters.items())),
            call(function, "pg_depthwise_dsp_map", "pg_depthwise_dsp_params", ("int8_t", "int8_t"), block, row=False),
        ),
        instructions=channels * (per_channel + 12) + -(-inputs // 4) * (p.instructions + 73) + 2 * p.bytes + 44,
        scratch_bytes=4 * p.bytes,
        in_place=frozenset({"x"} if same else ()),
    )

    @cache
    def pitched(pitch: int) -> KernelChoice | None:
        changed = dict(parameters)
        if not shared:
            changed |= {"row": g.y.step_shape[1] * pitch, "pixel": pitch}
        code = f"pg_{kind}_dsp_" + "_".join(str(v) for v in changed.values())
        types = ("int8_t", "int8_t")
        return replace(
            choice,
            function=f"{code}_map",
            fields={**choice.fields, "out": (requant.zero_point, requant.low, requant.high, pitch)},
            blocks=(
                Block(f"conv_dsp_{kind}.h.j2", code, (("function", code), *changed.items())),
                call(f"{code}_map", "pg_depthwise_dsp_map", "pg_depthwise_dsp_params", types, code, row=False),
            ),
            pitch=pitch,
            in_place=frozenset(),
        )

    return replace(choice, pitched=pitched)


KERNELS = (
    KernelDef("depthwise_dsp", "conv2d", frozenset({"dsp"}), partial(_depthwise, shared=False)),
    KernelDef("depthwise_dsp_shared", "conv2d", frozenset({"dsp"}), partial(_depthwise, shared=True)),
)
