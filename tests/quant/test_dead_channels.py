"""Constant and unread channels go, and no output byte changes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import projgen
from projgen.cli import run
from projgen.codegen.layers import macs
from projgen.ir import attrs as A
from projgen.ir.graph import Array, Graph
from projgen.ir.interpreter import run_integer, trace_integer
from projgen.ir.types import TIME
from projgen.ir.verify import verify
from projgen.quant.bounds import channel_bounds
from projgen.quant.calibrate import calibrate
from projgen.quant.dead_channels import RemovedChannels, remove_dead_channels
from projgen.quant.model import QuantizedModel
from projgen.quant.quantise import prove, quantise
from projgen.quant.store import to_bytes
from tests.quant.build import Builder, normal

MLPERF = Path(os.environ.get("PROJGEN_DATA", "")) / "models" / "mlperf_tiny" / "onnx"
SAME = (1, 1, 1, 1)
ACTIVATIONS: tuple[A.Activation, ...] = ("none", "relu", "relu6")


def integers(graph: Graph, *x: Array) -> Graph:
    return quantise(graph, calibrate(graph, [x]))


def drawn(graph: Graph, n: int = 6, seed: int = 0) -> list[Array]:
    """Random integers for every input, and all lowest and all highest ones."""
    rng = np.random.default_rng(seed)
    made = []
    for port in graph.inputs:
        shape = [5 if d == TIME else int(d) for d in graph.type(port.value).shape]
        x = rng.integers(-128, 128, (n, *shape)).astype(np.int8)
        x[0], x[1] = -128, 127
        made.append(x)
    return made


def removed_from(graph: Graph) -> dict[str, int]:
    """Channels that each layer loses, after a check that the result is legal, gives equal bytes and is as reported."""
    narrow, removed = remove_dead_channels(graph)
    verify(narrow)
    prove(narrow)
    x = drawn(graph)
    for before, after in zip(run_integer(graph, x), run_integer(narrow, x), strict=True):
        np.testing.assert_array_equal(before, after)
    for r in removed:
        layer = next(n for n in graph.nodes if n.source == r.layer)
        assert r.total == graph.type(layer.output).shape[-1]
        assert r.total - r.removed == narrow.type(layer.output).shape[-1]
    return {r.layer.removeprefix("net."): r.removed for r in removed}


def rows(w: Array, **dead: tuple[int, ...]) -> Array:
    """The weights with rows (``out``) or input channels (``read``) of zeros."""
    w = w.copy()
    w[list(dead.get("out", ()))] = 0
    w[..., list(dead.get("read", ()))] = 0
    return w


def biased(size: int, **values: float) -> Array:
    """A bias of ones but for the named entries ("_3" is entry 3)."""
    b = np.ones(size, np.float32)
    for name, value in values.items():
        b[int(name[1:])] = value
    return b


def chain(padding: tuple[int, int, int, int], bias: float) -> Graph:
    """conv -> relu -> depthwise -> relu -> conv, where row 2 of the first layer has no weights but a bias."""
    net = Builder(x=(6, 7, 3))
    w = rows(normal(5, 3, 3, 3), out=(2,))
    net.add("conv2d", "c", A.Conv2d(padding=SAME, activation="relu"), x="x", w=w, b=biased(5, _2=bias))
    net.add("conv2d", "d", A.Conv2d((2, 1), padding, (1, 1), 5, "relu"), x="c", w=normal(5, 3, 3, 1, seed=1) + 1)
    net.add("conv2d", "p", A.Conv2d(), x="d", w=normal(4, 1, 1, 5, seed=2), b=normal(4, seed=3))
    return net.graph("p")


@pytest.mark.parametrize(
    ("groups", "bias", "removed"), [(1, -1.0, {"c": 1}), (1, 1.5, {}), (5, -1.0, {"c": 1, "d": 1}), (5, 1.5, {})]
)
def test_a_constant_through_a_transposed_convolution(groups: int, bias: float, removed: dict[str, int]) -> None:
    """Between the pixels its taps see 0: only that constant can go."""
    net = Builder(x=(6, 7, 3))
    w = rows(normal(5, 3, 3, 3), out=(2,))
    net.add("conv2d", "c", A.Conv2d(padding=SAME, activation="relu"), x="x", w=w, b=biased(5, _2=bias))
    up = A.ConvTranspose2d((2, 2), SAME, (1, 0), (1, 1), groups, "relu")
    net.add("conv_transpose2d", "d", up, x="c", w=normal(5, 3, 3, 5 // groups, seed=1))
    net.add("conv2d", "p", A.Conv2d(), x="d", w=normal(4, 1, 1, 5, seed=2), b=normal(4, seed=3))
    assert removed_from(integers(net.graph("p"), normal(20, 6, 7, 3, seed=9))) == removed


@pytest.mark.parametrize(
    ("padding", "bias", "removed"),
    [
        (SAME, -1.0, {"c": 1, "d": 1}),  # relu leaves 0, which padding holds too
        ((0, 0, 0, 0), -1.0, {"c": 1, "d": 1}),
        ((0, 0, 0, 0), 1.5, {"c": 1, "d": 1}),  # the value does not matter where nothing is padded
        (SAME, 1.5, {}),  # borders differ from the interior
        ((0, 1, 0, 0), 1.5, {}),
    ],
)
def test_a_constant_through_a_depthwise_convolution(
    padding: tuple[int, int, int, int], bias: float, removed: dict[str, int]
) -> None:
    graph = chain(padding, bias)
    assert removed_from(integers(graph, normal(20, 6, 7, 3, seed=9))) == removed


def test_a_constant_moves_into_the_bias_of_its_reader_with_its_value() -> None:
    graph = integers(chain((0, 0, 0, 0), 1.5), normal(20, 6, 7, 3, seed=9))
    narrow, _ = remove_dead_channels(graph)
    value = channel_bounds(graph)["d"].low[2]
    before, after = (next(n for n in g.nodes if n.output == "p") for g in (graph, narrow))
    moved = narrow.data(after, "b").astype(int) - graph.data(before, "b")
    np.testing.assert_array_equal(moved, value * graph.data(before, "w")[:, 0, 0, 2].astype(int))
    assert moved.any()
    assert narrow.data(after, "w").shape == (4, 1, 1, 4)
    assert narrow.nodes[1].attrs == A.Conv2d((2, 1), (0, 0, 0, 0), (1, 1), 4, "relu")


@pytest.mark.parametrize(("padding", "removed"), [((0, 0, 0, 0), {"c": 1}), (SAME, {})])
def test_a_padded_convolution_keeps_a_constant_that_is_not_its_padding(
    padding: tuple[int, int, int, int], removed: dict[str, int]
) -> None:
    net = Builder(x=(5, 5, 3))
    net.add("conv2d", "c", A.Conv2d(), x="x", w=rows(normal(4, 1, 1, 3), out=(1,)), b=biased(4, _1=2.0))
    net.add("conv2d", "y", A.Conv2d(padding=padding), x="c", w=normal(2, 3, 3, 4, seed=1))
    assert removed_from(integers(net.graph("y"), normal(9, 5, 5, 3))) == removed


def test_channels_that_nobody_reads_go_with_all_that_makes_them() -> None:
    net = Builder(x=(5, 5, 4))
    net.add("conv2d", "a", A.Conv2d(padding=SAME), x="x", w=normal(6, 3, 3, 4), b=normal(6, seed=1))
    net.add("conv2d", "b", A.Conv2d(activation="relu"), x="a", w=rows(normal(5, 1, 1, 6, seed=2), read=(0, 3)))
    net.add("linear", "y", A.Linear(), x="b", w=rows(normal(3, 5, seed=3), read=(4,)))
    assert removed_from(integers(net.graph("y"), normal(9, 5, 5, 4))) == {"a": 2, "b": 1}


def test_outputs_and_inputs_keep_their_channels() -> None:
    net = Builder(x=(4, 4, 3))
    net.add("conv2d", "c", A.Conv2d(), x="x", w=rows(normal(5, 1, 1, 3), out=(2,), read=(1,)), b=normal(5))
    net.add("conv2d", "y", A.Conv2d(), x="c", w=rows(normal(4, 1, 1, 5), out=(0, 1)))
    graph = integers(net.graph("c", "y"), normal(9, 4, 4, 3))
    assert removed_from(graph) == {}
    assert remove_dead_channels(graph)[0] is graph


def test_a_flattened_map_loses_every_position_of_a_channel() -> None:
    net = Builder(x=(5, 4, 2))
    net.add("conv2d", "c", A.Conv2d(padding=SAME), x="x", w=rows(normal(3, 3, 3, 2), out=(1,)), b=biased(3, _1=2.0))
    net.add("max_pool2d", "m", A.MaxPool2d((2, 2), (2, 2), (1, 0, 0, 0)), x="c")
    net.add("unary", "t", A.Unary("tanh"), x="m")
    net.add("reshape", "f", A.Reshape((18,)), x="t")
    net.add("linear", "y", A.Linear(), x="f", w=normal(4, 18, seed=3), b=normal(4, seed=1))
    graph = integers(net.graph("y"), normal(9, 5, 4, 2))
    assert removed_from(graph) == {"c": 1}
    narrow, _ = remove_dead_channels(graph)
    assert narrow.type("f").shape == (12,)


def test_one_position_that_is_read_keeps_its_channel() -> None:
    net = Builder(x=(2, 2, 3))
    net.add("conv2d", "c", A.Conv2d(), x="x", w=normal(3, 1, 1, 3))
    net.add("reshape", "f", A.Reshape((12,)), x="c")
    unread = (0, 3, 6, 9, 1, 4, 7)  # all of channel 0, channel 1 but for its last position
    net.add("linear", "y", A.Linear(), x="f", w=rows(normal(4, 12, seed=3), read=unread))
    assert removed_from(integers(net.graph("y"), normal(9, 2, 2, 3))) == {"c": 1}


def test_sums_products_and_constants_lose_the_same_channels() -> None:
    net = Builder(x=(4, 4, 3))
    zeros = {"w": rows(normal(5, 1, 1, 3, seed=5), out=(0, 3)), "b": biased(5, _0=0.5, _3=-0.5)}
    net.add("conv2d", "a", A.Conv2d(), x="x", **zeros)
    net.add("conv2d", "b", A.Conv2d(), x="x", w=rows(normal(5, 1, 1, 3, seed=6), out=(0, 1)), b=biased(5))
    net.add("add", "s", A.Add("relu"), a="a", b="b")
    net.add("mul", "m", A.Mul(), a="s", b=normal(1, 1, 5, seed=7))
    net.add("conv2d", "y", A.Conv2d(), x="m", w=normal(2, 1, 1, 5, seed=8))
    # channel 0 is constant in both operands; 1 and 3 in one only, so their sum is not
    assert removed_from(integers(net.graph("y"), normal(9, 4, 4, 3))) == {"a": 1, "b": 1}


def test_concat_passes_the_channels_of_each_part() -> None:
    net = Builder(x=(4, 4, 3))
    net.add("conv2d", "a", A.Conv2d(), x="x", w=rows(normal(4, 1, 1, 3), out=(3,)), b=biased(4, _3=0.25))
    net.add("conv2d", "b", A.Conv2d(), x="x", w=rows(normal(3, 1, 1, 3, seed=1), out=(0,)), b=biased(3))
    net.add("concat", "k", A.Concat(2), x0="a", x1="b", x2=normal(4, 4, 2, seed=4))
    net.add("conv2d", "y", A.Conv2d(), x="k", w=rows(normal(2, 1, 1, 9, seed=2), read=(7,)))
    graph = integers(net.graph("y"), normal(9, 4, 4, 3))
    assert removed_from(graph) == {"a": 1, "b": 1}
    assert remove_dead_channels(graph)[0].type("k").shape[-1] == 6


@pytest.mark.parametrize(("padding", "removed"), [((0, 0, 0, 0), {"a": 3}), (SAME, {})])
def test_a_layer_without_any_live_channel_keeps_one(
    padding: tuple[int, int, int, int], removed: dict[str, int]
) -> None:
    net = Builder(x=(4, 4, 3))
    net.add("conv2d", "a", A.Conv2d(), x="x", w=np.zeros((4, 1, 1, 3), np.float32), b=normal(4, seed=2))
    net.add("conv2d", "y", A.Conv2d(padding=padding), x="a", w=normal(2, 3, 3, 4, seed=2))
    assert removed_from(integers(net.graph("y"), normal(9, 4, 4, 3))) == removed


def test_a_row_that_relu_always_cuts_off_is_dead() -> None:
    net = Builder(x=(8,))
    w, b = normal(6, 8), biased(6, _4=-4.0)
    w[4] *= 0.02
    net.add("linear", "h", A.Linear("relu"), x="x", w=w, b=b)
    net.add("linear", "y", A.Linear(), x="h", w=normal(3, 6, seed=1))
    assert removed_from(integers(net.graph("y"), normal(40, 8))) == {"h": 1}


def test_over_time_and_into_a_recurrent_layer() -> None:
    net = Builder(x=(TIME, 4))
    net.add("linear", "a", A.Linear("relu"), x="x", w=rows(normal(5, 4), out=(1,)), b=biased(5, _1=-1.0))
    net.add("linear", "b", A.Linear(), x="a", w=rows(normal(3, 5, seed=1), out=(2,)), b=normal(3))
    net.add("lstm", "h", A.Lstm(3), x="b", w=normal(12, 3), r=normal(12, 3, seed=1), b=normal(12, seed=2))
    net.add("mean_time", "m", A.MeanTime(), x="a")
    net.add("linear", "y", A.Linear(), x="m", w=normal(2, 5, seed=5))
    net.add("select", "z", A.Select(0, -1), x="h")
    # the recurrent layer reads all of b
    assert removed_from(integers(net.graph("y", "z"), normal(9, 7, 4))) == {"a": 1}


@st.composite
def nets(draw: st.DrawFn) -> tuple[Graph, tuple[int, ...]]:
    """A net of layers of every kind with dead rows and unread channels in places."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    h, w, c = draw(st.integers(3, 6)), draw(st.integers(3, 6)), draw(st.integers(1, 5))
    shape = (h, w, c)
    net = Builder(x=shape)
    value = "x"

    def weights(*size: int) -> Array:
        made = rng.standard_normal(size) * (rng.random((size[0], *[1] * (len(size) - 1))) < 0.6)
        return (made * (rng.random(size[-1]) < 0.8)).astype(np.float32)

    def bias(size: int) -> Array:
        return (rng.standard_normal(size) * 1.5).astype(np.float32)

    for i in range(draw(st.integers(2, 5))):
        h, w, c = (int(d) for d in net.values[value].type.shape)
        name, act = f"v{i}", draw(st.sampled_from(ACTIVATIONS))
        pad = draw(st.sampled_from([(0, 0, 0, 0), SAME, (0, 1, 1, 0)]))
        kind = draw(st.sampled_from(["conv", "depthwise", "pool", "mean", "tanh", "add", "concat", "slice", "mul"]))
        k = min(3, h, w) if pad[0] == 0 else 3 if min(h, w) > 1 else 1
        if kind == "conv":
            o = draw(st.integers(1, 6))
            net.add("conv2d", name, A.Conv2d((1, 1), pad, activation=act), x=value, w=weights(o, k, k, c), b=bias(o))
        elif kind == "depthwise":
            times = draw(st.integers(1, 2))
            attrs = A.Conv2d((1, 1), pad, groups=c, activation=act)
            net.add("conv2d", name, attrs, x=value, w=weights(c * times, k, k, 1), b=bias(c * times))
        elif kind == "pool":
            net.add("max_pool2d", name, A.MaxPool2d((1, 2) if w > 1 else (1, 1), (1, 1)), x=value)
        elif kind == "mean":
            pool = A.AvgPool2d((2, 2) if min(h, w) > 1 else (1, 1), (1, 1), (0, 0, 0, 0), True)
            net.add("avg_pool2d", name, pool, x=value)
        elif kind == "tanh":
            net.add("unary", name, A.Unary("tanh"), x=value)
        elif kind == "slice":
            net.add("slice", name, A.Slice(2, 0, max(1, c - 1)), x=value)
        elif kind == "concat":
            net.add("conv2d", f"{name}c", A.Conv2d(), x=value, w=weights(2, 1, 1, c), b=bias(2))
            net.add("concat", name, A.Concat(2), x0=value, x1=f"{name}c")
        else:
            net.add("conv2d", f"{name}c", A.Conv2d(), x=value, w=weights(c, 1, 1, c), b=bias(c))
            made = A.Add(act) if kind == "add" else A.Mul(act)
            net.add(kind, name, made, a=value, b=f"{name}c")
        value = name
    size = net.values[value].type.elements
    net.add("reshape", "flat", A.Reshape((size,)), x=value)
    net.add("linear", "y", A.Linear(), x="flat", w=weights(3, size), b=bias(3))
    return net.graph("y"), shape


