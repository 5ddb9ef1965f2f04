"""Instructions of the kernels for Armv7-M cores without DSP instructions, counted in their assembly."""

from __future__ import annotations

from projgen.kernels.conv_dsp_depthwise import LDR_REACH, advance
from projgen.kernels.costs_dsp import copy


def pack_six(count: int) -> int:
    """``pg_conv_thumb2_pack``: the operand of six pixels of ``count`` channels."""
    return 7 + 48 * (count // 4) + 15 * (count % 4)


def matrix_block(quads: int, outputs: int, *, unrolled: bool, shift: bool, clamped: bool, residual: bool) -> int:
    """The block that takes six pixels through a matrix, one output at a time."""
    around = 52 + (6 if shift else 0) + (20 if clamped else 0) + (12 if residual else 0)
    around += 1 if unrolled else 2 + 2 * -(-quads // 2)
    return 12 + (2 if clamped else 0) + (0 if unrolled else 8) + outputs * (20 * quads + around)


def rest_of_six(pixels: int, inputs: int, outputs: int, size: int, *, residual: bool) -> float:
    """What one to five pixels too few for a block cost beside it: copies of them and of their outputs of ``size``."""
    if pixels == 0:
        return 0.0
    return 45.0 + copy(pixels * inputs) + (2 if residual else 1) * copy(pixels * outputs * size)


def rest_of_windows(windows: int, written: int, *, residual: bool) -> float:
    """What one to five windows too few for a block cost beside it, of ``written`` bytes of outputs each."""
    if windows == 0:
        return 0.0
    return 80.0 + windows * (20.0 + (1.8 if residual else 0.9) * written) + (25.0 if residual else 0.0)


def linear_widen(count: int) -> int:
    """``pg_linear_thumb2_widen`` of ``count`` values, and what it leaves to the caller."""
    return 9 + 12 * (count // 4) + 5 * (count % 4)


def linear_block(
    quads: int, outputs: int, *, packed: bool, looped: bool, shift: bool, clamped: bool, raw: bool = False
) -> int:
    """The block of one vector through the weights, four outputs at a time."""
    around = (36 if packed else 29) + (1 if looped else 2) + (4 if shift else 0) + (13 if clamped else 0)
    around -= 18 if raw else 0
    passes = quads if looped else -(-quads // 8)
    left = {0: 0, 1: -5, 2: -3, 3: -2}[outputs % 4]
    entry = (14 if looped else 21) + (2 if clamped else 0) - (0 if packed else 3) - (2 if raw else 0)
    return entry + -(-outputs // 4) * ((19 if packed else 35) * quads + 3 * passes + around) + left


def depthwise_plane(*, rows: int, row: int, columns: int, pixel: int, pitch: int, apart: int, pads: int) -> int:
    """The block that copies one channel of a map to a plane."""
    far = 7 * row > LDR_REACH

    def load(count: int) -> int:
        return count * (1 + advance(row)) if far else count + advance(count * row)

    given = apart - pads
    loops, rest = divmod(rows - given, 8)
    words = [load(n) + n + 1 + 2 * apart for n in (8, rest)]
    column = pads + load(given) + loops * words[0] + (words[1] if rest else 0) + (2 + 4 * loops if loops > 1 else 0)
    column += 1 + 2 * apart + 4 + advance(pixel - rows * row) + advance(pitch - 4 * (rows - given + apart))
    return 6 + columns * column


def depthwise_channel(
    *,
    taps: int,
    stride: int,
    rows: int,
    columns: int,
    tap_step: int,
    column_step: int,
    row: int,
    pixel: int,
    shift: bool,
    clamped: bool,
) -> int:
    """The block that computes one output channel from its plane."""
    far = 3 * row > LDR_REACH

    def block(sums: int, stored: int) -> int:
        moved = 16 if sums == 4 and stride == 2 else 0
        steps = (taps - 1) * advance(tap_step - moved) + advance(4 * sums * stride - (taps - 1) * tap_step - moved)
        products = taps * (2 + (1 if moved else 0) + 3 * sums // 2) + steps + (3 if sums == 4 else 1)
        finish = stored * (5 + (1 if shift else 0) + (5 if clamped else 0)) + 1 + (1 if clamped else 0)
        return products + 1 + 3 * sums // 2 + finish + (stored * advance(row) if far else advance(stored * row))

    full, left = divmod(rows, 4)
    column = full * (block(4, 4) + (4 if full > 1 else 1)) + (2 if full > 1 else 0)
    column += (1 + block(4, 3) if left == 3 else 1 + block(2, left) if left else 0) + (1 if full == 1 and left else 0)
    blocks = 16 * (full + left // 3) + (8 if left in (1, 2) else 0)
    column += advance(pixel - rows * row) + advance(column_step - stride * blocks) + 5
    return 8 + (2 if clamped else 0) + columns * column
