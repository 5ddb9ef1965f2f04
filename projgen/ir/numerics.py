"""The integer side of a quantised node: shifts, zero points and clamps (docs/quantisation.md has the rules).

Multipliers ``m`` are int32 constants among the node's inputs, always multiples of 4; one pre-shift per matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from projgen.ir.types import ADDED


@dataclass(frozen=True, slots=True)
class Requant:
    """y = clamp(zero_point + RQ(acc, m, shift), low, high); RQ(acc, m, p) = ((acc << p) * m + 2^31) >> 32."""

    shift: int
    zero_point: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class MatrixNumerics:
    """Linear, Conv2d and ConvTranspose2d. Inputs: x int8 or int16, w int8, b int32 (zero point of x folded in), m int32
    per output.
    """

    input_zero_point: int
    requant: Requant


@dataclass(frozen=True, slots=True)
class AddNumerics:
    """acc = factor_a (a - zero_a) + factor_b (b - zero_b), requantised once with the scalar multiplier."""

    factor_a: int
    zero_a: int
    factor_b: int
    zero_b: int
    multiplier: int
    requant: Requant


@dataclass(frozen=True, slots=True)
class MulNumerics:
    """acc = (a - zero_a) (b - zero_b), requantised once with the scalar multiplier."""

    zero_a: int
    zero_b: int
    multiplier: int
    requant: Requant


@dataclass(frozen=True, slots=True)
class PoolNumerics:
    """Average: acc = sum over the taps inside the map of (q - input_zero_point), times the multiplier of the count.

    ``counts`` are the divisors that occur (ascending: taps inside, or all taps where padding counts);
    ``multipliers[i]`` holds 1/counts[i] in its scale; the pre-shift is shared.
    """

    input_zero_point: int
    counts: tuple[int, ...]
    multipliers: tuple[int, ...]
    requant: Requant


@dataclass(frozen=True, slots=True)
class MeanTimeNumerics:
    """S = sum over steps of (x - zero_point), int32; acc = floor((S 2^fraction + floor(T/2)) / T), requantised."""

    input_zero_point: int
    fraction: int
    multiplier: int
    requant: Requant


@dataclass(frozen=True, slots=True)
class SoftmaxNumerics:
    """Exact integer softmax over int8 (scale 1/256, zero point -128 out). Input ``table``: E[0..255], values < 2^16."""

    scale: float


@dataclass(frozen=True, slots=True)
class AttentionNumerics:
    """Distances of scores times ``score_multiplier`` are 1/1024 octaves; weights have 15 - ``drop`` bits.

    ``value_multiplier`` takes means of the values, with 15 fraction bits, to the output; ``requant`` holds its shift.
    """

    query_zero_point: int
    value_zero_point: int
    score_multiplier: int
    score_shift: int
    drop: int
    value_multiplier: int
    requant: Requant


@dataclass(frozen=True, slots=True)
class LayerNormNumerics:
    """Inputs: x int8, gamma int16, beta int32. ``epsilon``: the float's times 2^8 (N / s_x)^2, at least 1."""

    epsilon: int
    multiplier: int
    requant: Requant


@dataclass(frozen=True, slots=True)
class PadNumerics:
    """The integer that fills the borders."""

    value: int


@dataclass(frozen=True, slots=True)
class LowRank:
    """An int16 intermediate z = sat16(RQ(q x + b, m, shift)), zero point 0, scale 2^-exponent.

    ``bound`` is the largest |z| provable from the weights.
    """

    shift: int
    exponent: int
    bound: int


@dataclass(frozen=True, slots=True)
class LstmNumerics:
    """Inputs: x int8, w int8, r int8, b int32, m int32 (4H,); q_in int8 (r_in, D), b_in, m_in; q_out int8 (r_out, H),
    m_out when projected; h0 int8, c0 int16 when given. ``k``: acc = (w x << max(k,0)) + (r h << max(-k,0)) + b.
    The cell state is int16 with ``cell_fraction`` fraction bits; h is int8 with scale 2^-7.
    Joint: no r and no m_out; one z = sat16(RQ((q_in x << max(k,0)) + (q_out h << max(-k,0)) + b_in, m_in)) and
    acc = w z + b.
    """

    input_zero_point: int
    k: int
    shift: int
    cell_fraction: int
    input_low_rank: LowRank | None = None
    recurrent_low_rank: LowRank | None = None
    joint_low_rank: LowRank | None = field(default=None, metadata=ADDED)


@dataclass(frozen=True, slots=True)
class GruNumerics:
    """Inputs as for the LSTM with 3H rows, plus b_hn int32 (H,); h0 is int16 Q15 when given. State: h int16 Q15."""

    input_zero_point: int
    k: int
    shift: int
    input_low_rank: LowRank | None = None
    recurrent_low_rank: LowRank | None = None


Numerics = (
    MatrixNumerics
    | AddNumerics
    | MulNumerics
    | PoolNumerics
    | MeanTimeNumerics
    | SoftmaxNumerics
    | AttentionNumerics
    | LayerNormNumerics
    | PadNumerics
    | LstmNumerics
    | GruNumerics
)
