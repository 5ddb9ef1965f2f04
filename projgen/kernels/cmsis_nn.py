"""Kernels that call CMSIS-NN: convolutions, fully connected layers, products and maxima, with the simulator's bytes.

RQ(acc, M, p) = floor(acc M 2^p / 2^32 + 1/2). The library, rounding once, computes floor(acc m 2^s / 2^31 + 1/2); with
m = M 2^k and s = p - 1 - k the two are the same number for every accumulator whose ``acc << p`` fits 32 bits. Its
vector form shifts acc left by max(0, s + 1) <= p bits, takes floor(acc m / 2^31) and rounds that while it shifts right;
nested floors of integers divided by powers of two are the floor of the whole, so it agrees as well. k is as large as it
can be, which keeps s + 1 <= p, and |RQ| < 2^30 keeps the scalar form's intermediate, twice the result, inside 32 bits.

A node is left to our own kernels where the library's interface can't express it or its bytes are not proven equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from projgen.cmsis_nn import CmsisNN
from projgen.ir.attrs import MaxPool2d
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MulNumerics, Requant
from projgen.ir.types import DType, TensorType
from projgen.kernels.conv import Geometry, geometry
from projgen.kernels.costs import loop
from projgen.kernels.layouts import TapMajor, cast, plain, table
from projgen.kernels.linear import matrix_numerics, rows_of
from projgen.kernels.record import Field, KernelChoice, KernelDef, Table, TableRef
from projgen.targets import Target

Array = npt.NDArray[np.generic]
Tile = tuple[int, int]  # the library's order: width, height

_CONV, _DEPTHWISE = "arm_convolve_wrapper_s8", "arm_depthwise_conv_wrapper_s8"
_LINEAR, _MUL, _MAX = "arm_fully_connected_per_channel_s8", "arm_elementwise_mul_s8", "arm_max_pool_s8"
_MOST_TAPS = 32767  # the library counts them in 16 bits
_CHANNELS_PER_BLOCK = 124  # CH_IN_BLOCK_MVE: channels that its vector depthwise convolution gathers at a time


def normalised(multiplier: int, shift: int) -> tuple[int, int]:
    """The library's (multiplier, shift) of RQ(acc, multiplier, shift): a multiplier in 2^30 .. 2^31 - 1, or 0."""
    k = max(0, 31 - multiplier.bit_length()) if multiplier else 0
    return multiplier << k, shift - 1 - k


@dataclass(frozen=True, slots=True)
class Normalised:
    """Multipliers scaled to 2^30 .. 2^31 - 1, then their shifts; ``shift`` is the pre-shift of all."""

    role: str
    shift: int

    def pack(self, constants: Mapping[str, Array]) -> Array:
        pairs = [normalised(int(m), self.shift) for m in constants[self.role]]
        return cast(np.asarray([m for m, _ in pairs] + [s for _, s in pairs], dtype=np.int64), "int32")

    def unpack(self, table: Array) -> Mapping[str, Array]:
        m, s = table.astype(np.int64).reshape(2, -1)
        return {self.role: (m >> (self.shift - 1 - s)).astype(np.int32)}


@dataclass(frozen=True, slots=True)
class Unfolded:
    """A bias without the input zero point: ``folded`` is what was taken off each entry."""

    role: str
    folded: tuple[int, ...]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        return cast(constants[self.role].astype(np.int64) + np.asarray(self.folded, dtype=np.int64), "int32")

    def unpack(self, table: Array) -> Mapping[str, Array]:
        return {self.role: (table.astype(np.int64) - np.asarray(self.folded, dtype=np.int64)).astype(np.int32)}


