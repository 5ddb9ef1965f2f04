"""Projected layers that a target would run faster as their products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import projgen
from projgen.budget.predict import footprint
from projgen.budget.slower import compared, factor_chains, slower_than_dense
from projgen.targets import load_target
from tests.budget.test_prices import Residual
from tests.budget.test_restore import Recurrent


def projected(model: nn.Module, x: torch.Tensor, ranks: dict[str, Any]) -> Any:
    small, _ = projgen.compress(model.eval(), x, ranks=ranks, verbosity="off", unpack=True)
    return projgen.quantize(small, x, equalise=False, keep_dead_channels=True)


def whole(model: nn.Module, x: torch.Tensor) -> Any:
    return projgen.quantize(model, x, equalise=False, keep_dead_channels=True)


def test_a_convolution_that_a_triple_makes_slower() -> None:
    """At three quarters of its channels, a Winograd convolution beats its triple; at a quarter the triple wins."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
    x = torch.randn(32, 16, 8, 8)
    q = projected(model, x, {"0": (13, 13), "2": (4, 4)})
    target = load_target("cortex-m4")
    (found,) = slower_than_dense(q.graph, target)
    assert found.name == "0" and found.projected > found.dense
    dense = {c.source: c.instructions for c in footprint(whole(model, x), target).layers}
    assert found.dense == pytest.approx(dense["0"], rel=0.02)
    assert found.text.startswith("0 (") and "predicted" in found.text


CASES: dict[str, tuple[Any, tuple[int, ...], dict[str, Any], list[tuple[str, int]]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 8)), (40,), {"0": 6}, [("0", 2)]),
    "residual": (Residual, (3, 12, 12), {"conv": (6, 6)}, [("conv", 3)]),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(12, 10, 3, stride=2, output_padding=1)), (12, 5, 6), {"0": (4, 4)},
        [("0", 3)],
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), (7, 6), {"rnn": (3, 6), "fc": 2}, [("rnn", 1), ("fc", 2)]),
    "gru": (lambda: Recurrent(nn.GRU), (7, 6), {"rnn": (None, 6)}, [("rnn", 1)]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_the_product_is_priced_as_the_dense_layer(case: str, target: str) -> None:
    build, shape, ranks, chains = CASES[case]
    torch.manual_seed(1)
    model, x = build(), torch.randn(16, *shape)
    q = projected(model, x, ranks)
    assert [len(chain) for chain in factor_chains(q.graph)] == [count for _, count in chains]
    found = {layer.name: layer for layer in compared(q.graph, load_target(target))}
    assert list(found) == [name for name, _ in chains]
    dense = footprint(whole(model, x), load_target(target)).layers
    small = footprint(q, load_target(target)).layers
    for name, _ in chains:
        was, now = ([c for c in layers if c.belongs(name)] for layers in (dense, small))
        assert found[name].dense == pytest.approx(sum(c.instructions for c in was), rel=0.05, abs=60)
        assert found[name].projected == pytest.approx(sum(c.instructions for c in now), rel=0.05, abs=60)


def test_dense_networks_have_no_chains() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(72, 2))
    q = whole(model.eval(), torch.randn(8, 3, 5, 5))
    assert list(factor_chains(q.graph)) == [] and slower_than_dense(q.graph, load_target("cortex-m4")) == []
