"""Kernel of attention."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.kernels.costs import loop
from projgen.kernels.linear import requant_field
from projgen.kernels.record import KernelChoice, KernelDef
from projgen.ops.attention import attention_numerics
from projgen.targets import Target


def _portable(graph: Graph, node: Node, target: Target) -> KernelChoice:
    queries, heads, depth = graph.arg(node, "q").type.step_shape
    keys, _, width = graph.arg(node, "v").type.step_shape
    n = attention_numerics(node)
    rows = queries * heads
    # Each row of weights is whole before its output is written, and no other row reads that query.
    alone = node.inputs["q"] not in (node.inputs["k"], node.inputs["v"])
    return KernelChoice(
        kernel="attention_portable",
        function="pg_attention",
        struct="pg_attention_params",
        fields={
            "queries": queries,
            "keys": keys,
            "heads": heads,
            "depth": depth,
            "width": width,
            "query_zero": n.query_zero_point,
            "value_zero": n.value_zero_point,
            "score_multiplier": n.score_multiplier,
            "score_shift": n.score_shift,
            "drop": n.drop,
            "value_multiplier": n.value_multiplier,
            "out": requant_field(n.requant),
        },
        tables=(),
        sources=("pg_attention.h",),
        instructions=loop(target, rows * (2.75 * keys * (depth + width) + 25.0 * keys + 22.0 * width), 1.0),
        scratch_bytes=4 * keys,
        in_place=frozenset({"q"}) if alone and depth == width else frozenset(),
    )


KERNELS = (KernelDef("attention_portable", "attention", frozenset(), _portable),)
