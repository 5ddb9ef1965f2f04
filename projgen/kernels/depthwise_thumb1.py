"""Depthwise convolutions on Armv6-M cores: a plane of words a channel, four rows at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv import geometry
from projgen.kernels.conv_blocks import Parameters, call, is_clamped
from projgen.kernels.conv_thumb1 import halves_fit
from projgen.kernels.layouts import table
from projgen.kernels.linear import matrix_numerics
from projgen.kernels.record import Block, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

Array = npt.NDArray[np.generic]

MOST_TAPS: Final = 25  # straight-line code
LDR_REACH: Final = 31  # words


@dataclass(frozen=True, slots=True)
class ColumnTaps:
    """w (O, KH, KW, 1), b, m as words: per channel b; per column of the kernel its weights; m."""

    shape: tuple[int, int, int, int]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b, m = (np.asarray(constants[role]).astype(np.int64) for role in ("w", "b", "m"))
        taps = w[..., 0].transpose(0, 2, 1).reshape(len(w), -1)
        return np.concatenate([b[:, None], taps, m[:, None]], axis=1).astype(np.int32).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        channels, kernel_h, kernel_w, _ = self.shape
        rows = table.astype(np.int32).reshape(channels, -1)
        taps = rows[:, 1:-1].reshape(channels, kernel_w, kernel_h).transpose(0, 2, 1)
        return {
            "w": np.ascontiguousarray(taps).reshape(self.shape).astype(np.int8),
            "b": np.ascontiguousarray(rows[:, 0]),
            "m": np.ascontiguousarray(rows[:, -1]),
        }


def _depthwise(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    channels, kernel_h, kernel_w, _ = g.w
    (stride, across), dilation = g.attrs.stride, g.attrs.dilation
    if not g.is_depthwise or {g.x.dtype, g.y.dtype} != {DType.INT8} or not halves_fit(graph, node):
        return None
    if kernel_h * kernel_w > MOST_TAPS or dilation[0] != 1 or kernel_h - 1 + 3 * stride > LDR_REACH:
        return None
    (height, width, inputs), (rows, columns, _) = g.x.step_shape, g.y.step_shape
    top, _, left, _ = g.attrs.padding
    blocks = -(-rows // 4)
    held = max((4 * blocks - 1) * stride + kernel_h, top + height)
    seen = (columns - 1) * across + (kernel_w - 1) * dilation[1] + 1
    copied, pitch = min(width, seen - left), 4 * held
    if copied < 1:
        return None
    requant, clamped = matrix_numerics(node).requant, is_clamped(graph, node)
    parameters: Parameters = {
        "taps_h": kernel_h,
        "taps_w": kernel_w,
        "stride": stride,
        "shift": requant.shift,
        "clamped": int(clamped),
    }
    block = f"pg_depthwise_thumb1_{'_'.join(map(str, parameters.values()))}"
    function, struct = f"{block}_map", "pg_depthwise_thumb1_params"
    made = table("table", ColumnTaps(g.w), {role: graph.data(node, role) for role in ("w", "b", "m")}, "by channel")
    tap = dilation[1] * pitch - (4 * (kernel_h + 3) if stride == 1 else 0)
    output = 21 + (1 if requant.shift else 0) + (3 if clamped else 0)
    products = kernel_w * (kernel_h * (11 if stride == 1 else 13) - (1 if stride == 1 else 0)) + kernel_w - 1
    per_column = blocks * (products + 19) + rows // 4 * (4 * (output + 1) + 9) + 19
    per_column += rows % 4 * (output + 5) - 2 if rows % 4 else 0
    copying = 9 + 9 + height // 4 * 13 + height % 4 * 5 + 3
    same = g.x.step_shape == g.y.step_shape and g.attrs.stride == (1, 1)
    return KernelChoice(
        kernel="depthwise_thumb1",
        function=function,
        struct=struct,
        fields={
            "table": TableRef("table"),
            "shape": (
                *(requant.zero_point, requant.low, requant.high),
                *(rows, columns, across * pitch, tap, columns * channels, channels),
            ),
            "plane": (width * inputs, height, inputs, copied, pitch),
            "channels": inputs,
            "multiplier": channels // inputs,
            "table_words": made.data.size // channels,
            "plane_words": seen * held,
            "first": left * held + top,
            "input_zero_point": matrix_numerics(node).input_zero_point,
        },
        tables=(made,),
        sources=("pg_depthwise_thumb1.h",),
        blocks=(
            Block("depthwise_thumb1.h.j2", block, (("function", block), *parameters.items())),
            call(function, "pg_depthwise_thumb1_map", struct, ("int8_t", "int8_t"), block, row=False, core="thumb1"),
        ),
        instructions=channels * (columns * per_column + 55.0) + inputs * (copied * copying + 40.0) + 5.0 * seen * held,
        scratch_bytes=pitch * seen,
        in_place=frozenset({"x"} if same else ()),
    )


KERNELS = (KernelDef("depthwise_thumb1", "conv2d", frozenset({"thumb1"}), _depthwise),)
