"""LSTM and GRU on cores with MVE: emitted blocks, eight units at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import GruNumerics, LowRank, LstmNumerics
from projgen.kernels.layouts import cast, plain, table
from projgen.kernels.record import Block, Field, KernelChoice, Table, TableRef
from projgen.kernels.recurrent_common import block_name, rank, recurrent_numerics
from projgen.targets import Target

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]

_UNROLL: Final = 8  # vectors of columns in a loop's body, at most
_UNROLL_GATES: Final = 8  # vectors of a gate, at most, where the code of all gates is emitted one by one
_HIGHEST_PLACE: Final = 4095  # of an operand, an immediate
_HIGHEST_OFFSET: Final = 508  # of a vector load, an immediate
_TWO_VECTORS: Final = [0, 2, 4, 6, 1, 3, 5, 7]  # order of eight rows in two vectors of accumulators


@dataclass(frozen=True, slots=True)
class Segment:
    """Columns of the gate matrices that one run of vectors multiplies.

    Attributes:
        place: of the operand, bytes into the state.
        lanes: 16 for int8 values, 8 for int16.
        vectors, loops: vectors unrolled, and how often.
        w_at, r_at: column at which those of w and r start; None where they take no part.
    """

    place: int
    lanes: int
    vectors: int
    loops: int
    w_at: int | None = None
    r_at: int | None = None

    @property
    def columns(self) -> int:
        return self.lanes * self.vectors * self.loops

    @property
    def end(self) -> int:
        """First byte of the state behind the operand."""
        return self.place + 16 * self.vectors * self.loops

    @property
    def instructions(self) -> int:
        """Of eight rows."""
        return self.loops * (17 * self.vectors + (2 if self.loops > 1 else 0)) + 2

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        return (self.place, self.lanes, self.vectors, self.loops)


def run_of(columns: int, lanes: int, place: int = 0, *, w_at: int | None = None, r_at: int | None = None) -> Segment:
    """The cheapest segment of at least that many columns; a short one is unrolled whole."""
    vectors = -(-columns // lanes)
    if vectors <= _UNROLL:
        return Segment(place, lanes, vectors, 1, w_at, r_at)
    choices = [Segment(place, lanes, u, -(-vectors // u), w_at, r_at) for u in range(4, _UNROLL + 1)]
    return min(choices, key=lambda s: (s.instructions, s.vectors))


@dataclass(frozen=True, slots=True)
class Run:
    """Products of eight rows of one gate: its rows of w and r, the segments, a left shift after the first of them."""

    gate: int
    segments: tuple[Segment, ...]
    shift_first: int

    @property
    def instructions(self) -> int:
        return sum(s.instructions for s in self.segments) + (15 if self.shift_first else 5)


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of the state: x, the int8 hidden state, the low-rank values; the segments over them."""

    x: int
    h: int
    z: int
    recurrent_z: int
    end: int
    both: tuple[Segment, ...]
    x_only: tuple[Segment, ...]
    h_only: tuple[Segment, ...]
    shift_first: int
    x_shift: int
    h_shift: int


