"""Small quantised LSTM and GRU graphs for the differential tests: odd sizes, every option, extreme inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Node
from projgen.ir.numerics import GruNumerics, LowRank, LstmNumerics
from projgen.ir.types import TIME, DType, Quant, TensorType
from projgen.ops.common import generator, int8_type, one_node
from projgen.ops.record import Array, Sample
from projgen.ops.recurrent_rule import role_type
from projgen.quant.fixed import Ints, multipliers
from projgen.quant.recurrent import joint_bounds, joint_reach, low_rank_bounds, reach, refuse_overflow

_UNIFORM_STD = 73.0  # standard deviation of uniform int8 values


@dataclass(frozen=True, slots=True)
class Case:
    """What a sample looks like.

    ``gain`` is the standard deviation of the gates' pre-activations; ``ranks`` of the input and recurrent factor
    (None: dense) and ``spread`` the standard deviation of its integers; ``steps`` the length of the sequences;
    ``joint``: both factors make one vector, and ``k`` weighs their products.
    """

    name: str
    cell: type[Lstm] | type[Gru]
    inputs: int
    hidden: int
    k: int = 0
    fraction: int = 12
    gain: float = 1.5
    ranks: tuple[int | None, int | None] = (None, None)
    spread: float = 1200.0
    zero_point: int = -7
    initial_state: bool = False
    reverse: bool = False
    steps: int = 7
    joint: bool = False


CASES = (
    Case("lstm_1_1", Lstm, 1, 1),
    Case("lstm_3_5_k2", Lstm, 3, 5, k=2, fraction=11),
    Case("lstm_7_9_k-3", Lstm, 7, 9, k=-3, fraction=10, zero_point=127),
    Case("lstm_12_20_saturated", Lstm, 12, 20, gain=40.0, fraction=12, initial_state=True, steps=14),
    Case("lstm_16_16_n4", Lstm, 16, 16, k=1, fraction=4, gain=6.0, initial_state=True, steps=12),
    Case("lstm_5_6_reverse", Lstm, 5, 6, k=-1, fraction=7, initial_state=True, reverse=True),
    Case("lstm_12_17_ranks_8_7", Lstm, 12, 17, ranks=(8, 7)),
    Case("lstm_20_19_ranks_6_5", Lstm, 20, 19, ranks=(6, 5), spread=250.0, fraction=10),
    Case("lstm_9_10_ranks_1_1", Lstm, 9, 10, ranks=(1, 1), fraction=9, gain=8.0),
    Case("lstm_10_7_rank_3_dense", Lstm, 10, 7, k=2, ranks=(3, None), fraction=11),
    Case("lstm_4_13_dense_rank_5", Lstm, 4, 13, k=-2, ranks=(None, 5), initial_state=True),
    Case("lstm_12_26_joint_14", Lstm, 12, 26, ranks=(14, 14), spread=700.0, joint=True),
    Case("lstm_3_9_joint_5_k2", Lstm, 3, 9, k=2, ranks=(5, 5), fraction=10, initial_state=True, joint=True),
    Case("lstm_7_4_joint_8_k-3", Lstm, 7, 4, k=-3, ranks=(8, 8), zero_point=127, gain=6.0, joint=True),
    Case("lstm_5_11_joint_1_reverse", Lstm, 5, 11, k=-1, ranks=(1, 1), fraction=8, reverse=True, joint=True),
    Case("lstm_6_18_joint_3_saturated", Lstm, 6, 18, k=-6, ranks=(3, 3), spread=9000.0, gain=9.0, joint=True),
    Case("gru_1_1", Gru, 1, 1),
    Case("gru_3_5_k1", Gru, 3, 5, k=1),
    Case("gru_7_9_k-2", Gru, 7, 9, k=-2, zero_point=-128, initial_state=True),
    Case("gru_12_16_saturated", Gru, 12, 16, gain=40.0, initial_state=True, steps=12),
    Case("gru_1_3_coarse", Gru, 1, 3, gain=1.0, steps=40),
    Case("gru_6_8_reverse", Gru, 6, 8, k=3, reverse=True),
    Case("gru_12_11_ranks_6_9", Gru, 12, 11, ranks=(6, 9)),
    Case("gru_13_14_ranks_3_6", Gru, 13, 14, ranks=(3, 6), spread=250.0),
    Case("gru_8_4_rank_2_dense", Gru, 8, 4, k=1, ranks=(2, None)),
    Case("gru_5_10_dense_rank_1", Gru, 5, 10, k=-1, ranks=(None, 1), initial_state=True),
)


def samples(cell: type[Lstm] | type[Gru]) -> Iterable[Sample]:
    """Every sample of one operator."""
    return [sample(case) for case in CASES if case.cell is cell]


def sample(case: Case) -> Sample:
    """A one-operator graph with random weights over their whole range, and its inputs.

    Inputs: two random sequences, one all at the lowest and one all at the highest value, and one that jumps
    between both.
    """
    rng = generator(case.name)
    gates = 4 if case.cell is Lstm else 3
    rows, (rank_in, rank_out) = gates * case.hidden, case.ranks
    ints: dict[str, Ints] = {
        "w": _weights(rng, rows, case.inputs if rank_in is None else rank_in),
        "r": _weights(rng, rows, 0 if case.joint else case.hidden if rank_out is None else rank_out),
    }
    x_bounds, x_std, low_in, low_joint = np.full(case.inputs, 128), _UNIFORM_STD, None, None
    k = 0 if case.joint else case.k  # of the gate products
    if case.joint:
        low_joint, x_bounds = _joint(rng, ints, case)
        x_std = case.spread
    elif rank_in is not None:
        low_in, x_bounds = _low_rank(rng, ints, "in", rank_in, case.inputs, case.zero_point, case.spread)
        x_std = case.spread
    h_bounds, h_std, low_out = np.full(ints["r"].shape[1], 128), _UNIFORM_STD, None
    if rank_out is not None and not case.joint:
        low_out, h_bounds = _low_rank(rng, ints, "out", rank_out, case.hidden, 0, case.spread)
        h_std = case.spread
    variance = ints["w"].shape[1] * (x_std * 2.0 ** max(k, 0)) ** 2
    variance += ints["r"].shape[1] * (h_std * 2.0 ** max(-k, 0)) ** 2
    spread = _UNIFORM_STD * float(np.sqrt(variance))
    ints["b"] = rng.integers(-int(spread), int(spread) + 1, rows)
    if rank_in is None:
        ints["b"] -= (case.zero_point * ints["w"].sum(axis=1)) << max(case.k, 0)
    unit = case.gain / spread * np.repeat([2.0**12 if g == 2 else 2.0**11 for g in range(gates)], case.hidden)
    ints["m"], shift = multipliers(unit * rng.uniform(0.7, 1.3, rows), case.name)
    largest_bias = np.abs(ints["b"])
    if case.cell is Gru:
        ints["b_hn"] = rng.integers(-int(spread), int(spread) + 1, case.hidden)
        largest_bias = largest_bias + np.pad(np.abs(ints["b_hn"]), (2 * case.hidden, 0))
    refuse_overflow(reach(ints["w"], x_bounds, ints["r"], h_bounds, largest_bias, k) << shift, case.name)
    if case.joint:
        del ints["r"]
    if case.initial_state:
        ints["h0"] = _extremes(rng, case.hidden, 8 if case.cell is Lstm else 16)
        if case.cell is Lstm:
            ints["c0"] = _extremes(rng, case.hidden, 16)
    numerics: LstmNumerics | GruNumerics = (
        LstmNumerics(case.zero_point, case.k, shift, case.fraction, low_in, low_out, low_joint)
        if case.cell is Lstm
        else GruNumerics(case.zero_point, case.k, shift, low_in, low_out)
    )
    flags = (rank_in is not None, rank_out is not None, case.initial_state, case.reverse)
    attrs = Lstm(case.hidden, *flags, case.joint) if case.cell is Lstm else Gru(case.hidden, *flags)
    name = "lstm" if case.cell is Lstm else "gru"
    node = Node(name, name, {role: role for role in ("x", *ints)}, "y", attrs, name, numerics)
    types = {
        "x": int8_type((TIME, case.inputs), 0.03125, case.zero_point),
        "y": TensorType((TIME, case.hidden), DType.INT8, Quant(2.0**-7)),
    }
    constants = {role: data.astype(role_type(role, case.cell).value) for role, data in ints.items()}
    return one_node(case.name, node, types, constants, (_inputs(rng, case),))


def _weights(rng: np.random.Generator, rows: int, features: int) -> Ints:
    return rng.integers(-127, 128, (rows, features))


def _low_rank(
    rng: np.random.Generator,
    ints: dict[str, Ints],
    side: str,
    rank: int,
    features: int,
    zero_point: int,
    spread: float,
) -> tuple[LowRank, Ints]:
    """Adds a random factor to the constants; its numerics and the largest |z| of each component."""
    q = _weights(rng, rank, features)
    b = -zero_point * q.sum(axis=1)
    product = _UNIFORM_STD**2 * features**0.5
    m, shift = multipliers(rng.uniform(0.7, 1.3, rank) * spread / product, "the factor")
    bounds = low_rank_bounds(q, b, m, shift)
    ints |= {f"q_{side}": q, f"m_{side}": m} | ({"b_in": b} if side == "in" else {})
    return LowRank(shift, 12, int(bounds.max())), bounds


def _joint(rng: np.random.Generator, ints: dict[str, Ints], case: Case) -> tuple[LowRank, Ints]:
    """The same of a random factor of both operands."""
    q_in, q_out = (_weights(rng, case.ranks[0] or 1, features) for features in (case.inputs, case.hidden))
    b = -(case.zero_point * q_in.sum(axis=1)) << max(case.k, 0)
    product = _UNIFORM_STD**2 * np.hypot(*np.sqrt([case.inputs, case.hidden]) * 2.0 ** np.maximum((case.k, -case.k), 0))
    m, shift = multipliers(rng.uniform(0.7, 1.3, len(q_in)) * case.spread / product, "the factor")
    refuse_overflow(joint_reach(q_in, q_out, b, case.k) << shift, case.name)
    bounds = joint_bounds(q_in, q_out, b, m, case.k, shift)
    ints |= {"q_in": q_in, "q_out": q_out, "b_in": b, "m_in": m}
    return LowRank(shift, 12, int(bounds.max())), bounds


def _extremes(rng: np.random.Generator, count: int, bits: int) -> Ints:
    """Random integers, the first and last at the ends of the range."""
    high = 1 << (bits - 1)
    values = rng.integers(-high, high, count)
    values[0], values[-1] = -high, high - 1
    return values


def _inputs(rng: np.random.Generator, case: Case) -> Array:
    x = rng.integers(-128, 128, (5, case.steps, case.inputs))
    x[2], x[3] = -128, 127
    x[4] = np.where(x[4] < 0, -128, 127)
    return x.astype(np.int8)
