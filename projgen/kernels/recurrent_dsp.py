"""LSTM and GRU on cores with DSP instructions: emitted blocks over packed weight pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import GruNumerics, LowRank, LstmNumerics
from projgen.kernels.layouts import plain, table
from projgen.kernels.packed import LIMIT
from projgen.kernels.record import Block, Field, KernelChoice, Table, TableRef
from projgen.kernels.recurrent_common import block_name, recurrent_numerics
from projgen.kernels.recurrent_streams import Columns, FactorStream, GruStream, JointFactorStream, LstmStream
from projgen.quant.fixed import Ints
from projgen.quant.recurrent import joint_bounds, joint_reach, low_rank_bounds, reach
from projgen.targets import Target

_UNROLL: Final = 8  # quads of columns in a loop's body, at most
_UNROLL_LSTM: Final = 14  # the same of an LSTM's gates, whose quads are short
_FRAME_COLUMNS: Final = 48  # a longer operand stays in memory
_HIGHEST_STRIDE: Final = 2040  # cells lie within an immediate offset of the hidden state
_MOST_QUADS: Final = 511  # an operand is stepped back by an immediate
_FORM: Final = {False: "weights in packed pairs", True: "int16 weights"}


@dataclass(frozen=True, slots=True)
class Loop:
    """``quads`` quads of columns unrolled, ``times`` times."""

    quads: int
    times: int

    @property
    def columns(self) -> int:
        return 4 * self.quads * self.times

    def instructions(self, per_quad: int, per_loop: int) -> int:
        """Instructions of all quads."""
        return self.times * (per_quad * self.quads + (per_loop if self.times > 1 else 0))


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One operand of the gate products.

    Attributes:
        role: "in" or "out".
        width: values: inputs or units, or the rank of the factor.
        features: values before the factor.
        shift: left shift of every value.
        weight_shift: left shift of the weights instead, for int16 values; needs int16 weights.
        bounds: largest |value| of each, before the shift.
        low_rank: numerics of the factor.
    """

    role: str
    width: int
    features: int
    shift: int
    weight_shift: int
    bounds: Ints
    low_rank: LowRank | None

    @property
    def even(self) -> int:
        return self.width + self.width % 2

    @property
    def fours(self) -> int:
        return -(-self.width // 4) * 4


def loop_of(quads: int, unroll: int = _UNROLL) -> Loop:
    """The cheapest loop over at least ``quads`` quads; a short one is unrolled whole."""
    if quads <= unroll:
        return Loop(quads, 1)
    choices = [Loop(u, -(-quads // u)) for u in range(4, unroll + 1)]
    return min(choices, key=lambda c: (c.instructions(14, 2), c.quads))


def sides(graph: Graph, node: Node) -> tuple[Side, Side] | None:
    """Both operands, or None where a factor is too long or its rows could reach the limit of packed pairs."""
    numerics = recurrent_numerics(node)
    shifts = {"in": max(numerics.k, 0), "out": max(-numerics.k, 0)}
    found = []
    for role, low_rank in (("in", numerics.input_low_rank), ("out", numerics.recurrent_low_rank)):
        if low_rank is None:
            width = int(graph.data(node, "w" if role == "in" else "r").shape[1])
            found.append(Side(role, width, width, shifts[role], 0, np.full(width, 128), None))
            continue
        q, m = (graph.data(node, f"{name}_{role}").astype(np.int64) for name in ("q", "m"))
        b = graph.data(node, "b_in").astype(np.int64) if role == "in" else np.zeros(len(q), np.int64)
        too_long = q.shape[1] > 4 * _MOST_QUADS
        if too_long or int((np.abs(q).sum(axis=1) * 128 + np.abs(b)).max()) >= LIMIT:
            return None
        bounds = low_rank_bounds(q, b, m, low_rank.shift)
        found.append(Side(role, q.shape[0], q.shape[1], 0, shifts[role], bounds, low_rank))
    return found[0], found[1]


def fits_pairs(graph: Graph, node: Node, x: Side, h: Side) -> bool:
    """Whether every gate row provably stays below the limit of packed pairs, and no weight has to be shifted."""
    if x.weight_shift or h.weight_shift:
        return False
    w, b = (graph.data(node, role).astype(np.int64) for role in ("w", "b"))
    r = graph.data(node, "r").astype(np.int64) if h.width else np.zeros((len(w), 0), np.int64)
    bias = np.abs(b)
    if "b_hn" in node.inputs:
        b_hn = np.abs(graph.data(node, "b_hn").astype(np.int64))
        bias = bias + np.pad(b_hn, (len(bias) - len(b_hn), 0))
    k = x.shift - h.shift if h.width else 0
    return int(reach(w, x.bounds, r, h.bounds, bias, k).max()) < LIMIT


def joint_sides(graph: Graph, node: Node, low_rank: LowRank) -> tuple[Side, Side] | None:
    """The one vector of a joint layer, and no other; the shifts are those of the values before the factor."""
    k = recurrent_numerics(node).k
    q_in, q_out, b, m = (graph.data(node, role).astype(np.int64) for role in ("q_in", "q_out", "b_in", "m_in"))
    inputs, units = q_in.shape[1], q_out.shape[1]
    if inputs + units > 4 * _MOST_QUADS - _UNROLL * 4:
        return None
    bounds = joint_bounds(q_in, q_out, b, m, k, low_rank.shift)
    x = Side("in", len(q_in), inputs, max(k, 0), 0, bounds, low_rank)
    return x, Side("out", 0, units, max(-k, 0), 0, np.zeros(0, np.int64), None)


def _joint_operand(graph: Graph, node: Node, x: Side) -> Operands:
    """The factor of a joint layer, over x and the hidden state side by side."""
    if x.low_rank is None:
        raise ValueError(f"{node.name!r} has no factor")
    constants = {role: graph.data(node, role) for role in ("q_in", "q_out", "b_in", "m_in")}
    q_in, q_out, b = (constants[role].astype(np.int64) for role in ("q_in", "q_out", "b_in"))
    x_words, units = -(-x.features // 4) * 4, q_out.shape[1]
    loop = loop_of(-(-(x_words + units) // 4))
    wide = int(joint_reach(q_in, q_out, b, recurrent_numerics(node).k).max()) >= LIMIT
    rows = FactorStream(("q", "b_in", "m_in"), x.width, x_words + units, loop.columns, wide)
    stream = table(
        "joint_factor", JointFactorStream(rows, x.features, x_words), constants, f"starts, {_FORM[wide]}, multipliers"
    )
    block, instructions = _factor_block(x.even, loop, x.low_rank.shift, wide)
    fields: dict[str, Field] = {"input_factor": TableRef("joint_factor"), "recurrent_factor": 0}
    return Operands((block.function, ""), fields, [stream], [block], widening(x) + instructions)


def _factor_block(rows: int, loop: Loop, shift: int, wide: bool) -> tuple[Block, float]:
    """The block of an even number of rows, and its predicted instructions."""
    parameters = (rows, loop.quads, loop.times, shift, int(wide))
    name = "pg_recurrent_factor_" + "_".join(str(v) for v in parameters[:-1]) + ("_wide" if wide else "")
    keys = ("rows", "quads", "loops", "shift", "wide")
    block = Block("recurrent_dsp_factor.h.j2", name, (("function", name), *zip(keys, parameters, strict=True)))
    fours, tail = divmod(rows, 4)
    around = (22 if fours > 1 else 19) - (4 if wide else 0)
    instructions = 7.0 + fours * (loop.instructions(11 if wide else 14, 2) + around)
    return block, instructions + (loop.instructions(7 if wide else 10, 2) + 10 if tail else 0)


def factor(graph: Graph, node: Node, side: Side) -> tuple[Block, Table, float]:
    """Block, stream and predicted instructions of one side's factor."""
    if side.low_rank is None:
        raise ValueError(f"the {side.role} side of {node.name!r} is dense")
    loop = loop_of(-(-side.features // 4))
    block, instructions = _factor_block(side.even, loop, side.low_rank.shift, False)
    roles = ("q_in", "b_in", "m_in") if side.role == "in" else ("q_out", "", "m_out")
    layout = FactorStream(roles, side.width, side.features, loop.columns)
    constants = {role: graph.data(node, role) for role in roles if role}
    table_name = "input_factor" if side.role == "in" else "recurrent_factor"
    return block, table(table_name, layout, constants, "packed row pairs: starts, weights, multipliers"), instructions


def widening(x: Side) -> float:
    """Instructions to make int16 of the input."""
    quads, extra = -(-x.features // 4), 2 * min(x.shift, 2)
    return quads * (8.0 + extra if quads > 8 else 6.0 + extra) + 8.0


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """What builds the operand of a step: the factors' blocks and streams, and the instructions."""

    functions: tuple[str, str]
    fields: dict[str, Field]
    tables: list[Table]
    blocks: list[Block]
    instructions: float


def _operands(graph: Graph, node: Node, x: Side, h: Side, stride: int) -> Operands:
    functions = {"in": "", "out": ""}
    fields: dict[str, Field] = {"input_factor": 0, "recurrent_factor": 0}
    tables: list[Table] = []
    blocks: list[Block] = []
    instructions = widening(x) + (1.5 * stride if h.low_rank is None else 0.0)
    for side in (x, h):
        if side.low_rank is None:
            continue
        block, stream, extra = factor(graph, node, side)
        if block not in blocks:
            blocks.append(block)
        tables.append(stream)
        fields[stream.name] = TableRef(stream.name)
        functions[side.role] = block.function
        instructions += extra
    return Operands((functions["in"], functions["out"]), fields, tables, blocks, instructions)


def columns_of(x: Side, h: Side, x_padded: int, h_padded: int, wide: bool) -> Columns:
    """How the gate matrices lie in the stream."""
    return Columns(x.width, h.width, x_padded, h_padded, wide, x.weight_shift, h.weight_shift)


def lstm(graph: Graph, node: Node, target: Target) -> KernelChoice | None:  # noqa: ARG001  (the records' signature)
    """The LSTM step; None where a packed pair could overflow or the layer is too large for the block."""
    attrs, numerics = node.attrs, recurrent_numerics(node)
    if not (isinstance(attrs, Lstm) and isinstance(numerics, LstmNumerics)):
        raise TypeError(f"node {node.name!r} is no LSTM")
    both = joint_sides(graph, node, numerics.joint_low_rank) if numerics.joint_low_rank else sides(graph, node)
    units, stride = attrs.hidden, -(-attrs.hidden // 8) * 8
    if both is None or stride > _HIGHEST_STRIDE:
        return None
    x, h = both
    wide = not fits_pairs(graph, node, x, h)
    projected = x.low_rank is not None and (h.low_rank is not None or attrs.joint)
    frame = projected and x.even + h.even <= _FRAME_COLUMNS
    if frame:
        x_padded, columns = x.even, x.even + h.even
        loop, half = Loop(columns // 4, 1), columns % 4 == 2
    else:
        x_padded = x.fours
        loop, half = loop_of((x.fours + h.fours) // 4, _UNROLL_LSTM), False
        columns = loop.columns
    if columns > 4 * _MOST_QUADS:
        return None
    layout = LstmStream(units, columns_of(x, h, x_padded, columns - x_padded, wide))
    constants = {role: graph.data(node, role) for role in ("w", "r", "b", "m") if role in node.inputs}
    tables = [table("gates", layout, constants, f"per unit: starts, {_FORM[wide]} of i, f, g, o, multipliers")]
    extras = _joint_operand(graph, node, x) if attrs.joint else _operands(graph, node, x, h, stride)
    per_quad, per_half, separating = (11, 6, 0) if wide else (14, 8, 4)
    around = 42.0 + separating + (2 if not frame else 0) + (numerics.cell_fraction < 12) + (per_half if half else 0)
    instructions = (38.0 if frame else 24.0) + extras.instructions + units * (around + loop.instructions(per_quad, 2))
    fields = {"gates": TableRef("gates"), **extras.fields}
    tables += extras.tables
    for role, name, dtype in (("h0", "initial_hidden", "int8"), ("c0", "initial_cells", "int16")):
        fields[name] = 0
        if role in node.inputs:
            fields[name] = TableRef(name)
            tables.append(plain(graph, node, role, name, dtype, "[units]"))
    operand = -(-max(columns, x_padded + (h.fours if projected else stride)) // 4) * 4
    x_words = -(-x.features // 4) * 4
    widened = x_words if x.low_rank and not attrs.joint else 0
    parameters: dict[str, int | str | tuple[int, ...]] = {
        "inputs": x.features,
        "units": units,
        "stride": stride,
        "quads": loop.quads,
        "loops": loop.times,
        "half": int(half),
        "frame": int(frame),
        "wide": int(wide),
        "shift": numerics.shift,
        "fraction": numerics.cell_fraction,
        "x_shift": x.shift,
        "h_shift": h.shift,
        "x_width": x_words if attrs.joint else x_padded,
        "joint": int(attrs.joint),
        "widened": operand,
        "input_factor": extras.functions[0],
        "recurrent_factor": extras.functions[1],
    }
    function = block_name("pg_lstm_dsp", parameters)
    step = Block("lstm_dsp.h.j2", function, (("function", function), *parameters.items()))
    return KernelChoice(
        kernel="lstm_dsp",
        function=function,
        struct="pg_lstm_dsp_params",
        fields=fields,
        tables=tuple(tables),
        sources=("pg_activation.h", "pg_recurrent_dsp.h", "pg_lstm_dsp.h"),
        instructions=instructions,
        blocks=(*extras.blocks, step),
        scratch_bytes=2 * (operand + widened),
        state_bytes=4 * stride + (2 * x_words if attrs.joint else 0),
    )


def gru(graph: Graph, node: Node, target: Target) -> KernelChoice | None:  # noqa: ARG001  (the records' signature)
    """The GRU step; None where a packed pair of a factor could overflow or the layer is too large for the block."""
    attrs, numerics = node.attrs, recurrent_numerics(node)
    if not (isinstance(attrs, Gru) and isinstance(numerics, GruNumerics)):
        raise TypeError(f"node {node.name!r} is no GRU")
    both = sides(graph, node)
    units, stride = attrs.hidden, -(-attrs.hidden // 8) * 8
    if both is None or stride > _HIGHEST_STRIDE:
        return None
    x, h = both
    wide = not fits_pairs(graph, node, x, h)
    loops, halves = [], []
    for side in (x, h):
        full = side.even if side.low_rank else side.fours
        loops.append(loop_of(full // 4))
        halves.append(full % 4 == 2 and loops[-1].times == 1)
        if full % 4 == 2 and not halves[-1]:
            loops[-1] = loop_of(full // 4 + 1)
    padded = [loop.columns + (2 if half else 0) for loop, half in zip(loops, halves, strict=True)]
    if sum(padded) > 4 * _MOST_QUADS:
        return None
    layout = GruStream(units, columns_of(x, h, padded[0], padded[1], wide))
    constants = {role: graph.data(node, role) for role in ("w", "r", "b", "b_hn", "m")}
    tables = [table("gates", layout, constants, f"per two units: starts, {_FORM[wide]} of r, z, n, multipliers")]
    extras = _operands(graph, node, x, h, stride)
    tables += extras.tables
    fields: dict[str, Field] = {"gates": TableRef("gates"), **extras.fields, "initial_hidden": 0}
    if "h0" in node.inputs:
        fields["initial_hidden"] = TableRef("initial_hidden")
        tables.append(plain(graph, node, "h0", "initial_hidden", "int16", "[units], Q15"))
    per_quad, per_half, around = (18, 9, 65.0) if wide else (21, 11, 73.0)
    products = sum(loop.instructions(per_quad, 3) + per_half * half for loop, half in zip(loops, halves, strict=True))
    blocks = -(-units // 2)
    operand = -(-(padded[0] + max(padded[1], 0 if h.low_rank else stride)) // 4) * 4
    widened = x.fours if x.low_rank is None else -(-x.features // 4) * 4
    parameters: dict[str, int | str | tuple[int, ...]] = {
        "inputs": x.features,
        "units": units,
        "stride": stride,
        "x_quads": loops[0].quads,
        "x_loops": loops[0].times,
        "x_half": int(halves[0]),
        "h_quads": loops[1].quads,
        "h_loops": loops[1].times,
        "h_half": int(halves[1]),
        "wide": int(wide),
        "shift": numerics.shift,
        "x_shift": x.shift,
        "h_shift": h.shift,
        "widened": operand,
        "input_factor": extras.functions[0],
        "recurrent_factor": extras.functions[1],
    }
    function = block_name("pg_gru_dsp", parameters)
    step = Block("gru_dsp.h.j2", function, (("function", function), *parameters.items()))
    return KernelChoice(
        kernel="gru_dsp",
        function=function,
        struct="pg_gru_dsp_params",
        fields=fields,
        tables=tuple(tables),
        sources=("pg_activation.h", "pg_recurrent_dsp.h", "pg_gru_dsp.h"),
        instructions=40.0 + extras.instructions + blocks * (around + products),
        blocks=(*extras.blocks, step),
        scratch_bytes=2 * (operand + widened),
        state_bytes=4 * stride,
    )
