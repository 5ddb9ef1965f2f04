"""Kernels of the fully connected layer."""

from __future__ import annotations

import math

from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MatrixNumerics, Requant
from projgen.ir.types import DType, TensorType
from projgen.kernels.costs import matrix
from projgen.kernels.layouts import plain
from projgen.kernels.record import KernelChoice, KernelDef, TableRef
from projgen.targets import Target

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


KERNELS = (KernelDef("linear_portable", "linear", frozenset(), _portable),)
