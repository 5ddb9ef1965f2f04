"""Whole small nets, drawn: PyTorch -> quantise -> C, byte for byte on this machine and on emulated cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import projgen
from tests.chain.support import Part, build, compare, part

SMALL = st.integers(1, 3)
HOST, CORES = 40, 24  # nets drawn for this machine, and for each emulated core


@dataclass(frozen=True, slots=True)
class Drawn:
    """A net to be made: a line of layers in words, the shape of its input, and the seed of its weights."""

    layers: tuple[tuple[Any, ...], ...]
    shape: tuple[int, ...]
    seed: int

    @property
    def is_sequence(self) -> bool:
        return self.layers[0][0] in ("lstm", "gru")


class Recurrent(nn.Module):
    """A line of recurrent and linear layers, read at every step, at the last, or by the mean."""

    def __init__(self, drawn: Drawn) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(words) for words in drawn.layers if words[0] != "read")
        self.read = drawn.layers[-1][1]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)[0] if isinstance(layer, nn.LSTM | nn.GRU) else layer(x)
        return x[:, -1] if self.read == "last" else x.mean(dim=1) if self.read == "mean" else x


def _layer(words: tuple[Any, ...]) -> nn.Module:
    match words:
        case ("conv", int(i), int(o), kernel, stride, padding, dilation, int(groups)):
            return nn.Conv2d(i, o, kernel, stride, padding, dilation, groups)
        case ("batch_norm", int(n)):
            norm = nn.BatchNorm2d(n)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            return norm
        case ("linear", int(i), int(o)):
            return nn.Linear(i, o)
        case ("lstm", int(i), int(o)):
            return nn.LSTM(i, o, batch_first=True)
        case ("gru", int(i), int(o)):
            return nn.GRU(i, o, batch_first=True)
        case ("max_pool", int(k), int(s)):
            return nn.MaxPool2d(k, s)
        case ("avg_pool", int(k), int(s)):
            return nn.AvgPool2d(k, s)
        case (str(name),):
            plain: dict[str, type[nn.Module]] = {
                "relu": nn.ReLU,
                "relu6": nn.ReLU6,
                "tanh": nn.Tanh,
                "sigmoid": nn.Sigmoid,
                "flatten": nn.Flatten,
            }
            return plain[name]()
    raise ValueError(f"no layer {words}")


def module(drawn: Drawn) -> nn.Module:
    """The seeded module in evaluation mode."""
    torch.manual_seed(drawn.seed)
    made = Recurrent(drawn) if drawn.is_sequence else nn.Sequential(*map(_layer, drawn.layers))
    return made.eval()


ACTIVATION = st.sampled_from(["relu", "relu6", "tanh", "sigmoid", ""])


@st.composite
def maps(draw: st.DrawFn) -> Drawn:
    """Convolutions of any geometry, pools and activations, then two linear layers."""
    c, h, w = draw(st.integers(1, 9)), draw(st.integers(4, 11)), draw(st.integers(3, 11))
    shape = (c, h, w)
    layers: list[tuple[Any, ...]] = []
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, 1, c]))
        out = groups * draw(st.integers(1, 3)) if groups > 1 else draw(st.integers(1, 13))
        kernel = (draw(st.integers(1, min(3, h))), draw(st.integers(1, min(3, w))))
        stride, padding = (draw(st.integers(1, 2)), draw(st.integers(1, 2))), (draw(st.integers(0, 2)), draw(SMALL))
        dilation = (draw(st.integers(1, 2)) if kernel[0] < h - 1 else 1, 1)
        if dilation[0] * (kernel[0] - 1) + 1 > h + 2 * padding[0]:
            dilation = (1, 1)
        layers.append(("conv", c, out, kernel, stride, padding, dilation, groups))
        h = (h + 2 * padding[0] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
        w = (w + 2 * padding[1] - kernel[1]) // stride[1] + 1
        c = out
        if draw(st.booleans()):
            layers.append(("batch_norm", c))
        if name := draw(ACTIVATION):
            layers.append((name,))
        if min(h, w) >= 4 and draw(st.booleans()):
            layers.append((draw(st.sampled_from(["max_pool", "avg_pool"])), 3, 2))
            h, w = (h - 3) // 2 + 1, (w - 3) // 2 + 1
    hidden = draw(st.integers(1, 19))
    layers += [("flatten",), ("linear", c * h * w, hidden), ("relu",), ("linear", hidden, draw(st.integers(1, 11)))]
    return Drawn(tuple(layers), shape, draw(st.integers(0, 2**16)))


@st.composite
def sequences(draw: st.DrawFn) -> Drawn:
    """One to three recurrent layers with linear ones between, read in any of three ways."""
    inputs = width = draw(st.integers(1, 14))
    layers: list[tuple[Any, ...]] = []
    for place in range(draw(SMALL)):
        if place and draw(st.booleans()):
            out = draw(st.integers(1, 12))
            layers += [("linear", width, out), (draw(st.sampled_from(["relu", "tanh"])),)]
            width = out
        out = draw(st.integers(1, 21))
        layers.append((draw(st.sampled_from(["lstm", "gru"])), width, out))
        width = out
    layers += [("linear", width, draw(st.integers(1, 9))), ("read", draw(st.sampled_from(["last", "mean", "every"])))]
    return Drawn(tuple(layers), (inputs,), draw(st.integers(0, 2**16)))


def collect(count: int) -> list[Drawn]:
    """``count`` draws, so that one image holds them all."""
    found: list[Drawn] = []

    @settings(deadline=None, max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.one_of(maps(), sequences()))
    def add(drawn: Drawn) -> None:
        found.append(drawn)

    add()
    return found


def made(drawn: Drawn) -> Part:
    """The net quantised on normal data, with vectors of ordinary and of extreme inputs."""
    rng = np.random.default_rng(drawn.seed)
    steps = (int(rng.integers(2, 9)),) if drawn.is_sequence else ()
    data = rng.normal(size=(12, *steps, *drawn.shape)).astype(np.float32)
    q = projgen.quantize(module(drawn), [torch.from_numpy(data)])
    (port,) = q.graph.inputs
    given_ = np.concatenate([data[:2], np.full_like(data[:1], 1e6), 50 * data[2:3], np.full_like(data[:1], -1e6)])
    integers = np.asarray(port.to_ir(np.asarray(q.quantize_input(given_))))
    return part(q.graph, ((x,) for x in integers), repr(drawn))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "count", "favour"),
    [
        pytest.param("host", HOST, "speed"),
        pytest.param("host", CORES, "ram"),
        pytest.param("cortex-m4", CORES, "speed", marks=pytest.mark.qemu),
        pytest.param("cortex-m55", CORES, "speed", marks=pytest.mark.qemu),
    ],
)
def test_drawn_nets(target: str, count: int, favour: str, tmp_path: Path) -> None:
    parts = [made(drawn) for drawn in collect(count)]
    assert len(parts) >= count // 2
    sanitized: dict[str, Any] = {"sanitize": True, "optimise": "-O1"} if target == "host" else {}
    compared = compare(build(parts, target, tmp_path, favour=favour, **sanitized), parts)
    assert compared.runs >= 5 * len(parts)