def place(graph: Graph, node: Node) -> Place:
    """Where a layer's operands lie. Equal types without a shift lie side by side and share vectors."""
    numerics = recurrent_numerics(node)
    inputs = int(graph.arg(node, "x").type.step_shape[-1])
    hidden = int(graph.data(node, "m").size) // (4 if isinstance(numerics, LstmNumerics) else 3)
    rank_in, rank_out = rank(graph, node, "q_in"), rank(graph, node, "q_out")
    x_width, h_width = rank_in or inputs, rank_out or hidden
    x_lanes, h_lanes = (8 if rank_in else 16), (8 if rank_out else 16)
    if bool(rank_in) == bool(rank_out) and numerics.k == 0:
        x_place, h_place = 0, inputs if not rank_in else run_of(inputs, 16).end
        z = (run_of(hidden, 16, h_place).end + 15) // 16 * 16 if rank_in else 0
        lanes, size = x_lanes, 16 // x_lanes
        both = run_of(x_width + h_width, lanes, z, w_at=0, r_at=x_width)
        first = x_width // lanes * lanes
        x_only = run_of(x_width, lanes, z, w_at=0)
        h_only = run_of(x_width + h_width - first, lanes, z + first * size, r_at=x_width - first)
        ends = [s.end for s in (both, x_only, h_only)] + [z + size * rank_in + 16 * (-(-rank_out // 8))]
        recurrent_z = z + size * rank_in
        return Place(x_place, h_place, z, recurrent_z, max(ends), (both,), (x_only,), (h_only,), 0, 0, 0)
    h_place = run_of(inputs, 16).end
    z = run_of(hidden, 16, h_place).end
    z_end = z + 16 * (-(-rank_in // 8))
    x_only = run_of(x_width, x_lanes, z if rank_in else 0, w_at=0)
    h_only = run_of(h_width, h_lanes, z_end if rank_out else h_place, r_at=0)
    end = max(z_end + 16 * (-(-rank_out // 8)), x_only.end, h_only.end)
    order = (h_only, x_only) if numerics.k < 0 else (x_only, h_only)
    shifts = abs(numerics.k), max(numerics.k, 0), max(-numerics.k, 0)
    return Place(0, h_place, z, z_end, end, order, (x_only,), (h_only,), *shifts)


def eights(v: Array, shape: tuple[int, ...]) -> Ints:
    """Rows as int64, filled up with zeros."""
    out = np.zeros(shape, np.int64)
    out[tuple(slice(0, n) for n in v.shape)] = cast(v, "int64")
    return out


@dataclass(frozen=True, slots=True)
class GateWeights:
    """w and r as [eight units][run][segment][vector][unit][lane]."""

    gates: int
    units: int
    x_width: int
    h_width: int
    runs: tuple[Run, ...]

    @property
    def blocks(self) -> int:
        return -(-self.units // 8)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        padded = 8 * self.blocks
        w = eights(constants["w"].reshape(self.gates, self.units, -1), (self.gates, padded, self.x_width))
        r = eights(constants["r"].reshape(self.gates, self.units, -1), (self.gates, padded, self.h_width))
        parts = []
        for run in self.runs:
            for s in run.segments:
                rows = np.zeros((padded, s.columns), np.int64)
                if s.w_at is not None:
                    rows[:, s.w_at : s.w_at + self.x_width] = w[run.gate]
                if s.r_at is not None:
                    rows[:, s.r_at : s.r_at + self.h_width] = r[run.gate]
                tiles = rows.reshape(self.blocks, 8, -1, s.lanes).transpose(0, 2, 1, 3)
                parts.append(tiles.reshape(self.blocks, -1))
        return np.concatenate(parts, axis=1).astype(np.int8).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        blocks = table.reshape(self.blocks, -1)
        w = np.zeros((self.gates, 8 * self.blocks, self.x_width), np.int8)
        r = np.zeros((self.gates, 8 * self.blocks, self.h_width), np.int8)
        at = 0
        for run in self.runs:
            for s in run.segments:
                tiles = blocks[:, at : at + 8 * s.columns].reshape(self.blocks, -1, 8, s.lanes)
                at += 8 * s.columns
                rows = tiles.transpose(0, 2, 1, 3).reshape(8 * self.blocks, s.columns)
                if s.w_at is not None:
                    w[run.gate] = rows[:, s.w_at : s.w_at + self.x_width]
                if s.r_at is not None:
                    r[run.gate] = rows[:, s.r_at : s.r_at + self.h_width]
        units = self.gates * self.units
        return {"w": w[:, : self.units].reshape(units, -1), "r": r[:, : self.units].reshape(units, -1)}


@dataclass(frozen=True, slots=True)
class GateTable:
    """Vectors of eight units as [eight units][row]: each row is (role, gate, in the order of two vectors)."""

    units: int
    rows: tuple[tuple[str, int, bool], ...]
    gates: Mapping[str, int]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        padded = -(-self.units // 8) * 8
        parts = []
        for role, gate, two_vectors in self.rows:
            part = eights(constants[role].reshape(-1, self.units)[gate], (padded,)).reshape(-1, 8)
            parts.append(part[:, _TWO_VECTORS] if two_vectors else part)
        return np.stack(parts, axis=1).astype(np.int32).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        blocks = table.reshape(-1, len(self.rows), 8)
        constants = {role: np.zeros((gates, self.units), np.int32) for role, gates in self.gates.items()}
        for place, (role, gate, two_vectors) in enumerate(self.rows):
            part = blocks[:, place]
            part = part[:, np.argsort(_TWO_VECTORS)] if two_vectors else part
            constants[role][gate] = part.reshape(-1)[: self.units]
        return {role: data.reshape(-1) for role, data in constants.items()}


@dataclass(frozen=True, slots=True)
class FactorWeights:
    """A projector (rank, width) as [eight rows][vector][row][16]."""

    role: str
    rank: int
    width: int
    columns: int

    def pack(self, constants: Mapping[str, Array]) -> Array:
        blocks = -(-self.rank // 8)
        rows = eights(constants[self.role], (8 * blocks, self.columns))
        return rows.reshape(blocks, 8, -1, 16).transpose(0, 2, 1, 3).reshape(-1).astype(np.int8)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        tiles = table.reshape(-1, self.columns // 16, 8, 16).transpose(0, 2, 1, 3)
        rows = tiles.reshape(-1, self.columns)[: self.rank, : self.width]
        return {self.role: np.ascontiguousarray(rows)}


@dataclass(frozen=True, slots=True)
class FactorTable:
    """Starts and multipliers of a projector as [eight rows][8 starts][8 multipliers in the order of two vectors]."""

    b_role: str
    m_role: str
    rank: int

    def pack(self, constants: Mapping[str, Array]) -> Array:
        padded = -(-self.rank // 8) * 8
        b = eights(constants[self.b_role] if self.b_role else np.zeros(self.rank, np.int64), (padded,)).reshape(-1, 8)
        m = eights(constants[self.m_role], (padded,)).reshape(-1, 8)[:, _TWO_VECTORS]
        return np.concatenate([b, m], axis=1).astype(np.int32).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        blocks = table.reshape(-1, 16)
        m = blocks[:, 8:][:, np.argsort(_TWO_VECTORS)].reshape(-1)[: self.rank]
        return {self.m_role: m} | ({self.b_role: blocks[:, :8].reshape(-1)[: self.rank]} if self.b_role else {})


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """Blocks and tables of the factors of a layer, and the instructions to build its operand."""

    functions: tuple[str, str]
    fields: dict[str, Field]
    tables: list[Table]
    blocks: list[Block]
    instructions: float


def factors(graph: Graph, node: Node, inputs: int, units: int) -> Factors:
    numerics = recurrent_numerics(node)
    sides: tuple[tuple[str, LowRank | None, int, str], ...] = (
        ("in", numerics.input_low_rank, inputs, "input_factor"),
        ("out", numerics.recurrent_low_rank, units, "recurrent_factor"),
    )
    functions, fields = {"in": "", "out": ""}, dict[str, Field]()
    tables: list[Table] = []
    blocks: list[Block] = []
    instructions = 40.0 + 3.0 * (-(-inputs // 16) + -(-units // 16))
    for side, low_rank, width, name in sides:
        fields |= {name: 0, f"{name}_table": 0}
        if low_rank is None:
            continue
        q = graph.data(node, f"q_{side}")
        run = run_of(width, 16)
        parameters = (-(-len(q) // 8), run.vectors, run.loops, low_rank.shift)
        function = "pg_recurrent_mve_factor_" + "_".join(str(v) for v in parameters)
        keys = ("blocks", "vectors", "loops", "shift")
        block = Block(
            "recurrent_mve_factor.h.j2", function, (("function", function), *zip(keys, parameters, strict=True))
        )
        if block not in blocks:
            blocks.append(block)
        roles = {"b_in", "m_in"} if side == "in" else {"m_out"}
        constants = {role: graph.data(node, role) for role in sorted(roles)}
        layout = FactorTable("b_in" if side == "in" else "", f"m_{side}", len(q))
        weights = FactorWeights(f"q_{side}", len(q), width, run.columns)
        tables += [
            table(name, weights, {f"q_{side}": q}, "[eight rows][vector][row][16]"),
            table(f"{name}_table", layout, constants, "[eight rows]: starts, multipliers"),
        ]
        fields |= {name: TableRef(name), f"{name}_table": TableRef(f"{name}_table")}
        functions[side] = function
        instructions += parameters[0] * (run.instructions + 13.0) + 16.0
    return Factors((functions["in"], functions["out"]), fields, tables, blocks, instructions)


def flat(segments: Sequence[Segment]) -> tuple[int, ...]:
    """Segments as a template parameter."""
    return tuple(v for s in segments for v in s.parameters)


def lstm(graph: Graph, node: Node, target: Target) -> KernelChoice | None:  # noqa: ARG001  (the records' signature)
    """The LSTM step; None where the operand is too long for the block."""
    attrs, numerics = node.attrs, recurrent_numerics(node)
    if not (isinstance(attrs, Lstm) and isinstance(numerics, LstmNumerics)):
        raise TypeError(f"node {node.name!r} is no LSTM")
    if attrs.joint:
        return None
    at = place(graph, node)
    reach = max(s.end for s in at.both) - min(s.place for s in at.both) - 16  # of the last vector, from the first
    short = all(s.loops == 1 for s in at.both) and sum(s.vectors for s in at.both) <= _UNROLL_GATES
    unrolled = short and reach <= _HIGHEST_OFFSET
    runs = tuple(Run(gate, at.both, at.shift_first) for gate in range(4))
    rows = tuple(row for gate in range(4) for row in (("b", gate, at.shift_first > 0), ("m", gate, True)))
    parameters: dict[str, int | str | tuple[int, ...]] = {
        "segments": flat(at.both),
        "shift_first": at.shift_first,
        "unrolled": int(unrolled),
        "shift": numerics.shift,
        "fraction": numerics.cell_fraction,
    }
    layout = GateTable(attrs.hidden, rows, {"b": 4, "m": 4})
    around = (
        (56.0 if unrolled else 58.0)
        + 4 * ((2.0 if unrolled else 8.0) + (2 if numerics.shift else 0))
        + (numerics.cell_fraction < 12)
    )
    return _choice(graph, node, at, runs, layout, parameters, around)


def gru(graph: Graph, node: Node, target: Target) -> KernelChoice | None:  # noqa: ARG001  (the records' signature)
    """The GRU step; None where the operand is too long for the block."""
    attrs, numerics = node.attrs, recurrent_numerics(node)
    if not (isinstance(attrs, Gru) and isinstance(numerics, GruNumerics)):
        raise TypeError(f"node {node.name!r} is no GRU")
    at = place(graph, node)
    both, shifted = (at.both, at.shift_first), at.shift_first > 0
    runs = (Run(0, *both), Run(1, *both), Run(2, at.x_only, at.x_shift), Run(2, at.h_only, at.h_shift))
    rows = (
        *(("b", 0, shifted), ("m", 0, True), ("b", 1, shifted), ("m", 1, True)),
        *(("b", 2, at.x_shift > 0), ("b_hn", 0, at.h_shift > 0), ("m", 2, True)),
    )
    parameters: dict[str, int | str | tuple[int, ...]] = {
        "segments": flat(at.both),
        "x_segments": flat(at.x_only),
        "h_segments": flat(at.h_only),
        "shift_first": at.shift_first,
        "x_first": at.x_shift,
        "h_first": at.h_shift,
        "shift": numerics.shift,
    }
    return _choice(graph, node, at, runs, GateTable(attrs.hidden, rows, {"b": 3, "m": 3, "b_hn": 1}), parameters, 82.0)


def _choice(
    graph: Graph,
    node: Node,
    at: Place,
    runs: tuple[Run, ...],
    layout: GateTable,
    parameters: dict[str, int | str | tuple[int, ...]],
    around: float,
) -> KernelChoice | None:
    """The kernel of either cell; ``around``: instructions per eight units beside the products."""
    attrs = node.attrs
    if not isinstance(attrs, Lstm | Gru):
        raise TypeError(f"node {node.name!r} is no recurrent layer")
    cell = "lstm" if isinstance(attrs, Lstm) else "gru"
    inputs, units = int(graph.arg(node, "x").type.step_shape[-1]), attrs.hidden
    wide_state = -(-at.end // 16) * 16
    if wide_state > _HIGHEST_PLACE:
        return None
    parts = factors(graph, node, inputs, units)
    w, r = graph.data(node, "w"), graph.data(node, "r")
    weights = GateWeights(4 if cell == "lstm" else 3, units, w.shape[1], r.shape[1], runs)
    constants = {role: graph.data(node, role) for role in layout.gates}
    tables = [
        table("gates", weights, {"w": w, "r": r}, "[eight units][gate][vector of columns][unit][lane]"),
        table("gate_table", layout, constants, "[eight units][gate]: starts, multipliers"),
        *parts.tables,
    ]
    fields: dict[str, Field] = {"gates": TableRef("gates"), "gate_table": TableRef("gate_table"), **parts.fields}
    starts = {"h0": ("initial_hidden", "int8" if cell == "lstm" else "int16")}
    starts |= {"c0": ("initial_cells", "int16")} if cell == "lstm" else {}
    for role, (name, dtype) in starts.items():
        fields[name] = 0
        if role in node.inputs:
            fields[name] = TableRef(name)
            tables.append(plain(graph, node, role, name, dtype, "[units]"))
    state_bytes = wide_state + 16 * -(-units // 8)
    parameters = {
        "inputs": inputs,
        "units": units,
        **parameters,
        "x_place": at.x,
        "h_place": at.h,
        "z_place": at.z,
        "recurrent_z": at.recurrent_z,
        "cells" if cell == "lstm" else "hidden": wide_state,
        "bytes": state_bytes,
        "input_factor": parts.functions[0],
        "recurrent_factor": parts.functions[1],
    }
    function = block_name(f"pg_{cell}_mve", parameters)
    step = Block(f"{cell}_mve.h.j2", function, (("function", function), *parameters.items()))
    blocks = -(-units // 8)
    return KernelChoice(
        kernel=f"{cell}_mve",
        function=function,
        struct=f"pg_{cell}_mve_params",
        fields=fields,
        tables=tuple(tables),
        sources=("pg_activation.h", "pg_recurrent_mve.h", f"pg_{cell}_mve.h"),
        instructions=50.0 + parts.instructions + blocks * (around + sum(run.instructions for run in runs)),
        blocks=(*parts.blocks, step),
        state_bytes=state_bytes,
    )
