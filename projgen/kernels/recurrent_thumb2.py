"""LSTM and GRU on Armv7-M cores without DSP instructions: products by the blocks of the fully connected layers.

A product whose sums all provably stay below 2^23 takes two rows in a 64-bit sum, another one row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import GruNumerics, LowRank, LstmNumerics
from projgen.kernels.costs_thumb2 import linear_block, linear_widen
from projgen.kernels.layouts import plain, table
from projgen.kernels.linear_thumb2 import OutputPairStream, rows_block
from projgen.kernels.packed import LIMIT
from projgen.kernels.record import Block, Field, KernelChoice, Table, TableRef
from projgen.kernels.recurrent_common import recurrent_numerics
from projgen.targets import Target

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SumStream:
    """Matrices side by side and a bias as an ``OutputPairStream`` without multipliers.

    Attributes:
        matrices: (role, columns) from left to right.
        bias: its role; "" for none. It is that of the last rows; those before have 0.
        bias_rows: rows that have one.
        stream: the words.
    """

    matrices: tuple[tuple[str, int], ...]
    bias: str
    bias_rows: int
    stream: OutputPairStream

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w = np.concatenate([constants[role] for role, _ in self.matrices], axis=1)
        b = np.zeros(self.stream.outputs, np.int64)
        if self.bias:
            b[self.stream.outputs - self.bias_rows :] = constants[self.bias]
        return self.stream.pack({"w": w, "b": b})

    def unpack(self, table: Array) -> Mapping[str, Array]:
        found = self.stream.unpack(table)
        ends = np.cumsum([columns for _, columns in self.matrices])[:-1]
        parts = np.split(found["w"], ends, axis=1)
        matrices = {role: np.ascontiguousarray(w) for (role, _), w in zip(self.matrices, parts, strict=True)}
        return matrices | ({self.bias: found["b"][-self.bias_rows :]} if self.bias else {})


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """One product of a layer: its table, its block and its parameters.

    Attributes:
        name: of its table, and of its parameters with a dot.
        table: the stream.
        block: what computes the sums.
        fields: of ``pg_linear_thumb2_params``.
        words: of its operand.
        rows: sums.
        instructions: of the block.
    """

    name: str
    table: Table
    block: Block
    fields: Mapping[str, Field]
    words: int
    rows: int
    instructions: float


def _product(graph: Graph, node: Node, name: str, operands: Mapping[str, Ints], bias: str) -> Product:
    """The product of the matrices ``operands`` (role: largest |value| of each column) and the vector beside them."""
    roles = (*operands, *([bias] if bias else []))
    constants = {role: graph.data(node, role) for role in roles}
    w = np.concatenate([constants[role] for role in operands], axis=1).astype(np.int64)
    b = constants[bias].astype(np.int64) if bias else np.zeros(0, np.int64)
    reach = np.abs(w) @ np.concatenate(list(operands.values()))
    reach[len(w) - len(b) :] += np.abs(b)
    packed = int(reach.max()) < LIMIT
    stream = OutputPairStream(w.shape[0], w.shape[1], packed, multipliers=False)
    layout = SumStream(tuple((role, constants[role].shape[1]) for role in operands), bias, len(b), stream)
    block = rows_block(packed=packed, raw=True)
    label = name.replace(".", "_")
    fields: dict[str, Field] = {"stream": TableRef(label), "rows": 1, "inputs": w.shape[1], "quads": stream.quads}
    fields |= {"outputs": len(w), "zero_point": 0, "low": 0, "high": 0}
    cost = linear_block(stream.quads, len(w), packed=packed, looped=False, shift=False, clamped=False, raw=True)
    made = table(label, layout, constants, "bias and weights in reading order")
    return Product(
        name, made, block, {f"{name}.{k}": v for k, v in fields.items()}, 4 * stream.quads, len(w), cost + 30.0
    )


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A factor of one operand, or (``product`` None) none.

    Attributes:
        bounds: largest |value| of what it leaves.
        fields, tables: of ``pg_thumb2_factor``.
        instructions: of a step.
    """

    product: Product | None
    bounds: Ints
    fields: Mapping[str, Field]
    tables: tuple[Table, ...]
    instructions: float

    @property
    def block(self) -> str:
        return self.product.block.function if self.product else "NULL"


