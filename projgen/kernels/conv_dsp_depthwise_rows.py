"""Depthwise convolutions on DSP cores, row by row: little scratch, and usable in streamed segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv import geometry, overwrites, window_field
from projgen.kernels.conv_blocks import Parameters, call, is_clamped
from projgen.kernels.conv_dsp_layouts import as_words, halves, signed, words
from projgen.kernels.layouts import table
from projgen.kernels.linear import matrix_numerics
from projgen.kernels.packed import WIDENED
from projgen.kernels.record import Block, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

Array = npt.NDArray[np.generic]

MOST_TAPS = 32  # straight-line code
LDR_REACH = 4095


@dataclass(frozen=True, slots=True)
class PixelStream:
    """w (O, KH, KW, 1), b, m, O a multiple of 4: per four channels, in the order 0 2 1 3, b; two taps a word; the last
    tap of an odd number two channels a word; m."""

    shape: tuple[int, int, int, int]

    @property
    def taps(self) -> int:
        return self.shape[1] * self.shape[2]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        quads = self.shape[0] // 4
        w, b, m = (np.asarray(constants[role]).astype(np.int64).reshape(quads, 4, -1) for role in ("w", "b", "m"))
        w, b, m = w[:, WIDENED], b[:, WIDENED, 0], m[:, WIDENED, 0]
        even = self.taps // 2 * 2
        parts = [b, words(w[..., :even]).transpose(0, 2, 1).reshape(quads, -1)]
        if self.taps % 2:
            parts.append(words(w[..., -1]))
        return as_words([np.concatenate([*parts, m], axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(self.shape[0] // 4, -1)
        pairs = self.taps // 2
        inverse = np.argsort(WIDENED)
        w = halves(np.ascontiguousarray(rows[:, 4 : 4 + 4 * pairs].reshape(len(rows), pairs, 4).transpose(0, 2, 1)))
        w = w.reshape(len(rows), 4, 2 * pairs)
        if self.taps % 2:
            w = np.concatenate([w, halves(rows[:, -6:-4])[..., None]], axis=2)
        return {
            "w": w[:, inverse].reshape(self.shape).astype(np.int8),
            "b": signed(rows[:, :4])[:, inverse].reshape(-1).astype(np.int32),
            "m": signed(rows[:, -4:])[:, inverse].reshape(-1).astype(np.int32),
        }


def _rows(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    channels, kernel_h, kernel_w, _ = g.w
    if not g.is_depthwise or {g.x.dtype, g.y.dtype} != {DType.INT8} or channels % 4 or channels != g.attrs.groups:
        return None
    (in_h, in_w, _), (out_h, out_w, _) = g.x.step_shape, g.y.step_shape
    _, _, left, right = g.attrs.padding
    pitch, tap_step = (left + in_w + right) * channels, g.attrs.dilation[1] * channels
    taps = kernel_h * kernel_w
    if taps > MOST_TAPS or (kernel_h - 1) * pitch + (kernel_w - 1) * tap_step > LDR_REACH or in_h < 1:
        return None
    requant, clamped = matrix_numerics(node).requant, is_clamped(graph, node)
    layout = PixelStream(g.w)
    parameters: Parameters = {
        "taps_h": kernel_h,
        "taps_w": kernel_w,
        "quads": channels // 4,
        "pitch": pitch,
        "tap_step": tap_step,
        "stride": g.attrs.stride[1],
        "shift": requant.shift,
        "clamped": int(clamped),
    }
    block = "pg_depthwise_rows_dsp_" + "_".join(str(v) for v in parameters.values())
    function = f"{block}_map"
    per_quad = 15 * (taps // 2) + 8 * (taps % 2) + 22 + (4 if requant.shift else 0) + (25 if clamped else 0)
    per_row = out_w * (channels // 4 * per_quad + 7) + kernel_h * (0.65 * in_w * channels + 40) + 20
    constants = {role: graph.data(node, role) for role in ("w", "b", "m")}
    return KernelChoice(
        kernel="depthwise_rows_dsp",
        function=function,
        struct="pg_depthwise_rows_dsp_params",
        fields={
            "stream": TableRef("stream"),
            "window": window_field(g, matrix_numerics(node).input_zero_point),
            "pitch": pitch,
            "out": (requant.zero_point, requant.low, requant.high, out_w),
        },
        tables=(table("stream", layout, constants, "bias, weights and multipliers in reading order"),),
        sources=("pg_depthwise_rows_dsp.h",),
        blocks=(
            Block("conv_dsp_depthwise_row.h.j2", block, (("function", block), *parameters.items())),
            call(function, "pg_depthwise_rows_dsp", "pg_depthwise_rows_dsp_params", ("int8_t", "int8_t"), block),
        ),
        instructions=out_h * per_row + kernel_h * pitch * 0.5 + 40,
        scratch_bytes=kernel_h * pitch,
        in_place=frozenset({"x"} if g.attrs.dilation[0] == 1 and overwrites(g) else ()),
        row_function=f"{function}_row",
        row_instructions=out_h * (per_row + 40 * kernel_h) + 40,
    )


KERNELS = (KernelDef("depthwise_rows_dsp", "conv2d", frozenset({"dsp"}), _rows),)
