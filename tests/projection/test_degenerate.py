"""Layers that data never move: constant, dead, or the same at every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.data import as_batches
from projgen.pca.neuron_pca import NeuronPCA
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE
from projgen.projection.refit import refitted


class Constant(nn.Module):
    """Hidden values that are ``level`` beside differences of 1e-9; 0 is a dead layer."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 32), nn.Linear(32, 32), nn.Linear(32, 5)
        with torch.no_grad():
            self.a.weight.mul_(1e-9)
            self.a.bias.fill_(level if level else -1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class Still(nn.Module):
    """An LSTM that its input does not move."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(6, 16, batch_first=True), nn.Linear(16, 5)
        with torch.no_grad():
            self.rnn.weight_ih_l0.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


class Blank(nn.Module):
    """Convolutions over a map that shows nothing but its borders."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 5)
        with torch.no_grad():
            self.a.weight.zero_()
            self.a.bias.fill_(3.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


@pytest.mark.parametrize("goal", [0.5, 0.8])
@pytest.mark.parametrize("method", ["pca", "output"])
@pytest.mark.parametrize("name", ["constant", "dead", "lstm", "conv"])
def test_what_data_never_move_is_kept_by_its_mean(name: str, method: str, goal: float) -> None:
    torch.manual_seed(0)
    model, shape = {
        "constant": (Constant(1.3), (96, 6)),
        "dead": (Constant(0.0), (96, 6)),
        "lstm": (Still(), (64, 7, 6)),
        "conv": (Blank(), (32, 3, 6, 6)),
    }[name]
    x = torch.randn(shape)
    small, info = projgen.compress(
        model.eval(), list(x.split(16)), method=method, learnables_reduction_goal=goal, verbosity="off"
    )
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-3, atol=1e-3)
    assert info.learnables_reduction >= goal


def test_refit_of_what_reads_a_constant_keeps_its_weights() -> None:
    torch.manual_seed(1)
    teacher, x = Constant(1.3).double(), torch.randn(200, 6, dtype=torch.float64)
    teacher.a.weight.data.mul_(1e-7)  # beside their mean the covariances are errors of rounding
    moved = Constant(1.3).double()
    moved.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        moved.b.bias.add_(0.01)
    stats = NeuronPCA(moved, x, verbosity="off").collected.layers
    layers = [found.layer for found in stats.values()]
    chosen = dict.fromkeys(stats, DENSE)
    rows = {"b": np.arange(32)}
    work = Predictor(moved, stats, layers)
    result = refitted(teacher, moved, layers, chosen, work, stats, rows, as_batches(x), torch.device("cpu"))
    for name in ("b", "c"):
        weight = result.get_submodule(name).get_parameter("weight")
        torch.testing.assert_close(weight, teacher.get_submodule(name).get_parameter("weight"), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(result(x), teacher(x), rtol=1e-6, atol=1e-6)
