"""Which values are intermediates of low-rank pairs, and what that is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from projgen.ir.attrs import Activation, Conv2d, ConvTranspose2d, Linear, Unary
from projgen.ir.graph import Array, Graph, Value
from projgen.ir.interpreter import run_float
from projgen.ir.types import DType
from projgen.quant.calibrate import calibrate
from projgen.quant.low_rank import find_low_rank
from projgen.quant.model import QuantizedModel
from projgen.quant.quantise import quantise
from tests.quant.build import Builder, normal


def pair(k: int, r: int, n: int, activation: Activation = "none", bias: Array | None = None) -> Graph:
    net = Builder(x=(k,))
    first = {"b": bias} if bias is not None else {}
    net.add("linear", "z", Linear(activation), x="x", w=normal(r, k), **first)
    net.add("linear", "y", Linear(), x="z", w=normal(n, r, seed=1), b=normal(n, seed=2))
    return net.graph("y")


def triple(
    c: int,
    r_in: int,
    r_out: int,
    o: int,
    kernel: tuple[int, int] = (3, 3),
    groups: int = 1,
    biases: tuple[float, float] = (0, 0),
) -> Graph:
    net = Builder(x=(6, 6, c))
    b1, b2 = np.full(r_in, biases[0], np.float32), np.full(r_out, biases[1], np.float32)
    net.add("conv2d", "z1", Conv2d(), x="x", w=normal(r_in, 1, 1, c), b=b1)
    net.add("conv2d", "z2", Conv2d(groups=groups), x="z1", w=normal(r_out, *kernel, r_in // groups, seed=1), b=b2)
    net.add("conv2d", "y", Conv2d(), x="z2", w=normal(o, 1, 1, r_out, seed=2), b=normal(o, seed=3))
    return net.graph("y")


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        (pair(12, 4, 9), {"z"}),
        (pair(12, 4, 9, bias=np.zeros(4, np.float32)), {"z"}),
        (pair(12, 4, 9, bias=np.full(4, 0.1, np.float32)), set()),
        (pair(12, 4, 9, "relu"), set()),
        (pair(12, 12, 20), set()),
        (pair(12, 9, 9), {"z"}),
        (pair(12, 11, 4), {"z"}),  # a projector that the layer after an RNN shares
        (pair(12, 12, 4), set()),
        (triple(16, 4, 6, 16), {"z1", "z2"}),
        (triple(16, 4, 3, 16), {"z1", "z2"}),
        (triple(4, 4, 6, 16), {"z2"}),
        (triple(16, 4, 16, 16), {"z1"}),
        (triple(16, 4, 8, 16, (1, 1)), {"z1"}),
        (triple(16, 4, 4, 16, groups=4), set()),
        (triple(16, 4, 6, 16, biases=(0, 0.3)), {"z1", "z2"}),
        (triple(16, 4, 6, 16, biases=(0.3, 0)), {"z2"}),
        (triple(16, 6, 4, 16, (1, 1), biases=(0, 0.3)), set()),
    ],
)
def test_found(graph: Graph, found: set[str]) -> None:
    assert find_low_rank(graph) == found


def test_a_transposed_convolution_between_projectors() -> None:
    net = Builder(x=(6, 6, 16))
    net.add("conv2d", "z1", Conv2d(), x="x", w=normal(4, 1, 1, 16))
    up = ConvTranspose2d((2, 2), (1, 1, 1, 1))
    net.add("conv_transpose2d", "z2", up, x="z1", w=normal(6, 4, 4, 4, seed=1), b=normal(6, seed=4))
    net.add("conv2d", "y", Conv2d(), x="z2", w=normal(16, 1, 1, 6, seed=2), b=normal(16, seed=3))
    assert find_low_rank(net.graph("y")) == {"z1", "z2"}


@pytest.mark.parametrize(
    ("middle", "bias", "found"), [(7, 0.0, {"z"}), (12, 0.0, {"z"}), (18, 0.0, set()), (7, 0.2, set())]
)
def test_a_separable_kernel(middle: int, bias: float, found: set[str]) -> None:
    net = Builder(x=(6, 6, 6))
    b = np.full(middle, bias, np.float32)
    net.add("conv2d", "z", Conv2d(padding=(1, 1, 0, 0)), x="x", w=normal(middle, 3, 1, 6), b=b)
    net.add("conv2d", "y", Conv2d(padding=(0, 0, 1, 1)), x="z", w=normal(8, 1, 3, middle, seed=1), b=normal(8, seed=2))
    assert find_low_rank(net.graph("y")) == found


def test_a_reader_of_another_kind_or_an_output_keeps_int8() -> None:
    graph = pair(12, 4, 9)
    both = graph.with_(outputs=(*graph.outputs, type(graph.outputs[0])("z", "z", (0,))))
    assert find_low_rank(both) == set()
    net = Builder(x=(12,))
    net.add("linear", "z", Linear(), x="x", w=normal(4, 12))
    net.add("linear", "y", Linear(), x="z", w=normal(9, 4))
    net.add("linear", "u", Linear(), x="z", w=normal(9, 4, seed=5))
    assert find_low_rank(net.graph("y", "u")) == {"z"}  # the parts of one layer
    net.add("unary", "s", Unary("sigmoid"), x="z")
    assert find_low_rank(net.graph("y", "u", "s")) == set()


def test_13_bits_at_calibration_and_power_of_two_scales() -> None:
    graph = triple(16, 4, 6, 16)
    x = normal(8, 6, 6, 16, seed=4)
    quantised = quantise(graph, calibrate(graph, [(x,)]))
    for name in ("z1", "z2"):
        t = quantised.type(name)
        assert t.dtype is DType.INT16
        assert t.quant is not None
        assert t.quant.zero_point == 0
        peak = calibrate(graph, [(x,)]).stats[name].peak / t.quant.scale
        assert 2**11 - 1 < peak <= 2**12 - 1
        assert np.frexp(t.quant.scale)[0] == 0.5


def snr(graph: Graph, low_rank: bool, monkeypatch: Any) -> float:
    with monkeypatch.context() as patch:
        if not low_rank:
            patch.setattr("projgen.quant.quantise.low_rank_types", lambda *_: {})
        x = normal(200, *(int(d) for d in graph.type("x").step_shape), seed=7)
        model = QuantizedModel(quantise(graph, calibrate(graph, [(x,)])))
    want = run_float(graph, (x,))[0]
    return float(10 * np.log10((want**2).sum() / ((model(x) - want) ** 2).sum()))


def spread(graph: Graph, first: str, second: str) -> Graph:
    """The same product, its intermediate's components of very unequal size, as those of a PCA are."""
    size = 3.0 ** -np.arange(graph.data(graph.nodes[0], "w").shape[0], dtype=np.float32)
    w = graph.constant(first)
    narrow = w * size.reshape(-1, *[1] * (w.ndim - 1))
    values = [Value(first, graph.type(first), narrow), Value(second, graph.type(second), graph.constant(second) / size)]
    return graph.with_(values=values)


@pytest.mark.parametrize(
    "graph",
    [spread(pair(64, 6, 40), "z.w", "y.w"), spread(triple(16, 4, 6, 16), "z1.w", "z2.w")],
    ids=["linear", "conv"],
)
def test_16_bits_are_worth_many_decibels(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    assert snr(graph, True, monkeypatch) > snr(graph, False, monkeypatch) + 6.0
