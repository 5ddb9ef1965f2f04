"""Element-wise sum and product on DSP cores: four elements at a time."""

from __future__ import annotations

from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import AddNumerics, MulNumerics
from projgen.ir.types import DType
from projgen.kernels.layouts import plain
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

_HALF = 1 << 15


def _twice(value: int) -> int:
    """A number as both halfwords of a word."""
    return (value & 0xFFFF) * 0x10001


def _binary(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    a, b, y = graph.arg(node, "a"), graph.arg(node, "b"), graph.type(node.output)
    n = node.numerics
    if not isinstance(n, AddNumerics | MulNumerics):
        raise TypeError(f"node {node.name!r} has no numerics")
    if {a.type.dtype, b.type.dtype, y.dtype} != {DType.INT8} or a.type.elements != b.type.elements:
        return None
    if isinstance(n, AddNumerics):
        if not all(-_HALF <= f < _HALF for f in (n.factor_a, n.factor_b)):
            return None
        first = (n.factor_a & 0xFFFF) | (n.factor_b & 0xFFFF) << 16
        second = -(n.factor_a * n.zero_a + n.factor_b * n.zero_b) & 0xFFFFFFFF
    else:
        first, second = _twice(n.zero_a), _twice(n.zero_b)
    out = n.requant
    clamped = (out.low, out.high) != (y.dtype.low, y.dtype.high)
    constant = "a" if a.is_constant else "b" if b.is_constant else ""
    function = f"pg_{node.op}_dsp{f'_constant_{constant}' if constant else ''}"
    function += f"{f'_shift{out.shift}' if out.shift else ''}{'_clamped' if clamped else ''}"
    parameters: tuple[tuple[str, int | str], ...] = (
        ("function", function),
        ("product", int(node.op == "mul")),
        ("constant", constant),
        ("shift", out.shift),
        ("clamped", int(clamped)),
    )
    fields: dict[str, Field] = {"constant": TableRef("constant")} if constant else {}
    fields |= {
        "count": y.elements,
        "constants": (first, second, n.multiplier, out.zero_point, out.low, out.high),
    }
    per_quad = (28 if node.op == "add" else 30) + (4 if out.shift else 0) + (25 if clamped else 0)
    return KernelChoice(
        kernel=f"{node.op}_dsp",
        function=function,
        struct="pg_binary_dsp_params",
        fields=fields,
        tables=(plain(graph, node, constant, "constant", "int8"),) if constant else (),
        sources=("pg_binary_dsp.h",),
        blocks=(Block("binary_dsp.h.j2", function, parameters),),
        instructions=per_quad * (y.elements // 4) + 20 * (y.elements % 4) + 40,
        in_place=frozenset({"a", "b"} - {constant}),
    )


KERNELS = (
    KernelDef("add_dsp", "add", frozenset({"dsp"}), _binary),
    KernelDef("mul_dsp", "mul", frozenset({"dsp"}), _binary),
)
