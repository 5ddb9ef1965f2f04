"""The quantisation rule of LSTM and GRU: accuracy against float, scales, k, overflow proofs, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from projgen.errors import InputError, UnsupportedError
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node, Port, Stage, Value
from projgen.ir.types import TIME, DType, Quant, TensorType
from projgen.ops import recurrent
from projgen.ops.record import Array
from projgen.quant.recurrent import (
    Operand,
    absorb_k,
    cell_fraction,
    choose_k,
    factor,
    joint_factor,
    reach,
    refuse_overflow,
)
from projgen.quant.scope import Quantised, QuantScope, Stats

Cell = type[Lstm] | type[Gru]


def stats(v: Array) -> Stats:
    real = np.asarray(v, np.float64)
    return Stats(float(real.min()), float(real.max()), float((real**2).sum(-1).mean()))


def float_layer(
    cell: Cell,
    d: int = 6,
    hidden: int = 10,
    ranks: tuple[int | None, int | None] = (None, None),
    *,
    gain: float = 1.0,
    x_gain: float = 1.0,
    state: bool = False,
    joint: bool = False,
) -> tuple[Graph, dict[str, Array]]:
    """A float one-layer graph with random weights, and its arguments with 4 random sequences of 30 steps."""
    rng = np.random.default_rng(3)
    rows = (4 if cell is Lstm else 3) * hidden
    args: dict[str, Array] = {"x": x_gain * (rng.normal(size=(4, 30, d)) + 0.3)}
    r_in, r_out = ranks
    if r_in is not None:
        args["q_in"] = rng.normal(size=(d, r_in)) / d**0.5
    if r_out is not None:
        args["q_out"] = rng.normal(size=(hidden, r_out)) / hidden**0.5
    args["w"] = gain * rng.normal(size=(rows, r_in or d)) / (r_in or d) ** 0.5
    args["r"] = gain * rng.normal(size=(rows, r_out or hidden)) / (r_out or hidden) ** 0.5
    args["b"] = 0.3 * rng.normal(size=rows)
    if cell is Gru:
        args["b_hn"] = 0.3 * rng.normal(size=hidden)
    if state:
        args["h0"] = rng.uniform(-1, 1, hidden)
        if cell is Lstm:
            args["c0"] = rng.normal(size=hidden)
    flags = (r_in is not None, r_out is not None, state)
    attrs = Lstm(hidden, *flags, joint=joint) if cell is Lstm else Gru(hidden, *flags)
    if joint:
        del args["r"]
    name = cell.__name__.lower()
    node = Node("cell", name, {role: f"p.{role}" if role != "x" else "x" for role in args}, "y", attrs, "net.rnn")
    values = {f"p.{role}": Value(f"p.{role}", TensorType(a.shape), a) for role, a in args.items() if role != "x"}
    values |= {"x": Value("x", TensorType((TIME, d))), "y": Value("y", TensorType((TIME, hidden)))}
    ports = (Port("x", "x", (0, 1)),), (Port("y", "y", (0, 1)),)
    return Graph("g", Stage.FLOAT, *ports, (node,), values), args


def scope_of(graph: Graph, args: dict[str, Array]) -> QuantScope:
    attrs = graph.nodes[0].attrs
    traces = recurrent.reference_traces(attrs, args)
    x = np.asarray(args["x"], np.float64)
    scale = (x.max() - x.min()) / 255
    quant = Quant(float(scale), int(np.rint(-128 - x.min() / scale)))
    types = {"x": TensorType((TIME, x.shape[2]), DType.INT8, quant)}
    return QuantScope(graph, types, {"x": stats(x)}, {"cell": {role: stats(v) for role, v in traces.items()}})


def quantised(graph: Graph, args: dict[str, Array]) -> tuple[Quantised, Array, Array]:
    """The rule's result, the integer output and the float output in LSB."""
    op = recurrent.LSTM if isinstance(graph.nodes[0].attrs, Lstm) else recurrent.GRU
    scope = scope_of(graph, args)
    result = op.quantise(scope, graph.nodes[0])
    (node,) = result.nodes
    quant = scope.types["x"].quant
    x = np.clip(np.rint(args["x"] / quant.scale) + quant.zero_point, -128, 127)
    constants = {v.name: v.data for v in result.values}
    ints = {role: constants[name] for role, name in node.inputs.items() if role != "x"} | {"x": x}
    types = {role: TensorType(a.shape, DType.INT8) for role, a in ints.items()} | {"x": scope.types["x"]}
    assert op.infer(node.attrs, types).shape == (TIME, node.attrs.hidden)
    return result, op.integer(node, ints), 128 * op.reference(graph.nodes[0].attrs, args)


