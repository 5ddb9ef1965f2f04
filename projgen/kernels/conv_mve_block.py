"""The block of two outputs x up to four pixels that all dense convolutions on MVE cores share."""

from __future__ import annotations

from dataclasses import dataclass

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv import Geometry
from projgen.kernels.conv_mve_layouts import TapStream
from projgen.kernels.layouts import table
from projgen.kernels.linear import SUFFIX, matrix_numerics
from projgen.kernels.record import Block, Table

UNROLLED_BYTES = 768  # of straight-line code up to which the kernel's rows are unrolled
ROWS = 16  # of a kernel at most
LARGEST_BYTES = 7168  # of the code of one row beyond which the block does not fit
_REGISTERS = 5  # vectors of pixels
_REACH = 508  # bytes that a vector load reaches to either side
_FARTHEST = 4095  # bytes that ADDW adds
CTYPES = {DType.INT8: "int8_t", DType.INT16: "int16_t"}
Parameters = dict[str, int | str | tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Lines:
    """How a block walks over its lines: taps in order, the columns they touch, and which of them must be loaded.

    ``columns`` and ``fresh`` have one entry a tap and pixel. Taps that differ by a multiple of the stride follow each
    other, so that each shares the loaded columns of the one before.
    """

    rows: int
    stride: int
    pixels: int
    pitch: int
    vectors: int
    taps: tuple[int, ...]
    columns: tuple[int, ...]
    fresh: tuple[int, ...]

    @property
    def is_reachable(self) -> bool:
        return max(self.columns) * self.pitch + 16 * (self.vectors - 1) <= _FARTHEST

    @property
    def per_row(self) -> int:
        """Instructions per two outputs and row."""
        vectors, last = self.vectors, max(self.columns) * self.pitch + 16 * (self.vectors - 1)
        count = vectors * (sum(self.fresh) + (2 + 2 * self.pixels) * len(self.taps))
        far = -1
        for g in range(vectors):
            for column in (c for c, f in zip(self.columns, self.fresh, strict=True) if f):
                offset = column * self.pitch + 16 * g
                if offset > _REACH and (far < 0 or abs(offset - far) > _REACH):
                    far = min(offset + _REACH, last)
                    count += 1
        return count


def lines(rows: int, taps: int, stride: int, dilation: int, pixels: int, pitch: int, vectors: int) -> Lines:
    """The walk of a block with ``taps`` columns of a kernel over pixels ``pitch`` bytes apart."""
    order = sorted(range(taps), key=lambda tap: (tap * dilation % stride, tap))
    columns: list[int] = []
    fresh: list[int] = []
    held: dict[int, int] = {}
    for tap in order:
        for pixel in range(pixels):
            column = pixel * stride + tap * dilation
            register = column // stride % _REGISTERS
            columns.append(column)
            fresh.append(int(held.get(register) != column))
            held[register] = column
    return Lines(rows, stride, pixels, pitch, vectors, tuple(order), tuple(columns), tuple(fresh))


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A block for one node, and what its driver needs.

    Attributes:
        block: the emitted code.
        variant: distinguishes blocks that differ in more than their lines, for names.
        field: initialiser of ``pg_conv_mve_block``.
        stream: the constants; ``layout`` their order.
        pixels: of a block.
        per_block: instructions for all outputs of one block of pixels of one group.
    """

    block: Block
    variant: str
    field: tuple[int, ...]
    stream: Table
    layout: TapStream
    pixels: int
    per_block: float


def fits(node: Node, g: Geometry) -> bool:
    """Whether the block computes this node's outputs: int16 ones have no zero point."""
    size = g.y.dtype.bytes
    return (
        g.w[1] <= ROWS
        and (size == 1 or matrix_numerics(node).requant.zero_point == 0)
        and 3 * g.w[0] * size + 2 < 1 << 16
    )


def make(graph: Graph, node: Node, g: Geometry, walk: Lines, *, flat: bool) -> Made | None:
    """The block for a node whose lines are walked so; None where its code would be too long or reach too far."""
    requant = matrix_numerics(node).requant
    wide_x, wide_y = g.x.dtype is DType.INT16, g.y.dtype is DType.INT16
    size, outputs = g.y.dtype.bytes, g.w[0] // g.attrs.groups
    residual = "residual" in node.inputs
    layout = TapStream(g.w, g.attrs.groups, walk.taps, 8 if wide_x else 16, flat, residual)
    clamped = (requant.low, requant.high) != (g.y.dtype.low, g.y.dtype.high)
    looped = walk.rows > 1 and 4 * walk.rows * walk.per_row > UNROLLED_BYTES
    if 4 * walk.per_row > LARGEST_BYTES or not walk.is_reachable:
        return None
    odd = outputs % 2 == 1 and outputs > 1
    variant = f"{SUFFIX[g.x.dtype]}_{SUFFIX[g.y.dtype]}{'_odd' if odd else ''}"
    variant += f"{f'_shift{requant.shift}' if requant.shift else ''}{'_clamped' if clamped else ''}"
    variant += "_residual" if residual else ""
    shape = f"{walk.rows}x{len(walk.taps)}_v{walk.vectors}_p{walk.pixels}_b{walk.pitch}"
    shape += "" if walk.columns == _plain(walk) else f"_s{walk.stride}_c{max(walk.columns)}"
    function = f"pg_conv_mve_{variant}_{shape}"
    parameters: Parameters = {
        "function": function,
        "kernel_h": walk.rows,
        "taps": walk.taps,
        "columns": walk.columns,
        "fresh": walk.fresh,
        "stride": walk.stride,
        "pitch": walk.pitch,
        "vectors": walk.vectors,
        "pixels": walk.pixels,
        "wide_x": int(wide_x),
        "wide_y": int(wide_y),
        "odd": int(odd),
        "shift": requant.shift,
        "clamped": int(clamped),
        "looped": int(looped),
        "residual": int(residual),
    }
    pairs = (outputs + 1) // 2
    span = 2 * size if outputs == 1 else outputs * size
    around = 15 + (0 if wide_y else 2) + (2 if requant.shift else 0) + (7 - (0 if wide_y else 1) if clamped else 0)
    around += 4 * odd + (walk.rows if walk.rows > 1 else 0)
    around += 5 + 2 * walk.rows if looped else 0
    around += 7 if residual else 0
    constants = {role: graph.data(node, role) for role in (("w", "b", "m", "f") if residual else ("w", "b", "m"))}
    return Made(
        Block("conv_mve_block.h.j2", function, tuple(parameters.items())),
        variant,
        (
            span,
            requant.zero_point,
            requant.low,
            requant.high,
            *_places(g, walk.pixels, g.w[0] * size),
            walk.pixels * walk.stride * walk.pitch,
            walk.pixels * g.w[0] * size - span,
        ),
        table(
            "stream",
            layout,
            constants,
            f"weights, bias and halved multipliers{' and factors' if residual else ''} in reading order",
        ),
        layout,
        walk.pixels,
        pairs * (walk.rows * walk.per_row + around) + 9 + 3 * walk.rows,
    )


def _places(g: Geometry, pixels: int, pitch: int) -> list[int]:
    """Bytes from the first pixel's first output to the two outputs of each pixel, in the halves of a word."""
    second = g.y.dtype.bytes if g.w[0] // g.attrs.groups > 1 else 0
    steps = [min(p, pixels - 1) * pitch for p in range(4)]
    return [step | (step + second) << 16 for step in steps]


def spread(made: Made, g: Geometry, pitch: int) -> tuple[int, ...] | None:
    """``made.field`` for output pixels ``pitch`` bytes apart; None where they are too far apart."""
    if 3 * pitch + 2 >= 1 << 16:
        return None
    first, line_step = made.field[:4], made.field[8]
    return (*first, *_places(g, made.pixels, pitch), line_step, made.pixels * pitch - made.field[0])


def _plain(walk: Lines) -> tuple[int, ...]:
    """The columns of a kernel without stride and dilation."""
    return tuple(tap + pixel for tap in range(len(walk.taps)) for pixel in range(walk.pixels))
