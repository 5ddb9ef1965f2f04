"""Kernel of attention."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.kernels.costs import is_small
from projgen.kernels.linear import requant_field
from projgen.kernels.record import KernelChoice, KernelDef
from projgen.ops.attention import attention_numerics
from projgen.targets import Target


def _row(target: Target, keys: int, depth: int, width: int) -> float:
    """Predicted instructions of one query of one head: scores, weights, and the mean of the values."""
    if is_small(target):
        score, rest, four, weight, value, single, output, once = 21.8, 12.2, 71.0, 40.5, 26.4, 8.2, 70.7, 611.0
    elif "mve" in target.isa:
        score, rest, four, weight, value, single, output, once = 14.5, 6.8, 28.8, 22.7, 12.9, 5.5, 22.7, 272.0
    else:
        score, rest, four, weight, value, single, output, once = 11.5, 7.9, 39.0, 21.0, 14.3, 6.1, 20.7, 285.0
    scores = (keys // 4) * (score * depth + four) + (keys % 4) * rest * depth
    values = keys * ((width // 4) * value + (width % 4) * single)
    return scores + weight * keys + values + output * width + once


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
        instructions=rows * _row(target, keys, depth, width) + 30.0,
        scratch_bytes=4 * keys,
        in_place=frozenset({"q"}) if alone and depth == width else frozenset(),
    )


KERNELS = (KernelDef("attention_portable", "attention", frozenset(), _portable),)
