"""Sums that a convolution makes in its own accumulator: which are folded, and what the integers then are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import projgen
from projgen.errors import UnsupportedError
from projgen.ir import attrs as A
from projgen.ir.graph import Array, Graph, Node, Value
from projgen.ir.interpreter import run_float
from projgen.ir.types import DType
from projgen.ir.verify import verify
from projgen.quant.calibrate import calibrate
from projgen.quant.dead_channels import remove_dead_channels
from projgen.quant.fixed import real_scale
from projgen.quant.model import QuantizedModel
from projgen.quant.quantise import choose_types, prove, quantise
from projgen.quant.residual import SMALLEST_FACTOR, fold_residuals
from tests.quant.build import Builder, normal

SAME = A.Conv2d(padding=(1, 1, 1, 1))


def block(
    outputs: int = 6,
    *,
    attrs: A.Conv2d = SAME,
    kernel: tuple[int, int] = (3, 3),
    scale: float = 0.2,
    swapped: bool = False,
    activation: A.Activation = "relu",
) -> Builder:
    """a = relu(1x1 of x) -> conv c -> s = relu(c + a): a residual block around an inner layer h."""
    net = Builder(x=(6, 5, 4))
    net.add("conv2d", "a", A.Conv2d(activation="relu"), x="x", w=normal(outputs, 1, 1, 4), b=normal(outputs, seed=1))
    w = normal(outputs, *kernel, outputs // attrs.groups, seed=2, scale=scale)
    net.add("conv2d", "c", attrs, x="a", w=w, b=normal(outputs, seed=3))
    first, second = ("c", "a") if swapped else ("a", "c")
    net.add("add", "s", A.Add(activation), a=first, b=second)
    net.add("conv2d", "y", A.Conv2d(), x="s", w=normal(3, 1, 1, outputs, seed=4))
    return net


def quantised(graph: Graph, *, fold: bool = True, monkeypatch: pytest.MonkeyPatch | None = None) -> QuantizedModel:
    x = calibration(graph)
    if not fold and monkeypatch is not None:
        monkeypatch.setattr("projgen.quant.quantise.fold_residuals", lambda g, _types: g)
    return QuantizedModel(quantise(graph, calibrate(graph, [(x,)])))


def calibration(graph: Graph, n: int = 60) -> Array:
    return normal(n, *(int(d) for d in graph.type("x").shape), seed=9)


def folded(graph: Graph) -> Node | None:
    return next((n for n in quantised(graph).graph.nodes if n.op == "conv2d_residual"), None)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_a_sum_moves_into_its_convolution(swapped: bool, activation: A.Activation) -> None:
    graph = block(swapped=swapped, activation=activation).graph("y")
    model = quantised(graph)
    assert [n.op for n in model.graph.nodes] == ["conv2d", "conv2d_residual", "conv2d"]
    node = model.graph.nodes[1]
    assert node.attrs == replace(SAME, activation=activation)
    assert (node.inputs["x"], node.inputs["residual"], node.output, node.source) == ("a", "a", "s", "net.c")
    s = model.graph.type("s").quant
    assert s is not None
    x = calibration(graph, 20)
    whole = graph.with_(outputs=(replace(graph.outputs[0], value="s"),))
    difference = np.abs(quantised(whole)(x) - run_float(whole, (x,))[0])
    assert difference.max() <= 4 * s.scale


def test_one_rounding_is_closer_than_two(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = block(16).graph("s")
    x = calibration(graph)
    exact = run_float(graph, (x,))[0]
    once = np.square(quantised(graph)(x) - exact).mean()
    twice = np.square(quantised(graph, fold=False, monkeypatch=monkeypatch)(x) - exact).mean()
    assert once < 0.9 * twice


def test_the_residual_enters_without_rounding_and_zero_points_are_in_the_bias() -> None:
    graph = block().graph("y")
    model = quantised(graph).graph
    node = model.nodes[1]
    w, b, m, f = (model.data(node, role).astype(np.int64) for role in ("w", "b", "m", "f"))
    x, residual, y = (model.type(node.inputs["x"]).quant, model.type("a").quant, model.type("s").quant)
    assert x is not None and residual is not None and y is not None and node.numerics is not None
    assert (f >= SMALLEST_FACTOR).all()
    unit = residual.scale / f  # of the accumulator
    shift = node.numerics.requant.shift  # type: ignore[union-attr]
    np.testing.assert_allclose(real_scale(m, shift), unit / y.scale, rtol=1e-6)
    real_w = graph.data(graph.nodes[1], "w").astype(np.float64)
    np.testing.assert_array_equal(w, np.round(real_w * x.scale / unit[:, None, None, None]))
    sums = w.reshape(len(w), -1).sum(axis=1)
    real_b = graph.data(graph.nodes[1], "b").astype(np.float64)
    np.testing.assert_array_equal(b, np.round(real_b / unit) - x.zero_point * sums - residual.zero_point * f)
    assert np.abs(w).max() <= 127
    assert (np.abs(w).reshape(len(w), -1).max(axis=1) >= 127 * SMALLEST_FACTOR // (SMALLEST_FACTOR + 1) - 1).all()


def read_twice() -> Graph:
    net = block()
    net.add("conv2d", "z", A.Conv2d(), x="c", w=normal(2, 1, 1, 6))
    return net.graph("y", "z")


def broadcast() -> Graph:
    net = Builder(x=(6, 5, 4), r=(1, 1, 4))
    net.add("conv2d", "c", A.Conv2d(), x="x", w=normal(4, 1, 1, 4))
    net.add("add", "y", A.Add(), a="c", b="r")
    return net.graph("y")


def constant() -> Graph:
    net = Builder(x=(6, 5, 4))
    net.add("conv2d", "c", A.Conv2d(), x="x", w=normal(4, 1, 1, 4))
    net.add("add", "y", A.Add(), a="c", b=normal(6, 5, 4))
    return net.graph("y")


def doubled() -> Graph:
    net = Builder(x=(6, 5, 4))
    net.add("conv2d", "c", A.Conv2d(), x="x", w=normal(4, 1, 1, 4))
    net.add("add", "y", A.Add(), a="c", b="c")
    return net.graph("y")


def strided() -> Graph:
    net = Builder(x=(6, 6, 4))
    net.add("max_pool2d", "p", A.MaxPool2d((2, 2), (2, 2)), x="x")
    net.add("conv2d", "c", A.Conv2d((2, 2), (1, 1, 1, 1)), x="x", w=normal(4, 3, 3, 4))
    net.add("add", "y", A.Add(), a="c", b="p")
    return net.graph("y")


@pytest.mark.parametrize(
    "graph",
    [
        block(5).graph("y"),  # an odd number of outputs
        block(attrs=replace(SAME, groups=2)).graph("y"),
        block(attrs=replace(SAME, groups=6)).graph("y"),
        block(attrs=replace(SAME, activation="relu")).graph("y"),
        block(attrs=A.Conv2d(padding=(2, 2, 2, 2), dilation=(2, 2))).graph("y"),
        block(attrs=A.Conv2d(padding=(2, 2, 2, 2)), kernel=(5, 5)).graph("y"),
        block(attrs=A.Conv2d(padding=(0, 0, 1, 1)), kernel=(1, 3)).graph("y"),
        block(scale=30.0).graph("y"),  # factors would be too coarse
        block().graph("y", "c"),  # the branch is an output
        read_twice(),
        broadcast(),
        constant(),
        doubled(),
        strided(),
    ],
)
def test_other_sums_stay(graph: Graph) -> None:
    x = tuple(normal(20, *(int(d) for d in graph.type(p.value).shape), seed=9) for p in graph.inputs)
    made = quantise(graph, calibrate(graph, [x]))
    assert [n.op for n in made.nodes if n.op in ("add", "conv2d_residual")] == ["add"]


@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
def test_the_smallest_factor_decides(scale: float) -> None:
    graph = block(scale=scale).graph("y")
    types = choose_types(graph, calibrate(graph, [(calibration(graph),)]).stats)
    residual = types["a"].quant
    assert residual is not None
    peaks = np.abs(graph.data(graph.nodes[1], "w")).reshape(6, -1).max(axis=1)
    factor = (127 / peaks).min()  # x and the residual have one scale
    ops = {n.op for n in fold_residuals(graph, types).nodes}
    assert ("conv2d_residual" in ops) == (factor >= SMALLEST_FACTOR)


def test_of_two_convolutions_the_larger_takes_the_sum_after_the_other_has_run() -> None:
    net = Builder(x=(6, 5, 4))
    net.add("conv2d", "big", SAME, x="x", w=normal(4, 3, 3, 4, scale=0.2))
    net.add("conv2d", "small", A.Conv2d(), x="x", w=normal(4, 1, 1, 4, seed=1))
    net.add("add", "s", A.Add(), a="big", b="small")
    net.add("unary", "y", A.Unary("tanh"), x="s")
    model = quantised(net.graph("y")).graph
    verify(model)
    assert [(n.op, n.source) for n in model.nodes] == [
        ("conv2d", "net.small"),
        ("conv2d_residual", "net.big"),
        ("lut", "net.y"),
    ]
    assert model.nodes[1].inputs["residual"] == "small"


def test_chained_blocks_fold_each() -> None:
    net = block()
    net.add("conv2d", "d", SAME, x="s", w=normal(6, 3, 3, 6, seed=6, scale=0.2))
    net.add("add", "t", A.Add("relu"), a="d", b="s")
    model = quantised(net.graph("t", "y")).graph
    assert [n.op for n in model.nodes].count("conv2d_residual") == 2


def test_the_end_of_a_low_rank_triple_takes_the_sum_from_int16() -> None:
    net = Builder(x=(6, 5, 8))
    net.add("conv2d", "e", A.Conv2d(), x="x", w=normal(3, 1, 1, 8))
    net.add("conv2d", "m", SAME, x="e", w=normal(3, 3, 3, 3, seed=1))
    net.add("conv2d", "l", A.Conv2d(), x="m", w=normal(8, 1, 1, 3, seed=2, scale=0.1), b=normal(8, seed=3))
    net.add("add", "y", A.Add("relu"), a="x", b="l")
    model = quantised(net.graph("y")).graph
    node = model.nodes[-1]
    assert (node.op, node.inputs["residual"]) == ("conv2d_residual", "x")
    assert model.type(node.inputs["x"]).dtype is model.type("e").dtype is DType.INT16


def test_a_residual_is_no_low_rank_intermediate() -> None:
    net = Builder(x=(6, 5, 8))
    net.add("conv2d", "narrow", A.Conv2d(), x="x", w=normal(2, 1, 1, 8, scale=0.2))
    net.add("conv2d", "big", SAME, x="x", w=normal(2, 3, 3, 8, seed=1, scale=0.1), b=normal(2))
    net.add("add", "s", A.Add(), a="narrow", b="big")
    net.add("conv2d", "y", A.Conv2d(), x="s", w=normal(9, 1, 1, 2, seed=4))
    model = quantised(net.graph("y")).graph
    assert [n.op for n in model.nodes] == ["conv2d", "conv2d_residual", "conv2d"]
    assert model.type("narrow").dtype is model.type("s").dtype is DType.INT8


def test_a_factor_that_could_overflow_is_refused(tmp_path: Path) -> None:
    model = quantised(block().graph("y"))
    node = model.graph.nodes[1]
    f = model.graph.data(node, "f").copy()
    f[3] = 2**31 // 128
    name = node.inputs["f"]
    graph = model.graph.with_(values=[Value(name, model.graph.type(name), f)])
    with pytest.raises(UnsupportedError, match="the int32 accumulator of output 3 could reach"):
        prove(graph)
    QuantizedModel(graph).save(tmp_path / "m")
    with pytest.raises(UnsupportedError, match="output 3"):
        QuantizedModel.load(tmp_path / "m")


def test_dead_channels_of_the_residual_and_of_the_sum_go_together() -> None:
    net = Builder(x=(6, 5, 4))
    dead = normal(6, 1, 1, 4)
    dead[[1, 4]] = 0
    net.add("conv2d", "a", A.Conv2d(activation="relu"), x="x", w=dead, b=np.full(6, -1, np.float32))
    w = normal(6, 3, 3, 6, seed=2, scale=0.2)
    w[[0, 4]] = 0
    net.add("conv2d", "c", SAME, x="a", w=w, b=normal(6, seed=3))
    net.add("add", "s", A.Add("relu"), a="a", b="c")
    net.add("conv2d", "y", A.Conv2d(), x="s", w=normal(3, 1, 1, 6, seed=4))
    model = quantised(net.graph("y"))
    narrow, removed = remove_dead_channels(model.graph)
    verify(narrow)
    prove(narrow)
    # 4 is constant in both; 1 lives in the sum through c, 0 through the residual
    assert [(r.layer, r.removed) for r in removed] == [("net.a", 1), ("net.c", 1)]
    assert narrow.data(narrow.nodes[1], "f").shape == (5,)
    x = np.random.default_rng(0).integers(-128, 128, (9, 6, 5, 4)).astype(np.int8)
    np.testing.assert_array_equal(QuantizedModel(narrow).run_int(x), model.run_int(x))


class Residual(nn.Module):
    """Blocks whose residual is another map, their own input, and a shortcut convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.around, self.point = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.down, self.last = nn.Conv2d(8, 12, 3, 2, 1), nn.Conv2d(12, 12, 3, padding=1)
        self.short, self.head = nn.Conv2d(8, 12, 1, 2), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        x = torch.relu(self.around(x) + x)
        x = x + self.point(x)
        x = torch.relu(self.last(torch.relu(self.down(x))) + self.short(x))
        y: torch.Tensor = self.head(x.mean((2, 3)))
        return y


@pytest.mark.parametrize("target", ["host", "cortex-m3", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("optimise", ["speed", "ram"])
def test_whole_nets_on_targets_with_buffers_shared(target: str, optimise: str, tmp_path: Path) -> None:
    net, x = Residual().eval(), normal(8, 3, 13, 10)
    model = projgen.quantize(net, x)
    assert [n.op for n in model.graph.nodes].count("conv2d_residual") == 4
    artifact = projgen.compile(model, target=target, out=tmp_path / "c", optimise=optimise)
    artifact.verify(normal(3, 3, 13, 10, seed=5))
    assert artifact.manifest["learnables"] == sum(p.numel() for p in net.parameters())