@settings(max_examples=60, deadline=None)
@given(nets())
def test_drawn_nets_keep_their_bytes(net: tuple[Graph, tuple[int, ...]]) -> None:
    graph, shape = net
    quantised = integers(graph, normal(12, *shape, seed=1))
    removed_from(quantised)
    bounds = channel_bounds(quantised)
    for node, _, y in trace_integer(quantised, drawn(quantised)):
        flat = y.reshape(-1, y.shape[-1])
        assert (flat.min(axis=0) >= bounds[node.output].low).all()
        assert (flat.max(axis=0) <= bounds[node.output].high).all()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.weight[[1, 5]] = 1e-20
            self.first.bias[[1, 5]] = torch.tensor([-0.3, 0.7])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(torch.relu(self.first(x)))
        return y


def test_quantize_removes_reports_saves_and_can_be_told_not_to(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Net(), normal(50, 6)
    model = projgen.quantize(net, x)
    whole = projgen.quantize(net, x, keep_dead_channels=True)
    assert model.notes.removed_channels == (RemovedChannels("first", 2, 8),)
    assert whole.notes.removed_channels == ()
    np.testing.assert_array_equal(model.run_int(drawn(model.graph)[0]), whole.run_int(drawn(model.graph)[0]))
    model.save(tmp_path / "m.qmodel")
    loaded = QuantizedModel.load(tmp_path / "m.qmodel")
    assert loaded.notes.removed_channels == model.notes.removed_channels
    assert loaded.digest() == model.digest() == QuantizedModel(model.graph).digest() != whole.digest()
    assert (tmp_path / "m.qmodel").read_bytes() == to_bytes(loaded.graph, loaded.notes)
    artifact = projgen.compile(model, target="host", out=tmp_path / "c")
    assert artifact.manifest["removed_channels"] == [{"layer": "first", "removed": 2, "total": 8}]
    assert artifact.manifest["macs"] == 6 * 6 + 6 * 3


def test_the_command_line_says_what_went(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    torch.onnx.export(Net(), (torch.zeros(2, 6),), tmp_path / "net.onnx", dynamo=True, verbose=False)
    np.savez(tmp_path / "data.npz", x=normal(50, 6))
    arguments = ["compile", tmp_path / "net.onnx", "--data", tmp_path / "data.npz", "-t", "host", "-o", tmp_path / "c"]
    capfd.readouterr()
    assert run([*map(str, arguments)]) == 0
    assert re.search(r"removed channels .*, no output changes: \S+ 2 of 8\n", capfd.readouterr().out)
    assert run([*map(str, arguments), "--verbosity", "off"]) == 0
    assert capfd.readouterr().out == ""


def images(n: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Smooth random images within -1..1: sums of coarse grids, as pictures have them."""
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros(n, *shape)
    if len(shape) == 1:
        return total.uniform_(-1, 1, generator=rng)
    grids = [(0.5, 3), (0.3, 8), (0.2, 24)]
    for a, s in grids:
        coarse = torch.rand(n, shape[0], s, s, generator=rng)
        total += a * nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")
    return total * 2 - 1


@pytest.mark.parametrize(
    ("name", "shape", "least", "most"),
    [
        ("pretrainedResnet", (3, 32, 32), 1.0, 1.0),
        ("kws_ref_model_float32", (1, 49, 10), 1.0, 1.0),
        ("vww_96_float", (3, 96, 96), 0.4, 0.55),  # about half its products are with constants
        ("ad01_fp32", (640,), 0.8, 1.0),
    ],
)
def test_mlperf_tiny_models_keep_their_bytes(name: str, shape: tuple[int, ...], least: float, most: float) -> None:
    if "PROJGEN_DATA" not in os.environ:
        pytest.skip("PROJGEN_DATA is not set")
    model = projgen.load_onnx(MLPERF / f"{name}.onnx")
    x = images(6, shape)
    whole, narrow = projgen.quantize(model, x, keep_dead_channels=True), projgen.quantize(model, x)
    extremes = drawn(whole.graph, 3)[0].reshape(3, *shape)
    q = np.concatenate([np.asarray(whole.quantize_input(x)), extremes])
    np.testing.assert_array_equal(whole.run_int(q), narrow.run_int(q))
    products = [sum(macs(m.graph, n) for n in m.graph.nodes) for m in (whole, narrow)]
    assert least <= products[1] / products[0] <= most
    assert bool(narrow.notes.removed_channels) == (products[1] < products[0])
