"""Kernels of the element-wise operators: table, sum and product."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.kernels.costs import loop
from projgen.kernels.layouts import plain
from projgen.kernels.record import KernelChoice, KernelDef, TableRef
from projgen.targets import Target


def _lut(graph: Graph, node: Node, target: Target) -> KernelChoice:
    x = graph.arg(node, "x").type
    return KernelChoice(
        kernel="lut_portable",
        function="pg_lut",
        struct="pg_lut_params",
        fields={"table": TableRef("table"), "count": x.elements},
        tables=(plain(graph, node, "table", "table", "int8", "y of x = -128..127"),),
        sources=("pg_lut.h",),
        instructions=loop(target, x.elements, 5.0),
        in_place=frozenset({"x"}),
    )


KERNELS = (KernelDef("lut_portable", "lut", frozenset(), _lut),)
