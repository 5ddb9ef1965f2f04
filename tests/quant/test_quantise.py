"""From a float graph to integers: types, operators' rules, agreement with the float model."""

from __future__ import annotations

import numpy as np
import pytest

from projgen.errors import UnsupportedError
from projgen.ir import attrs as A
from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_float
from projgen.ir.types import TIME, DType, Quant
from projgen.quant.calibrate import calibrate
from projgen.quant.model import QuantizedModel
from projgen.quant.quantise import quantise
from tests.quant.build import Builder, normal


def quantised(graph: Graph, *x: np.ndarray) -> QuantizedModel:
    return QuantizedModel(quantise(graph, calibrate(graph, [x])))


def error_in_steps(graph: Graph, *x: np.ndarray) -> float:
    """Largest difference to the float graph, in units of the output."""
    model = quantised(graph, *x)
    t = model.graph.type(graph.outputs[0].value)
    assert t.quant is not None
    return float(np.abs(model(*x) - run_float(graph, x)[0]).max() / t.quant.scale)


def one(op: str, attrs: A.Attrs, shape: tuple[int | str, ...], **constants: np.ndarray) -> Graph:
    net = Builder(x=shape)  # type: ignore[arg-type]
    roles = {"a": "x"} if op in ("add", "mul") else {"x0": "x"} if op == "concat" else {"x": "x"}
    net.add(op, "y", attrs, **roles, **constants)
    return net.graph("y")


@pytest.mark.parametrize(
    ("graph", "steps"),
    [
        (one("linear", A.Linear("relu"), (20,), w=normal(8, 20), b=normal(8)), 4),
        (one("conv2d", A.Conv2d(padding=(1, 1, 1, 1)), (6, 6, 3), w=normal(4, 3, 3, 3), b=normal(4)), 4),
        (one("conv2d", A.Conv2d((2, 2), groups=6), (6, 6, 6), w=normal(6, 3, 3, 1)), 4),
        (one("unary", A.Unary("relu"), (40,)), 1.6),
        (one("unary", A.Unary("relu6"), (40,)), 1.6),
        (one("unary", A.Unary("clip", -0.5, 1.0), (40,)), 4),
        (one("unary", A.Unary("sigmoid"), (40,)), 2),
        (one("unary", A.Unary("tanh"), (TIME, 4)), 3.2),
        (one("add", A.Add(), (3, 4), b=normal(1, 4, seed=2)), 1.5),
        (one("mul", A.Mul("relu"), (3, 4), b=normal(3, 4, seed=2)), 3),
        (one("max_pool2d", A.MaxPool2d((2, 2), (2, 2)), (4, 4, 3)), 0.51),
        (one("avg_pool2d", A.AvgPool2d((2, 2), (1, 1), (1, 0, 1, 0), False), (4, 4, 3)), 1.3),
        (one("mean_time", A.MeanTime(), (TIME, 5)), 2.5),
        (one("softmax", A.Softmax(), (10,)), 4),
        (one("pad", A.Pad(((0, 0), (2, 1))), (3, 4)), 0.51),
        (one("pad", A.Pad(((0, 0), (2, 1)), 9.0), (3, 4)), 1.51),
        (one("slice", A.Slice(1, 1, 4, 2), (3, 6)), 0.51),
        (one("select", A.Select(0, -1), (TIME, 6)), 0.51),
        (one("reshape", A.Reshape((6, 2)), (12,)), 0.51),
        (one("transpose", A.Transpose((1, 0)), (3, 5)), 0.51),
        (one("concat", A.Concat(1), (3, 5), x1=normal(3, 2, seed=4, scale=9)), 1.51),
    ],
    ids=lambda v: v.nodes[0].op if isinstance(v, Graph) else str(v),
)
def test_each_operator_agrees_with_its_float_meaning(graph: Graph, steps: float) -> None:
    shape = [7 if d == TIME else d for d in graph.type("x").shape]
    assert error_in_steps(graph, normal(30, *shape, seed=11)) <= steps