def convolution_scratch(release: tuple[int, int, int], isa: frozenset[str], kernel: Tile, channels: int) -> int:
    """``arm_convolve_s8_get_buffer_size``: bytes for a few columns of gathered pixels."""
    columns = kernel[0] * kernel[1] * channels
    if "mve" in isa:
        lanes = 8 if release < (6, 0, 0) else 16
        return 4 * -(-columns // lanes) * lanes
    return 4 * (columns if release < (5, 0, 0) else -(-columns // 4) * 4)


def depthwise_scratch(
    release: tuple[int, int, int], isa: frozenset[str], kernel: Tile, channels: int, *, plain: bool, padding: Tile
) -> int:
    """``arm_depthwise_conv_wrapper_s8_get_buffer_size``; ``plain``: one output a channel and no dilation."""
    if not plain:
        return 0
    if "mve" in isa:
        return 4 * _CHANNELS_PER_BLOCK * kernel[0] * kernel[1]
    if release >= (4, 1, 0) and kernel == (3, 3) and max(padding) <= 1:
        return 0
    return 2 * channels * kernel[0] * kernel[1] if "dsp" in isa else 0


def _proven(graph: Graph, node: Node, taps: int) -> tuple[int, ...] | None:
    """What the input zero point took off each bias, or None where the library's accumulators could overflow."""
    zero = matrix_numerics(node).input_zero_point
    w = graph.data(node, "w").astype(np.int64)
    sums = w.reshape(len(w), -1)
    folded = zero * sums.sum(axis=1)
    bias = graph.data(node, "b").astype(np.int64) + folded
    reach = np.abs(bias) + 256 * np.abs(sums).sum(axis=1)
    return None if reach.max() >= 1 << 31 or taps > _MOST_TAPS else tuple(int(v) for v in folded)


def _int8(*types: TensorType) -> bool:
    return {t.dtype for t in types} == {DType.INT8}


def _matrix_tables(
    graph: Graph, node: Node, weights: Table, folded: tuple[int, ...], requant: Requant
) -> tuple[Table, ...]:
    bias = table("bias", Unfolded("b", folded), {"b": graph.data(node, "b")}, "[out_c], input zero point not folded in")
    return (weights, bias, _multipliers(graph, node, requant))


def _multipliers(graph: Graph, node: Node, requant: Requant) -> Table:
    layout = Normalised("m", requant.shift)
    return table("multipliers", layout, {"m": graph.data(node, "m")}, "[out_c] multipliers, then [out_c] shifts")


def _matrix_fields(node: Node) -> dict[str, Field]:
    numerics = matrix_numerics(node)
    out = numerics.requant
    return {
        "weights": TableRef("weights"),
        "bias": TableRef("bias"),
        "multipliers": TableRef("multipliers"),
        "input_offset": -numerics.input_zero_point,
        "output_offset": out.zero_point,
        "limits": (out.low, out.high),
    }


def _overlapping(g: Geometry) -> bool:
    """Whether every window holds a pixel of the map: where one lies in the padding alone, the library's depthwise form
    for DSP cores fills more of its scratch buffer than it asks for (all releases).
    """
    for axis in (0, 1):
        reach = (g.w[1 + axis] - 1) * g.attrs.dilation[axis] + 1
        before = g.attrs.padding[2 * axis]
        last = (g.y.step_shape[axis] - 1) * g.attrs.stride[axis] - before
        if before >= reach or last >= g.x.step_shape[axis]:
            return False
    return True


def _turned(g: Geometry) -> bool | None:
    """Whether rows become columns: the library's own one-row form assumes a symmetric padding.

    None: neither way fits, because its 1x1 form knows no padding.
    """
    if g.w[1:3] == (1, 1):
        return None if any(g.attrs.padding) else False
    one_row = g.x.step_shape[0] == 1 and g.w[1] == 1
    if one_row and (any(g.attrs.padding[:2]) or g.w[2] == 1):
        return None
    return one_row


def _geometry_fields(g: Geometry, turned: bool, filter_channels: int) -> dict[str, Field]:
    """Dimensions (n, h, w, c) and tiles (w, h); a dilation of one tap is none."""

    def dims(n: int, h: int, w: int, c: int) -> tuple[int, ...]:
        return (n, w, h, c) if turned else (n, h, w, c)

    def tile(h: int, w: int) -> Tile:
        return (h, w) if turned else (w, h)

    kernel = g.w[1:3]
    dilation = [1 if k == 1 else d for k, d in zip(kernel, g.attrs.dilation, strict=True)]
    return {
        "input": dims(1, *g.x.step_shape),
        "filter": dims(1, *kernel, filter_channels),
        "output": dims(1, *g.y.step_shape),
        "stride": tile(*g.attrs.stride),
        "padding": tile(g.attrs.padding[0], g.attrs.padding[2]),
        "dilation": tile(*dilation),
    }


def _cost(target: Target, macs: int, outputs: int, *, simd: float, vector: float) -> float:
    """Counted in gcc 12.2 -O2 builds of release 4.0.0, per multiplication; other releases come close."""
    if "mve" in target.isa:
        return vector * macs + 8.0 * outputs
    return simd * macs + 20.0 * outputs if "dsp" in target.isa else loop(target, macs, 3.3) + 20.0 * outputs


def _conv2d(library: CmsisNN, graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    turned = _turned(g)
    folded = _proven(graph, node, g.taps)
    if turned is None or folded is None or g.attrs.groups != 1 or not _int8(g.x, g.y) or not _overlapping(g):
        return None
    kernel = g.w[1:3]
    scratch = 0 if kernel == (1, 1) else convolution_scratch(library.release, target.isa, kernel, g.w[3])
    weights = plain(graph, node, "w", "weights", "int8", "[out_c][kh][kw][in_c]")
    return KernelChoice(
        kernel="conv2d_cmsis_nn",
        function=f"pg_cmsis_nn_conv{'_scratch' if scratch else ''}",
        struct="pg_cmsis_nn_conv_layer",
        fields={**_matrix_fields(node), **_geometry_fields(g, turned, g.w[3]), "scratch_bytes": scratch},
        tables=_matrix_tables(graph, node, weights, folded, matrix_numerics(node).requant),
        sources=("pg_cmsis_nn_conv.h",),
        instructions=_cost(target, g.y.elements * g.taps, g.y.elements, simd=1.9, vector=0.25),
        scratch_bytes=scratch,
        library_functions=(_CONV,),
    )


def _depthwise(library: CmsisNN, graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    g = geometry(graph, node)
    folded = _proven(graph, node, g.taps)
    in_c, out_c = g.x.step_shape[2], g.y.step_shape[2]
    if not g.is_depthwise or folded is None or not _int8(g.x, g.y) or not _overlapping(g):
        return None
    fields = _geometry_fields(g, False, out_c)
    undilated = fields["dilation"] == (1, 1)
    top, _, left, _ = g.attrs.padding
    scratch = depthwise_scratch(
        library.release, target.isa, g.w[1:3], in_c, plain=in_c == out_c and undilated, padding=(left, top)
    )
    weights = table("weights", TapMajor("w", g.w), {"w": graph.data(node, "w")}, "[kh][kw][out_c]")
    return KernelChoice(
        kernel="depthwise_cmsis_nn",
        function=f"pg_cmsis_nn_depthwise{'_scratch' if scratch else ''}",
        struct="pg_cmsis_nn_depthwise_layer",
        fields={**_matrix_fields(node), **fields, "per_input": out_c // in_c, "scratch_bytes": scratch},
        tables=_matrix_tables(graph, node, weights, folded, matrix_numerics(node).requant),
        sources=("pg_cmsis_nn_depthwise.h",),
        instructions=_cost(target, g.y.elements * g.taps, g.y.elements, simd=3.5, vector=1.0),
        scratch_bytes=scratch,
        library_functions=(_DEPTHWISE,),
    )


def _linear_as_pointwise(_: CmsisNN, graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    """A multiplier for each output: before release 7 only convolutions have that."""
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    outputs, inputs = graph.data(node, "w").shape
    folded = _proven(graph, node, inputs)
    if folded is None or not _int8(x, y):
        return None
    rows = rows_of(x)
    fields: dict[str, Field] = {
        **_matrix_fields(node),
        "input": (1, 1, rows, inputs),
        "filter": (1, 1, 1, inputs),
        "output": (1, 1, rows, outputs),
        "stride": (1, 1),
        "padding": (0, 0),
        "dilation": (1, 1),
        "scratch_bytes": 0,
    }
    weights = plain(graph, node, "w", "weights", "int8", "[outputs][inputs]")
    return KernelChoice(
        kernel="linear_cmsis_nn",
        function="pg_cmsis_nn_conv",
        struct="pg_cmsis_nn_conv_layer",
        fields=fields,
        tables=_matrix_tables(graph, node, weights, folded, matrix_numerics(node).requant),
        sources=("pg_cmsis_nn_conv.h",),
        instructions=_cost(target, rows * inputs * outputs, rows * outputs, simd=2.0, vector=0.3),
        library_functions=(_CONV,),
    )


def _linear(_: CmsisNN, graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    outputs, inputs = graph.data(node, "w").shape
    folded = _proven(graph, node, inputs)
    if folded is None or not _int8(x, y):
        return None
    rows = rows_of(x)
    if "mve" in target.isa:
        bias = plain(graph, node, "b", "bias", "int32", "[outputs], input zero point folded in")
    else:
        bias = table("bias", Unfolded("b", folded), {"b": graph.data(node, "b")}, "[outputs]")
    return KernelChoice(
        kernel="linear_cmsis_nn",
        function="pg_cmsis_nn_linear",
        struct="pg_cmsis_nn_linear_layer",
        fields={**_matrix_fields(node), "rows": rows, "inputs": inputs, "outputs": outputs},
        tables=(
            plain(graph, node, "w", "weights", "int8", "[outputs][inputs]"),
            bias,
            _multipliers(graph, node, matrix_numerics(node).requant),
        ),
        sources=("pg_cmsis_nn_linear.h",),
        instructions=_cost(target, rows * inputs * outputs, rows * outputs, simd=2.0, vector=0.3),
        library_functions=(_LINEAR,),
    )


def _mul(_: CmsisNN, graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    a, b, y = graph.arg(node, "a"), graph.arg(node, "b"), graph.type(node.output)
    n = node.numerics
    if not isinstance(n, MulNumerics):
        raise TypeError(f"node {node.name!r} is no product")
    if not _int8(a.type, b.type, y) or a.type.step_shape != y.step_shape or b.type.step_shape != y.step_shape:
        return None
    constant = "a" if a.is_constant else "b" if b.is_constant else ""
    multiplier, shift = normalised(n.multiplier, n.requant.shift)
    fields: dict[str, Field] = {"constant": TableRef("constant")} if constant else {}
    fields |= {
        "count": y.elements,
        "offset_a": -n.zero_a,
        "offset_b": -n.zero_b,
        "output_offset": n.requant.zero_point,
        "multiplier": multiplier,
        "shift": shift,
        "limits": (n.requant.low, n.requant.high),
    }
    return KernelChoice(
        kernel="mul_cmsis_nn",
        function=f"pg_cmsis_nn_mul_constant_{constant}" if constant else "pg_cmsis_nn_mul",
        struct="pg_cmsis_nn_mul_layer",
        fields=fields,
        tables=(plain(graph, node, constant, "constant", "int8"),) if constant else (),
        sources=("pg_cmsis_nn_mul.h",),
        instructions=loop(target, y.elements, 5.0 if "mve" in target.isa else 16.0),
        in_place=frozenset({"a", "b"} - {constant}),
        library_functions=(_MUL,),
    )


def _max_pool(_: CmsisNN, graph: Graph, node: Node, target: Target) -> KernelChoice | None:
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    if not isinstance(node.attrs, MaxPool2d):
        raise TypeError(f"node {node.name!r} is no maximum pooling")
    if not _int8(x, y):
        return None
    (kh, kw), (sh, sw), (top, left) = node.attrs.kernel, node.attrs.stride, node.attrs.padding[::2]
    taps = kh * kw
    return KernelChoice(
        kernel="max_pool2d_cmsis_nn",
        function="pg_cmsis_nn_max_pool",
        struct="pg_cmsis_nn_max_pool_layer",
        fields={
            "input": (1, *x.step_shape),
            "filter": (1, kh, kw, 1),
            "output": (1, *y.step_shape),
            "stride": (sw, sh),
            "padding": (left, top),
        },
        tables=(),
        sources=("pg_cmsis_nn_max_pool.h",),
        instructions=loop(target, y.elements, 2.0 + (0.6 if "mve" in target.isa else 3.0) * taps),
        library_functions=(_MAX,),
    )


@cache
def kernels(library: CmsisNN) -> tuple[KernelDef, ...]:
    """The kernels that a copy of the library offers; copies that travel with other tools lack some functions."""
    per_output = library.release >= (7, 0, 0) and library.has(_LINEAR)
    linear, call = (_linear, _LINEAR) if per_output else (_linear_as_pointwise, _CONV)
    offered = (
        (_DEPTHWISE, "depthwise_cmsis_nn", "conv2d", _depthwise),
        (_CONV, "conv2d_cmsis_nn", "conv2d", _conv2d),
        (call, "linear_cmsis_nn", "linear", linear),
        (_MUL, "mul_cmsis_nn", "mul", _mul),
        (_MAX, "max_pool2d_cmsis_nn", "max_pool2d", _max_pool),
    )
    return tuple(
        KernelDef(name, op, frozenset(), partial(apply, library))
        for function, name, op, apply in offered
        if library.has(function)
    )
