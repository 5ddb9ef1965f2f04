"""Dense convolutions on DSP cores whose operands are widened straight from padded copies of the rows under them."""

from __future__ import annotations

from functools import partial

from projgen.ir.graph import Graph, Node
from projgen.kernels.conv import geometry, over_residual, overwrites, window_field
from projgen.kernels.conv_blocks import CTYPES, RING, call, residual_copy
from projgen.kernels.conv_dsp import SIZES, apart, matrix, no_other
from projgen.kernels.costs_dsp import copy, operand_of_three
from projgen.kernels.linear import SUFFIX, matrix_numerics
from projgen.kernels.record import KernelChoice, KernelDef, TableRef
from projgen.targets import Target


def _direct(graph: Graph, node: Node, _target: Target, *, size: str) -> KernelChoice | None:
    """The choice for a node without groups or dilation where a row of a window is whole quads of values."""
    g = geometry(graph, node)
    (_, in_w, channels), (height, width, outputs) = g.x.step_shape, g.y.step_shape
    (_, kernel_h, kernel_w, _), (stride_h, stride_w) = g.w, g.attrs.stride
    left, itemsize = g.attrs.padding[2], g.x.dtype.bytes
    run, threes = kernel_w * channels, -(-width // 3)
    # what the windows of whole blocks see, and the whole input row
    pitch = max(in_w + left, (3 * threes - 1) * stride_w + kernel_w) * channels
    ring = kernel_h * pitch * itemsize
    residual = "residual" in node.inputs
    if run % 4 or ring > RING or g.attrs.groups > 1 or g.attrs.dilation != (1, 1) or g.is_depthwise:
        return None
    if (residual and outputs % 2) or no_other(node, g, size):
        return None
    made = matrix(graph, node, g, size=size)
    before = 24 * made.quads + -(-3 * outputs * g.y.dtype.bytes // 4) * 4
    function = f"pg_conv2d_direct_dsp_{made.variant}{'_sum' if residual else ''}"
    types = (CTYPES[g.x.dtype], CTYPES[g.y.dtype])
    driver = f"pg_conv2d_direct_dsp_{SUFFIX[g.x.dtype]}_{SUFFIX[g.y.dtype]}"
    beside = width % 3 * outputs * g.y.dtype.bytes
    per_row = threes * (made.per_block + kernel_h * (operand_of_three(run, itemsize) + 20) + 24)
    per_row += copy(beside) * (2 if residual else 1) + 20 if beside else 0
    line = copy(in_w * channels * itemsize) + 50
    kept = max(kernel_h - stride_h, 0)
    whole = height * (copy(kept * pitch * itemsize) + 22 + (kernel_h - kept) * line) + kept * line
    choice = KernelChoice(
        kernel=f"conv2d{'_residual' if residual else ''}_direct_dsp{'' if size == 'own' else f'_{size}'}",
        function=function,
        struct="pg_conv2d_dsp_params",
        fields={
            "stream": TableRef("stream"),
            "matrix": made.field,
            "window": window_field(g, matrix_numerics(node).input_zero_point),
            "groups": 1,
            "group_words": made.stream.data.size,
            "pitch": pitch,
            "ring": before // itemsize,
            "rows": 1,
        },
        tables=(made.stream,),
        sources=("pg_conv2d_dsp.h", "pg_conv2d_direct_dsp.h"),
        blocks=(
            made.block,
            call(function, driver, "pg_conv2d_dsp_params", types, made.block.function, residual=residual),
        ),
        instructions=height * (per_row + 70) + whole + 0.7 * ring + residual_copy(node, g) + 60,
        scratch_bytes=before + ring,
        in_place=over_residual(node) if residual else frozenset({"x"} if overwrites(g) else ()),
        row_function=f"{function}_row",
        row_instructions=height * (per_row + 130 + kernel_h * (line + 40)),
    )
    return choice if residual else apart(choice, made, g.y, "pg_conv2d_direct_dsp_apart")


KERNELS = tuple(
    KernelDef(f"{name}{'' if size == 'own' else f'_{size}'}", op, frozenset({"dsp"}), partial(_direct, size=size))
    for name, op in (("conv2d_direct_dsp", "conv2d"), ("conv2d_residual_direct_dsp", "conv2d_residual"))
    for size in SIZES
    if size in ("own", "looped") or op == "conv2d"
)
