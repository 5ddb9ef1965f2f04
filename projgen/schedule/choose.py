"""Which kernel realises a node: the records that fit the target, ranked by what is to be favoured."""

from __future__ import annotations

from typing import Final

from projgen import kernels
from projgen.cmsis_nn import CmsisNN
from projgen.errors import UnsupportedError
from projgen.ir.graph import Graph, Node
from projgen.kernels import cmsis_nn
from projgen.kernels.record import KernelChoice, KernelDef
from projgen.options import Kernels, Optimise
from projgen.targets import Target

INSTRUCTIONS_A_BYTE: Final = 250  # for which optimise="flash" gives a byte of flash away


def candidates(
    graph: Graph, node: Node, target: Target, allowed: Kernels, library: CmsisNN | None = None
) -> list[KernelChoice]:
    """Every kernel that fits the node and the target, in the registry's order.

    Args:
        library: where one of its kernels fits, no other is a candidate, whatever it costs.

    Raises:
        UnsupportedError: there is none.
    """
    records = [
        k for k in kernels.registry() if k.op == node.op and k.isa <= target.isa and (allowed == "fast" or not k.isa)
    ]
    preferred = [k for k in cmsis_nn.kernels(library) if k.op == node.op] if library else []
    choices = _applied(preferred, graph, node, target) or _applied(records, graph, node, target)
    if not choices:
        types = ", ".join(f"{role} {value.type}" for role, value in graph.activations(node))
        raise UnsupportedError(
            f"no kernel for {node.op} {node.source or node.name!r} with {types} on {target.name}",
            f"kernels for {node.op}: {', '.join(k.name for k in records) or 'none'}",
            "the model",
        )
    return choices


def _applied(records: list[KernelDef], graph: Graph, node: Node, target: Target) -> list[KernelChoice]:
    return [c for k in records if (c := k.apply(graph, node, target)) is not None]


def table_bytes(choice: KernelChoice) -> int:
    return sum(t.data.nbytes for t in choice.tables)


def rank(choice: KernelChoice, optimise: Optimise) -> tuple[float, ...]:
    """What makes a choice better (smaller) for its node alone: instructions (flash: ``cost``), then tables."""
    if optimise == "flash":
        return (cost(choice, optimise, by_rows=False), table_bytes(choice), choice.instructions)
    return (choice.instructions, choice.scratch_bytes, table_bytes(choice))


def cost(choice: KernelChoice, optimise: Optimise, *, by_rows: bool) -> float:
    """What an objective spends on a choice beside code: instructions, or (flash) bytes of constants as well.

    A byte of flash is not saved at any price: instructions are worth 1 / ``INSTRUCTIONS_A_BYTE`` of it. Code, which
    layers share, is paid by ``share.pick``.
    """
    instructions = (choice.row_instructions if by_rows else 0.0) or choice.instructions
    if optimise == "flash":
        return table_bytes(choice) + instructions / INSTRUCTIONS_A_BYTE
    return instructions


def choose(
    graph: Graph, node: Node, target: Target, allowed: Kernels, optimise: Optimise, library: CmsisNN | None = None
) -> KernelChoice:
    """The best kernel of a node; the first of equals."""
    return min(candidates(graph, node, target, allowed, library), key=lambda c: rank(c, optimise))
