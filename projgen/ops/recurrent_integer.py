"""Exact integer meaning of LSTM and GRU, one step and whole sequences (docs/quantisation.md, "Recurrent cells").

int64 NumPy throughout; every accumulator is proven to fit int32 when the layer is quantised. Arrays carry the
batch as axis 0. Arguments by role: ``projgen.ir.numerics`` (quantised stage).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Node
from projgen.ir.numerics import GruNumerics, LowRank, LstmNumerics
from projgen.quant.fixed import Ints, nearest, requantise, rounding_shift, saturate

Array = npt.NDArray[np.generic]
Args = Mapping[str, Array]

TANH_TABLE: Final[Ints] = nearest(32767 * np.tanh(np.arange(-128, 129) / 16))


def multiply_q15(a: Ints, b: Ints) -> Ints:
    """Product of two Q15 numbers, rounded to Q15."""
    return (a * b + (1 << 14)) >> 15


def tanh(v: Ints) -> Ints:
    """tanh of a Q3.12 number as Q15: 257 table entries, linear between them."""
    i, f = (v >> 8) + 128, v & 255
    return np.asarray(TANH_TABLE[i] + (((TANH_TABLE[i + 1] - TANH_TABLE[i]) * f + 128) >> 8), np.int64)


def sigmoid(v: Ints) -> Ints:
    """Logistic function of 2v, v in Q3.12, as Q15 (0 to 32767)."""
    return (tanh(v) + 32767) >> 1


def product(v: Ints, matrix: Ints) -> Ints:
    """v matrix^T, exact: a float64 product is exact below 2^53."""
    exact: Ints = (v.astype(np.float64) @ matrix.T.astype(np.float64)).astype(np.int64)
    return exact


def low_rank(v: Ints, args: Mapping[str, Ints], side: str, numerics: LowRank) -> Ints:
    """The int16 intermediate of one side ("in" or "out")."""
    acc = product(v, args[f"q_{side}"])
    if side == "in":
        acc = acc + args["b_in"]
    return saturate(requantise(acc, args[f"m_{side}"], numerics.shift), 16)


def joint_low_rank(x: Ints, h: Ints, args: Mapping[str, Ints], k: int, numerics: LowRank) -> Ints:
    """The one int16 intermediate of both operands."""
    acc = (product(x, args["q_in"]) << max(k, 0)) + (product(h, args["q_out"]) << max(-k, 0)) + args["b_in"]
    return saturate(requantise(acc, args["m_in"], numerics.shift), 16)


def integers(args: Args) -> dict[str, Ints]:
    """The arguments as int64."""
    return {role: a.astype(np.int64) for role, a in args.items()}


def lstm_step(n: LstmNumerics, args: Mapping[str, Ints], x: Ints, h: Ints, c: Ints) -> tuple[Ints, Ints]:
    """(h, c) after one step: x (N, D) int8, h (N, H) int8 with scale 2^-7, c (N, H) int16 with n fraction bits."""
    if n.joint_low_rank is not None:
        acc = product(joint_low_rank(x, h, args, n.k, n.joint_low_rank), args["w"]) + args["b"]
    else:
        from_x = x if n.input_low_rank is None else low_rank(x, args, "in", n.input_low_rank)
        from_h = h if n.recurrent_low_rank is None else low_rank(h, args, "out", n.recurrent_low_rank)
        acc = (product(from_x, args["w"]) << max(n.k, 0)) + (product(from_h, args["r"]) << max(-n.k, 0)) + args["b"]
    v_i, v_f, v_g, v_o = np.split(saturate(requantise(acc, args["m"], n.shift), 16), 4, axis=1)
    fraction = n.cell_fraction
    update = rounding_shift(multiply_q15(sigmoid(v_i), tanh(v_g)), 15 - fraction)
    c = saturate(multiply_q15(c, sigmoid(v_f)) + update, 16)
    squashed = tanh(saturate(c << (12 - fraction), 16))
    h = saturate(rounding_shift(multiply_q15(sigmoid(v_o), squashed), 8), 8)
    return h, c


def gru_step(n: GruNumerics, args: Mapping[str, Ints], x: Ints, h: Ints) -> Ints:
    """The int16 state (N, H), Q15, after one step from x (N, D) int8."""
    units = h.shape[1]
    h8 = gru_output(h)
    from_x = x if n.input_low_rank is None else low_rank(x, args, "in", n.input_low_rank)
    from_h = h8 if n.recurrent_low_rank is None else low_rank(h8, args, "out", n.recurrent_low_rank)
    acc_x = (product(from_x, args["w"]) << max(n.k, 0)) + args["b"]
    acc_h = product(from_h, args["r"]) << max(-n.k, 0)
    rz = requantise((acc_x + acc_h)[:, : 2 * units], args["m"][: 2 * units], n.shift)
    r, z = np.split(sigmoid(saturate(rz, 16)), 2, axis=1)
    reset = ((acc_h[:, 2 * units :] + args["b_hn"]) * r) >> 16
    acc_n = acc_x[:, 2 * units :] + 2 * reset
    candidate = tanh(saturate(requantise(acc_n, args["m"][2 * units :], n.shift), 16))
    return candidate + ((z * (h - candidate) + (1 << 14)) >> 15)


def gru_output(h: Ints) -> Ints:
    """The int8 copy of the GRU's state: operand of the next step and output of the layer, scale 2^-7."""
    return saturate(rounding_shift(h, 8), 8)


def initial_state(args: Mapping[str, Ints], role: str, batch: int, units: int) -> Ints:
    """The layer's constant initial state (zero without one) for every sample."""
    return np.zeros((batch, units), np.int64) + args.get(role, np.zeros(units, np.int64))


def lstm_integer(node: Node, args: Args) -> Array:
    """Output integers (N, T, H) of x (N, T, D)."""
    attrs, n = node.attrs, node.numerics
    if not (isinstance(attrs, Lstm) and isinstance(n, LstmNumerics)):
        raise TypeError(f"{node.name} is no quantised LSTM")
    ints = integers(args)
    steps = ints["x"][:, ::-1] if attrs.reverse else ints["x"]
    h, c = (initial_state(ints, role, len(steps), attrs.hidden) for role in ("h0", "c0"))
    out = []
    for t in range(steps.shape[1]):
        h, c = lstm_step(n, ints, steps[:, t], h, c)
        out.append(h)
    y = np.stack(out, axis=1)
    return y[:, ::-1] if attrs.reverse else y


def gru_integer(node: Node, args: Args) -> Array:
    """Output integers (N, T, H) of x (N, T, D)."""
    attrs, n = node.attrs, node.numerics
    if not (isinstance(attrs, Gru) and isinstance(n, GruNumerics)):
        raise TypeError(f"{node.name} is no quantised GRU")
    ints = integers(args)
    steps = ints["x"][:, ::-1] if attrs.reverse else ints["x"]
    h = initial_state(ints, "h0", len(steps), attrs.hidden)
    out = []
    for t in range(steps.shape[1]):
        h = gru_step(n, ints, steps[:, t], h)
        out.append(gru_output(h))
    y = np.stack(out, axis=1)
    return y[:, ::-1] if attrs.reverse else y
