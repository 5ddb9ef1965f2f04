"""Instructions of what the kernels for DSP cores share, counted in their assembly: one line of code, one term."""

from __future__ import annotations


def widen(count: int) -> int:
    """``pg_linear_dsp_widen``: int8 values to int16 in quads, sixteen, four and then one to three at a time."""
    return 8 + 15 * (count // 16) + 6 * (count % 16 // 4) + (11 if count % 4 else 0)


def widen_three(count: int) -> int:
    """``pg_conv_dsp_widen``: the operand of three int8 pixels of ``count`` channels."""
    return 8 + 22 * (count // 8) + (11 if count % 8 >= 4 else 0) + (46 if count % 4 else 0)


def pack_three(count: int) -> int:
    """``pg_conv_dsp_pack``: the operand of three int16 pixels of ``count`` channels."""
    return 7 + 9 * (count // 4) + (37 if count % 4 else 0)


def operand_of_three(count: int, itemsize: int) -> int:
    return widen_three(count) if itemsize == 1 else pack_three(count)


def copy(count: int) -> int:
    """``pg_copy`` of ``count`` bytes."""
    return 8 + 10 * (count // 16) + 4 * (count % 16 // 4) + 4 * (count % 4)


def gather(rows: int, row_bytes: int) -> int:
    """The block that copies a window of ``rows`` rows of ``row_bytes`` bytes."""
    moves = row_bytes if row_bytes < 4 else -(-row_bytes // 4)
    return rows * (2 * moves + 1)


def linear_rows(quads: int, outputs: int, *, packed: bool, looped: bool, shift: bool, clamped: bool) -> int:
    """The block of one vector through the weights, packed in pairs or not: four outputs at a time, then pairs."""
    four = (14 if packed else 19) * quads + (23 if packed else 19)
    four += 2 * quads - 1 if looped else 2 * -(-quads // 8)
    four += (4 if shift else 0) + (21 if clamped else 0)
    pair = (10 * quads + 17 if packed else 12 * quads + 15) + (2 if shift else 0) + (11 if clamped else 0)
    fours, left = divmod(outputs, 4)
    pairs = -(-left // 2)
    return (18 if looped else 26) + (2 if clamped else 0) + fours * four + pairs * pair - (3 if left % 2 else 0)


def matrix_block(
    quads: int,
    outputs: int,
    *,
    packed: bool,
    unrolled: bool,
    entered: bool,
    shift: bool,
    clamped: bool,
    residual: bool,
    flag: bool = False,
) -> int:
    """The block that takes three pixels through a matrix, two outputs at a time.

    Args:
        unrolled: straight-line code; entered: in the middle, behind the first quad; else it is a loop.
        flag: it asks for residuals.
    """
    around = (
        22
        + (6 if packed else 0)
        + (6 if shift else 0)
        + (31 if clamped else 0)
        + (17 if residual else 0)
        + (2 if flag else 0)
    )
    around += 2 + entered if unrolled else 3 + 3 * -(-quads // 8)
    products = (17 if packed else 19) * quads
    entry = 8 + (2 if clamped else 0) + (2 if flag else 0) + (7 if entered else 0 if unrolled else 10)
    if outputs % 2 == 0:
        return entry + outputs // 2 * (products + around + 2)
    return entry + outputs // 2 * (products + around + 3) + products + around - 2


def rest_of_three(pixels: int, read: int, written: int, residual: int) -> float:
    """What one or two pixels too few for a block cost beside the block, of ``read`` and ``written`` bytes each."""
    if pixels == 0:
        return 0.0
    moved = pixels * (read + (1.8 if residual else 0.9) * written)
    return 100.0 + moved + 0.7 * (3 - pixels) * read + (25.0 if residual else 0.0)
