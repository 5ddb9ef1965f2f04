"""The quantisation rule of LSTM and GRU: float node and calibration statistics in, integer node out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from projgen.errors import InputError, UnsupportedError
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Node, Value
from projgen.ir.numerics import GruNumerics, LowRank, LstmNumerics
from projgen.ir.types import DType, Quant, TensorType
from projgen.quant.fixed import Floats, Ints, multipliers, nearest, power_of_two, saturate
from projgen.quant.recurrent import (
    H_SCALE,
    SIGMOID_GATE,
    TANH_GATE,
    JointFactor,
    Operand,
    absorb_k,
    bias_floor,
    cell_fraction,
    choose_k,
    factor,
    gate_rows,
    joint_factor,
    reach,
    refuse_overflow,
)
from projgen.quant.scope import Quantised, QuantScope

_INT8_PEAK = 128


@dataclass(frozen=True, slots=True, eq=False)
class _Factors:
    """Quantised projectors of a layer: constants, the largest |z| of each side (None: int8), their numerics."""

    ints: dict[str, Ints]
    x_bounds: Ints | None
    h_bounds: Ints | None
    low_ranks: tuple[LowRank | None, LowRank | None]
    joint: JointFactor | None


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
    floor = _row_floor(attrs, floats)
    x, h, k = absorb_k(x, h, choose_k(x, h, floor))
    factors = _factors(scope, node, floats, x_quant, (x.scale, h.scale), where)

    rows = gate_rows(x, h, floor, k)
    b = nearest(floats["b"] / rows.scale)
    if not attrs.input_projected:
        b = b - ((x_quant.zero_point * rows.w.sum(axis=1)) << max(k, 0))
    m, shift = multipliers(rows.scale * _gate_units(attrs), where)
    ints: dict[str, Ints] = {"w": rows.w, "r": rows.r, "b": b, "m": m}
    largest_bias = np.abs(b)
    if isinstance(attrs, Gru):
        ints["b_hn"] = nearest(floats["b_hn"] / rows.scale[2 * attrs.hidden :])
        largest_bias = largest_bias + np.pad(np.abs(ints["b_hn"]), (2 * attrs.hidden, 0))
    x_bounds = np.full(rows.w.shape[1], _INT8_PEAK) if factors.x_bounds is None else factors.x_bounds
    h_bounds = np.full(rows.r.shape[1], _INT8_PEAK) if factors.h_bounds is None else factors.h_bounds
    refuse_overflow(reach(rows.w, x_bounds, rows.r, h_bounds, largest_bias, k) << shift, where)
    ints |= factors.ints
    if factors.joint is not None:
        del ints["r"]
        k = factors.joint.k

    numerics: LstmNumerics | GruNumerics
    if isinstance(attrs, Lstm):
        fraction = cell_fraction(scope.inner[node.name]["c"].peak)
        joint = None if factors.joint is None else factors.joint.low_rank
        numerics = LstmNumerics(x_quant.zero_point, k, shift, fraction, *factors.low_ranks, joint)
        if attrs.initial_state:
            ints["h0"] = saturate(nearest(floats["h0"] * 2.0**7), 8)
            ints["c0"] = saturate(nearest(floats["c0"] * 2.0**fraction), 16)
    else:
        numerics = GruNumerics(x_quant.zero_point, k, shift, *factors.low_ranks)
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


def _factors(
    scope: QuantScope,
    node: Node,
    floats: Mapping[str, Floats],
    x_quant: Quant,
    scales: tuple[float, float],
    where: str,
) -> _Factors:
    """The projectors, their outputs at the scales of x's and h's side of the gate products."""
    attrs = node.attrs
    if isinstance(attrs, Lstm) and attrs.joint:
        x = Operand(floats["q_in"].T, x_quant.scale, scope.stats[node.inputs["x"]].energy, False)
        h = Operand(floats["q_out"].T, H_SCALE, scope.inner[node.name]["h"].energy, False)
        f = joint_factor(x, h, x_quant.zero_point, scales[0], f"{where}, joint factor")
        ints = {"q_in": f.q_in, "q_out": f.q_out, "b_in": f.b, "m_in": f.m}
        return _Factors(ints, f.bounds, None, (None, None), f)
    made: dict[str, Ints] = {}
    inward = outward = None
    if "q_in" in floats:
        inward = factor(floats["q_in"].T, x_quant.scale, x_quant.zero_point, scales[0], f"{where}, input factor")
        made |= {"q_in": inward.q, "b_in": inward.b, "m_in": inward.m}
    if "q_out" in floats:
        outward = factor(floats["q_out"].T, H_SCALE, 0, scales[1], f"{where}, recurrent factor")
        made |= {"q_out": outward.q, "m_out": outward.m}
    both = (inward, outward)
    x_bounds, h_bounds = (None if f is None else f.bounds for f in both)
    low_in, low_out = (None if f is None else f.low_rank for f in both)
    return _Factors(made, x_bounds, h_bounds, (low_in, low_out), None)


def _operands(scope: QuantScope, node: Node, floats: Mapping[str, Floats], x_quant: Quant) -> tuple[Operand, Operand]:
    """Both sides of the gate products, low-rank intermediates at their 13-bit scales.

    A joint layer has its one intermediate on x's side and nothing on h's.
    """
    inner = scope.inner[node.name]
    if isinstance(node.attrs, Lstm) and node.attrs.joint:
        z = inner["z"]
        nothing = Operand(np.zeros((len(floats["w"]), 0)), 1.0, 0.0, True)
        return Operand(floats["w"], 2.0 ** power_of_two(z.peak), z.energy, True), nothing
    if "q_in" in floats:
        z = inner["z_in"]
        x = Operand(floats["w"], 2.0 ** power_of_two(z.peak), z.energy, True)
    else:
        x = Operand(floats["w"], x_quant.scale, scope.stats[node.inputs["x"]].energy, False)
    if "q_out" in floats:
        z = inner["z_out"]
        return x, Operand(floats["r"], 2.0 ** power_of_two(z.peak), z.energy, True)
    return x, Operand(floats["r"], H_SCALE, inner["h"].energy, False)


def _row_floor(attrs: Lstm | Gru, floats: Mapping[str, Floats]) -> Floats:
    """Least accumulator step of each row, by its bias; the candidate gate of a GRU has two."""
    if isinstance(attrs, Lstm):
        return bias_floor(floats["b"])
    candidate = np.pad(np.abs(floats["b_hn"]), (2 * attrs.hidden, 0))
    return bias_floor(np.maximum(np.abs(floats["b"]), candidate))


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