def test_relu6_saturates_at_six() -> None:
    graph = one("linear", A.Linear("relu6"), (4,), w=normal(3, 4, scale=9))
    x = normal(50, 4, seed=1)
    assert error_in_steps(graph, x) <= 12
    assert quantised(graph, x)(x * 100).max() == pytest.approx(6.0, abs=0.02)


def test_fixed_maps() -> None:
    x = normal(20, 6)
    assert quantised(one("softmax", A.Softmax(), (6,)), x).graph.type("y").quant == Quant(2.0**-8, -128)
    assert quantised(one("unary", A.Unary("sigmoid"), (6,)), x).graph.type("y").quant == Quant(2.0**-8, -128)
    assert quantised(one("unary", A.Unary("tanh"), (6,)), x).graph.type("y").quant == Quant(2.0**-7, 0)


def branches(*, shared: bool) -> Graph:
    net = Builder(x=(2, 3, 4))
    net.add("conv2d", "a", A.Conv2d(), x="x", w=normal(3, 1, 1, 4, scale=0.1))
    net.add("conv2d", "b", A.Conv2d(), x="x", w=normal(5, 1, 1, 4, seed=1, scale=5))
    net.add("concat", "y", A.Concat(2), x0="a", x1="b")
    if not shared:
        return net.graph("y")
    net.add("unary", "u", A.Unary("relu"), x="a")
    return net.graph("y", "u")


def test_concat_gives_its_map_to_inputs_that_nothing_else_reads() -> None:
    x = normal(10, 2, 3, 4, seed=5)
    alone = quantised(branches(shared=False), x).graph
    assert [n.op for n in alone.nodes] == ["conv2d", "conv2d", "concat"]
    assert alone.type("a").quant == alone.type("b").quant == alone.type("y").quant


def test_concat_rescales_an_input_that_others_read() -> None:
    x = normal(10, 2, 3, 4, seed=5)
    shared = quantised(branches(shared=True), x).graph
    assert [n.op for n in shared.nodes] == ["conv2d", "conv2d", "lut", "concat", "lut"]
    assert shared.type("a").quant != shared.type("y").quant
    rescaled = shared.nodes[2]
    assert rescaled.attrs == A.Lut("rescale")
    assert shared.type(rescaled.output).quant == shared.type("y").quant


def test_constants_of_the_result_are_integers() -> None:
    x = normal(10, 2, 3, 4, seed=5)
    for value in quantised(branches(shared=True), x).graph.values.values():
        assert value.type.dtype is not DType.FLOAT32
        assert value.data is None or value.data.dtype.kind == "i"


def test_batch_norm_has_no_integer_form() -> None:
    ones = np.ones(4, np.float32)
    graph = one("batch_norm", A.BatchNorm(1e-5), (4,), mean=ones, variance=ones, gamma=ones, beta=ones)
    with pytest.raises(UnsupportedError, match=r"net\.y: operator 'batch_norm' has no integer form") as caught:
        quantised(graph, normal(5, 4))
    assert "linear" in caught.value.allowed
    assert "batch_norm" not in caught.value.allowed


def test_a_row_that_could_overflow_is_refused_by_name() -> None:
    """133,000 weights of one size on one output, 127 * 128 * 133,000 > 2^31, that cancel on the calibration data."""
    w = np.full((1, 133_000), 0.01, np.float32)
    w[:, ::2] *= -1
    graph = one("linear", A.Linear(), (133_000,), w=w)
    with pytest.raises(UnsupportedError, match="n_y: the int32 accumulator of output 0 could reach"):
        quantised(graph, 1 + normal(3, 133_000, scale=0.01))


def test_an_output_that_stays_at_zero_is_quantised() -> None:
    graph = one("linear", A.Linear("relu"), (4,), w=normal(3, 4), b=np.full(3, -100, np.float32))
    assert error_in_steps(graph, normal(20, 4)) == 0