CASES = [
    (cell, ranks, state)
    for cell in (Lstm, Gru)
    for ranks in ((None, None), (4, 5), (4, None), (None, 5))
    for state in (False, True)
]


@pytest.mark.parametrize(("cell", "ranks", "state"), CASES)
def test_integers_follow_the_floats(cell: Cell, ranks: tuple[int | None, int | None], state: bool) -> None:
    result, y, want = quantised(*float_layer(cell, ranks=ranks, state=state))
    noise = np.sqrt(np.mean((y - want) ** 2) / np.mean(want**2))
    assert noise < 0.025  # 32 dB
    for value in result.values:
        assert value.data.dtype == value.type.dtype.value
        assert "x" not in value.name.split(".")
    m = next(v.data for v in result.values if v.name == "cell.m")
    assert (m % 4 == 0).all() and (m > 0).all()


@pytest.mark.parametrize("x_gain", [0.02, 1.0, 20.0])
def test_a_joint_layer_follows_the_floats(x_gain: float) -> None:
    """One z whose products k weighs, its scale by the 13-bit rule, its bound proven."""
    graph, args = float_layer(Lstm, ranks=(5, 5), x_gain=x_gain, joint=True)
    args["q_in"] /= x_gain
    graph = graph.with_(values=[Value("p.q_in", TensorType(args["q_in"].shape), args["q_in"])])
    result, y, want = quantised(graph, args)
    assert np.sqrt(np.mean((y - want) ** 2) / np.mean(want**2)) < 0.025
    (node,) = result.nodes
    n = node.numerics
    assert set(node.inputs) == {"x", "w", "b", "m", "q_in", "q_out", "b_in", "m_in"}
    assert n.input_low_rank is None and n.recurrent_low_rank is None
    peak = np.abs(recurrent.reference_traces(graph.nodes[0].attrs, args)["z"]).max() * 2.0**n.joint_low_rank.exponent
    assert 2047 < peak <= 4095
    ints = {v.name.removeprefix("cell."): v.data.astype(np.int64) for v in result.values}
    shifts = 2 ** max(n.k, 0), 2 ** max(-n.k, 0)
    zero = scope_of(graph, args).types["x"].quant.zero_point
    assert (ints["b_in"] == -zero * ints["q_in"].sum(1) * shifts[0]).all()
    assert max(np.abs(ints["q_in"]).max(), np.abs(ints["q_out"]).max()) == 127
    far = shifts[0] * np.abs(ints["q_in"]).sum(1) + shifts[1] * np.abs(ints["q_out"]).sum(1)
    largest = ((far * 128 + np.abs(ints["b_in"])) * ints["m_in"] * 2**n.joint_low_rank.shift + 2**31) >> 32
    assert n.joint_low_rank.bound == min(largest.max(), 2**15)


def test_k_weighs_the_products_of_a_joint_factor() -> None:
    found = []
    for gain in (0.01, 1.0, 30.0):
        result, *_ = quantised(*float_layer(Lstm, ranks=(5, 5), x_gain=gain, joint=True))
        found.append(result.nodes[0].numerics.k)
    assert found[0] < 0 < found[2] and found == sorted(found)


def test_a_joint_factor_that_could_overflow_is_refused() -> None:
    x = Operand(np.full((2, 70000), 1.0), 2.0**-7, 1.0, False)
    h = Operand(np.full((2, 70000), 1.0), 2.0**-7, 1.0, False)
    with pytest.raises(InputError, match=r"accumulator of row 0 can reach .* 32 bits do not hold.*layer rnn"):
        joint_factor(x, h, 3, 2.0**-3, "layer rnn")


def test_k_balances_the_operands() -> None:
    """Large inputs against |h| < 1: x needs the coarser weights."""
    small, *_ = quantised(*float_layer(Lstm, x_gain=0.01))
    large, *_ = quantised(*float_layer(Lstm, x_gain=30.0))
    assert small.nodes[0].numerics.k < 0 < large.nodes[0].numerics.k
    projected, *_ = quantised(*float_layer(Lstm, ranks=(4, 5), x_gain=30.0))
    assert projected.nodes[0].numerics.k == 0


