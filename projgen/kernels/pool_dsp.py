"""Poolings on DSP cores: sums two to a word, maxima four to a word."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from projgen.ir.attrs import AvgPool2d, MaxPool2d
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import PoolNumerics
from projgen.ir.types import DType
from projgen.kernels import pool
from projgen.kernels.conv_blocks import Parameters
from projgen.kernels.record import Block, KernelChoice, KernelDef
from projgen.targets import Target

LARGEST_WINDOW = 256  # pixels whose int8 sum, half their number added, fits 16 bits
PIXELS_A_TURN = 8  # of a whole map, straight-line code
LONGEST_WINDOW = 32  # pixels up to which the maximum is straight-line code


def _avg_pool2d(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    portable = pool.avg_pool2d(graph, node, target)
    n, attrs = node.numerics, node.attrs
    if not isinstance(attrs, AvgPool2d) or not isinstance(n, PoolNumerics) or portable is None:
        return None
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    channels, taps = y.step_shape[2], attrs.kernel[0] * attrs.kernel[1]
    seen = pool.windows(attrs, x, y)
    if seen.pixels == 1 and seen.taps == x.step_shape[0] * x.step_shape[1]:
        return _whole_map(portable, n, seen.taps, channels)
    if not 8 <= channels <= 4095 or taps > LARGEST_WINDOW:
        return None
    out = n.requant
    clamped = (out.low, out.high) != (y.dtype.low, y.dtype.high)
    options = f"{f'_shift{out.shift}' if out.shift else ''}{'_clamped' if clamped else ''}"
    function = f"pg_avg_pool_dsp_{channels}{options}"
    parameters = (("function", function), ("channels", channels), ("shift", out.shift), ("clamped", int(clamped)))
    octets = -(-channels // 8)
    per_octet = 55 + (8 if out.shift else 0) + (49 if clamped else 0)
    rows = (
        seen.pixels if attrs.kernel[1] == x.step_shape[1] else seen.rows
    )  # one where the window is as wide as the map
    fours, ones = divmod(round(seen.taps / rows), 4)
    a_pixel = 6 if channels < 256 else 7
    a_row = fours * (4 * a_pixel + 2) + ones * (a_pixel + 2) + 8
    return replace(
        portable,
        kernel="avg_pool2d_dsp",
        function=function,
        sources=("pg_avg_pool2d.h", "pg_pool_dsp.h"),
        blocks=(Block("avg_pool_dsp.h.j2", function, parameters),),
        instructions=octets * (seen.pixels * per_octet + rows * a_row) + 47 * seen.pixels + 50,
    )


def _whole_map(portable: KernelChoice, n: PoolNumerics, pixels: int, channels: int) -> KernelChoice | None:
    """The mean over a map of so many pixels: four channels at a time, up to eight pixels of theirs a turn."""
    if not 4 <= channels <= 4095 or pixels > LARGEST_WINDOW:
        return None
    out, turns = n.requant, -(-pixels // PIXELS_A_TURN)
    clamped = (out.low, out.high) != (DType.INT8.low, DType.INT8.high)
    function = f"pg_avg_pool_dsp_{pixels}x{channels}{f'_shift{out.shift}' if out.shift else ''}"
    function += "_clamped" if clamped else ""
    parameters: Parameters = {
        "function": function,
        "pixels": pixels,
        "channels": channels,
        "shift": out.shift,
        "clamped": int(clamped),
    }
    half = pixels // 2
    around = 22 + (4 if out.shift else 0) + (20 if clamped else 0) + (1 + 2 * turns if turns > 1 else 0)
    around += int(turns > 1 and pixels % turns > 0)
    return replace(
        portable,
        kernel="avg_pool2d_dsp",
        function=function,
        struct="pg_avg_pool_dsp_map",
        fields={
            "start": -pixels * n.input_zero_point - half,
            "multiplier": n.multipliers[0],
            "zero_point": out.zero_point,
            "halves": half * 0x10001,
            "low": out.low,
            "high": out.high,
        },
        tables=(),
        sources=("pg_pool_dsp.h",),
        blocks=(Block("avg_pool_dsp_map.h.j2", function, tuple(parameters.items())),),
        instructions=-(-channels // 4) * (pixels * (3 if channels < 256 else 4) + around) + 6,
    )


def _max_pool2d(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    portable, attrs = pool.max_pool2d(graph, node, target), node.attrs
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    if not isinstance(attrs, MaxPool2d) or portable is None or x.dtype is not DType.INT8:
        return None
    (_, in_w, channels), (rows, columns) = x.step_shape, attrs.kernel
    row = in_w * channels
    apart = abs(attrs.stride[1] - 1) * channels  # an immediate, like the offsets in a window
    reach = max(apart, (rows - 1) * row + (columns - 1) * channels)
    if channels < 4 or rows * columns > LONGEST_WINDOW or reach > 4095:
        return None
    quads = -(-channels // 4)
    together = next(n for n in (4, 2, 1) if channels // 4 % n == 0)
    function = f"pg_max_pool_dsp_{rows}x{columns}_{channels}_{row}_{attrs.stride[1]}"
    parameters: Parameters = {
        "function": function,
        "rows": rows,
        "columns": columns,
        "channels": channels,
        "row": row,
        "step": attrs.stride[1] * channels,
        "together": together,
        "pixel": channels,
    }
    seen = pool.windows(attrs, x, y)
    outside = seen.pixels - seen.inside
    by_pixels = quads * (outside * 25 + (seen.taps - seen.inside * rows * columns) * 22) + 32 * outside
    choice = replace(
        portable,
        kernel="max_pool2d_dsp",
        function=function,
        sources=("pg_max_pool2d.h",),
        blocks=(Block("max_pool_dsp.h.j2", function, tuple(parameters.items())),),
        instructions=seen.inside * (quads * (3 * rows * columns - 1 + 2 / together) + 4 + 2 * (channels % 4 > 0))
        + by_pixels
        + 75 * seen.lines
        + 30,
    )

    @cache
    def pitched(pitch: int) -> KernelChoice | None:
        if pitch - channels > 4095:
            return None
        apart: Parameters = {**parameters, "function": f"{function}_every{pitch}", "pixel": pitch}
        block = Block("max_pool_dsp.h.j2", f"{function}_every{pitch}", tuple(apart.items()))
        return replace(choice, function=block.function, blocks=(block,), pitch=pitch)

    return replace(choice, pitched=pitched)


KERNELS = (
    KernelDef("avg_pool2d_dsp", "avg_pool2d", frozenset({"dsp"}), _avg_pool2d),
    KernelDef("max_pool2d_dsp", "max_pool2d", frozenset({"dsp"}), _max_pool2d),
)
