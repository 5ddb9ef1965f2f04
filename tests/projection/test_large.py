"""What networks of many learnables let go between their predictions and their factors."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.pca.neuron_pca import NeuronPCA
from projgen.projection import forecast, narrow
from projgen.projection.forecast import Forecast, forecasts
from projgen.projection.predict import Predictor
from projgen.projection.ranks import Choice


class Net(nn.Module):
    """A layer of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.fc = nn.Conv1d(4, 10, 3), nn.LSTM(10, 12, batch_first=True), nn.Linear(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(torch.relu(self.conv(x)).transpose(1, 2))[0][:, -1])


@pytest.fixture(scope="module")
def known() -> tuple[nn.Module, NeuronPCA, Tensor]:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(80, 4, 9)
    return model, NeuronPCA(model, x, verbosity="off"), x


def narrower(model: nn.Module, pca: NeuronPCA) -> list[Forecast]:
    stats = pca.collected.layers
    layers = [s.layer for s in stats.values()]
    return forecasts(model, layers, stats, pca.example(model), prune=True).found[1:]


def test_released_problems_are_solved_anew(known: tuple[nn.Module, NeuronPCA, Tensor]) -> None:
    model, pca, _ = known
    stats = pca.collected.layers
    layers = [s.layer for s in stats.values()]
    work = Predictor(model, stats, layers)
    chosen = {"conv": Choice(2, 3), "rnn": Choice(3, 4), "fc": Choice(2, None)}
    wanted, loss = [work.factors(x, chosen[x.name]) for x in layers], work.loss(chosen)
    work.release()
    assert work.loss(chosen) == loss
    for layer, before in zip(layers, wanted, strict=True):
        after = work.factors(layer, chosen[layer.name])
        pairs = [(getattr(before, f.name), getattr(after, f.name)) for f in fields(before)]
        assert sum(isinstance(one, np.ndarray) for one, _ in pairs) >= 3
        for one, two in pairs:
            if isinstance(one, np.ndarray):
                np.testing.assert_allclose(one, two, atol=1e-9)
            else:
                assert one == two
    work.release(statistics=True)
    assert work.loss(chosen) == loss
    with pytest.raises(KeyError):
        work.factors(layers[0], chosen[layers[0].name])


def test_large_networks_keep_no_statistics_of_narrower_ones(
    known: tuple[nn.Module, NeuronPCA, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pca, x = known
    kept = narrower(model, pca)
    monkeypatch.setattr(forecast, "LARGE", 1)
    lean = [f for f in narrower(model, pca) if f.units in {other.units for other in kept}]
    assert len(lean) > 3
    for one in lean:
        other = next(f for f in kept if f.units == one.units)
        assert len(other.start.stats) == 3 and not one.start.stats and not one.work._convs
        budget = (one.size + one.least) // 2
        assert one.loss(budget) == other.loss(budget)
        for ours, theirs in zip(one.realisations(budget), other.realisations(budget), strict=True):
            torch.testing.assert_close(ours(x), theirs(x))
    assert any(one.start.stats for one in lean)  # made again for the factors


@pytest.mark.parametrize("data", [False, True])
def test_compress_of_a_large_network(
    known: tuple[nn.Module, NeuronPCA, Tensor], data: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, pca, x = known
    for module in (forecast, narrow):
        monkeypatch.setattr(module, "LARGE", 1)
    small, info = projgen.compress(
        model, pca, data=x if data else None, learnables_reduction_goal=0.6, prune=True, verbosity="off"
    )
    assert info.choice == ("measured" if data else "predicted") and info.learnables_reduction >= 0.6
    assert all(0 < layer.explained_variance <= 1 for layer in info.layers) and small(x).shape == (80, 6)