def test_a_low_rank_side_takes_the_shift() -> None:
    x = Operand(np.ones((4, 2)), 0.5, 1.0, False)
    h = Operand(np.ones((4, 2)), 2.0**-12, 1.0, True)
    _, wider, k = absorb_k(x, h, 3)
    assert (wider.scale, k) == (2.0**-9, 0)
    assert absorb_k(x, h, -2)[2] == -2
    z = dataclasses.replace(x, low_rank=True)
    assert absorb_k(z, h, -2)[0].scale == 2.0
    assert choose_k(dataclasses.replace(x, low_rank=True), dataclasses.replace(h, low_rank=False), np.zeros(4)) <= 3


def test_equal_operands_need_no_shift() -> None:
    rng = np.random.default_rng(0)
    side = Operand(rng.uniform(-1, 1, (8, 4)), 2.0**-7, 1.0, False)
    assert choose_k(side, side, np.zeros(8)) == 0


@pytest.mark.parametrize(("peak", "bits"), [(0.0, 12), (0.3, 12), (8.0, 12), (8.1, 11), (164.0, 7), (1e6, 4)])
def test_cell_fraction(peak: float, bits: int) -> None:
    assert cell_fraction(peak) == bits


def test_overflow_is_proven_at_the_bound() -> None:
    """All weights +-127 over int8 operands: 2^31 - 1 passes, 2^31 is refused with the row and the layer."""
    w, wide = np.full((2, 3), 127), np.full(3, 128)
    r, high = np.full((2, 5), -127), np.full(5, 128)
    products = 127 * 128 * (3 * 4 + 5)
    bias = np.array([0, 2**31 - 1 - products])
    largest = reach(w, wide, r, high, bias, 2)
    assert largest.tolist() == [products, 2**31 - 1]
    refuse_overflow(largest, "layer rnn")
    with pytest.raises(InputError, match=r"accumulator of row 1 can reach 2147483648.*2147483647.*layer rnn"):
        refuse_overflow(reach(w, wide, r, high, -bias - [0, 1], 2), "layer rnn")


def test_overflowing_layer_is_refused_by_name() -> None:
    graph, args = float_layer(Lstm)
    huge = dict(args, r=np.where(np.arange(40)[:, None] == 7, 300.0, args["r"]), b=args["b"] + 0)
    huge["b"][3], huge["w"][3], huge["r"][3] = 50.0, 0.0, 0.0
    values = {f"p.{role}": Value(f"p.{role}", TensorType(a.shape), a) for role, a in huge.items() if role != "x"}
    graph = graph.with_(values=values.values())
    with pytest.raises(InputError, match=r"accumulator of row 3 can reach .* 32 bits do not hold.*layer net\.rnn"):
        quantised(graph, huge)


def test_tiny_rows_keep_their_bias() -> None:
    graph, args = float_layer(Lstm)
    args["w"][2], args["r"][2], args["b"][2] = 1e-20, 0.0, 10.0
    result, y, want = quantised(graph, args)
    b = next(v.data for v in result.values if v.name == "cell.b")
    assert int(b[2]) == 10 * 2**24
    assert np.abs(y - want)[..., 2].max() < 6


def test_zero_factor() -> None:
    f = factor(np.zeros((2, 3)), 0.1, 5, 2.0**-12, "layer")
    assert not f.q.any() and not f.b.any() and f.low_rank.exponent == 12 and not f.bounds.any()


def test_refusals() -> None:
    graph, args = float_layer(Gru, state=True)
    bad = dict(args, h0=args["h0"] + 1.5)
    with pytest.raises(InputError, match=r"initial state of layer net\.rnn reaches 2\.\d+.*between -1 and 1"):
        quantised(graph.with_(values=[Value("p.h0", TensorType((10,)), bad["h0"])]), bad)
    nan = np.array(args["w"])
    nan[0, 0] = np.nan
    with pytest.raises(InputError, match=r"w of layer net\.rnn holds NaN"):
        quantised(graph.with_(values=[Value("p.w", TensorType(nan.shape), nan)]), args)
    scope = scope_of(graph, args)
    wide = dataclasses.replace(scope, types={"x": TensorType((TIME, 6), DType.INT16, Quant(0.1))})
    with pytest.raises(UnsupportedError, match=r"input of layer net\.rnn is int16.*int8"):
        recurrent.GRU.quantise(wide, graph.nodes[0])
