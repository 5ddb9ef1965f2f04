"""Kernels of LSTM and GRU: portable C, emitted blocks for Armv7-M, for the DSP extension and for MVE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import LowRank, LstmNumerics
from projgen.kernels import recurrent_dsp, recurrent_mve, recurrent_thumb2
from projgen.kernels.costs import matrix
from projgen.kernels.layouts import plain
from projgen.kernels.record import Field, KernelChoice, KernelDef, Table, TableRef
from projgen.kernels.recurrent_common import rank, recurrent_numerics, step_macs
from projgen.targets import Target

# Role of a constant -> (parameter, table, C type, comment). A parameter without a table is 0, a null pointer.
_GATES: Final = {
    "w": ("gates.input_weights", "input_weights", "int8", "[gates * units][input width]"),
    "r": ("gates.recurrent_weights", "recurrent_weights", "int8", "[gates * units][recurrent width]"),
    "b": ("gates.bias", "bias", "int32", "[gates * units]"),
    "m": ("gates.multipliers", "multipliers", "int32", "[gates * units]"),
}
_INPUT_FACTOR: Final = {
    "q_in": ("input_factor.weights", "input_factor", "int8", "[rank][inputs]"),
    "b_in": ("input_factor.bias", "input_factor_bias", "int32", "[rank], input zero point folded in"),
    "m_in": ("input_factor.multipliers", "input_factor_multipliers", "int32", "[rank]"),
}
_RECURRENT_FACTOR: Final = {
    "q_out": ("recurrent_factor.weights", "recurrent_factor", "int8", "[rank][units]"),
    "m_out": ("recurrent_factor.multipliers", "recurrent_factor_multipliers", "int32", "[rank]"),
}
_JOINT_GATES: Final = {role: row for role, row in _GATES.items() if role != "r"}
_JOINT_FACTOR: Final = {
    "q_in": ("factor.input_weights", "input_factor", "int8", "[rank][inputs]"),
    "q_out": ("factor.recurrent_weights", "recurrent_factor", "int8", "[rank][units]"),
    "b_in": ("factor.bias", "factor_bias", "int32", "[rank], input zero point folded in"),
    "m_in": ("factor.multipliers", "factor_multipliers", "int32", "[rank]"),
}
_LSTM_START: Final = {
    "h0": ("initial_hidden", "initial_hidden", "int8", "[units], scale 2^-7"),
    "c0": ("initial_cells", "initial_cells", "int16", "[units]"),
}
_GRU_START: Final = {"h0": ("initial_hidden", "initial_hidden", "int16", "[units], Q15")}
_CANDIDATE: Final = {"b_hn": ("candidate_bias", "candidate_bias", "int32", "[units], on the recurrent product")}


def _constants(
    graph: Graph, node: Node, constants: Mapping[str, tuple[str, str, str, str]]
) -> tuple[dict[str, Field], list[Table]]:
    """Pointer parameters and tables of the constants that the node has; null pointers for the others."""
    fields: dict[str, Field] = {}
    tables: list[Table] = []
    for role, (parameter, table, dtype, comment) in constants.items():
        fields[parameter] = 0
        if role in node.inputs:
            fields[parameter] = TableRef(table)
            tables.append(plain(graph, node, role, table, dtype, comment))
    return fields, tables


def _joint(graph: Graph, node: Node, numerics: LstmNumerics, low_rank: LowRank, target: Target) -> KernelChoice:
    """The LSTM whose products share their first factor."""
    fields, tables = _constants(graph, node, _JOINT_FACTOR | _JOINT_GATES | _LSTM_START)
    components = rank(graph, node, "q_in")
    units = int(graph.data(node, "q_out").shape[1])
    fields |= {
        "factor.input_width": int(graph.data(node, "q_in").shape[1]),
        "factor.recurrent_width": units,
        "factor.input_shift": max(numerics.k, 0),
        "factor.recurrent_shift": max(-numerics.k, 0),
        "factor.shift": low_rank.shift,
        "gates.recurrent_weights": 0,
        "gates.input_width": components,
        "gates.recurrent_width": 0,
        "gates.input_shift": 0,
        "gates.recurrent_shift": 0,
        "gates.shift": numerics.shift,
        "rank": components,
        "units": units,
        "cell_fraction": numerics.cell_fraction,
    }
    rows = int(graph.data(node, "m").size) + components
    return KernelChoice(
        kernel="lstm_portable",
        function="pg_lstm_joint",
        struct="pg_lstm_joint_params",
        fields=fields,
        tables=tuple(tables),
        sources=("pg_activation.h", "pg_recurrent.h", "pg_lstm.h"),
        instructions=1.6 * matrix(target, step_macs(graph, node), rows) + 60.0 * units,
        scratch_bytes=2 * components,
        state_bytes=3 * units,
    )


def _portable(graph: Graph, node: Node, target: Target) -> KernelChoice:
    attrs, numerics = node.attrs, recurrent_numerics(node)
    if not isinstance(attrs, Lstm | Gru):
        raise TypeError(f"node {node.name!r} is no recurrent layer")
    if isinstance(numerics, LstmNumerics) and numerics.joint_low_rank is not None:
        return _joint(graph, node, numerics, numerics.joint_low_rank, target)
    name = "lstm" if isinstance(attrs, Lstm) else "gru"
    constants = _GATES | _INPUT_FACTOR | _RECURRENT_FACTOR
    constants |= _LSTM_START if isinstance(attrs, Lstm) else _GRU_START | _CANDIDATE
    fields, tables = _constants(graph, node, constants)
    inputs = graph.arg(node, "x").type.step_shape[-1]
    rank_in, rank_out = rank(graph, node, "q_in"), rank(graph, node, "q_out")
    fields |= {
        "gates.input_width": rank_in or inputs,
        "gates.recurrent_width": rank_out or attrs.hidden,
        "gates.input_shift": max(numerics.k, 0),
        "gates.recurrent_shift": max(-numerics.k, 0),
        "gates.shift": numerics.shift,
        "input_factor.rank": rank_in,
        "input_factor.shift": numerics.input_low_rank.shift if numerics.input_low_rank else 0,
        "recurrent_factor.rank": rank_out,
        "recurrent_factor.shift": numerics.recurrent_low_rank.shift if numerics.recurrent_low_rank else 0,
        "inputs": inputs,
        "units": attrs.hidden,
    }
    if isinstance(numerics, LstmNumerics):
        fields["cell_fraction"] = numerics.cell_fraction
    projected = attrs.input_projected or attrs.recurrent_projected
    rows = int(graph.data(node, "m").size) + rank_in + rank_out
    return KernelChoice(
        kernel=f"{name}_portable",
        function=f"pg_{name}_projected" if projected else f"pg_{name}",
        struct=f"pg_{name}_params",
        fields=fields,
        tables=tuple(tables),
        sources=("pg_activation.h", "pg_recurrent.h", f"pg_{name}.h"),
        instructions=1.6 * matrix(target, step_macs(graph, node), rows) + 60.0 * attrs.hidden,
        scratch_bytes=2 * (rank_in + rank_out),
        state_bytes=3 * attrs.hidden,
    )


KERNELS: Final = (
    KernelDef("lstm_portable", "lstm", frozenset(), _portable),
    KernelDef("gru_portable", "gru", frozenset(), _portable),
    KernelDef("lstm_thumb2", "lstm", frozenset({"thumb2"}), recurrent_thumb2.lstm),
    KernelDef("gru_thumb2", "gru", frozenset({"thumb2"}), recurrent_thumb2.gru),
    KernelDef("lstm_dsp", "lstm", frozenset({"dsp"}), recurrent_dsp.lstm),
    KernelDef("gru_dsp", "gru", frozenset({"dsp"}), recurrent_dsp.gru),
    KernelDef("lstm_mve", "lstm", frozenset({"mve"}), recurrent_mve.lstm),
    KernelDef("gru_mve", "gru", frozenset({"mve"}), recurrent_mve.gru),
)
