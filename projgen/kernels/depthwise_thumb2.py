"""Depthwise convolutions on Armv7-M cores without DSP instructions: a plane a channel, two rows in a word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv import geometry
from projgen.kernels.conv_blocks import Parameters, is_clamped
from projgen.kernels.conv_dsp_layouts import as_words, signed
from projgen.kernels.costs_thumb2 import depthwise_channel, depthwise_plane
from projgen.kernels.layouts import table
from projgen.kernels.linear import matrix_numerics, peak
from projgen.kernels.packed import largest_accumulator
from projgen.kernels.record import Block, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

Array = npt.NDArray[np.generic]

LIMIT: Final = 1 << 22  # of |sum|: two of them 23 bits apart are separated exactly below it
BOTH: Final = (1 << 23) + 1  # a number as the first and the second value of a word
MOST_TAPS: Final = 5  # columns of a kernel, straight-line code


@dataclass(frozen=True, slots=True)
class WordTaps:
    """w (O, 3, KW, 1), b, m: per channel b (2^23 + 1) as low and high word; per column tap its three weights; m."""

    shape: tuple[int, int, int, int]

    @property
    def words(self) -> int:
        """Of one channel."""
        return 3 + 3 * self.shape[2]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b, m = (np.asarray(constants[role]).astype(np.int64) for role in ("w", "b", "m"))
        start = b * BOTH
        taps = w[..., 0].transpose(0, 2, 1).reshape(len(w), -1)
        rows = np.concatenate([np.stack([start & 0xFFFFFFFF, start >> 32], axis=1), taps, m[:, None]], axis=1)
        return as_words([rows])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(-1, self.words)
        start = signed(rows[:, 1]) << 32 | rows[:, 0].astype(np.int64)
        taps = signed(rows[:, 2:-1]).reshape(len(rows), self.shape[2], 3)
        return {
            "w": np.ascontiguousarray(taps.transpose(0, 2, 1)).reshape(self.shape).astype(np.int8),
            "b": (start // BOTH).astype(np.int32),
            "m": signed(rows[:, -1]).astype(np.int32),
        }


def _depthwise(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    channels, kernel_h, taps, _ = g.w
    (apart, across), dilation = g.attrs.stride, g.attrs.dilation
    if not g.is_depthwise or {g.x.dtype, g.y.dtype} != {DType.INT8}:
        return None
    if kernel_h != 3 or taps > MOST_TAPS or apart > 2 or dilation[0] != 1 or g.x.step_shape[0] < 2:
        return None
    w, b = graph.data(node, "w"), graph.data(node, "b")
    if largest_accumulator(w.reshape(channels, -1), b, peak(graph, node.inputs["x"])) >= LIMIT:
        return None
    (height, width, inputs), (rows, columns, _) = g.x.step_shape, g.y.step_shape
    top, _, left, _ = g.attrs.padding
    reached = -(-rows // 4) * 4 if rows % 4 in (0, 3) else rows + rows % 2
    held = max((reached - 2) * apart + 3, top + height)
    seen = (columns - 1) * across + (taps - 1) * dilation[1] + 1
    copied = min(width, seen - left)
    if copied < 1:
        return None
    requant, zero = matrix_numerics(node).requant, matrix_numerics(node).input_zero_point
    clamped, pads, pitch = is_clamped(graph, node), min(top, apart), 4 * held
    plane: Parameters = {
        "rows": height,
        "row": width * inputs,
        "columns": copied,
        "pixel": inputs,
        "pitch": pitch,
        "apart": apart,
        "pads": pads,
    }
    channel: Parameters = {
        "taps": taps,
        "stride": apart,
        "rows": rows,
        "columns": columns,
        "tap_step": dilation[1] * pitch,
        "column_step": across * pitch,
        "row": columns * channels,
        "pixel": channels,
        "shift": requant.shift,
        "clamped": int(clamped),
    }
    copying = f"pg_depthwise_thumb2_plane_{'_'.join(map(str, plane.values()))}_{'m' if zero < 0 else ''}{abs(zero)}"
    computing = f"pg_depthwise_thumb2_{'_'.join(map(str, channel.values()))}"
    function = f"{computing}_of_{copying.removeprefix('pg_depthwise_thumb2_plane_')}"
    made = table("table", WordTaps(g.w), {role: graph.data(node, role) for role in ("w", "b", "m")}, "by channel")
    struct = "pg_depthwise_thumb2_params"
    whole: Parameters = {"function": function, "plane": copying, "channel": computing}
    per_plane = depthwise_plane(**plane)  # type: ignore[arg-type]
    per_channel = depthwise_channel(**channel)  # type: ignore[arg-type]
    same = g.x.step_shape == g.y.step_shape and g.attrs.stride == (1, 1)
    return KernelChoice(
        kernel="depthwise_thumb2",
        function=function,
        struct=struct,
        fields={
            "table": TableRef("table"),
            "out": (requant.zero_point, requant.low, requant.high),
            "channels": inputs,
            "multiplier": channels // inputs,
            "table_words": made.data.size // channels,
            "plane_words": seen * held,
            "first": left * held + max(0, top - apart),
            "input_zero_point": zero,
        },
        tables=(made,),
        sources=("pg_depthwise_thumb2.h",),
        blocks=(
            Block("depthwise_thumb2_plane.h.j2", copying, (("function", copying), *plane.items(), ("zero", zero))),
            Block("depthwise_thumb2.h.j2", computing, (("function", computing), *channel.items())),
            Block("depthwise_thumb2_call.h.j2", function, tuple(whole.items())),
        ),
        instructions=channels * (per_channel + 12.0) + inputs * (per_plane + 10.0) + 5.0 * seen * held + 40.0,
        scratch_bytes=pitch * seen,
        in_place=frozenset({"x"} if same else ()),
    )


KERNELS = (KernelDef("depthwise_thumb2", "conv2d", frozenset({"thumb2"}), _depthwise),)
