"""Kernels for cores with NEON: the portable ones, their inner products taken by ``pg_neon.h``.

Tables, parameters and functions are those of the portable kernels. With ``dotprod`` in the target's features the
compiler emits SDOT, else SMULL, SMLAL and SADALP; elsewhere the same text compiles to the plain loops.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from projgen.ir.graph import Graph, Node
from projgen.kernels import conv, conv_residual, linear, recurrent
from projgen.kernels.costs import matrix
from projgen.kernels.record import KernelChoice, KernelDef
from projgen.kernels.recurrent_common import step_macs
from projgen.targets import Target


def _macs(graph: Graph, node: Node) -> tuple[int, int]:
    """Products and requantised sums of one call."""
    if node.op in ("lstm", "gru"):
        return step_macs(graph, node), int(graph.data(node, "m").size)
    w = graph.data(node, "w")
    outputs = math.prod(graph.type(node.output).step_shape)
    return outputs * (w.size // len(w)), outputs


def _with_neon(portable: KernelDef) -> KernelDef:
    """The record of a portable kernel whose sums NEON takes."""

    def apply(graph: Graph, node: Node, target: Target) -> KernelChoice | None:
        plain = portable.apply(graph, node, target)
        if plain is None:
            return None
        macs, outputs = _macs(graph, node)
        around = max(plain.instructions - matrix(target, macs, outputs), 0.0)
        per_mac = 0.2 if "dotprod" in target.isa else 0.35
        return replace(
            plain,
            kernel=name,
            sources=("pg_neon.h", *plain.sources),
            instructions=per_mac * macs + 10.0 * outputs + around,
        )

    name = portable.name.replace("portable", "neon")
    return KernelDef(name, portable.op, frozenset({"neon"}), apply)


KERNELS: Final = tuple(
    _with_neon(record)
    for family in (linear, conv, conv_residual, recurrent)
    for record in family.KERNELS
    if not record.isa
)
