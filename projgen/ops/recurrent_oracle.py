"""Float64 check of the integer meaning: each step in real numbers from the integer state before it.

The integers stay within 1 LSB of it. The state's own rounding is set aside: every step starts from the integer
state, and an LSTM's h comes from the integer cell wherever that lies within its rounding of the real one (with 4
fraction bits a cell is only known to 1/16). Saturation is meaning, so it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import GruNumerics, LstmNumerics
from projgen.ops.record import Args, Array
from projgen.ops.recurrent_float import sigmoid
from projgen.ops.recurrent_integer import gru_output, gru_step, initial_state, integers, lstm_step
from projgen.quant.fixed import Floats, Ints, real_scale

_TANH_ERROR, _SIGMOID_ERROR = 4.2e-4, 2.4e-4  # of the tables, rounding included


def lstm_oracle(graph: Graph, node: Node, args: Args) -> Array:  # noqa: ARG001  (the records' signature)
    """h of every step in LSB (2^-7), float64 (N, T, H)."""
    attrs, n = node.attrs, node.numerics
    if not (isinstance(attrs, Lstm) and isinstance(n, LstmNumerics)):
        raise TypeError(f"{node.name} is no quantised LSTM")
    ints = integers(args)
    x = ints["x"][:, ::-1] if attrs.reverse else ints["x"]
    h, c = (initial_state(ints, role, len(x), attrs.hidden) for role in ("h0", "c0"))
    one = 2.0**n.cell_fraction
    scale = _row_scale(ints["m"], n.shift, (1, 1, 2, 1))
    out = []
    for t in range(x.shape[1]):
        from_x, from_h = _pre_activations(n, ints, x[:, t], h)
        i, f, g, o = np.split((from_x + from_h + ints["b"]) * scale, 4, axis=1)
        cell = sigmoid(f) * c / one + sigmoid(i) * np.tanh(g)
        cell = np.clip(cell, -(2.0**15) / one, (2.0**15 - 1) / one)
        rounding = (1.5 + np.abs(c) * _SIGMOID_ERROR) / one + _SIGMOID_ERROR + _TANH_ERROR
        h, c = lstm_step(n, ints, x[:, t], h, c)
        cell = np.where(np.abs(cell - c / one) <= rounding, c / one, cell)
        out.append(_in_range(np.asarray(sigmoid(o) * np.tanh(cell), np.float64)))
    y = np.stack(out, axis=1)
    return y[:, ::-1] if attrs.reverse else y


def gru_oracle(graph: Graph, node: Node, args: Args) -> Array:  # noqa: ARG001  (the records' signature)
    """h of every step in LSB (2^-7), float64 (N, T, H)."""
    attrs, n = node.attrs, node.numerics
    if not (isinstance(attrs, Gru) and isinstance(n, GruNumerics)):
        raise TypeError(f"{node.name} is no quantised GRU")
    ints = integers(args)
    x = ints["x"][:, ::-1] if attrs.reverse else ints["x"]
    h = initial_state(ints, "h0", len(x), attrs.hidden)
    scale = _row_scale(ints["m"], n.shift, (1, 1, 2))
    out = []
    for t in range(x.shape[1]):
        from_x, from_h = _pre_activations(n, ints, x[:, t], gru_output(h))
        x_r, x_z, x_n = np.split((from_x + ints["b"]) * scale, 3, axis=1)
        h_r, h_z, _ = np.split(from_h * scale, 3, axis=1)
        h_n = (from_h[:, 2 * attrs.hidden :] + ints["b_hn"]) * scale[2 * attrs.hidden :]
        candidate = np.tanh(x_n + sigmoid(x_r + h_r) * h_n)
        state = h / 2.0**15
        out.append(_in_range(candidate + sigmoid(x_z + h_z) * (state - candidate)))
        h = gru_step(n, ints, x[:, t], h)
    y = np.stack(out, axis=1)
    return y[:, ::-1] if attrs.reverse else y


def _in_range(h: Floats) -> Floats:
    """h in LSB, saturated as int8."""
    return np.clip(128.0 * h, -128.0, 127.0)


def _row_scale(m: Ints, shift: int, gates: tuple[int, ...]) -> Floats:
    """Real pre-activation per accumulator step of each row: (M, p) gives Q3.12 of it, or of half of it."""
    units = np.repeat(np.array([2.0**12 if g == 2 else 2.0**11 for g in gates]), len(m) // len(gates))
    return np.asarray(real_scale(m, shift) / units, np.float64)


def _pre_activations(
    n: LstmNumerics | GruNumerics, ints: Mapping[str, Ints], x: Ints, h: Ints
) -> tuple[Floats, Floats]:
    """Both gate products in accumulator steps, intermediates unrounded."""
    from_x, from_h = x.astype(np.float64), h.astype(np.float64)
    if isinstance(n, LstmNumerics) and n.joint_low_rank is not None:
        acc = from_x @ ints["q_in"].T * 2.0 ** max(n.k, 0) + from_h @ ints["q_out"].T * 2.0 ** max(-n.k, 0)
        z = (acc + ints["b_in"]) * real_scale(ints["m_in"], n.joint_low_rank.shift)
        gates = np.clip(z, -(2.0**15), 2.0**15 - 1) @ ints["w"].T
        return gates, np.zeros_like(gates)
    if n.input_low_rank is not None:
        z = (from_x @ ints["q_in"].T + ints["b_in"]) * real_scale(ints["m_in"], n.input_low_rank.shift)
        from_x = np.clip(z, -(2.0**15), 2.0**15 - 1)
    if n.recurrent_low_rank is not None:
        z = (from_h @ ints["q_out"].T) * real_scale(ints["m_out"], n.recurrent_low_rank.shift)
        from_h = np.clip(z, -(2.0**15), 2.0**15 - 1)
    return from_x @ ints["w"].T * 2.0 ** max(n.k, 0), from_h @ ints["r"].T * 2.0 ** max(-n.k, 0)
