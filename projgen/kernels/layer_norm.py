"""Kernel of the layer normalisation."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.kernels.costs import is_small
from projgen.kernels.layouts import plain
from projgen.kernels.linear import requant_field, rows_of
from projgen.kernels.record import KernelChoice, KernelDef, TableRef
from projgen.ops.layer_norm import layer_norm_numerics
from projgen.targets import Target


def _portable(graph: Graph, node: Node, target: Target) -> KernelChoice:
    x = graph.arg(node, "x").type
    n = layer_norm_numerics(node)
    features, rows = x.step_shape[-1], rows_of(x)
    each, once = (114.5, 715.0) if is_small(target) else (32.4, 227.0) if "mve" in target.isa else (35.0, 222.0)
    return KernelChoice(
        kernel="layer_norm_portable",
        function="pg_layer_norm",
        struct="pg_layer_norm_params",
        fields={
            "gamma": TableRef("gamma"),
            "beta": TableRef("beta"),
            "rows": rows,
            "features": features,
            "epsilon_low": n.epsilon & 0x7FFFFFFF,
            "epsilon_high": n.epsilon >> 31,
            "multiplier": n.multiplier,
            "out": requant_field(n.requant),
        },
        tables=(
            plain(graph, node, "gamma", "gamma", "int16", "[features]"),
            plain(graph, node, "beta", "beta", "int32", "[features]"),
        ),
        sources=("pg_layer_norm.h",),
        instructions=rows * (each * features + once) + 30.0,
        in_place=frozenset({"x"}),
    )


KERNELS = (KernelDef("layer_norm_portable", "layer_norm", frozenset(), _portable),)
