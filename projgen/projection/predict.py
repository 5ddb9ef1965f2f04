"""Predicted loss of every option of every layer, for ``method="output"``, and the factors of the chosen ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from projgen.pca.collect import LayerStats
from projgen.pca.counting import dense_cost
from projgen.pca.discover import Kind, Layer
from projgen.projection.closed_form import (
    Regression,
    output_factors,
    output_regressions,
    shared_factors,
    shared_tails,
)
from projgen.projection.conv_form import (
    ConvProblem,
    LeastSquares,
    conv_factors,
    conv_problems,
    least_squares,
    output_errors,
    start_projector,
)
from projgen.projection.factors import Array, DenseWeights, Factors, HiddenState, dense_weights
from projgen.projection.options import Alternatives, Sharing, Table, Weighting, is_round
from projgen.projection.ranks import (
    DENSE,
    Choice,
    Options,
    explained_options,
    knapsack,
    output_cost,
    rated,
    useful,
)

_GRID = (24, 0.9)
_COARSE_GRID = (12, 0.75)
_WIDE = 200
_JOINT_FORMS = ("joint", "folded")  # of an LSTM, in the order of their regressions


class Predictor:
    """Solves each layer's regressions once; from then on options, choices and factors cost next to nothing.

    The predicted loss of a layer is its weighted error per position times its positions per observation, so the
    losses of all layers add up on the scale of the network's output error.
    """

    def __init__(
        self,
        model: nn.Module,
        stats: Mapping[str, LayerStats],
        layers: list[Layer],
        readers: Mapping[str, str] | None = None,
        *,
        fold: bool = True,
    ) -> None:
        """``readers``: linear layers that may share the output projector of an RNN cell, by the cell's name.

        ``fold``: the bias of a joint LSTM may be folded. It brings a target nothing, where it is one per gate again.
        """
        self._model, self._stats, self.fold = model, stats, fold
        self._dense: dict[str, DenseWeights] = {}
        self._solved: dict[str, tuple[Regression, ...]] = {}
        self._convs: dict[str, list[ConvProblem]] = {}
        self._starts: dict[tuple[str, bool], list[LeastSquares]] = {}
        self._baseline: dict[str, float] = {}
        self._errors: dict[str, dict[Choice, tuple[float, float]]] = {}
        self._tables: list[Table] = []
        for layer in layers:
            errors = self._errors[layer.name] = self._all_errors(layer)
            usable = [c for c in errors if c.joint or c.separable or c == useful(layer, c.r_in, c.r_out)]
            cost = [output_cost(layer, c) for c in usable]
            kept = [i for i, value in enumerate(cost) if value < dense_cost(layer)]
            choices = (*(usable[i] for i in kept), DENSE)
            losses = np.array([*(errors[usable[i]] for i in kept), (0.0, 0.0)])
            losses[:, 0] = [rated(loss, [choice]) for loss, choice in zip(losses[:, 0], choices, strict=True)]
            costs = np.array([*(cost[i] for i in kept), dense_cost(layer)])
            self._tables.append(Table(layer, costs, losses[:, 0], losses[:, 1], choices))
        by_name = {layer.name: layer for layer in layers}
        found = [self._sharing(by_name[rnn], by_name[reader]) for reader, rnn in (readers or {}).items()]
        self._shared = {sharing.reader.name: sharing for sharing in found}

    def for_explained(self, goal: float, bent: Mapping[str, Weighting] | None = None) -> dict[str, Choice]:
        """Choices where each layer keeps the proportion ``goal`` of its weighted output variance."""
        plain = Weighting()
        options = [table.options((bent or {}).get(table.layer.name, plain)) for table in self._tables]
        return explained_options(options, self._baseline, goal)

    def for_removal(self, removal: int, bent: Mapping[str, Weighting] | None = None) -> dict[str, Choice]:
        """Choices of least (bent) predicted loss that remove at least so many learnables."""
        dense = sum(dense_cost(table.layer) for table in self._tables)
        readers = {sharing.rnn.name: sharing.reader.name for sharing in self._shared.values()}
        chosen: dict[str, Choice] = {}
        for name, choices in knapsack(self._options(bent or {}), dense - removal).items():
            chosen[name] = choices[0]
            if len(choices) == 2:
                chosen[readers[name]] = choices[1]
        return chosen

    def most_removed(self) -> int:
        """Learnables that go when every layer takes its cheapest option."""
        dense = sum(dense_cost(table.layer) for table in self._tables)
        return dense - sum(int(option.cost.min()) for option in self._options({}))

    def singles(self) -> list[Alternatives]:
        """Of each layer what is worth trying whatever a choice costs: the best of every number of learnables, and the
        round ranks, of which kernels make most."""
        return [self._with_round_rows(table) for table in self._tables]

    def pairs(self) -> list[Alternatives]:
        """Of each RNN cell with a reader what is worth trying with the projector shared."""
        return [sharing.alternatives(table) for sharing, table in self._sharings()]

    def removed(self, chosen: Mapping[str, Choice]) -> int:
        """Learnables that a choice removes."""
        pairs = [(table.layer, chosen[table.layer.name]) for table in self._tables]
        return sum(dense_cost(x) - output_cost(x, c) for x, c in pairs)

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
        dense, stats = self._weights(layer), self._stats[layer.name]
        if layer.kind is Kind.CONV:
            problems, starts = self._problems(layer), self._starts_for(layer, choice.r_in, choice.separable)
            return conv_factors(dense, stats, problems, choice, starts)
        if choice.shared:
            return shared_factors(dense, stats, self.projector(layer, choice), self.source(layer))
        return output_factors(dense, stats, self._regressions(layer), choice)

    def prepare(self, chosen: Mapping[str, Choice]) -> None:
        """Solve again what the factors of a choice need, where it was let go."""
        for table in self._tables:
            layer, choice = table.layer, chosen[table.layer.name]
            if choice != DENSE and not choice.shared and layer.kind is Kind.CONV:
                self._starts_for(layer, choice.r_in, choice.separable)
            elif choice != DENSE and not choice.shared:
                self._regressions(layer)

    def release(self, *, statistics: bool = False) -> None:
        """Let the solved problems go, of a large network hundreds of megabytes: losses and choices stay.

        Factors that are asked for all the same are solved anew, unless the ``statistics`` go too.
        """
        for kept in (self._dense, self._solved, self._convs, self._starts):
            kept.clear()
        if statistics:
            self._stats = {}

    def projector(self, layer: Layer, choice: Choice) -> Array:
        """The (r, D) projector that a layer shares with an RNN cell."""
        return self._shared[layer.name].projectors[choice.form][: choice.r_in]

    def source(self, layer: Layer) -> HiddenState:
        """The RNN cell whose projector a layer may share."""
        rnn = self._shared[layer.name].rnn
        return HiddenState(rnn.module_name, rnn.cell)

    @property
    def cells_with_readers(self) -> set[str]:
        """Names of the RNN cells whose output projector a reader may share."""
        return {sharing.rnn.name for sharing in self._shared.values()}

    def _with_round_rows(self, table: Table) -> Alternatives:
        """A table's alternatives; of a convolution also at the round input ranks between those of the grid."""
        found, layer = table.alternatives(), table.layer
        if layer.kind is not Kind.CONV:
            return found
        known = {choice.r_in for choice in table.choices if choice.r_in is not None and not choice.separable}
        between = [r for r in range(1, max(known, default=0)) if r not in known and is_round(layer, Choice(r, None))]
        more: list[tuple[Choice, ...]] = []
        for r_in in between:
            row = self._conv_row(layer, r_in)
            self._errors[layer.name].update(row)
            more += [(c,) for c in row if is_round(layer, c) and c == useful(layer, c.r_in, c.r_out)]
        losses = np.array([sum(self._error(layer, choice)) for (choice,) in more])
        return Alternatives(found.layers, (*found.choices, *more), np.concatenate((found.loss, losses)))

    def _weights(self, layer: Layer) -> DenseWeights:
        if layer.name not in self._dense:
            self._dense[layer.name] = dense_weights(self._model, layer)
        return self._dense[layer.name]

    def _problems(self, layer: Layer) -> list[ConvProblem]:
        if layer.name not in self._convs:
            self._convs[layer.name] = conv_problems(self._weights(layer), self._stats[layer.name])
        return self._convs[layer.name]

    def _regressions(self, layer: Layer) -> tuple[Regression, ...]:
        if layer.name not in self._solved:
            solved = output_regressions(self._weights(layer), self._stats[layer.name], fold=self.fold)
            self._solved[layer.name] = solved
        return self._solved[layer.name]

    def _sharings(self) -> list[tuple[Sharing, Table]]:
        tables = {table.layer.name: table for table in self._tables}
        return [(sharing, tables[sharing.rnn.name]) for sharing in self._shared.values()]

    def _sharing(self, rnn: Layer, reader: Layer) -> Sharing:
        solved = self._regressions(rnn)
        projectors = {"separate": solved[1].right}
        for form, both in zip(_JOINT_FORMS, solved[2:], strict=False):
            projectors[form] = both.right[:, rnn.inputs : rnn.inputs + rnn.hidden]
        dense, stats = self._weights(reader), self._stats[reader.name]
        scale = _positions(stats)
        errors = {form: scale * shared_tails(dense, stats, b[: rnn.hidden]) for form, b in projectors.items()}
        return Sharing(rnn, reader, projectors, errors)

    def _options(self, bent: Mapping[str, Weighting]) -> list[Options[tuple[Choice, ...]]]:
        """The options of each layer, or of an RNN cell together with its reader."""
        plain = Weighting()
        single = {table.layer.name: table.options(bent.get(table.layer.name, plain)) for table in self._tables}
        sharing = {s.rnn.name: s for s in self._shared.values()}
        options = []
        for table in self._tables:
            name, alone = table.layer.name, single[table.layer.name]
            if name in sharing:
                weighting = bent.get(name, plain), bent.get(sharing[name].reader.name, plain)
                options.append(sharing[name].options(table, alone, single[sharing[name].reader.name], *weighting))
            elif name not in self._shared:
                choices = tuple((choice,) for choice in alone.choices)
                options.append(Options(table.layer, alone.cost, alone.error, choices))
        return options

    def _error(self, layer: Layer, choice: Choice) -> tuple[float, float]:
        if choice == DENSE:
            return 0.0, 0.0
        if choice.shared:
            return self._shared[layer.name].error(choice), 0.0
        known = self._errors[layer.name]
        if choice not in known:  # a rank between the grid's, asked for by name
            known.update(self._conv_row(layer, choice.r_in, separable=choice.separable))
        return known[choice]

    def _all_errors(self, layer: Layer) -> dict[Choice, tuple[float, float]]:
        stats = self._stats[layer.name]
        errors: dict[Choice, tuple[float, float]] = {}
        if layer.kind is Kind.CONV:
            problems = self._problems(layer)
            self._baseline[layer.name] = sum(p.total for p in problems) * _positions(stats)
            grid = _grid(layer.inputs, *(_GRID if layer.inputs < _WIDE else _COARSE_GRID))
            step = -(-layer.outputs // _WIDE)
            self._solve_conv(layer, max(grid, default=1), separable=False)
            for r_in in [*grid, None]:
                errors.update(self._conv_row(layer, r_in, step))
            most = separable_ranks(layer) if layer.inputs < _WIDE else 0
            if most:
                self._solve_conv(layer, most, separable=True)
                for r_in in _grid(most + 1, *_GRID):
                    errors.update(self._conv_row(layer, r_in, step, separable=True))
            return errors
        solved = self._regressions(layer)
        scale = _positions(stats)
        first = _side_errors(solved[0], layer.inputs)
        if not layer.hidden:
            self._baseline[layer.name] = scale * float(solved[0].tails[0])
            return {Choice(r, None): (scale * e, 0.0) for r, e in first}
        self._baseline[layer.name] = scale * float(solved[0].tails[0] + solved[1].tails[0])
        for r_in, e_in in first:
            for r_out, e_out in _side_errors(solved[1], layer.hidden):
                errors[Choice(r_in, r_out)] = (scale * e_in, scale * e_out)
        for form, both in zip(_JOINT_FORMS, solved[2:], strict=False):
            for rank in range(1, len(both.tails) - 1):
                choice = Choice(rank, rank, True, folded=form == "folded")
                errors[choice] = (scale * float(both.tails[rank]), 0.0)
        return errors

    def _solve_conv(self, layer: Layer, most: int | None, *, separable: bool) -> list[LeastSquares]:
        """The least squares of a convolution's groups for input ranks up to ``most`` (None: all)."""
        problems = self._problems(layer)
        if separable:
            problems = [p.by_columns(layer.columns) for p in problems]
        starts = [least_squares(p, start_projector(p)[:, :most]) for p in problems]
        self._starts[layer.name, separable] = starts
        return starts

    def _starts_for(self, layer: Layer, r_in: int | None, separable: bool) -> list[LeastSquares]:
        """The least squares of a convolution's groups, extended where a rank beyond the grid's is asked for.

        Of released ones just as far as they are needed.
        """
        starts = self._starts.get((layer.name, separable), [])
        if not starts:
            return self._solve_conv(layer, r_in or 1, separable=separable)
        if r_in is not None and r_in > starts[0].q.shape[1]:
            return self._solve_conv(layer, None, separable=separable)
        return starts

    def _conv_row(
        self, layer: Layer, r_in: int | None, step: int = 1, *, separable: bool = False
    ) -> dict[Choice, tuple[float, float]]:
        """Errors of a convolution with one input rank, at every output rank or every so many."""
        rows = np.zeros(layer.outputs + 1)
        for problem, start in zip(self._problems(layer), self._starts_for(layer, r_in, separable), strict=True):
            rows += output_errors(problem, start, r_in)
        rows *= _positions(self._stats[layer.name])
        row = {Choice(r_in, r, separable=separable): (float(rows[r]), 0.0) for r in range(1, layer.outputs, step)}
        if r_in is not None:
            row[Choice(r_in, None, separable=separable)] = (float(rows[-1]), 0.0)
        return row


def _positions(stats: LayerStats) -> float:
    moments = stats.patches or stats.inputs
    return moments[0].rows / max(stats.samples, 1)


def separable_ranks(layer: Layer) -> int:
    """The largest rank at which a separable pair costs less than the convolution; 0 where there is none."""
    if not layer.separable:
        return 0
    rows = layer.taps // layer.columns
    per_rank = layer.inputs * rows + layer.outputs * layer.columns
    return min((layer.inputs * layer.taps * layer.outputs - 1) // per_rank, layer.inputs * rows)


def _side_errors(solved: Regression, width: int) -> list[tuple[int | None, float]]:
    ranks: list[tuple[int | None, float]] = [
        (r, float(solved.tails[r])) for r in range(1, min(len(solved.tails), width))
    ]
    return [*ranks, (None, 0.0)]


def _grid(size: int, count: int, share: float) -> list[int]:
    """Ranks below size: all of them, or about ``count`` in growing steps up to a share of it."""
    if size <= count:
        return list(range(1, size))
    return sorted({round(x) for x in np.geomspace(1, size * share, count)})
