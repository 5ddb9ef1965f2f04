"""Depthwise convolutions on MVE cores: strips of columns, interleaved so that one vector is a 4 x 4 patch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv import Geometry, geometry, overwrites
from projgen.kernels.conv_mve import SLACK, call_of, line_fields, ring
from projgen.kernels.conv_mve_block import Parameters, fits
from projgen.kernels.conv_mve_layouts import LaneStream, PatchStream
from projgen.kernels.layouts import table
from projgen.kernels.linear import SUFFIX, matrix_numerics
from projgen.kernels.record import Block, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

_WORDS = 64  # bytes of one position's words
_LARGEST = (1 << 16) - 1  # offset of an output
_REACH = 508  # bytes that a gather's base moves
UNROLLED_TAPS = 128  # of a kernel, at most


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a depthwise convolution: sizes of map, outputs and kernel, and elements of x and y from one to the
    next."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    pad: int
    x_step: int
    y_step: int

    @property
    def field(self) -> tuple[int, ...]:
        """Initialiser of ``pg_depthwise_mve_axis``."""
        return (self.inputs, self.outputs, self.x_step, self.y_step, self.stride, self.dilation, self.pad)

    @property
    def is_dense(self) -> bool:
        """Whether neighbouring outputs see windows of at most three that overlap by all but one."""
        return self.stride == 1 and self.dilation == 1 and self.kernel <= 3


def axes(g: Geometry) -> tuple[Axis, Axis]:
    """Height and width."""
    (in_h, in_w, c), (out_h, out_w, _), a = g.x.step_shape, g.y.step_shape, g.attrs
    return (
        Axis(in_h, out_h, g.w[1], a.stride[0], a.dilation[0], a.padding[0], in_w * c, out_w * c),
        Axis(in_w, out_w, g.w[2], a.stride[1], a.dilation[1], a.padding[2], c, c),
    )


@dataclass(frozen=True, slots=True)
class Walk:
    """Strips of a depthwise convolution: ``along`` the positions of an axis, one or two columns of the other."""

    along: Axis
    aside: Axis
    across: bool
    shift: int
    clamped: bool

    @property
    def together(self) -> int:
        """Positions that one patch gives."""
        return 2 if self.along.is_dense else 1

    @property
    def columns(self) -> int:
        """Columns of a strip."""
        return 2 if self.together == 2 and self.aside.is_dense and self.aside.outputs > 1 else 1

    @property
    def step(self) -> int:
        """Bytes from patch to patch."""
        return _WORDS * self.along.stride * self.together

    @property
    def span(self) -> int:
        """Positions that patches touch."""
        last = (self.along.outputs - 1) // self.together * self.together
        return max(last, self.along.outputs - 1) * self.along.stride + 3 * self.along.dilation + 1

    @property
    def loaded(self) -> int:
        """Positions of the map under windows."""
        reach = (self.along.outputs - 1) * self.along.stride + (self.along.kernel - 1) * self.along.dilation + 1
        return max(0, min(self.along.inputs, reach - self.along.pad))

    @property
    def words(self) -> int:
        """Bytes of a strip's words."""
        return max(self.span, self.along.pad + self.loaded) * _WORDS

    @property
    def fits(self) -> bool:
        furthest = 3 * self.along.y_step + self.aside.y_step
        kernels = max(self.along.kernel, self.aside.kernel)
        return kernels <= 4 and furthest <= _LARGEST and self.step <= _REACH and self.loaded > 0

    def per_channel(self, columns: int) -> float:
        """Instructions for the outputs of one channel in a strip."""
        fours, tail = divmod(self.along.outputs, 4)
        whole, extra = fours > 0, self.shift_cost + (4 if self.clamped else 0)
        finish = 9 + extra
        if columns == 2:
            count = 12 + 2 * whole + fours * (26 + extra + self.shift_cost)
            count += {0: 0, 1: 5 + finish, 2: 5 + finish, 3: 24 + extra + self.shift_cost}[tail]
            return count + (2 if whole and tail % 2 else 0)
        per_patch, per_four = (3, 6) if self.together == 2 else (2, 8)
        count = (10 if self.together == 2 else 7) + 2 * whole + fours * (per_four + finish + 2)
        return count + (-(-tail // self.together) * per_patch + finish if tail else 0)

    @property
    def shift_cost(self) -> int:
        """Instructions that a shift takes for four outputs."""
        return 1 if self.shift else 0

    @property
    def is_in_place(self) -> bool:
        """Whether strips are read before others are written over them, when words are made one strip ahead."""
        same = self.along.inputs == self.along.outputs and self.aside.inputs == self.aside.outputs
        return same and self.columns == 2 and self.aside.pad <= 2

    def instructions(self, channels: int) -> float:
        groups, rest = divmod(channels, 16)
        strips = -(-self.aside.outputs // self.columns)
        odd = self.aside.outputs % self.columns
        per_group = strips * 128 + self.loaded * strips * 13
        total = groups * per_group + ((per_group + self.loaded * strips) if rest else 0)
        per_channel = (strips - odd) * self.per_channel(self.columns) + odd * self.per_channel(1)
        return total + channels * per_channel + (2 if self.is_in_place else 1) * self.words / 8 + 190

    def block(self, columns: int) -> Block:
        """The emitted code for strips of ``columns``."""
        fours, tail = divmod(self.along.outputs, 4)
        name = f"pg_depthwise_mve_c{columns}x{self.together}_s{self.along.stride}"
        name += f"_d{self.along.dilation}" if self.along.dilation > 1 else ""
        name += f"_tail{tail}{'' if fours else '_only'}" if tail else ""
        name += (f"_shift{self.shift}" if self.shift else "") + ("_clamped" if self.clamped else "")
        parameters: Parameters = {
            "function": name,
            "columns": columns,
            "together": self.together,
            "stride": self.along.stride,
            "dilation": self.along.dilation,
            "tail": tail,
            "whole": int(fours > 0),
            "shift": self.shift,
            "clamped": int(self.clamped),
        }
        return Block("depthwise_mve.h.j2", name, tuple(parameters.items()))


def _strips(graph: Graph, node: Node, _target: Target, *, by_rows: bool = False) -> KernelChoice | None:
    """``by_rows``: strips of output rows, which can also be computed one by one."""
    g = geometry(graph, node)
    if not g.is_depthwise or g.w[0] != g.x.step_shape[2] or {g.x.dtype, g.y.dtype} != {DType.INT8}:
        return None
    requant = matrix_numerics(node).requant
    clamped = (requant.low, requant.high) != (g.y.dtype.low, g.y.dtype.high)
    height, width = axes(g)
    walks = [Walk(height, width, False, requant.shift, clamped), Walk(width, height, True, requant.shift, clamped)]
    walks = [w for w in walks if w.fits and (not by_rows or (w.across and w.aside.outputs % w.columns == 0))]
    if not walks:
        return None
    channels = g.w[0]
    walk = min(walks, key=lambda w: w.instructions(channels))
    ahead = walk.is_in_place
    main = walk.block(walk.columns)
    last = walk.block(1) if walk.aside.outputs % walk.columns else main
    function = main.function.replace("pg_depthwise_mve_", "pg_depthwise_mve_strips_")
    function += f"{'' if last is main else '_and_c1'}{'_by_rows' if by_rows else ''}"
    struct = "pg_depthwise_mve_params"
    call = call_of(function, "pg_depthwise_mve", struct, g, (main, last), residual=0, row=int(by_rows))
    layout = PatchStream(g.w, walk.across)
    constants = {role: graph.data(node, role) for role in ("w", "b", "m")}
    blocks = [main, *([last] if last is not main else [])]
    choice = KernelChoice(
        kernel="depthwise_rows_mve" if by_rows else "depthwise_mve",
        function=function,
        struct=struct,
        fields={
            "stream": TableRef("stream"),
            "along": walk.along.field,
            "aside": walk.aside.field,
            "channels": channels,
            "loaded": walk.loaded,
            "words": walk.words,
            "strip": walk.columns,
            "together": walk.together,
            "input_zero_point": matrix_numerics(node).input_zero_point,
            "out": (requant.zero_point, requant.low, requant.high),
            "ahead": int(ahead),
            "taken": walk.aside.kernel + (walk.columns - 1) * walk.aside.stride,
        },
        tables=(table("stream", layout, constants, "weights, bias and halved multiplier of each channel"),),
        sources=("pg_depthwise_mve.h",),
        blocks=(*blocks, call),
        instructions=walk.instructions(channels),
        scratch_bytes=16 + (2 if ahead else 1) * walk.words,
        in_place=frozenset({"x"} if ahead else ()),
        row_function=f"{function}_row" if by_rows else "",
        rows=walk.columns,
        row_instructions=walk.instructions(channels) + walk.aside.outputs // walk.columns * 200,
        row_scratch_bytes=16 + walk.words,
    )

    @cache
    def pitched(pitch: int) -> KernelChoice | None:
        along, aside = (replace(a, y_step=a.y_step // channels * pitch) for a in (walk.along, walk.aside))
        if not replace(walk, along=along, aside=aside).fits:
            return None
        fields = {**choice.fields, "along": along.field, "aside": aside.field}
        return replace(choice, fields=fields, pitch=pitch, in_place=frozenset())

    return replace(choice, pitched=pitched)


def _any(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    g, requant = geometry(graph, node), matrix_numerics(node).requant
    channels, itemsize, size = g.x.step_shape[2], g.x.dtype.bytes, g.y.dtype.bytes
    outputs, kernel_h, kernel_w, _ = g.w
    step = g.attrs.dilation[1] * channels * itemsize
    if not g.is_depthwise or g.attrs.groups != channels or not fits(node, g):
        return None
    if max(step, outputs) > 4095 or kernel_h * kernel_w > UNROLLED_TAPS:
        return None
    lines = ring(g, channels * itemsize, channels)
    over_lines = line_fields(g, lines, matrix_numerics(node).input_zero_point, groups=1, together=1)
    if over_lines is None:
        return None
    clamped = (requant.low, requant.high) != (g.y.dtype.low, g.y.dtype.high)
    variant = f"{SUFFIX[g.x.dtype]}_{SUFFIX[g.y.dtype]}_{kernel_h}x{kernel_w}_{outputs}_of_{channels}_{step}"
    variant += (f"_shift{requant.shift}" if requant.shift else "") + ("_clamped" if clamped else "")
    parameters: Parameters = {
        "function": f"pg_depthwise_mve_any_{variant}",
        "kernel_h": kernel_h,
        "kernel_w": kernel_w,
        "step": step,
        "outputs": outputs,
        "channels": channels,
        "wide_x": int(itemsize == 2),
        "wide_y": int(size == 2),
        "shift": requant.shift,
        "clamped": int(clamped),
    }
    block = Block("depthwise_mve_any.h.j2", f"pg_depthwise_mve_any_{variant}", tuple(parameters.items()))
    function, struct = f"pg_depthwise_mve_lanes_{variant}", "pg_conv2d_mve_params"
    call = call_of(function, "pg_conv2d_mve", struct, g, (block,), residual=0, row=1)
    several = outputs != channels
    per_tap = 4 if step <= 127 and not several else 5
    per_quad = 15 + kernel_h * (3 + per_tap * kernel_w) + (1 if requant.shift else 0) + (5 if clamped else 0)
    per_pixel = -(-outputs // 4) * per_quad + 9 + 3 * kernel_h
    height, width, _ = g.y.step_shape
    layout = LaneStream(g.w, channels, itemsize)
    constants = {role: graph.data(node, role) for role in ("w", "b", "m")}
    return KernelChoice(
        kernel="depthwise_mve_any",
        function=function,
        struct=struct,
        fields={
            "stream": TableRef("stream"),
            "block": (
                *(outputs * size, requant.zero_point, requant.low, requant.high, 0, 0, 0, 0),
                *(g.attrs.stride[1] * channels * itemsize, 0),
            ),
            **over_lines,
        },
        tables=(table("stream", layout, constants, "bias, weights and halved multipliers of four outputs"),),
        sources=("pg_conv2d_mve.h",),
        blocks=(block, call),
        instructions=height * (width * per_pixel + 100 + 9 * kernel_h) + lines.filled + 90,
        scratch_bytes=lines.bytes + SLACK,
        in_place=frozenset({"x"} if overwrites(g) else ()),
        row_function=f"{function}_row",
        row_instructions=height * (width * per_pixel + 100 + kernel_h * (29 + lines.loads)) + 90,
    )


KERNELS = (
    KernelDef("depthwise_mve", "conv2d", frozenset({"mve"}), _strips),
    KernelDef("depthwise_rows_mve", "conv2d", frozenset({"mve"}), partial(_strips, by_rows=True)),
    KernelDef("depthwise_mve_any", "conv2d", frozenset({"mve"}), _any),
)
