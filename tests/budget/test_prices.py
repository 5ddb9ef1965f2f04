"""Prices of layers that do not exist yet, against the lowering of the network that has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import projgen
from projgen.budget.predict import footprint, steps_of
from projgen.budget.prices import Prices
from projgen.budget.sketch import layer_nodes, sketch
from projgen.budget.tables import Tables
from projgen.pca.discover import Layer, find_layers
from projgen.projection.ranks import DENSE, Choice
from projgen.targets import load_target
from tests.budget.test_restore import Recurrent

TARGETS = ("cortex-m4", "cortex-m55")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.stem(x))
        return torch.relu(y + self.conv(y))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 5, padding=2, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


CASES: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "convolutions": (convolutions, (4, 12, 12), {"0": (3, 8), "2": (8, 8), "4": (8, 8)}),
    "one side": (convolutions, (4, 12, 12), {"0": (None, 4), "2": (6, None), "4": (None, 6)}),
    "residual": (Residual, (3, 16, 16), {"conv": (8, 8)}),
    "lstm": (lambda: Recurrent(nn.LSTM), (9, 6), {"rnn": (3, 6), "fc": 2}),
    "gru": (lambda: Recurrent(nn.GRU), (9, 6), {"rnn": (None, 8)}),
    "linear": (
        lambda: nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 40)), (96,), {"0": 12, "2": 8},
    ),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_prices_are_those_of_the_lowered_network(case: str, target: str) -> None:
    build, shape, ranks = CASES[case]
    torch.manual_seed(5)
    dense = build().eval()
    x = torch.randn(24, *shape)
    small, info = projgen.compress(dense, x, ranks=ranks, verbosity="off", unpack=True)
    layers = [layer for layer in find_layers(dense) if layer.kind is not None]
    chosen = {d.name: Choice(*d.ranks, d.joint, d.shared, d.separable) for d in info.layers}
    machine = load_target(target)
    q, s = (projgen.quantize(m, x, equalise=False, keep_dead_channels=True) for m in (dense, small))
    steps = steps_of(q, (x.numpy(),))
    whole, after = (footprint(f, machine, steps=steps) for f in (q, s))
    prices = Prices(q.graph, layers, whole, machine, steps, "speed")
    assert set(layer_nodes(q.graph, layers)) == {layer.name for layer in layers}
    for found, choices in ((whole, dict.fromkeys(chosen, DENSE)), (after, chosen)):
        total = {"instructions": [0.0, 0.0], "weights": [0.0, 0.0]}
        for layer in layers:
            price = prices.of(layer, choices[layer.name])
            mine = [c for c in found.layers if c.belongs(layer.module_name)]
            assert price.calls == len(mine), layer.name
            lowered = sum(c.instructions for c in mine), sum(c.weight_bytes for c in mine)
            pairs = zip((price.instructions, price.weight_bytes), lowered, strict=True)
            total = {n: [t[0] + a, t[1] + b] for (n, t), (a, b) in zip(total.items(), pairs, strict=True)}
            if target == "cortex-m55":  # elsewhere layers share code, and one that is small takes what others have
                assert price.weight_bytes == lowered[1], layer.name
                assert price.instructions == pytest.approx(lowered[0], rel=0.05, abs=60 * steps), layer.name
        for name, (priced_, lowered_) in total.items():
            assert priced_ == pytest.approx(lowered_, rel=0.05 if name == "instructions" else 0.15, abs=60 * steps)


def test_a_separable_pair_is_priced() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(8, 24, 5, stride=(2, 1), padding=(2, 1))).eval()
    x = torch.randn(8, 8, 20, 18)
    q = projgen.quantize(dense, x, keep_dead_channels=True)
    (layer,) = [x for x in find_layers(dense) if x.kind is not None]
    graph = sketch(q.graph, layer_nodes(q.graph, [layer])["0"], layer, Choice(6, 9, separable=True))
    weights = [graph.data(node, "w").shape for node in graph.nodes]
    assert weights == [(6, 5, 1, 8), (9, 1, 5, 6), (24, 1, 1, 9)]
    shapes = [graph.type(node.output).shape for node in graph.nodes]
    assert shapes == [(10, 18, 6), (10, 16, 9), (10, 16, 24)]
    assert [graph.type(node.output).dtype.value for node in graph.nodes] == ["int16", "int16", "int8"]


def test_ranks_within_a_block_of_the_m55_cost_the_same_and_the_largest_is_taken() -> None:
    torch.manual_seed(1)
    model = Recurrent(nn.LSTM).eval()
    x = torch.randn(60, 7, 6)
    pca = projgen.NeuronPCA(model, x, verbosity="off")
    tables, prices, layers = priced(model, x, pca, "cortex-m55")
    joint = [prices.of(layers[0], Choice(r, r, True)) for r in (5, 6, 7, 8, 9)]
    assert len({p.instructions for p in joint[:4]}) == 1 and len({p.weight_bytes for p in joint[:4]}) == 1
    assert joint[4].instructions > joint[3].instructions and joint[4].weight_bytes > joint[3].weight_bytes
    cheap = tables.best({"instructions": joint[3].instructions + 400})
    assert cheap is not None
    r_in, r_out = cheap["rnn"][:2]
    assert (r_in, r_out) != (None, None)
    assert all(r is None or r % 8 == 0 or r == 6 for r in (r_in, r_out))  # six inputs need no projector of eight


def priced(model: nn.Module, x: torch.Tensor, pca: Any, target: str) -> tuple[Tables, Prices, list[Layer]]:
    from projgen.projection.predict import Predictor

    layers = [stats.layer for stats in pca.collected.layers.values()]
    machine = load_target(target)
    q = projgen.quantize(model, x, equalise=False, keep_dead_channels=True)
    steps = steps_of(q, (x.numpy(),))
    prices = Prices(q.graph, layers, footprint(q, machine, steps=steps), machine, steps, "speed")
    return Tables(Predictor(model, pca.collected.layers, layers), prices), prices, layers


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_on_offer_is_slower_or_larger_than_dense(target: str) -> None:
    torch.manual_seed(2)
    model = convolutions().eval()
    x = torch.randn(40, 4, 12, 12)
    tables, prices, layers = priced(model, x, projgen.NeuronPCA(model, x, verbosity="off"), target)
    dense = {layer.name: prices.of(layer, DENSE) for layer in layers}
    count = 0
    for table in tables.tables({}, {}):
        for choices in table.choices:
            for layer in (x for x in layers if x.name in choices):
                price = prices.of(layer, choices[layer.name])
                assert price.instructions <= dense[layer.name].instructions
                assert price.weight_bytes <= dense[layer.name].weight_bytes
                count += choices[layer.name] != DENSE
    assert count > 20


def test_a_ban_takes_a_choice_away_and_a_limit_on_ram_those_that_need_more() -> None:
    torch.manual_seed(2)
    model = convolutions().eval()
    x = torch.randn(40, 4, 12, 12)
    tables, _, layers = priced(model, x, projgen.NeuronPCA(model, x, verbosity="off"), "cortex-m4")
    whole = tables.total({layer.name: DENSE for layer in layers})
    first = tables.best({"flash": 0.6 * whole["flash"]})
    assert first is not None and tables.total(first)["flash"] <= 0.6 * whole["flash"]
    tables.ban({name: choice for name, choice in first.items() if choice != DENSE})
    second = tables.best({"flash": 0.6 * whole["flash"]})
    assert second is not None
    assert all(second[name] != choice for name, choice in first.items() if choice != DENSE)
    least = tables.smallest({"flash": 1.0})
    assert tables.total(least)["flash"] <= tables.total(second)["flash"]
    assert tables.best({"flash": 0.9 * tables.total(least)["flash"]}) is None
    most = tables.total(first)["ram"]
    lean = tables.best({"ram": most - 1})
    assert lean is not None and tables.total(lean)["ram"] < most
