"""Rows of integers: what they stand for, and the proof that no accumulator overflows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.errors import UnsupportedError
from projgen.ir.attrs import Conv2d, Linear
from projgen.ir.graph import Graph, Node, Port, Stage, Value
from projgen.ir.interpreter import run_integer
from projgen.ir.numerics import MatrixNumerics, Requant
from projgen.ir.types import DType, Quant, TensorType
from projgen.ops.common import constant_type
from projgen.quant.fixed import real_scale
from projgen.quant.matrix import peak_of, prove_rows, quantise_rows
from projgen.quant.quantise import prove

X = TensorType((4,), DType.INT8, Quant(0.05, 7))
Y = TensorType((2,), DType.INT8, Quant(0.1, -3))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-4, 4), min_size=4, max_size=4),
    st.floats(-10, 10),
    st.sampled_from([1.0, 1e-3, 1e-16, 0.0]),
)
def test_rows_stand_for_the_real_ones(row: list[float], bias: float, size: float) -> None:
    """In units of the accumulator: each weight within half a unit; the bias within half of its own."""
    w = np.array([row, [1.0, 2.0, 3.0, 4.0]]) * np.array([[size], [1.0]])
    b = np.array([bias, 0.5])
    rows = quantise_rows("fc", w, b, X, Y)
    acc = real_scale(rows.m, rows.shift) * 0.1
    assert (rows.m % 4 == 0).all()
    assert (rows.m >= 2**19).all()
    assert np.abs(rows.w).max() <= 127
    error = np.abs(rows.w - w * 0.05 / acc[:, None])
    assert error.max() <= 0.5 + 1e-4
    real_bias = (rows.b + 7 * rows.w.astype(np.int64).sum(axis=1)) * acc
    assert np.abs(real_bias - b).max() <= acc.max() * 0.51 + np.abs(b).max() * 1e-5


def test_tiny_weights_keep_a_large_bias() -> None:
    rows = quantise_rows("fc", np.full((1, 4), 1e-16), [1e-3], X, Y)
    assert (rows.w == 0).all()
    assert abs(float(rows.b[0] * real_scale(rows.m, rows.shift)[0]) - 0.01) <= 2**-13


def test_parameters_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="fc: a weight or bias is NaN or infinite"):
        quantise_rows("fc", [[1.0, np.nan]], None, X, Y)


def node_graph(w: np.ndarray, b: np.ndarray, shift: int = 0, *, conv: bool = False, wide: bool = False) -> Graph:
    """A quantised linear (or 1x1 convolution) node with these very integers."""
    k = w.shape[1]
    x = TensorType((1, 1, k) if conv else (k,), DType.INT16 if wide else DType.INT8, Quant(0.5, 0))
    y = TensorType((1, 1, len(w)) if conv else (len(w),), DType.INT8, Quant(0.5, 0))
    weights = w.astype(np.int8)[:, None, None] if conv else w.astype(np.int8)
    data = {"w": weights, "b": b.astype(np.int32), "m": np.full(len(w), 4, np.int32)}
    numerics = MatrixNumerics(0, Requant(shift, 0, -128, 127))
    attrs = Conv2d() if conv else Linear()
    inputs = {r: r for r in ("x", *data)}
    node = Node("big_layer", "conv2d" if conv else "linear", inputs, "y", attrs, numerics=numerics)
    values = {"x": Value("x", x), "y": Value("y", y)} | {r: Value(r, constant_type(d), d) for r, d in data.items()}
    ports = (Port("x", "x", tuple(range(len(x.shape)))),), (Port("y", "y", tuple(range(len(y.shape)))),)
    return Graph("g", Stage.QUANTISED, *ports, (node,), values)


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv2d"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("shift", [0, 3])
def test_all_extreme_weights_pass_one_below_the_bound_and_are_refused_at_it(conv: bool, sign: int, shift: int) -> None:
    """Weights of +-127 on K inputs of magnitude 128, the bias filling what is left of 2^31."""
    k = 1000
    w = np.full((2, k), sign * 127)
    w[0] = 1
    room = 2 ** (31 - shift) - 127 * 128 * k
    fits = node_graph(w, np.array([0, -(room - 1)]), shift, conv=conv)
    prove(fits)
    run_integer(fits, (np.full((1, *fits.type("x").shape), -128, np.int8),))
    over = node_graph(w, np.array([0, -room]), shift, conv=conv)
    with pytest.raises(UnsupportedError) as caught:
        prove(over)
    assert "big_layer: the int32 accumulator of output 1 could reach 2147483648" in str(caught.value)
    assert "at most 2147483647" in caught.value.allowed


def test_the_bound_is_reached_by_an_input() -> None:
    """The proof is tight: an int8 input gives the accumulator that it allows, to the last unit."""
    k, room = 1000, 2**31 - 127 * 128 * 1000
    w = np.full((1, k), 127)
    graph = node_graph(w, np.array([-(room - 1)]))
    acc = int(w.sum()) * -128 - (room - 1)
    assert acc == -(2**31) + 1
    run_integer(graph, (np.full((1, k), -128, np.int8),))


def test_an_int16_input_is_bounded_by_its_type_or_by_the_rows_that_make_it() -> None:
    alone = node_graph(np.full((1, 4), 127), np.zeros(1), wide=True)
    assert peak_of(alone, "x") == 32768
    first = node_graph(np.full((3, 10), 100), np.array([5, -7, 0]))
    numerics = MatrixNumerics(0, Requant(1, 0, -32768, 32767))
    m = np.array([2**28, 2**29, 2**27], np.int32)
    wide = TensorType((3,), DType.INT16, Quant(0.5, 0))
    made = first.with_(
        nodes=[replace(first.nodes[0], numerics=numerics)], values=[Value("y", wide), Value("m", constant_type(m), m)]
    )
    bound = 2 * (100 * 10 * 128 + 7)
    assert peak_of(made, "y") == (bound * 2**29 + 2**31) >> 32
    worst = max(
        abs(int(run_integer(made, (np.full((1, 10), v, np.int8),))[0][0, n])) for v in (-128, 127) for n in range(3)
    )
    assert peak_of(made, "y") - 2 <= worst <= peak_of(made, "y")


def test_the_row_is_named() -> None:
    with pytest.raises(UnsupportedError, match="conv3: the int32 accumulator of output 2"):
        prove_rows("conv3", np.array([[1], [2], [127]]), np.array([0, 0, 2**31 - 1]), 128, 0)


@pytest.mark.parametrize("m", [6, -4])
def test_multipliers_are_checked_too(m: int) -> None:
    graph = node_graph(np.ones((1, 4), np.int64), np.zeros(1))
    with pytest.raises(ValueError, match="'big_layer' has multipliers that are negative or no multiples of 4"):
        prove(graph.with_(values=[Value("m", graph.type("m"), np.array([m], np.int32))]))