def _factor(
    graph: Graph, node: Node, name: str, low_rank: LowRank | None, operands: Mapping[str, int], m: str, bias: str
) -> Factor:
    """The factor whose matrices are ``operands`` (role: shift of their int8 values); no low rank: none."""
    zeros = ("stream", "rows", "inputs", "quads", "outputs", "zero_point", "low", "high")
    if low_rank is None:
        fields: dict[str, Field] = {f"{name}.rows.{field}": 0 for field in zeros}
        return Factor(None, np.zeros(0, np.int64), fields | {f"{name}.multipliers": 0, f"{name}.shift": 0}, (), 0.0)
    bounds = {role: np.full(graph.data(node, role).shape[1], 128 << by, np.int64) for role, by in operands.items()}
    made = _product(graph, node, f"{name}.rows", bounds, bias)
    multipliers = plain(graph, node, m, f"{name}_multipliers", "int32", "[rank]")
    rank = made.rows
    limits = np.full(rank, min(low_rank.bound, 32768), np.int64)
    return Factor(
        made,
        limits,
        {**made.fields, f"{name}.multipliers": TableRef(multipliers.name), f"{name}.shift": low_rank.shift},
        (made.table, multipliers),
        made.instructions + 19.5 * rank + 15.0,
    )


def _bias(node: Node, role: str) -> str:
    return role if role in node.inputs else ""


def _choice(
    cell: str,
    products: Mapping[str, Product],
    factors: Mapping[str, Factor],
    fields: Mapping[str, Field],
    tables: tuple[Table, ...],
    instructions: float,
    sums: int,
    state: int,
) -> KernelChoice:
    """The choice of a layer of so many words of sums and bytes of state."""
    names = [p.block.function for p in products.values()] + [f.block for f in factors.values()]
    short = ["none" if n == "NULL" else "single" if "plain" in n else "pairs" for n in names]
    function = f"pg_{cell}_thumb2_{'_'.join(short)}"
    parameters = (("function", function), ("cell", cell), ("blocks", ", ".join(names)))
    factor_at = max(p.words for p in products.values())
    made = [f.product for f in factors.values() if f.product]
    sums_at = factor_at + max((p.words for p in made), default=0)
    blocks = {p.block.function: p.block for p in (*products.values(), *made)}
    placed: dict[str, Field] = {"factor_at": factor_at, "sums_at": sums_at}
    every = [f.fields for f in factors.values()] + [p.fields for p in products.values()]
    return KernelChoice(
        kernel=f"{cell}_thumb2",
        function=function,
        struct=f"pg_{cell}_thumb2_params",
        fields={k: v for one in every for k, v in one.items()} | dict(fields) | placed,
        tables=(*(p.table for p in products.values()), *(t for f in factors.values() for t in f.tables), *tables),
        sources=("pg_activation.h", "pg_linear_thumb2.h", "pg_recurrent_thumb2.h", f"pg_{cell}_thumb2.h"),
        blocks=(*blocks.values(), Block("recurrent_thumb2.h.j2", function, parameters)),
        instructions=instructions
        + sum(p.instructions for p in products.values())
        + sum(f.instructions for f in factors.values()),
        scratch_bytes=4 * (sums_at + sums),
        state_bytes=state,
    )


def _starts(graph: Graph, node: Node, roles: Mapping[str, tuple[str, str]]) -> tuple[dict[str, Field], list[Table]]:
    """Fields and tables of the initial state (role: parameter, type)."""
    fields: dict[str, Field] = {}
    tables = []
    for role, (parameter, dtype) in roles.items():
        fields[parameter] = TableRef(parameter) if role in node.inputs else 0
        if role in node.inputs:
            tables.append(plain(graph, node, role, parameter, dtype, "[units]"))
    return fields, tables


