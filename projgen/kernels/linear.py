"""Kernels of the fully connected layer."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MatrixNumerics, Requant
from projgen.ir.types import DType, TensorType
from projgen.kernels.costs import matrix
from projgen.kernels.costs_dsp import linear_rows, widen
from projgen.kernels.layouts import plain, table
from projgen.kernels.packed import LIMIT, NATURAL, WIDENED, PairStream, VectorStream, largest_accumulator
from projgen.kernels.record import Block, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

UNROLLED_CHUNKS = 8  # vectors of inputs up to which the MVE kernel is straight-line code
SUFFIX = {DType.INT8: "s8", DType.INT16: "s16"}


def requant_field(requant: Requant) -> tuple[int, ...]:
    """Initialiser of ``pg_requant``."""
    return (requant.shift, requant.zero_point, requant.low, requant.high)


def matrix_numerics(node: Node) -> MatrixNumerics:
    """The numerics of a quantised linear or convolution node."""
    if not isinstance(node.numerics, MatrixNumerics):
        raise TypeError(f"node {node.name!r} has no matrix numerics")
    return node.numerics


def rows_of(x: TensorType) -> int:
    """Vectors in one step of ``x`` (..., K)."""
    return math.prod(x.step_shape[:-1])


def _portable(graph: Graph, node: Node, target: Target) -> KernelChoice:
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    outputs, inputs = graph.data(node, "w").shape
    rows = rows_of(x)
    return KernelChoice(
        kernel="linear_portable",
        function=f"pg_linear_{SUFFIX[x.dtype]}_{SUFFIX[y.dtype]}",
        struct="pg_linear_params",
        fields={
            "weights": TableRef("weights"),
            "bias": TableRef("bias"),
            "multipliers": TableRef("multipliers"),
            "rows": rows,
            "inputs": inputs,
            "outputs": outputs,
            "out": requant_field(matrix_numerics(node).requant),
        },
        tables=(
            plain(graph, node, "w", "weights", "int8", "[outputs][inputs]"),
            plain(graph, node, "b", "bias", "int32", "[outputs], input zero point folded in"),
            plain(graph, node, "m", "multipliers", "int32", "[outputs]"),
        ),
        sources=("pg_matrix.h", "pg_linear.h"),
        instructions=matrix(target, rows * inputs * outputs, rows * outputs) + 30.0,
    )


def peak(graph: Graph, name: str) -> int:
    """The largest |value| that activation ``name`` can take, proven from the weights of its producer."""
    dtype = graph.type(name).dtype
    limit = -dtype.low
    producer = graph.producer(name)
    if producer is None or not isinstance(producer.numerics, MatrixNumerics):
        return limit
    x = graph.arg(producer, "x")
    out = producer.numerics.requant
    w = graph.data(producer, "w").astype(np.int64)
    reach = np.abs(w.reshape(len(w), -1)).sum(axis=1) * -x.type.dtype.low + np.abs(graph.data(producer, "b"))
    scaled = ((reach << out.shift) * graph.data(producer, "m").astype(np.int64) + (1 << 31)) >> 32
    largest = int(scaled.max()) + abs(out.zero_point)
    return min(limit, largest, max(abs(out.low), abs(out.high)))


def _readable_in_place(graph: Graph, node: Node, inputs: int) -> bool:
    """Whether an int16 operand lies word by word as the packed kernels read it: whole quads, its own buffer."""
    producer = graph.producer(node.inputs["x"])
    return inputs % 4 == 0 and producer is not None and producer.op in ("linear", "conv2d")


def _dsp_looped(graph: Graph, node: Node, target: Target) -> KernelChoice:
    """The same with less code, for a layer that is a small part of its network."""
    return _dsp(graph, node, target, looped=True)


def _dsp(graph: Graph, node: Node, _target: Target, *, looped: bool = False) -> KernelChoice:
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    w, b = graph.data(node, "w"), graph.data(node, "b")
    packed = largest_accumulator(w, b, peak(graph, node.inputs["x"])) < LIMIT
    outputs, inputs = w.shape
    rows = rows_of(x)
    requant = matrix_numerics(node).requant
    wide = x.dtype is DType.INT16
    in_place = wide and _readable_in_place(graph, node, inputs)
    clamped = (requant.low, requant.high) != (y.dtype.low, y.dtype.high)
    variant = ("" if packed else "plain_") + ("looped_" if looped else "")
    variant += f"{SUFFIX[y.dtype]}{f'_shift{requant.shift}' if requant.shift else ''}{'_clamped' if clamped else ''}"
    block = f"pg_linear_dsp_rows_{variant}"
    function = f"pg_linear_dsp_{SUFFIX[x.dtype]}{'_in_place' if in_place else ''}_{variant}"
    layout = PairStream(outputs, inputs, NATURAL if wide else WIDENED, packed)
    constants = {role: graph.data(node, role) for role in ("w", "b", "m")}
    quads = layout.quads
    per_row = linear_rows(quads, outputs, packed=packed, looped=looped, shift=requant.shift > 0, clamped=clamped)
    filled = 0 if in_place else 2 * inputs + 20 if wide else widen(inputs)
    weights = "weight pairs 256 a + b" if packed else "weights"
    ctypes = {DType.INT8: "int8_t", DType.INT16: "int16_t"}
    return KernelChoice(
        kernel="linear_dsp_looped" if looped else "linear_dsp",
        function=function,
        struct="pg_linear_dsp_params",
        fields={
            "stream": TableRef("stream"),
            "rows": rows,
            "inputs": inputs,
            "quads": quads,
            "outputs": outputs,
            "zero_point": requant.zero_point,
            "low": requant.low,
            "high": requant.high,
        },
        tables=(table("stream", layout, constants, f"bias, {weights} and multipliers in reading order"),),
        sources=("pg_linear_dsp.h",),
        blocks=(
            Block(
                "linear_dsp_rows.h.j2",
                block,
                (
                    ("function", block),
                    ("packed", int(packed)),
                    ("looped", int(looped)),
                    ("wide", int(y.dtype is DType.INT16)),
                    ("shift", requant.shift),
                    ("clamped", int(clamped)),
                ),
            ),
            Block(
                "linear_dsp.h.j2",
                function,
                (
                    ("function", function),
                    ("rows", block),
                    ("x", ctypes[x.dtype]),
                    ("y", ctypes[y.dtype]),
                    ("in_place", int(in_place)),
                ),
            ),
        ),
        instructions=rows * (per_row + filled + 16.0) + 17.0,
        scratch_bytes=0 if in_place else 8 * quads,
    )


def _mve(graph: Graph, node: Node, _target: Target, *, together: int = 0) -> KernelChoice | None:
    """``together``: vectors of inputs that the loop of a block for every size takes; 0: a block of its own size."""
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    requant = matrix_numerics(node).requant
    wide_x, wide_y = x.dtype is DType.INT16, y.dtype is DType.INT16
    if wide_y and requant.zero_point != 0:
        return None
    outputs, inputs = graph.data(node, "w").shape
    layout = VectorStream(outputs, inputs, 8 if wide_x else 16)
    constants = {role: graph.data(node, role) for role in ("w", "b", "m")}
    tail, odd = inputs % layout.lanes, outputs % 8 != 0
    chunks, unrolled = layout.chunks, layout.chunks <= UNROLLED_CHUNKS
    clamped = (requant.low, requant.high) != (y.dtype.low, y.dtype.high)
    size = f"_k{inputs}{'_partial' if odd else ''}"
    if together:
        size, tail, odd, unrolled = "" if together > 1 else "_looped", 0, True, False
    function = f"pg_linear_mve_{SUFFIX[x.dtype]}_{SUFFIX[y.dtype]}{size}"
    function += (f"_shift{requant.shift}" if requant.shift else "") + ("_clamped" if clamped else "")
    per_block = 14 + (0 if wide_y else 1) + (5 if clamped else 0 if wide_y else 1)
    per_block += (2 if odd else 0) + (2 if requant.shift else 0)
    if together == 1:
        per_block += 1 + 21 * chunks
    else:
        vectors = chunks - (1 if tail or together else 0)
        per_block += 17 * chunks + (0 if unrolled else 2 + 2 * max(1, -(-vectors // 8)) + (0 if wide_y else 1))
        per_block += (2 if odd else 1) if tail or together else 0
    rows = rows_of(x)
    return KernelChoice(
        kernel="linear_mve" + {0: "", 1: "_looped", 8: "_shared"}[together],
        function=function,
        struct="pg_linear_mve_params",
        fields={
            "stream": TableRef("stream"),
            "rows": rows,
            "inputs": inputs,
            "outputs": outputs,
            "zero_point": requant.zero_point,
            "low": requant.low,
            "high": requant.high,
        },
        tables=(table("stream", layout, constants, "bias, rows of weights and multipliers in reading order"),),
        sources=("pg_linear_mve.h",),
        blocks=(
            Block(
                "linear_mve.h.j2",
                function,
                (
                    ("function", function),
                    ("wide_x", int(wide_x)),
                    ("wide_y", int(wide_y)),
                    ("together", together),
                    ("chunks", 0 if together else chunks),
                    ("tail", tail),
                    ("unrolled", int(unrolled)),
                    ("partial", int(odd)),
                    ("shift", requant.shift),
                    ("clamped", int(clamped)),
                ),
            ),
        ),
        instructions=rows * (-(-outputs // 8) * per_block + (38.0 if together == 8 else 22.0)) + 13.0,
    )


KERNELS = (
    KernelDef("linear_portable", "linear", frozenset(), _portable),
    KernelDef("linear_dsp", "linear", frozenset({"dsp"}), _dsp),
    KernelDef("linear_dsp_looped", "linear", frozenset({"dsp"}), _dsp_looped),
    KernelDef("linear_mve", "linear", frozenset({"mve"}), _mve),
    KernelDef("linear_mve_shared", "linear", frozenset({"mve"}), partial(_mve, together=8)),
    KernelDef("linear_mve_looped", "linear", frozenset({"mve"}), partial(_mve, together=1)),
)
