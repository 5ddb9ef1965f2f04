"""Dense convolutions on Armv6-M cores: four pixels at a time, in blocks of 16-bit instructions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv import Geometry, geometry, over_residual, overwrites, window_field
from projgen.kernels.conv_blocks import Core, Matrix, Parameters, call, is_clamped, side_by_side
from projgen.kernels.conv_dsp_layouts import as_words, signed
from projgen.kernels.conv_thumb2_layouts import byte_words, bytes_of
from projgen.kernels.layouts import table
from projgen.kernels.linear import matrix_numerics, peak
from projgen.kernels.packed import largest_accumulator
from projgen.kernels.record import Block, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

Array = npt.NDArray[np.generic]

CORE: Final = Core("thumb1", pixels=4, operand=16)
RING: Final = 8192  # bytes of padded rows that are worth keeping
MIDDLE: Final = 32766  # of |sum| / 2^16 and m / 2^16 together: below it their middle products fit 32 bits


@dataclass(frozen=True, slots=True)
class PixelStream:
    """Convolution w (O, KH, KW, C), b, m output by output: b; the weights, four a word; with a ``residual`` f; m."""

    shape: tuple[int, ...]
    residual: bool = False

    @property
    def inputs(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def quads(self) -> int:
        return -(-self.inputs // 4)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w = np.asarray(constants["w"]).astype(np.int64).reshape(self.shape[0], -1)
        weights = byte_words(np.pad(w, ((0, 0), (0, 4 * self.quads - self.inputs))))
        roles = ("b", *(["f"] if self.residual else []), "m")
        b, *after = (np.asarray(constants[role]).astype(np.int64)[:, None] for role in roles)
        return as_words([np.concatenate([b, weights, *after], axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(self.shape[0], -1)
        w = bytes_of(rows[:, 1 : 1 + self.quads])[:, : self.inputs]
        columns = {"b": 0, "m": -1, **({"f": -2} if self.residual else {})}
        words = {role: signed(rows[:, at]).astype(np.int32) for role, at in columns.items()}
        return {"w": w.reshape(self.shape).astype(np.int8)} | words


def halves_fit(graph: Graph, node: Node) -> bool:
    """Whether the middle products of every requantisation fit 32 bits, proven from the weights."""
    w, b = graph.data(node, "w"), graph.data(node, "b").astype(np.int64)
    largest = largest_accumulator(w.reshape(len(w), -1), b, peak(graph, node.inputs["x"]))
    if "residual" in node.inputs:
        largest += int(np.abs(graph.data(node, "f").astype(np.int64)).max()) * 128
    high = int(graph.data(node, "m").max()) >> 16
    return (largest << matrix_numerics(node).requant.shift >> 16) + 1 + high < MIDDLE


def _fits(graph: Graph, node: Node) -> bool:
    """int8 on both sides, and requantisation from halves."""
    roles = [role for role in ("x", "residual") if role in node.inputs]
    types = {graph.arg(node, role).type.dtype for role in roles} | {graph.type(node.output).dtype}
    return types == {DType.INT8} and halves_fit(graph, node)


def _matrix(graph: Graph, node: Node, g: Geometry) -> Matrix:
    requant, clamped = matrix_numerics(node).requant, is_clamped(graph, node)
    residual = "residual" in node.inputs
    layout = PixelStream(graph.data(node, "w").shape, residual)
    variant = f"fours{f'_shift{requant.shift}' if requant.shift else ''}{'_clamped' if clamped else ''}"
    variant += "_residual" if residual else ""
    function = f"pg_conv_thumb1_{variant}"
    parameters: Parameters = {
        "function": function,
        "shift": requant.shift,
        "clamped": int(clamped),
        "residual": int(residual),
    }
    constants = {role: graph.data(node, role) for role in ("w", "b", "m", *(["f"] if residual else []))}
    per_output = 4 * (20 + (1 if requant.shift else 0) + (3 if clamped else 0) + (5 if residual else 0)) - 1
    per_output += 26 + (2 if residual else 0) + 44 * layout.quads + 3 * -(-layout.quads // 2)
    return Matrix(
        Block("conv_thumb1_matrix.h.j2", function, tuple(parameters.items())),
        variant,
        table("stream", layout, constants, "start values, weights and multipliers in reading order"),
        layout.quads,
        (layout.quads, g.w[0], g.w[0], requant.zero_point, requant.low, requant.high),
        42.0 + (3 if clamped else 0) + g.w[0] * per_output,
    )


def _pack(count: int) -> float:
    """``pg_conv_thumb1_pack``: the operand of four pixels of ``count`` channels, and the call."""
    return 9.0 * count + 16.0


def _rest(pixels: int, outputs: int, inputs: int = 0) -> float:
    """What one to three pixels too few for a block cost beside it."""
    return 70.0 + 5.0 * pixels * (outputs + inputs) if pixels else 0.0


def _pointwise(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    if not g.is_pointwise or g.attrs.stride != (1, 1) or g.attrs.groups != 1 or not _fits(graph, node):
        return None
    made, residual = _matrix(graph, node, g), "residual" in node.inputs
    height, width, outputs = g.y.step_shape
    inputs, pixels = g.w[3], height * width
    per_four = made.per_block + _pack(inputs) + 16
    return side_by_side(
        CORE,
        node,
        g,
        made,
        kernel=f"pointwise{'_residual' if residual else ''}_thumb1",
        driver=f"pg_pointwise_thumb1_{'residual' if residual else 's8'}",
        instructions=-(-pixels // CORE.pixels) * per_four
        + _rest(pixels % CORE.pixels, outputs, inputs)
        + 2.0 * residual * g.y.elements
        + 40,
        row_instructions=height
        * (-(-width // CORE.pixels) * per_four + _rest(width % CORE.pixels, outputs, inputs) + 40),
        scratch_bytes=64 * made.quads + CORE.pixels * (outputs + inputs),
    )


def _conv2d(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    if g.attrs.groups != 1 or g.attrs.dilation != (1, 1) or not _fits(graph, node):
        return None
    (_, in_w, channels), (height, width, outputs) = g.x.step_shape, g.y.step_shape
    _, kernel_h, kernel_w, _ = g.w
    stride = g.attrs.stride
    pitch = (in_w + sum(g.attrs.padding[2:])) * channels
    if kernel_h * pitch > RING:
        return None
    made, residual = _matrix(graph, node, g), "residual" in node.inputs
    function = f"pg_conv2d_thumb1_{made.variant}{'_sum' if residual else ''}"
    driver, struct = f"pg_conv2d_thumb1_{'residual' if residual else 's8'}", "pg_conv2d_thumb1_params"
    ring = 64 * made.quads + -(-CORE.pixels * outputs // 4) * 4
    per_four = made.per_block + kernel_h * (_pack(kernel_w * channels) + 14) + 20
    per_row = -(-width // CORE.pixels) * per_four + _rest(width % CORE.pixels, outputs) + 40
    line = 30.0 + 5.0 * in_w * channels
    loaded = (height - 1) * stride[0] + kernel_h
    return KernelChoice(
        kernel=f"conv2d{'_residual' if residual else ''}_thumb1",
        function=function,
        struct=struct,
        fields={
            "stream": TableRef("stream"),
            "matrix": made.field,
            "window": window_field(g, matrix_numerics(node).input_zero_point),
            "pitch": pitch,
            "ring": ring,
        },
        tables=(made.stream,),
        sources=("pg_conv2d_thumb1.h",),
        blocks=(
            made.block,
            call(function, driver, struct, ("int8_t", "int8_t"), made.block.function, residual=residual, core="thumb1"),
        ),
        instructions=height * per_row + loaded * line + 2.0 * kernel_h * pitch + 2.0 * residual * g.y.elements + 60,
        scratch_bytes=ring + kernel_h * pitch + 3 * stride[1] * channels,
        in_place=over_residual(node) if residual else frozenset({"x"} if overwrites(g) else ()),
        row_function=f"{function}_row",
        row_instructions=height * (per_row + kernel_h * (line + 40)),
    )


KERNELS = (
    KernelDef("pointwise_thumb1", "conv2d", frozenset({"thumb1"}), _pointwise),
    KernelDef("conv2d_thumb1", "conv2d", frozenset({"thumb1"}), _conv2d),
    KernelDef("pointwise_residual_thumb1", "conv2d_residual", frozenset({"thumb1"}), _pointwise),
    KernelDef("conv2d_residual_thumb1", "conv2d_residual", frozenset({"thumb1"}), _conv2d),
)
