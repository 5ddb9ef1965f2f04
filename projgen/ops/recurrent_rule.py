"""The quantisation rule of LSTM and GRU: float node and calibration statistics in, integer node out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from projgen.errors import InputError, UnsupportedError
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Node, Value
from projgen.ir.numerics import GruNumerics, LstmNumerics
from projgen.ir.types import DType, Quant, TensorType
from projgen.quant.fixed import Floats, Ints, multipliers, nearest, power_of_two, saturate
from projgen.quant.recurrent import (
    H_SCALE,
    SIGMOID_GATE,
    TANH_GATE,
    Factor,
    Operand,
    absorb_k,
    cell_fraction,
    choose_k,
    factor,
    gate_rows,
    reach,
    refuse_overflow,
)
from projgen.quant.scope import Quantised, QuantScope

_INT8_PEAK = 128


def quantise(scope: QuantScope, node: Node) -> Quantised:
    """Integer constants and numerics of one recurrent layer.

    Raises:
        InputError: an accumulator could overflow, a weight is not finite, or a GRU starts outside [-1, 1].
        UnsupportedError: the input is not int8.
    """
    attrs = node.attrs
    if not isinstance(attrs, Lstm | Gru):
        raise TypeError(f"{node.name} is no recurrent layer")
    where = f"layer {node.source or node.name}"
    floats = _constants(scope, node, where)
    x_quant = _input_quant(scope, node, where)
    x, h = _operands(scope, node, floats, x_quant)
    x, h, k = absorb_k(x, h, choose_k(x, h, _bias_floor(attrs, floats)))
    factors: dict[str, Factor] = {}
    if attrs.input_projected:
        factors["in"] = factor(floats["q_in"].T, x_quant.scale, x_quant.zero_point, x.scale, f"{where}, input factor")
    if attrs.recurrent_projected:
        factors["out"] = factor(floats["q_out"].T, H_SCALE, 0, h.scale, f"{where}, recurrent factor")

    rows = gate_rows(x, h, _bias_floor(attrs, floats), k)
    b = nearest(floats["b"] / rows.scale)
    if not attrs.input_projected:
        b = b - ((x_quant.zero_point * rows.w.sum(axis=1)) << max(k, 0))
    m, shift = multipliers(rows.scale * _gate_units(attrs), where)
    ints: dict[str, Ints] = {"w": rows.w, "r": rows.r, "b": b, "m": m}
    largest_bias = np.abs(b)
    if isinstance(attrs, Gru):
        ints["b_hn"] = nearest(floats["b_hn"] / rows.scale[2 * attrs.hidden :])
        largest_bias = largest_bias + np.pad(np.abs(ints["b_hn"]), (2 * attrs.hidden, 0))
    x_bounds = factors["in"].bounds if "in" in factors else np.full(rows.w.shape[1], _INT8_PEAK)
    h_bounds = factors["out"].bounds if "out" in factors else np.full(rows.r.shape[1], _INT8_PEAK)
    refuse_overflow(reach(rows.w, x_bounds, rows.r, h_bounds, largest_bias, k) << shift, where)
    if "in" in factors:
        ints |= {"q_in": factors["in"].q, "b_in": factors["in"].b, "m_in": factors["in"].m}
    if "out" in factors:
        ints |= {"q_out": factors["out"].q, "m_out": factors["out"].m}

    low_ranks = (
        factors["in"].low_rank if "in" in factors else None,
        factors["out"].low_rank if "out" in factors else None,
    )
    numerics: LstmNumerics | GruNumerics
    if isinstance(attrs, Lstm):
        fraction = cell_fraction(scope.inner[node.name]["c"].peak)
        numerics = LstmNumerics(x_quant.zero_point, k, shift, fraction, *low_ranks)
        if attrs.initial_state:
            ints["h0"] = saturate(nearest(floats["h0"] * 2.0**7), 8)
            ints["c0"] = saturate(nearest(floats["c0"] * 2.0**fraction), 16)
    else:
        numerics = GruNumerics(x_quant.zero_point, k, shift, *low_ranks)
        if attrs.initial_state:
            ints["h0"] = _gru_start(floats["h0"], where)
    values = tuple(constant(f"{node.name}.{role}", role_type(role, type(attrs)), data) for role, data in ints.items())
    inputs = {"x": node.inputs["x"]} | {role: f"{node.name}.{role}" for role in ints}
    return Quantised((replace(node, inputs=inputs, numerics=numerics),), values)


def role_type(role: str, cell: type) -> DType:
    """Element type of a quantised constant of a recurrent layer."""
    if role in ("w", "r", "q_in", "q_out"):
        return DType.INT8
    if role == "h0":
        return DType.INT8 if cell is Lstm else DType.INT16
    return DType.INT16 if role == "c0" else DType.INT32


def constant(name: str, dtype: DType, data: Ints) -> Value:
    """A constant of the quantised stage."""
    return Value(name, TensorType(tuple(data.shape), dtype), data.astype(dtype.value))


def _constants(scope: QuantScope, node: Node, where: str) -> dict[str, Floats]:
    floats = {role: scope.graph.data(node, role).astype(np.float64) for role in node.inputs if role != "x"}
    for role, data in floats.items():
        if not np.isfinite(data).all():
            raise InputError(f"{role} of {where} holds NaN or infinity", "finite weights", "the model")
    return floats


def _input_quant(scope: QuantScope, node: Node, where: str) -> Quant:
    x = scope.types[node.inputs["x"]]
    if x.dtype is not DType.INT8 or x.quant is None:
        raise UnsupportedError(f"the input of {where} is {x.dtype.value}", "int8 inputs", "activations")
    return x.quant


def _operands(scope: QuantScope, node: Node, floats: Mapping[str, Floats], x_quant: Quant) -> tuple[Operand, Operand]:
    """Both sides of the gate products, low-rank intermediates at their 13-bit scales."""
    inner = scope.inner[node.name]
    if "q_in" in floats:
        z = inner["z_in"]
        x = Operand(floats["w"], 2.0 ** power_of_two(z.peak), z.energy, True)
    else:
        x = Operand(floats["w"], x_quant.scale, scope.stats[node.inputs["x"]].energy, False)
    if "q_out" in floats:
        z = inner["z_out"]
        return x, Operand(floats["r"], 2.0 ** power_of_two(z.peak), z.energy, True)
    return x, Operand(floats["r"], H_SCALE, inner["h"].energy, False)


def _bias_floor(attrs: Lstm | Gru, floats: Mapping[str, Floats]) -> Floats:
    """The bias that must fit in each row; the candidate gate of a GRU has two."""
    if isinstance(attrs, Lstm):
        return floats["b"]
    candidate = np.pad(np.abs(floats["b_hn"]), (2 * attrs.hidden, 0))
    return np.asarray(np.maximum(np.abs(floats["b"]), candidate), np.float64)


def _gate_units(attrs: Lstm | Gru) -> Floats:
    """Steps of the Q3.12 table argument per unit of each gate row's pre-activation."""
    gates = (SIGMOID_GATE, SIGMOID_GATE, TANH_GATE)
    return np.repeat((*gates, SIGMOID_GATE) if isinstance(attrs, Lstm) else gates, attrs.hidden)


def _gru_start(h0: Floats, where: str) -> Ints:
    if np.abs(h0).max(initial=0.0) > 1.0:
        raise InputError(
            f"the initial state of {where} reaches {np.abs(h0).max():.4g}", "values between -1 and 1", "the model"
        )
    return saturate(nearest(h0 * 2.0**15), 16)
