"""Predicted loss of every option of every layer, for ``method="output"``, and the factors of the chosen ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from projgen.pca.collect import LayerStats
from projgen.pca.counting import dense_cost, factored_cost
from projgen.pca.discover import Kind, Layer
from projgen.projection.closed_form import Regression, output_factors, output_regressions
from projgen.projection.conv_form import (
    ConvProblem,
    LeastSquares,
    conv_factors,
    conv_problems,
    least_squares,
    output_errors,
    start_projector,
)
from projgen.projection.factors import Array, DenseWeights, Factors, dense_weights
from projgen.projection.ranks import DENSE, Choice, Options, explained_options, knapsack, pareto, useful

_GRID = 24


@dataclass(frozen=True, slots=True)
class Weighting:
    """How the search bends the predicted losses: factors on what a layer reads and on its hidden state, and the
    form of an LSTM ("joint", "separate", or "" for either)."""

    read: float = 1.0
    hidden: float = 1.0
    form: str = ""


@dataclass(frozen=True, slots=True)
class _Table:
    """All options of a layer: cost, and losses on the input side (or in all) and on the hidden side."""

    layer: Layer
    cost: Array
    read: Array
    hidden: Array
    choices: tuple[Choice, ...]

    def options(self, weighting: Weighting) -> Options:
        loss = weighting.read * self.read + weighting.hidden * self.hidden
        joint = np.array([choice.joint for choice in self.choices])
        dense = np.array([choice == DENSE for choice in self.choices])
        keep = np.ones(len(self.choices), dtype=bool)
        if weighting.form and joint.any():
            keep = dense | (joint if weighting.form == "joint" else ~joint)
        kept = np.flatnonzero(keep)
        return pareto(self.layer, self.cost[kept], loss[kept], [self.choices[i] for i in kept])


class Predictor:
    """Solves each layer's regressions once; from then on options, choices and factors cost next to nothing.

    The predicted loss of a layer is its weighted error per position times its positions per observation, so the
    losses of all layers add up on the scale of the network's output error.
    """

    def __init__(self, model: nn.Module, stats: Mapping[str, LayerStats], layers: list[Layer]) -> None:
        self._dense: dict[str, DenseWeights] = {x.name: dense_weights(model, x) for x in layers}
        self._stats: dict[str, LayerStats] = {x.name: stats[x.name] for x in layers}
        self._solved: dict[str, tuple[Regression, ...]] = {}
        self._convs: dict[str, list[ConvProblem]] = {}
        self._starts: dict[str, list[LeastSquares]] = {}
        self._baseline: dict[str, float] = {}
        self._errors: dict[str, dict[Choice, tuple[float, float]]] = {}
        self._tables: list[_Table] = []
        for layer in layers:
            errors = self._errors[layer.name] = self._all_errors(layer)
            usable = [c for c in errors if c.joint or c == useful(layer, c.r_in, c.r_out)]
            cost = [factored_cost(layer, c.r_in, c.r_out, joint=c.joint) for c in usable]
            kept = [i for i, value in enumerate(cost) if value < dense_cost(layer)]
            choices = (*(usable[i] for i in kept), DENSE)
            losses = np.array([*(errors[usable[i]] for i in kept), (0.0, 0.0)])
            costs = np.array([*(cost[i] for i in kept), dense_cost(layer)])
            self._tables.append(_Table(layer, costs, losses[:, 0], losses[:, 1], choices))

    def for_explained(self, goal: float, bent: Mapping[str, Weighting] | None = None) -> dict[str, Choice]:
        """Choices where each layer keeps the proportion ``goal`` of its weighted output variance."""
        return explained_options(self._options(bent), self._baseline, goal)

    def for_removal(self, removal: int, bent: Mapping[str, Weighting] | None = None) -> dict[str, Choice]:
        """Choices of least (bent) predicted loss that remove at least so many learnables."""
        dense = sum(dense_cost(table.layer) for table in self._tables)
        return knapsack(self._options(bent), dense - removal)

    def most_removed(self) -> int:
        """Learnables that go when every layer takes its cheapest option."""
        return sum(dense_cost(table.layer) - int(table.cost.min()) for table in self._tables)

    def removed(self, chosen: Mapping[str, Choice]) -> int:
        """Learnables that a choice removes."""
        pairs = [(table.layer, chosen[table.layer.name]) for table in self._tables]
        return sum(dense_cost(x) - factored_cost(x, c.r_in, c.r_out, joint=c.joint) for x, c in pairs)

    def loss(self, chosen: Mapping[str, Choice]) -> float:
        """Predicted loss of the whole network."""
        return sum(sum(self._error(table.layer, chosen[table.layer.name])) for table in self._tables)

    def explained(self, layer: Layer, choice: Choice) -> float:
        """1 - error / error of leaving the layer's product out."""
        base = self._baseline[layer.name]
        if choice == DENSE or base <= 0.0:
            return 1.0
        return max(0.0, 1.0 - sum(self._error(layer, choice)) / base)

    def factors(self, layer: Layer, choice: Choice) -> Factors:
        """The factors of a layer at given ranks."""
        dense, stats = self._dense[layer.name], self._stats[layer.name]
        if layer.kind is Kind.CONV:
            problems, starts = self._convs[layer.name], self._starts[layer.name]
            return conv_factors(dense, stats, problems, choice.r_in, choice.r_out, starts)
        return output_factors(dense, stats, self._solved[layer.name], choice)

    def _options(self, bent: Mapping[str, Weighting] | None) -> list[Options]:
        plain = Weighting()
        return [table.options((bent or {}).get(table.layer.name, plain)) for table in self._tables]

    def _error(self, layer: Layer, choice: Choice) -> tuple[float, float]:
        if choice == DENSE:
            return 0.0, 0.0
        known = self._errors[layer.name]
        if choice not in known:  # a rank between the grid's, asked for by name
            known.update(self._conv_row(layer, choice.r_in))
        return known[choice]

    def _all_errors(self, layer: Layer) -> dict[Choice, tuple[float, float]]:
        stats, dense = self._stats[layer.name], self._dense[layer.name]
        errors: dict[Choice, tuple[float, float]] = {}
        if layer.kind is Kind.CONV:
            problems = self._convs[layer.name] = conv_problems(dense, stats)
            self._baseline[layer.name] = sum(p.total for p in problems) * _positions(stats)
            self._starts[layer.name] = [least_squares(p, start_projector(p)) for p in problems]
            for r_in in [*_grid(layer.inputs, _GRID), None]:
                errors.update(self._conv_row(layer, r_in))
            return errors
        solved = self._solved[layer.name] = output_regressions(dense, stats)
        scale = _positions(stats)
        first = _side_errors(solved[0], layer.inputs)
        if not layer.hidden:
            self._baseline[layer.name] = scale * float(solved[0].tails[0])
            return {Choice(r, None): (scale * e, 0.0) for r, e in first}
        self._baseline[layer.name] = scale * float(solved[0].tails[0] + solved[1].tails[0])
        for r_in, e_in in first:
            for r_out, e_out in _side_errors(solved[1], layer.hidden):
                errors[Choice(r_in, r_out)] = (scale * e_in, scale * e_out)
        for joint in solved[2:]:
            for rank in range(1, len(joint.tails) - 1):
                errors[Choice(rank, rank, True)] = (scale * float(joint.tails[rank]), 0.0)
        return errors

    def _conv_row(self, layer: Layer, r_in: int | None) -> dict[Choice, tuple[float, float]]:
        rows = np.zeros(layer.outputs + 1)
        for problem, start in zip(self._convs[layer.name], self._starts[layer.name], strict=True):
            rows += output_errors(problem, start, r_in)
        rows *= _positions(self._stats[layer.name])
        row = {Choice(r_in, r): (float(rows[r]), 0.0) for r in range(1, layer.outputs)}
        if r_in is not None:
            row[Choice(r_in, None)] = (float(rows[-1]), 0.0)
        return row


def _positions(stats: LayerStats) -> float:
    moments = stats.patches or stats.inputs
    return moments[0].rows / max(stats.samples, 1)


def _side_errors(solved: Regression, width: int) -> list[tuple[int | None, float]]:
    ranks: list[tuple[int | None, float]] = [
        (r, float(solved.tails[r])) for r in range(1, min(len(solved.tails), width))
    ]
    return [*ranks, (None, 0.0)]


def _grid(size: int, count: int) -> list[int]:
    """Ranks below size: all of them, or about ``count`` in growing steps."""
    if size <= count:
        return list(range(1, size))
    return sorted({round(x) for x in np.geomspace(1, size * 0.9, count)})
