"""analyze: the table per layer, the reasons, the curve and how both are shown."""

from __future__ import annotations

import io
import itertools

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import projgen


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, groups=16)
        self.a = nn.Linear(16, 16)
        self.b = nn.Linear(16, 16)
        self.b.weight = self.a.weight
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth(torch.relu(self.conv(x))).mean((2, 3))
        return self.fc(torch.relu(self.b(torch.relu(self.a(x)))))


@pytest.fixture(scope="module")
def analysis() -> object:
    torch.manual_seed(0)
    return projgen.analyze(Net(), torch.randn(60, 3, 8, 8))


def shown(analysis: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=150).print(analysis)
    return stream.getvalue()


def test_each_layer_is_eligible_or_says_why_not(analysis: object) -> None:
    rows = {layer.name: layer for layer in analysis.layers}
    assert list(rows) == ["conv", "depth", "a", "b", "fc"]
    assert rows["conv"].eligible and rows["fc"].eligible and not rows["conv"].reason
    assert "depthwise" in rows["depth"].reason and rows["depth"].learnables == 16 * 9 + 16
    assert rows["a"].reason == "it shares its weights with 'b'" and rows["b"].reason == "it shares its weights with 'a'"
    assert rows["conv"].learnables == 448
    assert rows["conv"].max_reduction == pytest.approx(1 - (3 + 9 + 16 + 1) / 448)
    assert rows["fc"].max_reduction == pytest.approx(1 - (16 + 5 + 5) / 85)
    removed = 448 - 29 + 85 - 26
    assert analysis.max_reduction == pytest.approx(removed / analysis.learnables)


def test_the_curve_falls_and_ends_at_the_maximum(analysis: object) -> None:
    levels = [p.learnables_reduction for p in analysis.curve]
    assert levels == [level for level in (0.1, 0.2, 0.3, 0.4, 0.5) if level <= analysis.max_reduction]
    for values in ([p.explained_pca for p in analysis.curve], [p.explained_output for p in analysis.curve]):
        assert all(a >= b - 1e-9 for a, b in itertools.pairwise(values))
        assert all(0 < v <= 1 for v in values)


def test_it_agrees_with_compress(analysis: object) -> None:
    torch.manual_seed(0)
    model, x = Net(), torch.randn(60, 3, 8, 8)
    _, info = projgen.compress(
        model, x, layer_names=["conv", "fc"], explained_variance_goal=0.95, method="pca", verbosity="off"
    )
    ranks = {layer.name: layer.ranks_at_95 for layer in analysis.layers if layer.eligible}
    assert ranks == {layer.name: layer.ranks for layer in info.layers}


def test_it_prints_as_a_table_and_as_html(analysis: object) -> None:
    text = shown(analysis)
    for part in ("learnables, up to", "depthwise convolution", "ranks at 95%", "10.0% ->"):
        assert part in text
    page = analysis._repr_html_()
    assert page.count("<table>") == 2 and "it shares its weights with &#x27;b&#x27;" in page


def test_a_pca_made_before_and_a_model_without_candidates() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(30, 8)
    pca = projgen.NeuronPCA(model, x, layer_names=["0"], curvature=False, verbosity="off")
    analysis = projgen.analyze(model, pca)
    assert [layer.reason for layer in analysis.layers] == ["", "the data does not reach it, or it was not asked for"]
    assert all(p.explained_output is None for p in analysis.curve)
    nothing = projgen.analyze(nn.Sequential(nn.RNN(8, 4)), x)
    assert nothing.max_reduction == 0.0 and nothing.curve == () and "nn.RNN" in nothing.layers[0].reason
    assert "<table>" in nothing._repr_html_() and "nn.RNN" in shown(nothing)


@pytest.mark.parametrize(("model", "count"), [(nn.ReLU(), 0), (nn.Sequential(nn.BatchNorm1d(8), nn.Sigmoid()), 16)])
def test_a_model_without_weight_matrices_gets_a_line_instead_of_a_table(model: nn.Module, count: int) -> None:
    analysis = projgen.analyze(model, torch.randn(20, 8))
    said = f"{count} learnables, none in a layer with a weight matrix: there is nothing to compress"
    assert analysis.layers == () and shown(analysis) == f"{said}\n"
    assert analysis._repr_html_() == f"<p>{said}</p>"


def test_the_table_says_which_units_may_go_and_why_the_others_stay(analysis: object) -> None:
    rows = {layer.name: layer for layer in analysis.layers}
    assert rows["conv"].units == 0
    assert rows["conv"].units_reason == "a layer that makes or reads them is used more than once"
    assert rows["fc"].units_reason == "the network's outputs never change"
    assert "all units stay: the network's outputs" in " ".join(shown(analysis).split())
    torch.manual_seed(0)
    plain = projgen.analyze(nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 2)), torch.randn(30, 8))
    assert [layer.units for layer in plain.layers] == [12, 0]
    assert "units to prune" in shown(plain) and "<td>12</td>" in plain._repr_html_()
