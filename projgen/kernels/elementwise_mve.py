"""Element-wise operators on MVE cores: sum and product eight, tables sixteen elements at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import AddNumerics
from projgen.kernels.elementwise import Operand, fitting
from projgen.kernels.layouts import cast, plain, table
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class ByUnsignedByte:
    """A table of x = -128..127 in the order of x as an unsigned byte."""

    role: str

    def pack(self, constants: Mapping[str, Array]) -> Array:
        return np.roll(cast(constants[self.role], "int8"), -128)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        return {self.role: np.roll(table, 128)}


def _copies(form: Operand) -> int:
    """How many copies of b a row has: as few as fill whole vectors of eight, but no more than a has."""
    return min(8 // math.gcd(form.count, 8), form.rows) if form.form == "channels" else 1


def _binary(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    found = fitting(graph, node)
    if found is None:
        return None
    n, form, constant, clamped = found.numerics, found.form, found.constant, found.clamped
    if isinstance(n, AddNumerics):
        numbers = (n.factor_a, n.factor_b, -(n.factor_a * n.zero_a + n.factor_b * n.zero_b))
    else:
        numbers = (n.zero_a, n.zero_b, 0)
    out = n.requant
    copies, pixels = _copies(form), form.form == "pixels"
    rows, last = divmod(form.rows, copies)
    count = copies * form.count
    fields: dict[str, Field] = {"constant": TableRef("constant")} if constant else {}
    fields |= {"copies": copies, "channels": form.count}
    fields["numbers"] = (
        *(*numbers, n.multiplier >> 1, out.zero_point, out.low, out.high),
        *(count, rows, last * form.count),
    )
    rest = count % 8 > 0 or last * form.count % 8 > 0
    block = f"pg_{node.op}_mve_{'pixels' if pixels else 'rows'}{'_rest' if rest else ''}"
    block += f"{f'_shift{out.shift}' if out.shift else ''}{'_clamped' if clamped else ''}"
    function = f"{block}_call{'_repeated' if copies > 1 else ''}{f'_constant_{constant}' if constant else ''}"
    per_eight = (18 if node.op == "add" else 14) + (2 if out.shift else 0) + clamped
    around = 38 + (2 if node.op == "add" else 0) + (3 if clamped else 0)
    if pixels:
        per_eight -= 5 if node.op == "add" else 2
        around += rows * ((6 if node.op == "add" else 7) + (5 if rest else 0)) - 5
    else:
        around += 5 * (rows + (last > 0)) + (2 * rows + 7 if rest else 0)
    if copies > 1:
        around += 17 + copies * (6 + 3 * -(-form.count // 16))
    eights = rows * -(-count // 8) + -(-last * form.count // 8)
    return KernelChoice(
        kernel=f"{node.op}_mve",
        function=function,
        struct="pg_binary_mve_params",
        fields=fields,
        tables=(plain(graph, node, constant, "constant", "int8"),) if constant else (),
        sources=("pg_binary_mve.h",),
        blocks=(
            Block(
                "binary_mve.h.j2",
                block,
                (
                    ("function", block),
                    ("product", int(node.op == "mul")),
                    ("pixels", int(pixels)),
                    ("rest", int(rest)),
                    ("shift", out.shift),
                    ("clamped", int(clamped)),
                ),
            ),
            Block(
                "binary_mve_call.h.j2",
                function,
                (("function", function), ("constant", constant), ("block", block), ("repeated", int(copies > 1))),
            ),
        ),
        scratch_bytes=count if copies > 1 else 0,
        instructions=per_eight * eights + around,
        in_place=frozenset(({"a", "b"} if form.form == "same" else {"a"}) - {constant}),
    )


def _lut(graph: Graph, node: Node, _target: Target) -> KernelChoice:
    x = graph.arg(node, "x").type
    data = {"table": graph.data(node, "table")}
    return KernelChoice(
        kernel="lut_mve",
        function="pg_lut_mve",
        struct="pg_lut_mve_params",
        fields={"table": TableRef("table"), "count": x.elements},
        tables=(table("table", ByUnsignedByte("table"), data, "y of x = 0..127, then -128..-1"),),
        sources=("pg_lut_mve.h",),
        instructions=4 * -(-x.elements // 16) + 14,
        in_place=frozenset({"x"}),
    )


KERNELS = (
    KernelDef("add_mve", "add", frozenset({"mve"}), _binary),
    KernelDef("mul_mve", "mul", frozenset({"mve"}), _binary),
    KernelDef("lut_mve", "lut", frozenset({"mve"}), _lut),
)
