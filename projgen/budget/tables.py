"""The priced choices of a network's layers, and the best of them within limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from itertools import product

import numpy as np

from projgen.budget.prices import COSTS, Prices
from projgen.pca.discover import Layer
from projgen.projection.limits import Array, Table, cheapest, least_error
from projgen.projection.options import Alternatives
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE, Choice

Choices = dict[str, Choice]


class Tables:
    """What each layer can become, and at which price; a form that is slower or larger than dense is none.

    Args:
        work: predicts losses. prices: of the same network's layers.
    """

    def __init__(self, work: Predictor, prices: Prices) -> None:
        self._prices = prices
        self._singles = work.singles()
        self._pairs = work.pairs()
        self._layers = {a.layers[0].name: a.layers[0] for a in self._singles}
        self._banned: set[tuple[str, Choice]] = set()

    def ban(self, chosen: Mapping[str, Choice]) -> None:
        """Don't offer these choices of layers again: what was lowered did not pay after all."""
        self._banned |= set(chosen.items())

    def tables(self, limits: Mapping[str, float], shared: Mapping[str, Set[str]]) -> list[Table[Choices]]:
        """Of each layer, or of an RNN cell and its reader, what pays and fits the RAM, without what another beats."""
        ram = limits.get("ram", np.inf)
        found = {a.layers[0].name: self._table(a, ram, shared) for a in self._singles}
        for pair in self._pairs:
            one, two = (found.pop(layer.name) for layer in pair.layers)
            together = self._table(pair, ram, shared, spare=False)
            apart = list(product(range(len(one.choices)), range(len(two.choices))))
            choices = tuple(one.choices[i] | two.choices[j] for i, j in apart)
            error = (one.error[:, None] + two.error).ravel()
            cost = (one.cost[:, None] + two.cost).reshape(-1, len(COSTS))
            found[pair.layers[0].name] = Table(
                choices + together.choices,
                np.concatenate((error, together.error)),
                np.concatenate((cost, together.cost)),
            ).useful()
        return list(found.values())

    def best(self, limits: Mapping[str, float], shared: Mapping[str, Set[str]] | None = None) -> Choices | None:
        """The choices of least predicted loss within limits on instructions, flash and RAM; None if none are.

        Args:
            limits: those that there are. shared: units of code that others pay, by layer.
        """
        tables = self.tables(limits, shared or {})
        found = least_error(tables, _limits(limits))
        return None if found is None else _joined(found)

    def smallest(self, limits: Mapping[str, float]) -> Choices:
        """The choices that cost least, each cost in units of its limit."""
        tables = self.tables(limits, {})
        bounds = _limits(limits)
        return _joined(cheapest(tables, bounds if np.isfinite(bounds).any() else np.ones(len(COSTS))))

    def total(self, chosen: Mapping[str, Choice], shared: Mapping[str, Set[str]] | None = None) -> dict[str, float]:
        """The sum of the layers' prices by cost, as ``best`` adds them up; of RAM the largest."""
        layers = [self._layers[name] for name in chosen]
        sums = sum(self._prices.costs(x, chosen[x.name], (shared or {}).get(x.name, frozenset())) for x in layers)
        every = dict(zip(COSTS, np.asarray(sums, dtype=np.float64).tolist(), strict=True))
        return every | {"ram": float(max(self._prices.of(x, chosen[x.name]).ram for x in layers))}

    def shared(self, chosen: Mapping[str, Choice]) -> dict[str, frozenset[str]]:
        """Units of code that other layers of a choice use too: they cost a layer nothing."""
        units = {name: set(self._prices.of(self._layers[name], choice).units) for name, choice in chosen.items()}
        users = Counter(unit for mine in units.values() for unit in mine)
        return {name: frozenset(u for u in users if users[u] > (u in mine)) for name, mine in units.items()}

    def _pays(self, chosen: Mapping[Layer, Choice]) -> bool:
        free = not any((layer.name, choice) in self._banned for layer, choice in chosen.items())
        return free and self._prices.pays(chosen)

    def _table(
        self, every: Alternatives, ram: float, shared: Mapping[str, Set[str]], *, spare: bool = True
    ) -> Table[Choices]:
        """What pays and fits the RAM; with ``spare``, where nothing fits it, what needs least."""
        layers = every.layers
        paying = [
            (choices, loss)
            for choices, loss in zip(every.choices, every.loss.tolist(), strict=True)
            if set(choices) == {DENSE} or self._pays(dict(zip(layers, choices, strict=True)))
        ]
        needed = [max(self._prices.of(x, c).ram for x, c in zip(layers, choices, strict=True)) for choices, _ in paying]
        allowed = max(ram, min(needed)) if spare else ram
        kept = [pair for pair, bytes_ in zip(paying, needed, strict=True) if bytes_ <= allowed]
        costs = [
            sum(self._prices.costs(x, c, shared.get(x.name, frozenset())) for x, c in zip(layers, choices, strict=True))
            for choices, _ in kept
        ]
        made = Table(
            tuple({x.name: c for x, c in zip(layers, choices, strict=True)} for choices, _ in kept),
            np.array([loss for _, loss in kept]),
            np.array(costs, dtype=np.float64).reshape(-1, len(COSTS)),
        )
        return made.useful()


def _limits(limits: Mapping[str, float]) -> Array:
    return np.array([limits.get(name, np.inf) for name in COSTS])


def _joined(found: list[Choices]) -> Choices:
    return {name: choice for part in found for name, choice in part.items()}
