"""What calibration records, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from projgen.errors import InputError
from projgen.ir.attrs import Linear, Lstm, Select, Unary
from projgen.ir.graph import Port
from projgen.ir.interpreter import run_float
from projgen.ir.types import TIME
from projgen.quant.calibrate import calibrate
from tests.quant.build import Builder, normal


def perceptron() -> Builder:
    net = Builder(x=(5,))
    net.add("linear", "h", Linear("relu"), x="x", w=normal(7, 5), b=normal(7, seed=1))
    net.add("linear", "y", Linear(), x="h", w=normal(2, 7, seed=2))
    return net


def test_extremes_and_energy_over_batches() -> None:
    graph = perceptron().graph("h", "y")
    x = normal(50, 5, seed=3)
    seen = calibrate(graph, [(x[:20],), (x[20:21],), (x[21:],)])
    h, y = run_float(graph, (x,))
    assert seen.samples == 50
    for name, value in (("x", x), ("h", h), ("y", y)):
        stats = seen.stats[name]
        assert (stats.minimum, stats.maximum) == pytest.approx((value.min(), value.max()), rel=1e-6)
        assert stats.energy == pytest.approx((value.astype(np.float64) ** 2).sum(axis=1).mean(), rel=1e-6)


def test_sequences_of_several_lengths_and_the_inside_of_an_lstm() -> None:
    net = Builder(x=(TIME, 3))
    weights = {"w": normal(16, 3), "r": normal(16, 4, seed=1), "b": normal(16, seed=2)}
    net.add("lstm", "h", Lstm(4), x="x", **weights)
    net.add("select", "y", Select(0, -1), x="h")
    graph = net.graph("h", "y")
    batches = [(normal(2, 7, 3, seed=3),), (normal(5, 4, 3, seed=4),)]
    seen = calibrate(graph, batches)
    states = [run_float(graph, b)[0] for b in batches]
    assert seen.stats["h"].maximum == pytest.approx(max(s.max() for s in states), rel=1e-6)
    steps = 2 * 7 + 5 * 4
    assert seen.stats["x"].energy == pytest.approx(sum((b[0] ** 2).sum() for b in batches) / steps, rel=1e-5)
    inner = seen.inner["n_h"]
    assert {"h", "c"} <= set(inner)
    assert inner["h"].energy == pytest.approx(sum((s[:, :-1] ** 2).sum() for s in states) / steps, rel=1e-5)
    assert inner["c"].peak > inner["h"].peak


def test_user_layout_is_permuted() -> None:
    net = Builder(x=(4, 6, 3))
    net.add("unary", "y", Unary("relu"), x="x")
    graph = net.graph("y", inputs=(Port("x", "image", (1, 2, 0)),))
    assert calibrate(graph, [(normal(2, 3, 4, 6),)]).samples == 2
    with pytest.raises(InputError, match=r"input 'image' has shape \(2, 6, 3, 4\)"):
        calibrate(graph, [(normal(2, 4, 6, 3),)])


def with_value(value: float) -> np.ndarray:
    x = normal(4, 5)
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "the calibration data holds no sample"),
        ([(normal(3, 5),), (with_value(np.nan),)], "batch 1: input 'x' holds NaN"),
        ([(with_value(np.inf),)], "batch 0: input 'x' holds an infinity"),
        ([(normal(3, 5), normal(3, 5))], "batch 0 has 2 inputs"),
        ([(normal(3, 6),)], "input 'x' has shape (3, 6)"),
        ([(normal(5),)], "batch 0: input 'x' has shape (5,)"),
        ([(np.zeros((0, 5), np.float32),)], "at least one value"),
        ([(np.array([["a"] * 5]),)], "batch 0: input 'x' holds <U1"),
    ],
)
def test_refusals(batches: list[tuple[np.ndarray, ...]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        calibrate(perceptron().graph("y"), batches)
    assert message in str(caught.value)


def test_an_overflow_inside_the_model_names_the_layer() -> None:
    net = Builder(x=(1,))
    net.add("linear", "h", Linear(), x="x", w=np.full((1, 1), 3e38, np.float32))
    with pytest.raises(InputError, match=r"batch 0: the output of net\.h \(linear\) holds an infinity"):
        calibrate(net.graph("h"), [(np.full((1, 1), 10, np.float32),)])
