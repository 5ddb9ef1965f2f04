"""How many units each group keeps."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import projgen
from projgen.pca.counting import count_learnables
from projgen.projection.allocate import allocations
from projgen.projection.merge import Ranking, narrowed
from projgen.projection.trace import Consumer, Group

NET = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
PRICES = (6 + 1 + 30, 20 + 1 + 5)


def ranking(name: str, reader: str, size: int, left: np.ndarray) -> Ranking:
    group = Group(size, [name], [], [Consumer(reader)])
    return Ranking(group, np.arange(size), left, (np.eye(size),))


def falling(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.append(np.cumsum(rng.exponential(size=size) ** 3)[::-1], 0.0)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_shares_by_loss_cost_no_more_and_lose_no_more_than_equal_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curves = (falling(rng, 20), falling(rng, 30))
    convex = tuple(np.append(np.cumsum(np.sort(-np.diff(c)))[::-1], 0.0) for c in curves)  # best units first
    rankings = [ranking("0", "2", 20, convex[0]), ranking("2", "4", 30, convex[1])]
    for fraction in (0.7, 0.4, 0.2):
        found = {equal: sizes for _, sizes, equal in allocations(NET, rankings, [fraction])}
        assert found[True] == (round(20 * fraction), round(30 * fraction))
        if False not in found:
            continue
        paid = {equal: sum(k * p for k, p in zip(sizes, PRICES, strict=True)) for equal, sizes in found.items()}
        lost = {equal: sum(c[k] for k, c in zip(sizes, convex, strict=True)) for equal, sizes in found.items()}
        assert paid[False] <= paid[True]
        unit = max(-np.diff(c).min() for c in convex)
        assert lost[False] <= lost[True] + unit  # nothing finer than a whole unit can be exchanged


def test_a_group_whose_units_hardly_matter_loses_more_of_them() -> None:
    vital = np.append(np.linspace(20, 1, 20), 0.0)
    idle = np.append([1.0, 0.1], np.zeros(29))
    (equal, apart) = allocations(NET, [ranking("0", "2", 20, vital), ranking("2", "4", 30, idle)], [0.5])
    assert equal == (0.5, (10, 15), True)
    assert apart[1][0] > 10 and apart[1][1] <= 2
    small = narrowed(NET, [(r, r.order[:k]) for r, k in zip(_both(vital, idle), apart[1], strict=True)])
    assert small[0].out_features == apart[1][0] and small[2].out_features == apart[1][1]


def _both(one: np.ndarray, two: np.ndarray) -> list[Ranking]:
    return [ranking("0", "2", 20, one), ranking("2", "4", 30, two)]


def test_cells_of_one_rnn_keep_equally_many_and_one_class_has_equal_shares_only() -> None:
    net = nn.ModuleDict({"rnn": nn.LSTM(4, 10, num_layers=2), "fc": nn.Linear(10, 3), "wide": nn.Linear(12, 4)})
    cells = [
        Ranking(
            Group(10, ["rnn"], [], [Consumer("rnn", recurrent=True, cell=cell)], {"rnn": cell}),
            np.arange(10),
            np.linspace(10.0 - 9 * cell, 0, 11),
            (np.eye(10),),
        )
        for cell in range(2)
    ]
    assert list(allocations(net, cells, [0.5, 0.5, 1.0])) == [(0.5, (5, 5), True)]
    other = Ranking(Group(12, ["fc"], [], [Consumer("wide")]), np.arange(12), np.linspace(500, 0, 13), (np.eye(12),))
    for _, (first, second, _third), _ in allocations(net, [*cells, other], [0.8, 0.5, 0.2]):
        assert first == second
    assert list(allocations(NET, [], [0.5])) == []


def test_compress_uses_shares_of_their_own_where_that_measures_better() -> None:
    """The second hidden layer is all but idle: equal shares would take as many units from the first."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 6))
    with torch.no_grad():
        net[2].weight[2:] = net[2].weight[:2].repeat(11, 1)
        net[2].bias[2:] = net[2].bias[:2].repeat(11)
    x = torch.randn(400, 8)
    small, info = projgen.compress(net, x, learnables_reduction_goal=0.6, verbosity="off", prune=True)
    units = [d.units[1] for d in info.layers]
    assert units[1] < 0.75 * units[0]
    assert info.output_error < 1e-3 and info.learnables_after == count_learnables(small)
