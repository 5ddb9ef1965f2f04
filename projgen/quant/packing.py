"""Which sums of a quantised graph provably fit 23 bits: kernels then multiply two weights at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import GruNumerics, LowRank, LstmNumerics, MatrixNumerics
from projgen.quant.fixed import Ints
from projgen.quant.matrix import accumulator_bounds, peak_of
from projgen.quant.recurrent import joint_bounds, low_rank_bounds, reach

PACKED_LIMIT: Final = 2**23


def packable(graph: Graph) -> frozenset[str]:
    """Names of the matrices and recurrent layers none of whose accumulators, before the pre-shift, reaches 2^23."""
    return frozenset(node.name for node in graph.nodes if 0 < _largest(graph, node) < PACKED_LIMIT)


def _largest(graph: Graph, node: Node) -> int:
    """The largest |accumulator| that is provable; 0 for operators without rows of weights."""
    if isinstance(node.numerics, MatrixNumerics):
        peak = peak_of(graph, node.inputs["x"])
        return int(accumulator_bounds(graph.data(node, "w"), graph.data(node, "b"), peak, 0).max())
    if isinstance(node.numerics, LstmNumerics | GruNumerics):
        return _gates(graph, node, node.numerics)
    return 0


def _gates(graph: Graph, node: Node, numerics: LstmNumerics | GruNumerics) -> int:
    ints = {role: graph.data(node, role).astype(np.int64) for role in node.inputs if role != "x"}
    w, bias = ints["w"], np.abs(ints["b"])
    if isinstance(numerics, LstmNumerics) and numerics.joint_low_rank is not None:
        shift = numerics.joint_low_rank.shift
        z = joint_bounds(ints["q_in"], ints["q_out"], ints["b_in"], ints["m_in"], numerics.k, shift)
        return int((np.abs(w) @ z + bias).max())
    if "b_hn" in ints:
        bias = bias + np.pad(np.abs(ints["b_hn"]), (len(bias) - len(ints["b_hn"]), 0))
    r = ints["r"]
    x = _side(ints, "in", numerics.input_low_rank, w.shape[1])
    h = _side(ints, "out", numerics.recurrent_low_rank, r.shape[1])
    return int(reach(w, x, r, h, bias, numerics.k).max())


def _side(ints: Mapping[str, Ints], role: str, low_rank: LowRank | None, width: int) -> Ints:
    """Largest magnitude of each component of an operand of the gates."""
    if low_rank is None:
        return np.full(width, 128)
    q = ints[f"q_{role}"]
    b = ints["b_in"] if role == "in" else np.zeros(len(q), np.int64)
    return low_rank_bounds(q, b, ints[f"m_{role}"], low_rank.shift)
