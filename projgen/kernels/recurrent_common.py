"""What the recurrent kernels of all targets share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import GruNumerics, LstmNumerics


def recurrent_numerics(node: Node) -> LstmNumerics | GruNumerics:
    """The numerics of a quantised recurrent node."""
    if not isinstance(node.numerics, LstmNumerics | GruNumerics):
        raise TypeError(f"node {node.name!r} has no recurrent numerics")
    return node.numerics


def rank(graph: Graph, node: Node, role: str) -> int:
    """Rank of a factor ("q_in", "q_out"); 0 where the matrix is dense."""
    return int(graph.data(node, role).shape[0]) if role in node.inputs else 0


def step_macs(graph: Graph, node: Node) -> int:
    """Multiplications of one step."""
    return sum(int(graph.data(node, role).size) for role in ("w", "r", "q_in", "q_out") if role in node.inputs)


def block_name(prefix: str, parameters: Mapping[str, int | str | tuple[int, ...]]) -> str:
    """A C name that two blocks share only when their parameters are equal: a digest of them behind the prefix."""
    text = repr(sorted(parameters.items()))
    return f"{prefix}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
