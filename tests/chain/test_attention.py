"""A transformer's block through the whole chain: projected, unpacked, saved, loaded, quantised, in C on cores."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.importers.onnx import load_onnx
from projgen.ir.types import DType
from projgen.models import load_model
from projgen.quant.model import QuantizedModel
from tests.chain.support import build, compare, draw, part

STEPS, FEATURES, WIDTH, HEADS, CLASSES = 10, 6, 16, 4, 5
RANKS = {"attn.in_proj": 6, "attn.out_proj": 5, "up": 6}


class Block(nn.Module):
    """Steps of features, embedded; attention and two layers, each after a norm, with a shortcut; their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        y = self.first(h)
        h = h + self.attn(y, y, y)[0]
        h = h + self.down(torch.relu(self.up(self.second(h))))
        return self.fc(h.mean(1))


class Steps(nn.Module):
    """Norms before and behind a recurrent layer, and GELU, over any number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(FEATURES), nn.LayerNorm(8)
        self.lstm, self.fc = nn.LSTM(FEATURES, 8, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(nn.functional.gelu(self.second(self.lstm(self.first(x))[0])))


@cache
def nets() -> tuple[nn.Module, nn.Module, Tensor]:
    """The net, its projected and unpacked form, and calibration inputs."""
    torch.manual_seed(3)
    net = Block().eval()
    for parameter in net.attn.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.randn(96, STEPS, 3) @ torch.randn(3, FEATURES) + 0.1 * torch.randn(96, STEPS, FEATURES)
    small, _ = projgen.compress(net, x, ranks=RANKS, verbosity="off")
    return net, projgen.unpack_projected_layers(small), x


def ratio(net: nn.Module, quantised: QuantizedModel, x: Tensor) -> float:
    """Decibels of the outputs about their means over what the integers lose."""
    with torch.no_grad():
        y = net(x).numpy()
    return float(10 * np.log10(y.var(0).sum() / (np.asarray(quantised(x.numpy())) - y).var(0).sum()))


def test_projections_of_an_attention_stay_low_rank_products() -> None:
    _, small, x = nets()
    graph = projgen.quantize(small, x).graph
    (middle,) = (n for n in graph.nodes if n.source == "attn.in_proj.input_projector")
    assert graph.type(middle.output).dtype is DType.INT16
    parts = graph.readers(middle.output)
    assert [len(graph.data(part, "w")) for part in parts] == [WIDTH] * 3
    assert len({graph.type(part.output).quant for part in parts}) == 3  # each with its own scale
    assert not {"slice", "select", "transpose", "mul", "softmax"} & {n.op for n in graph.nodes}


def test_integers_keep_what_the_floats_say() -> None:
    net, small, x = nets()
    assert ratio(net, projgen.quantize(net, x), x) > 19
    assert ratio(small, projgen.quantize(small, x), x) > 19


@pytest.mark.parametrize("form", [".onnx", ".pt2"])
def test_files_mean_the_same_model(form: str, tmp_path: Path) -> None:
    _, small, x = nets()
    path = projgen.save(small, tmp_path / f"net{form}", x)
    loaded = load_onnx(path) if form == ".onnx" else load_model(path)
    direct, again = projgen.quantize(small, x), projgen.quantize(loaded, x)
    np.testing.assert_allclose(np.asarray(again(x.numpy())), np.asarray(direct(x.numpy())), atol=1e-2)
    assert [n.op for n in again.graph.nodes] == [n.op for n in direct.graph.nodes]
    again.save(tmp_path / "net.qmodel")
    np.testing.assert_array_equal(QuantizedModel.load(tmp_path / "net.qmodel")(x.numpy()), again(x.numpy()))


@pytest.mark.qemu
@pytest.mark.parametrize("target", ["host", "cortex-m0", "cortex-m4", "cortex-m55"])
def test_in_c(target: str, tmp_path: Path) -> None:
    net, small, x = nets()
    saved = load_onnx(projgen.save(small, tmp_path / "net.onnx", x))
    steps = Steps().eval()
    made = {"dense": net, "projected": saved, "steps": steps}
    graphs = {name: projgen.quantize(module, x).graph for name, module in made.items()}
    assert graphs["steps"].has_time
    parts = tuple(part(replace(graph, name=name), draw(graph, 6), name) for name, graph in graphs.items())
    assert compare(build(parts, target, tmp_path / "c"), parts).samples == len(parts)
