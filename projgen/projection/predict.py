"""Predicted loss of every option of every layer, for ``method="output"``, and the factors of the chosen ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

from projgen.pca.collect import Collected, LayerStats
from projgen.pca.counting import dense_cost, factored_cost
from projgen.pca.discover import Kind, Layer
from projgen.projection.closed_form import Regression, output_factors, output_regressions
from projgen.projection.conv_form import ConvProblem, conv_factors, conv_problems, output_errors, start_projector
from projgen.projection.factors import DenseWeights, Factors, dense_weights
from projgen.projection.ranks import DENSE, Options, Pair, explained_options, knapsack, pareto, useful

_GRID = 24


class Predictor:
    """Solves each layer's regressions once; from then on options, choices and factors cost next to nothing.

    The predicted loss of a layer is its weighted error per position times its positions per observation, so the
    losses of all layers add up on the scale of the network's output error.
    """

    def __init__(self, model: nn.Module, collected: Collected, layers: list[Layer]) -> None:
        self._dense: dict[str, DenseWeights] = {x.name: dense_weights(model, x) for x in layers}
        self._stats: dict[str, LayerStats] = {x.name: collected.layers[x.name] for x in layers}
        self._solved: dict[str, tuple[Regression, ...]] = {}
        self._convs: dict[str, list[ConvProblem]] = {}
        self._baseline: dict[str, float] = {}
        self._errors: dict[str, dict[Pair, float]] = {}
        self._options: list[Options] = []
        for layer in layers:
            errors = dict(self._table(layer))
            self._errors[layer.name] = errors
            entries = [(factored_cost(layer, *pair), error, pair) for pair, error in errors.items()]
            entries = [e for e in entries if e[2] == useful(layer, *e[2])]
            self._options.append(pareto(layer, [*entries, (dense_cost(layer), 0.0, DENSE)]))

    def for_explained(self, goal: float) -> dict[str, Pair]:
        """Ranks where each layer keeps the proportion ``goal`` of its weighted output variance."""
        return explained_options(self._options, self._baseline, goal)

    def for_removal(self, removal: int) -> dict[str, Pair]:
        """Ranks of least predicted loss that remove at least so many learnables."""
        dense = sum(dense_cost(option.layer) for option in self._options)
        return knapsack(self._options, dense - removal)

    def most_removed(self) -> int:
        """Learnables that go when every layer takes its cheapest option."""
        return sum(dense_cost(option.layer) - int(option.cost[0]) for option in self._options)

    def explained(self, layer: Layer, pair: Pair) -> float:
        """1 - error / error of leaving the layer's product out."""
        base = self._baseline[layer.name]
        if pair == DENSE or base <= 0.0:
            return 1.0
        return max(0.0, 1.0 - self._error(layer, pair) / base)

    def factors(self, layer: Layer, pair: Pair) -> Factors:
        """The factors of a layer at given ranks."""
        dense, stats = self._dense[layer.name], self._stats[layer.name]
        if layer.kind is Kind.CONV:
            return conv_factors(dense, stats, self._convs[layer.name], *pair)
        return output_factors(dense, stats, self._solved[layer.name], *pair)

    def _error(self, layer: Layer, pair: Pair) -> float:
        known = self._errors[layer.name]
        if pair not in known:  # a rank between the grid's, asked for by name
            known.update(self._conv_row(layer, pair[0]))
        return known[pair]

    def _table(self, layer: Layer) -> Iterator[tuple[Pair, float]]:
        stats, dense = self._stats[layer.name], self._dense[layer.name]
        if layer.kind is Kind.CONV:
            problems = conv_problems(dense, stats)
            self._convs[layer.name] = problems
            self._baseline[layer.name] = sum(p.total for p in problems) * self._scale(stats.patches[0].rows, stats)
            for r_in in [*_grid(layer.inputs), None]:
                yield from self._conv_row(layer, r_in)
            return
        solved = output_regressions(dense, stats)
        self._solved[layer.name] = solved
        scale = self._scale(stats.inputs[0].rows, stats)
        self._baseline[layer.name] = scale * sum(float(s.tails[0]) for s in solved)
        first = _side_errors(solved[0], layer.inputs)
        if not layer.hidden:
            yield from ((((r, None), scale * e) for r, e in first))
            return
        for r_in, e_in in first:
            for r_out, e_out in _side_errors(solved[1], layer.hidden):
                yield (r_in, r_out), scale * (e_in + e_out)

    def _conv_row(self, layer: Layer, r_in: int | None) -> Iterator[tuple[Pair, float]]:
        stats = self._stats[layer.name]
        scale = self._scale(stats.patches[0].rows, stats)
        rows = np.zeros(layer.outputs + 1)
        for problem in self._convs[layer.name]:
            rows += output_errors(problem, None if r_in is None else start_projector(problem)[:, :r_in])
        if r_in is not None:
            yield (r_in, None), scale * float(rows[-1])
        yield from (((r_in, r), scale * float(rows[r])) for r in range(1, layer.outputs))

    @staticmethod
    def _scale(rows: int, stats: LayerStats) -> float:
        return rows / max(stats.samples, 1)


def _side_errors(solved: Regression, width: int) -> list[tuple[int | None, float]]:
    ranks: list[tuple[int | None, float]] = [
        (r, float(solved.tails[r])) for r in range(1, min(len(solved.tails), width))
    ]
    return [*ranks, (None, 0.0)]


def _grid(size: int) -> list[int]:
    """Ranks below size: all of them, or about _GRID in growing steps."""
    if size <= _GRID:
        return list(range(1, size))
    return sorted({round(x) for x in np.geomspace(1, size * 0.9, _GRID)})
