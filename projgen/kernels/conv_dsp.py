"""Dense convolutions on DSP cores: three pixels at a time through a matrix, straight from the map or gathered."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, partial

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, TensorType
from projgen.kernels.conv import Geometry, geometry
from projgen.kernels.conv_blocks import (
    Core,
    Matrix,
    Parameters,
    call,
    gathered,
    is_clamped,
    is_packed,
    residual_copy,
    side_by_side,
)
from projgen.kernels.conv_dsp_layouts import MatrixStream
from projgen.kernels.costs_dsp import matrix_block, operand_of_three, rest_of_three
from projgen.kernels.layouts import table
from projgen.kernels.linear import SUFFIX, matrix_numerics, rows_of
from projgen.kernels.packed import NATURAL, WIDENED
from projgen.kernels.record import Block, KernelChoice, KernelDef
from projgen.targets import Target

UNROLLED_QUADS = 16  # quads of inputs up to which the block is straight-line code
DSP = Core("dsp", pixels=3, operand=6)
SIZES = ("own", "entered", "looped", "shared")  # of the block, see matrix()


def matrix(graph: Graph, node: Node, g: Geometry, *, size: str) -> Matrix:
    """The block for a convolution node whose windows are gathered in order (KH, KW, C).

    ``size``: straight-line code for this number of inputs where it is short ("own"), that for the largest such number,
    which fewer inputs enter in the middle ("entered"), the block for any number ("looped"), or that which adds
    residuals too where a layer has them ("shared").
    """
    requant = matrix_numerics(node).requant
    packed, clamped = is_packed(graph, node), is_clamped(graph, node)
    wide_x, wide_y = g.x.dtype is DType.INT16, g.y.dtype is DType.INT16
    groups = g.attrs.groups
    outputs = g.w[0] // groups
    order = WIDENED if packed is not wide_x else NATURAL
    added = int("residual" in node.inputs)
    layout = MatrixStream(graph.data(node, "w").shape, groups, packed, order, bool(added))
    entered = size == "entered"
    unrolled = UNROLLED_QUADS if entered else layout.quads if layout.quads <= UNROLLED_QUADS and size == "own" else 0
    residual: int | str = added if unrolled else "flag" if added or size == "shared" else 0
    odd = outputs % 2
    variant = f"{'packed' if packed else 'plain'}_{SUFFIX[g.y.dtype]}{'_odd' if odd else ''}"
    variant += f"{f'_shift{requant.shift}' if requant.shift else ''}{'_clamped' if clamped else ''}"
    variant += "_residual" if residual else ""
    variant += f"_{'to' if entered else 'q'}{unrolled}" if unrolled else ""
    function = f"pg_conv_dsp_{variant}"
    parameters: Parameters = {
        "function": function,
        "packed": int(packed),
        "wide": int(wide_y),
        "odd": odd,
        "shift": requant.shift,
        "clamped": int(clamped),
        "quads": unrolled,
        "entered": int(entered),
        "residual": residual,
    }
    constants = {role: graph.data(node, role) for role in ("w", "b", "m", *(["f"] if added else []))}
    bytes_y = g.y.dtype.bytes
    per_block = matrix_block(
        layout.quads,
        outputs,
        packed=packed,
        unrolled=unrolled > 0,
        entered=entered,
        shift=requant.shift > 0,
        clamped=clamped,
        residual=added > 0,
        flag=residual == "flag",
    )
    return Matrix(
        Block("conv_dsp_matrix.h.j2", function, tuple(parameters.items())),
        f"{SUFFIX[g.x.dtype]}_{variant}",
        table("stream", layout, constants, "bias, weights and multipliers in reading order"),
        layout.quads,
        (layout.quads, outputs, g.w[0] * bytes_y, requant.zero_point, requant.low, requant.high, added),
        per_block,
    )


def apart(choice: KernelChoice, made: Matrix, y: TensorType, driver: str = "") -> KernelChoice:
    """A kernel of this block, without residual and groups, that can write its output pixels apart.

    Args:
        driver: that for such pixels, where it is another.
    """

    @cache
    def pitched(pitch: int) -> KernelChoice | None:
        fields = {**choice.fields, "matrix": (*made.field[:2], pitch, *made.field[3:])}
        window = fields.get("window")
        if isinstance(window, tuple):
            fields["window"] = (*window[:5], pitch // y.dtype.bytes, *window[6:])
        other = replace(choice, fields=fields, pitch=pitch, in_place=frozenset())
        if not driver:
            return other
        kept, old = choice.blocks[:-1], dict(choice.blocks[-1].parameters)
        function, types = f"{choice.function}_apart", (str(old["x"]), str(old["y"]))
        block = call(function, driver, choice.struct, types, str(old["blocks"]), row=bool(old["row"]), apart=True)
        row = f"{function}_row" if choice.row_function else ""
        return replace(other, function=function, row_function=row, blocks=(*kept, block))

    return replace(choice, pitched=pitched)


def no_other(node: Node, g: Geometry, size: str) -> bool:
    """Whether a block of this ``size`` is no other than the looped one, or does not take the inputs or outputs."""
    if size == "entered":
        return -(-math.prod(g.w[1:]) // 4) > UNROLLED_QUADS
    return size == "shared" and (
        "residual" in node.inputs or g.y.dtype is DType.INT16 or g.w[0] // g.attrs.groups % 2 > 0
    )


def _pointwise(graph: Graph, node: Node, _target: Target, *, size: str = "own") -> KernelChoice | None:
    g = geometry(graph, node)
    residual = "residual" in node.inputs
    if not g.is_pointwise or g.attrs.stride != (1, 1) or g.attrs.groups != 1 or (residual and g.w[0] % 2):
        return None
    return _pixels(graph, node, g, f"pointwise{'_residual' if residual else ''}_dsp", size=size)


def _fully_connected(graph: Graph, node: Node, _target: Target, *, size: str = "own") -> KernelChoice | None:
    """A fully connected layer as a row of pixels: slower than its own block, but its code may be there already."""
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    outputs, inputs = graph.data(node, "w").shape
    rows = rows_of(x)
    maps = (TensorType((1, rows, inputs), x.dtype), TensorType((1, rows, outputs), y.dtype))
    return _pixels(graph, node, Geometry(Conv2d(), *maps, (outputs, 1, 1, inputs)), "linear_pixels_dsp", size=size)


def _pixels(graph: Graph, node: Node, g: Geometry, name: str, *, size: str) -> KernelChoice | None:
    """Pixels side by side, three at a time."""
    if no_other(node, g, size):
        return None
    residual = "residual" in node.inputs
    made = matrix(graph, node, g, size=size)
    height, width, outputs = g.y.step_shape
    inputs, pixels, sizes = g.w[3], height * width, (g.x.dtype.bytes, g.y.dtype.bytes)
    per_three = made.per_block + operand_of_three(inputs, sizes[0])
    choice = side_by_side(
        DSP,
        node,
        g,
        made,
        kernel=f"{name}{'' if size == 'own' else f'_{size}'}",
        driver=f"pg_pointwise_dsp_{SUFFIX[g.x.dtype]}_{SUFFIX[g.y.dtype]}",
        instructions=-(-pixels // 3) * (per_three + 19)
        + rest_of_three(pixels % 3, inputs * sizes[0], outputs * sizes[1], residual)
        + residual_copy(node, g)
        + 36,
        row_instructions=height * (-(-width // 3) * (per_three + 20) + (150 if width % 3 else 40)),
        scratch_bytes=24 * made.quads + (_spill(g) if pixels % 3 or width % 3 else 0),
    )
    return choice if residual else apart(choice, made, g.y, "pg_pointwise_dsp_apart")


def _spill(g: Geometry) -> int:
    """Bytes of scratch for the last one or two pixels of a row and their outputs."""
    return -(-3 * g.w[0] // 4) * 4 * g.y.dtype.bytes + 3 * g.w[3] * g.x.dtype.bytes


def _gathered(graph: Graph, node: Node, _target: Target, *, size: str = "own") -> KernelChoice | None:
    g = geometry(graph, node)
    residual, outputs = "residual" in node.inputs, g.w[0] // g.attrs.groups
    if g.is_depthwise or (residual and outputs % 2) or no_other(node, g, size):
        return None
    made = matrix(graph, node, g, size=size)
    choice = gathered(
        DSP,
        node,
        g,
        made,
        kernel=f"conv2d{'_residual' if residual else ''}_dsp{'' if size == 'own' else f'_{size}'}",
        driver=f"pg_conv2d_dsp_{SUFFIX[g.x.dtype]}_{SUFFIX[g.y.dtype]}",
        asks="flag",
        per_block=made.per_block + operand_of_three(4 * made.quads, g.x.dtype.bytes),
        rest=lambda windows: rest_of_three(windows, 0, outputs * g.y.dtype.bytes, residual),
    )
    return choice if residual or g.attrs.groups > 1 else apart(choice, made, g.y)


_FORMS = (
    ("pointwise_dsp", "conv2d", _pointwise),
    ("linear_pixels_dsp", "linear", _fully_connected),
    ("conv2d_dsp", "conv2d", _gathered),
    ("pointwise_residual_dsp", "conv2d_residual", _pointwise),
    ("conv2d_residual_dsp", "conv2d_residual", _gathered),
)
KERNELS = tuple(
    KernelDef(f"{name}{'' if size == 'own' else f'_{size}'}", op, frozenset({"dsp"}), partial(apply, size=size))
    for name, op, apply in _FORMS
    for size in SIZES
    if size in ("own", "looped") or "residual" not in op
)