def _common(graph: Graph, node: Node, numerics: LstmNumerics | GruNumerics, units: int) -> dict[str, Field]:
    return {
        "multipliers": TableRef("multipliers"),
        "inputs": graph.arg(node, "x").type.step_shape[-1],
        "units": units,
        "input_shift": max(numerics.k, 0),
        "recurrent_shift": max(-numerics.k, 0),
        "shift": numerics.shift,
    }


def _sides(graph: Graph, node: Node, numerics: LstmNumerics | GruNumerics) -> tuple[Factor, Factor, Ints, Ints]:
    """Both factors, and the largest |value| of both operands of the gates."""
    up = (max(numerics.k, 0), max(-numerics.k, 0))
    x = _factor(graph, node, "input_factor", numerics.input_low_rank, {"q_in": 0}, "m_in", _bias(node, "b_in"))
    h = _factor(graph, node, "recurrent_factor", numerics.recurrent_low_rank, {"q_out": 0}, "m_out", "")
    bounds = [
        (f.bounds if f.product else np.full(graph.data(node, role).shape[1], 128, np.int64)) << shift
        for f, role, shift in ((x, "w", up[0]), (h, "r", up[1]))
    ]
    return x, h, bounds[0], bounds[1]


def _widening(graph: Graph, node: Node, units: int) -> float:
    inputs = graph.arg(node, "x").type.step_shape[-1]
    k = recurrent_numerics(node).k
    shifted = 4.0 * (inputs if k > 0 else units if k < 0 else 0)
    return linear_widen(inputs) + linear_widen(units) + shifted + 40.0


def lstm(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    """The kernel of an LSTM node."""
    numerics = recurrent_numerics(node)
    if not isinstance(node.attrs, Lstm) or not isinstance(numerics, LstmNumerics):
        raise TypeError(f"node {node.name!r} is no LSTM")
    units = node.attrs.hidden
    if numerics.joint_low_rank is not None:
        shifts = {"q_in": max(numerics.k, 0), "q_out": max(-numerics.k, 0)}
        x = _factor(graph, node, "input_factor", numerics.joint_low_rank, shifts, "m_in", _bias(node, "b_in"))
        h = _factor(graph, node, "recurrent_factor", None, {}, "", "")
        operands = {"w": x.bounds}
    else:
        x, h, from_x, from_h = _sides(graph, node, numerics)
        operands = {"w": from_x, "r": from_h}
    gates = _product(graph, node, "gates", operands, "b")
    fields, tables = _starts(graph, node, {"h0": ("initial_hidden", "int8"), "c0": ("initial_cells", "int16")})
    fields |= _common(graph, node, numerics, units)
    fields |= {"joint": int(numerics.joint_low_rank is not None), "cell_fraction": numerics.cell_fraction}
    multipliers = plain(graph, node, "m", "multipliers", "int32", "[4 units]")
    return _choice(
        "lstm",
        {"gates": gates},
        {"input": x, "recurrent": h},
        fields,
        (multipliers, *tables),
        167.0 * units + 77.0 + _widening(graph, node, units),
        max(4 * units, *(f.product.rows if f.product else 0 for f in (x, h))),
        3 * units,
    )


def gru(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    """The kernel of a GRU node."""
    numerics = recurrent_numerics(node)
    if not isinstance(node.attrs, Gru) or not isinstance(numerics, GruNumerics):
        raise TypeError(f"node {node.name!r} is no GRU")
    units = node.attrs.hidden
    x, h, from_x, from_h = _sides(graph, node, numerics)
    products = {
        "input_rows": _product(graph, node, "input_rows", {"w": from_x}, "b"),
        "recurrent_rows": _product(graph, node, "recurrent_rows", {"r": from_h}, _bias(node, "b_hn")),
    }
    fields, tables = _starts(graph, node, {"h0": ("initial_hidden", "int16")})
    fields |= _common(graph, node, numerics, units)
    ranks = [f.product.rows if f.product else 0 for f in (x, h)]
    return _choice(
        "gru",
        products,
        {"input": x, "recurrent": h},
        fields,
        (plain(graph, node, "m", "multipliers", "int32", "[3 units]"), *tables),
        125.5 * units + 62.0 + _widening(graph, node, units),
        3 * units + max(3 * units, *ranks),
        3 * units,
    )
