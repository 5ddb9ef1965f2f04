"""Kernel of the softmax."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.kernels.costs import loop
from projgen.kernels.layouts import plain
from projgen.kernels.linear import rows_of
from projgen.kernels.record import KernelChoice, KernelDef, TableRef
from projgen.targets import Target


def _portable(graph: Graph, node: Node, target: Target) -> KernelChoice:
    x = graph.arg(node, "x").type
    count = x.step_shape[-1]
    return KernelChoice(
        kernel="softmax_portable",
        function="pg_softmax",
        struct="pg_softmax_params",
        fields={"table": TableRef("table"), "rows": rows_of(x), "count": count},
        tables=(plain(graph, node, "table", "table", "uint16", "round(65535 exp(-d s)), d = 0..255"),),
        sources=("pg_softmax.h",),
        instructions=loop(target, x.elements, 31.0) + 12.0 * (x.elements // x.step_shape[-1]) + 14.0,
        in_place=frozenset({"x"}),
    )


KERNELS = (KernelDef("softmax_portable", "softmax", frozenset(), _portable),)
