"""Quantisation arithmetic of recurrent layers: scales, the shift k, low-rank intermediates, overflow proofs.

docs/quantisation.md ("Recurrent cells") has the rules. Everything here is float64 and deterministic; the
results are integers whose meaning is in ``projgen.ops.recurrent_integer``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from projgen.errors import InputError
from projgen.ir.numerics import LowRank
from projgen.quant.fixed import ACCUMULATOR_LIMIT, Floats, Ints, multipliers, nearest, requantise

H_SCALE: Final = 2.0**-7
TANH_GATE: Final = 2.0**12  # the argument of a tanh is Q3.12
SIGMOID_GATE: Final = 2.0**11  # sigmoid(v) = (tanh(v/2) + 1)/2: the half sits in the multiplier
_K_RANGE: Final = 8
_K_ON_LOW_RANK: Final = 3  # a low-rank intermediate leaves 3 bits of headroom


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """One side of the gate products: the float matrix (rows, features) and the values it multiplies.

    Attributes:
        matrix: float weights.
        scale: real value of one step of the operand.
        energy: E|v|^2 of the real vectors on calibration data.
        low_rank: the operand is an int16 intermediate whose scale may still change by powers of two.
    """

    matrix: Floats
    scale: float
    energy: float
    low_rank: bool

    def scaled(self, factor: float) -> Operand:
        return Operand(self.matrix, self.scale * factor, self.energy, self.low_rank)


@dataclass(frozen=True, slots=True, eq=False)
class GateRows:
    """Integer gate matrices: w and r within +-127, and the real value A of one accumulator step per row."""

    w: Ints
    r: Ints
    scale: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A quantised projector: z = sat16(RQ(q v + b, m, shift)); ``bounds`` is the largest |z| of each component."""

    q: Ints
    b: Ints
    m: Ints
    low_rank: LowRank
    bounds: Ints


@dataclass(frozen=True, slots=True, eq=False)
class JointFactor:
    """A quantised projector of both operands: z = sat16(RQ((q_in x << max(k,0)) + (q_out h << max(-k,0)) + b, m)).

    ``bounds`` is the largest |z| of each component.
    """

    q_in: Ints
    q_out: Ints
    b: Ints
    m: Ints
    k: int
    low_rank: LowRank
    bounds: Ints


def bias_floor(bias: Floats) -> Floats:
    """Least accumulator step of each gate row: keeps b in int32 and m large where weights are near 0."""
    floor: Floats = np.maximum(np.abs(bias) * 2.0**-29, 2.0**-24)
    return floor


def accumulator_scale(x: Operand, h: Operand, floor: Floats, k: int) -> Floats:
    """Real value of one accumulator step per row, for the layer's k."""
    from_x = np.abs(x.matrix).max(axis=1, initial=0.0) * x.scale / (127 * 2.0 ** max(k, 0))
    from_h = np.abs(h.matrix).max(axis=1, initial=0.0) * h.scale / (127 * 2.0 ** max(-k, 0))
    scale: Floats = np.maximum(np.maximum(from_x, from_h), floor)
    return scale


def choose_k(x: Operand, h: Operand, floor: Floats) -> int:
    """The k with the least mean rounding noise of both products; the smallest |k| among equals.

    A shift of a low-rank intermediate is limited to its headroom; where the intermediate's own scale can take
    the shift (``absorb_k``) there is no such limit.
    """
    low = -_K_ON_LOW_RANK if h.low_rank and not x.low_rank else -_K_RANGE
    high = _K_ON_LOW_RANK if x.low_rank and not h.low_rank else _K_RANGE

    def noise(k: int) -> float:
        a = accumulator_scale(x, h, floor, k)
        from_x = (a * 2.0 ** max(k, 0) / x.scale) ** 2 * x.energy
        from_h = (a * 2.0 ** max(-k, 0) / h.scale) ** 2 * h.energy
        return float(np.mean(from_x + from_h))

    return min(range(low, high + 1), key=lambda k: (noise(k), abs(k)))


def absorb_k(x: Operand, h: Operand, k: int) -> tuple[Operand, Operand, int]:
    """k > 0 enlarges the scale of a low-rank h operand, k < 0 that of a low-rank x operand; then k is 0."""
    if k > 0 and h.low_rank:
        return x, h.scaled(2.0**k), 0
    if k < 0 and x.low_rank:
        return x.scaled(2.0**-k), h, 0
    return x, h, k


