"""LSTM and GRU on cores with MVE: emitted blocks, eight units at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import GruNumerics, LowRank, LstmNumerics
from projgen.kernels.layouts import plain, table
from projgen.kernels.record import Block, Field, KernelChoice, Layout, Table, TableRef
from projgen.kernels.recurrent_common import block_name, rank, recurrent_numerics
from projgen.kernels.recurrent_mve_layouts import (
    FactorTable,
    FactorWeights,
    GateTable,
    GateWeights,
    PairedGates,
    Run,
    Segment,
    run_of,
)
from projgen.targets import Target

_UNROLL_GATES: Final = 8  # vectors of a gate, at most, where the code of two gates is emitted one by one
_UNROLL_FOUR: Final = 4  # the same of all four
_HIGHEST_PLACE: Final = 4095  # of an operand, an immediate
_HIGHEST_OFFSET: Final = 508  # of a vector load, an immediate


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes of the state: x, the int8 hidden state, the low-rank values; the segments over them.

    Of a joint layer ``factor`` are the segments of its factor, which shifts left after the first by ``factor_shift``.
    """

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
    factor: tuple[Segment, ...] = ()
    factor_shift: int = 0


def joint_place(graph: Graph, node: Node) -> Place:
    """Where the operands of a joint layer lie: x and the hidden state, side by side unless shifted; behind them z."""
    k = recurrent_numerics(node).k
    inputs, hidden = (int(graph.data(node, role).shape[1]) for role in ("q_in", "q_out"))
    components = rank(graph, node, "q_in")
    factor: tuple[Segment, ...]
    if k == 0:
        h_place = inputs
        factor = (run_of(inputs + hidden, 16, 0, w_at=0, r_at=inputs),)
    else:
        x_only = run_of(inputs, 16, w_at=0)
        h_place = x_only.end
        h_only = run_of(hidden, 16, h_place, r_at=0)
        factor = (h_only, x_only) if k < 0 else (x_only, h_only)
    z = -(-max(s.end for s in factor) // 16) * 16
    gates = run_of(components, 8, z, w_at=0)
    end = max(gates.end, z + 16 * -(-components // 8))
    return Place(0, h_place, z, z, end, (gates,), (), (), 0, 0, 0, factor, abs(k))


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
        blocks_of_eight = -(-len(q) // 8)
        sizes = (blocks_of_eight, run.vectors, run.loops, low_rank.shift)
        function = "pg_recurrent_mve_factor_" + "_".join(str(v) for v in sizes)
        parameters: dict[str, int | str | tuple[int, ...]] = {
            "blocks": blocks_of_eight,
            "segments": run.parameters,
            "shift_first": 0,
            "shift": low_rank.shift,
        }
        block = Block("recurrent_mve_factor.h.j2", function, (("function", function), *parameters.items()))
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
        instructions += blocks_of_eight * (run.instructions + 13.0) + 16.0
    return Factors((functions["in"], functions["out"]), fields, tables, blocks, instructions)


def joint_factor(graph: Graph, node: Node, at: Place) -> Factors:
    """The same of the one factor over both operands of a joint layer."""
    numerics = recurrent_numerics(node)
    if not isinstance(numerics, LstmNumerics) or numerics.joint_low_rank is None:
        raise TypeError(f"node {node.name!r} is no joint layer")
    q = {role: graph.data(node, role) for role in ("q_in", "q_out")}
    (components, inputs), units = q["q_in"].shape, q["q_out"].shape[1]
    run = Run(0, at.factor, at.factor_shift)
    weights = GateWeights(1, components, inputs, units, (run,), ("q_in", "q_out"))
    layout = GateTable(components, (("b_in", 0, False), ("m_in", 0, True)), {"b_in": 1, "m_in": 1})
    blocks = -(-components // 8)
    parameters: dict[str, int | str | tuple[int, ...]] = {
        "blocks": blocks,
        "segments": flat(at.factor),
        "shift_first": at.factor_shift,
        "shift": numerics.joint_low_rank.shift,
    }
    function = block_name("pg_recurrent_mve_factor", parameters)
    constants = {role: graph.data(node, role) for role in ("b_in", "m_in")}
    tables = [
        table("joint_factor", weights, q, "[eight rows][vector][row][16]"),
        table("joint_factor_table", layout, constants, "[eight rows]: starts, multipliers"),
    ]
    fields: dict[str, Field] = {
        "input_factor": TableRef("joint_factor"),
        "input_factor_table": TableRef("joint_factor_table"),
        "recurrent_factor": 0,
        "recurrent_factor_table": 0,
    }
    block = Block("recurrent_mve_factor.h.j2", function, (("function", function), *parameters.items()))
    copies = 40.0 + 3.0 * (-(-inputs // 16) + -(-units // 16))
    return Factors((function, ""), fields, tables, [block], copies + blocks * (run.instructions + 13.0) + 16.0)


def flat(segments: Sequence[Segment]) -> tuple[int, ...]:
    """Segments as a template parameter."""
    return tuple(v for s in segments for v in s.parameters)


def lstm(graph: Graph, node: Node, target: Target) -> KernelChoice | None:  # noqa: ARG001  (the records' signature)
    """The LSTM step; None where the operand is too long for the block."""
    attrs, numerics = node.attrs, recurrent_numerics(node)
    if not (isinstance(attrs, Lstm) and isinstance(numerics, LstmNumerics)):
        raise TypeError(f"node {node.name!r} is no LSTM")
    at = joint_place(graph, node) if attrs.joint else place(graph, node)
    reach = max(s.end for s in at.both) - min(s.place for s in at.both) - 16  # of the last vector, from the first
    vectors = sum(s.vectors for s in at.both)
    short = all(s.loops == 1 for s in at.both) and vectors <= _UNROLL_GATES
    direct = short and reach <= _HIGHEST_OFFSET
    emitted = 1 if not direct else 4 if vectors <= _UNROLL_FOUR else 2
    paired = 1 <= attrs.hidden % 8 <= 4
    parameters: dict[str, int | str | tuple[int, ...]] = {
        "paired": int(paired),
        "segments": flat(at.both),
        "shift_first": at.shift_first,
        "emitted": emitted,
        "shift": numerics.shift,
        "fraction": numerics.cell_fraction,
    }
    # Instructions of eight rows of a gate, of the cells after four gates, of the whole step beside them.
    run = Run(0, at.both, at.shift_first)
    gate = run.instructions + (12.0 - 2 * len(at.both) if direct else 16.0) + (2 if numerics.shift else 0)
    cell = {4: 24.0, 2: 32.0, 1: 31.0}[emitted] + (numerics.cell_fraction < 12) + paired
    around = attrs.hidden // 8 * (4 * gate + cell)
    if paired:
        around += 2 * gate + cell + 10
    elif attrs.hidden % 8:
        around += 4 * gate + cell
    weights, starts = (
        PairedGates(attrs.hidden, form(attrs.hidden // 8 * 8, 4), form(8, 2)) if paired else form(attrs.hidden, 4)
        for form in (partial(_lstm_weights, graph, node, at), _lstm_table)
    )
    return _choice(graph, node, at, weights, starts, parameters, around)


def _lstm_weights(graph: Graph, node: Node, at: Place, units: int, gates: int) -> GateWeights:
    runs = tuple(Run(gate, at.both, at.shift_first) for gate in range(gates))
    return GateWeights(gates, units, *_widths(graph, node), runs)


def _lstm_table(units: int, gates: int) -> GateTable:
    rows = tuple(row for gate in range(gates) for row in (("b", gate, False), ("m", gate, True)))
    return GateTable(units, rows, {"b": gates, "m": gates})


def gru(graph: Graph, node: Node, target: Target) -> KernelChoice | None:  # noqa: ARG001  (the records' signature)
    """The GRU step; None where the operand is too long for the block."""
    attrs, numerics = node.attrs, recurrent_numerics(node)
    if not (isinstance(attrs, Gru) and isinstance(numerics, GruNumerics)):
        raise TypeError(f"node {node.name!r} is no GRU")
    at = place(graph, node)
    both = (at.both, at.shift_first)
    runs = (Run(0, *both), Run(1, *both), Run(2, at.x_only, at.x_shift), Run(2, at.h_only, at.h_shift))
    rows = (
        *(("b", 0, False), ("m", 0, True), ("b", 1, False), ("m", 1, True)),
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
    weights = GateWeights(3, attrs.hidden, *_widths(graph, node), runs)
    starts = GateTable(attrs.hidden, rows, {"b": 3, "m": 3, "b_hn": 1})
    instructions = 14.0 + -(-attrs.hidden // 8) * (86.5 + sum(run.instructions for run in runs))
    return _choice(graph, node, at, weights, starts, parameters, instructions)


def _widths(graph: Graph, node: Node) -> tuple[int, int]:
    """Columns of the gates' input and recurrent matrices; 0 where there is none."""
    x_width, h_width = (graph.data(node, role).shape[1] if role in node.inputs else 0 for role in ("w", "r"))
    return x_width, h_width


def _choice(
    graph: Graph,
    node: Node,
    at: Place,
    weights: Layout,
    starts: Layout,
    parameters: dict[str, int | str | tuple[int, ...]],
    instructions: float,
) -> KernelChoice | None:
    """The kernel of either cell; ``instructions`` of a step beside its factors."""
    attrs = node.attrs
    if not isinstance(attrs, Lstm | Gru):
        raise TypeError(f"node {node.name!r} is no recurrent layer")
    cell = "lstm" if isinstance(attrs, Lstm) else "gru"
    inputs, units = int(graph.arg(node, "x").type.step_shape[-1]), attrs.hidden
    wide_state = -(-at.end // 16) * 16
    if wide_state > _HIGHEST_PLACE:
        return None
    parts = joint_factor(graph, node, at) if at.factor else factors(graph, node, inputs, units)
    products = {role: graph.data(node, role) for role in ("w", "r") if role in node.inputs}
    constants = {role: graph.data(node, role) for role in ("b", "m", "b_hn") if role in node.inputs}
    tables = [
        table("gates", weights, products, "[eight units][gate][vector of columns][unit][lane]"),
        table("gate_table", starts, constants, "[eight units][gate]: starts, multipliers"),
        *parts.tables,
    ]
    fields: dict[str, Field] = {"gates": TableRef("gates"), "gate_table": TableRef("gate_table"), **parts.fields}
    initial = {"h0": ("initial_hidden", "int8" if cell == "lstm" else "int16")}
    initial |= {"c0": ("initial_cells", "int16")} if cell == "lstm" else {}
    for role, (name, dtype) in initial.items():
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
    return KernelChoice(
        kernel=f"{cell}_mve",
        function=function,
        struct=f"pg_{cell}_mve_params",
        fields=fields,
        tables=tuple(tables),
        sources=("pg_activation.h", "pg_recurrent_mve.h", f"pg_{cell}_mve.h"),
        instructions=instructions + parts.instructions,
        blocks=(*parts.blocks, step),
        state_bytes=state_bytes,
    )
