"""Running graphs: both stages, sequences of any length, what is kept alive, and refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from projgen import ops
from projgen.errors import InputError
from projgen.ir.attrs import Add, Linear, Select, Unary
from projgen.ir.graph import Graph, Port
from projgen.ir.interpreter import run_float, run_integer, trace_float, trace_integer
from projgen.ir.types import TIME
from projgen.ops.linear import samples
from projgen.quant.calibrate import calibrate
from projgen.quant.quantise import quantise
from tests.quant.build import Builder, normal


def sequence() -> Graph:
    net = Builder(x=(TIME, 3), start=(TIME, 4))
    net.add("linear", "a", Linear(), x="x", w=normal(4, 3), b=normal(4, seed=1))
    net.add("add", "s", Add(), a="a", b="start")
    net.add("unary", "t", Unary("tanh"), x="s")
    net.add("select", "y", Select(0, -1), x="t")
    return net.graph("y", "s", "x")


def test_float_stage_in_both_precisions() -> None:
    graph = sequence()
    x, start = normal(5, 8, 3, seed=2), normal(5, 8, 4, seed=3)
    w, b = graph.constant("a.w"), graph.constant("a.b")
    single = run_float(graph, (x, start))
    double = run_float(graph, (x.astype(np.float64), start.astype(np.float64)))
    s = x.astype(np.float64) @ w.T.astype(np.float64) + b + start
    np.testing.assert_allclose(double[0], np.tanh(s[:, -1]), rtol=1e-12)
    np.testing.assert_allclose(double[1], s, rtol=1e-12)
    assert [y.dtype for y in double] == [np.float64] * 3
    assert [y.dtype for y in single] == [np.float32] * 3
    np.testing.assert_allclose(single[0], double[0], rtol=1e-5)
    assert single[2] is not None
    np.testing.assert_array_equal(single[2], x)


@pytest.mark.parametrize("steps", [1, 2, 13])
def test_integer_stage_takes_any_length(steps: int) -> None:
    graph = sequence()
    quantised = quantise(graph, calibrate(graph, [(normal(20, 9, 3), normal(20, 9, 4, seed=1))]))
    x, start = (np.random.default_rng(k).integers(-128, 128, (6, steps, 3 + k)).astype(np.int8) for k in (0, 1))
    y, s, same = run_integer(quantised, (x, start))
    assert (y.shape, s.shape) == ((6, 4), (6, steps, 4))
    assert {a.dtype for a in (y, s, same)} == {np.dtype(np.int8)}
    np.testing.assert_array_equal(same, x)
    alone = [run_integer(quantised, (x[i : i + 1], start[i : i + 1]))[0][0] for i in range(6)]
    np.testing.assert_array_equal(y, alone)


def test_the_trace_gives_every_node_in_order() -> None:
    graph = sequence()
    seen = [(node.name, sorted(args)) for node, args, _ in trace_float(graph, (normal(2, 3, 3), normal(2, 3, 4)))]
    assert seen == [("n_a", ["b", "w", "x"]), ("n_s", ["a", "b"]), ("n_t", ["x"]), ("n_y", ["x"])]


def test_an_output_outside_its_type_is_a_fault_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = next(iter(samples()))
    record = ops.get("linear")
    broken = {**ops.registry(), "linear": replace(record, integer=lambda _, args: args["x"].astype(np.int64) * 2)}
    monkeypatch.setattr(ops, "registry", lambda: broken)
    with pytest.raises(ValueError, match=r"node 'linear_1x1': integers -256\.\.\d+ leave int8"):
        run_integer(sample.graph, sample.inputs)


def test_stages_are_not_mixed_up() -> None:
    sample = next(iter(samples()))
    with pytest.raises(ValueError, match="is at stage quantised, not float"):
        run_float(sample.graph, sample.inputs)
    with pytest.raises(ValueError, match="is at stage float, not quantised"):
        list(trace_integer(sequence(), (normal(1, 1, 3), normal(1, 1, 4))))


@pytest.mark.parametrize(
    ("x", "start", "message"),
    [
        (normal(2, 3, 5), normal(2, 3, 4), "input 'x' has shape (2, 3, 5). Allowed: N x T x 3."),
        (normal(2, 0, 3), normal(2, 0, 4), "input 'x' has shape (2, 0, 3)"),
        (normal(2, 3, 3), normal(1, 3, 4), "the inputs have batches of [1, 2]"),
        (normal(2, 3, 3), normal(2, 4, 4), "the inputs have [3, 4] time steps"),
        (np.full((2, 3, 3), "a"), normal(2, 3, 4), "input 'x' holds <U1"),
    ],
)
def test_inputs_that_do_not_fit(x: np.ndarray, start: np.ndarray, message: str) -> None:
    with pytest.raises(InputError) as caught:
        run_float(sequence(), (x, start))
    assert message in str(caught.value)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InputError, match=r"1 inputs were given\. Allowed: 2: x, start"):
        run_float(sequence(), (normal(2, 3, 3),))


def test_integers_beyond_the_type_are_refused() -> None:
    sample = next(iter(samples()))
    for x, message in ((np.full((1, 1), 128), r"holds 128\.\.128"), (np.zeros((1, 1)), "holds float64")):
        with pytest.raises(InputError, match=message):
            run_integer(sample.graph, (x,))


def test_ports_permute_there_and_back() -> None:
    x = normal(2, 3, 4, 5)
    port = Port("x", "x", (2, 0, 1))
    assert port.to_ir(x).shape == (2, 5, 3, 4)
    np.testing.assert_array_equal(port.to_user(port.to_ir(x)), x)