def gate_rows(x: Operand, h: Operand, floor: Floats, k: int) -> GateRows:
    """w = round(W s_x / (A 2^k+)), r = round(R s_h / (A 2^k-))."""
    a = accumulator_scale(x, h, floor, k)
    w = nearest(x.matrix * x.scale / (a[:, None] * 2.0 ** max(k, 0)))
    r = nearest(h.matrix * h.scale / (a[:, None] * 2.0 ** max(-k, 0)))
    return GateRows(w, r, a)


def factor(matrix: Floats, scale: float, zero_point: int, z_scale: float, where: str) -> Factor:
    """Quantises a projector (rank, features), row by row, over an int8 operand of the given affine map."""
    row_scale = np.maximum(np.abs(matrix).max(axis=1) / 127, 1e-30)
    q = nearest(matrix / row_scale[:, None])
    b = -zero_point * q.sum(axis=1)
    m, shift = multipliers(row_scale * scale / z_scale, where)
    refuse_overflow((np.abs(q).sum(axis=1) * 128 + np.abs(b)) << shift, where)
    bounds = low_rank_bounds(q, b, m, shift)
    return Factor(q, b, m, LowRank(shift, -round(math.log2(z_scale)), int(bounds.max())), bounds)


def joint_factor(x: Operand, h: Operand, zero_point: int, z_scale: float, where: str) -> JointFactor:
    """Quantises a projector of both int8 operands, (rank, D) and (rank, H), by the rule of the gate rows."""
    floor = np.full(len(x.matrix), z_scale * 2.0**-13)  # as of gate rows, whose unit is 2^-11: m is at least 2^19
    k = choose_k(x, h, floor)
    rows = gate_rows(x, h, floor, k)
    b = -(zero_point * rows.w.sum(axis=1)) << max(k, 0)
    m, shift = multipliers(rows.scale / z_scale, where)
    refuse_overflow(joint_reach(rows.w, rows.r, b, k) << shift, where)
    bounds = joint_bounds(rows.w, rows.r, b, m, k, shift)
    low_rank = LowRank(shift, -round(math.log2(z_scale)), int(bounds.max()))
    return JointFactor(rows.w, rows.r, b, m, k, low_rank, bounds)


def joint_reach(q_in: Ints, q_out: Ints, b: Ints, k: int) -> Ints:
    """Largest |accumulator| of each component over int8 operands."""
    return reach(q_in, np.full(q_in.shape[1], 128), q_out, np.full(q_out.shape[1], 128), b, k)


def joint_bounds(q_in: Ints, q_out: Ints, b: Ints, m: Ints, k: int, shift: int) -> Ints:
    """Largest |z| of each component that any int8 operands can give."""
    return np.minimum(requantise(joint_reach(q_in, q_out, b, k), m, shift), 2**15)


def low_rank_bounds(q: Ints, b: Ints, m: Ints, shift: int) -> Ints:
    """Largest |z| of each component that any int8 operand can give."""
    largest = requantise(np.abs(q).sum(axis=1) * 128 + np.abs(b), m, shift)
    return np.minimum(largest, 2**15)


def reach(w: Ints, x_bounds: Ints, r: Ints, h_bounds: Ints, bias: Ints, k: int) -> Ints:
    """Largest |acc| of each gate row: 2^k+ sum|w| |x| + 2^k- sum|r| |h| + |b|."""
    from_x = (np.abs(w) @ x_bounds) << max(k, 0)
    from_h = (np.abs(r) @ h_bounds) << max(-k, 0)
    total: Ints = from_x + from_h + np.abs(bias)
    return total


def refuse_overflow(largest: Ints, where: str) -> None:
    """``InputError`` unless every accumulator provably fits in 32 bits."""
    worst = int(np.argmax(largest))
    if int(largest[worst]) >= ACCUMULATOR_LIMIT:
        raise InputError(
            f"the accumulator of row {worst} can reach {int(largest[worst])}, which 32 bits do not hold",
            f"at most {ACCUMULATOR_LIMIT - 1}: fewer inputs, smaller weights or a smaller bias",
            where,
        )


def cell_fraction(peak: float) -> int:
    """Fraction bits n of the LSTM's int16 cell: the calibration peak of |c| just fits; 4 <= n <= 12."""
    bits = math.ceil(math.log2(peak)) if peak > 0.0 else 0
    return max(4, min(12, 15 - bits))
