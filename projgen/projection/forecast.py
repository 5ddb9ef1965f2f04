"""What a network can become before any is made: narrowed by shares of its units, and what moments say of each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from projgen.pca.collect import LayerStats
from projgen.pca.counting import count_learnables
from projgen.pca.discover import Layer, find_layers, owned_copy
from projgen.progress import Clock
from projgen.projection.allocate import allocations
from projgen.projection.factors import Array
from projgen.projection.merge import Ranking, narrowed, narrowed_stats, rank_units
from projgen.projection.options import Weighting
from projgen.projection.predict import Predictor
from projgen.projection.ranks import Choice
from projgen.projection.search import realise
from projgen.projection.shared import shared_readers
from projgen.projection.trace import Group, find_groups
from projgen.projection.units import mark, settle, trial_inputs

FRACTIONS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.26, 0.23, 0.2, 0.16, 0.13, 0.1, 0.08, 0.05, 0.03)
LARGE = 1_000_000
_LARGE_FRACTIONS = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)
_NEAR = (0.92, 0.97, 1.03, 1.08)


@dataclass(frozen=True, slots=True)
class Start:
    """A network to project: the original, or narrowed; its statistics, and the rows of the original it kept."""

    fraction: float
    model: nn.Module
    layers: list[Layer]
    stats: Mapping[str, LayerStats]
    rows: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Forecast:
    """A network to project with what the original's moments say of it.

    Attributes:
        start: the network, with the statistics of the kept features and rows. kept: the units per group.
        work: its predictor. size: its learnables. merge_loss: predicted loss of the merges.
        readers: linear layers that may share an RNN's output projector.
        equal: all groups kept the same share of their units.
    """

    start: Start
    kept: list[tuple[Ranking, Array]]
    work: Predictor
    size: int
    merge_loss: float
    readers: Mapping[str, str]
    equal: bool = True

    @property
    def units(self) -> tuple[int, ...]:
        """Units kept per group."""
        return tuple(len(index) for _, index in self.kept)

    @property
    def least(self) -> int:
        """Learnables when every layer takes its cheapest option."""
        return self.size - self.work.most_removed()

    def loss(self, budget: int) -> float:
        """Predicted loss at a size."""
        return self.merge_loss + self.work.loss(self.work.for_removal(self.size - budget))

    def realisations(self, budget: int) -> Iterator[nn.Module]:
        """The network of least predicted loss at a size; another one if that has a folded bias, without it."""
        for chosen in predictions(self.work, self.size - budget):
            yield realise(self.work, self.start.model, self.start.layers, chosen)


def predictions(work: Predictor, removal: int) -> list[dict[str, Choice]]:
    """The choice of least predicted loss that removes so many learnables, and the least one without folded biases."""
    best = work.for_removal(removal)
    cells = {name: Weighting(form="unfolded") for name, choice in best.items() if choice.folded and not choice.shared}
    other = work.for_removal(removal, cells) if cells else best
    return [best] if other == best or work.removed(other) < removal else [best, other]


def unit_rankings(
    model: nn.Module, stats: Mapping[str, LayerStats], allowed: set[str], groups: list[Group]
) -> list[Ranking]:
    """The groups of units that may lose some, ranked.

    Args:
        allowed: names of the modules that may lose units; a group needs all of its producers among them.
        groups: as traced.
    """
    by_cell = {(s.layer.module_name, s.layer.cell): s for s in stats.values()}
    mark(groups, set(by_cell), allowed)
    found = [rank_units(group, model, by_cell) for group in groups if not group.reason]
    return [ranking for ranking in found if ranking is not None]


@dataclass(frozen=True, slots=True)
class Forecasts:
    """The whole network first, then narrower ones.

    Attributes:
        found: all that were forecast at first. rankings: of the groups that may lose units. teacher, layers, stats:
            the original. readers: linear layers that may share an RNN's output projector.
    """

    found: list[Forecast]
    rankings: list[Ranking]
    teacher: nn.Module
    layers: list[Layer]
    stats: Mapping[str, LayerStats]
    readers: Mapping[str, str]

    def narrower(self, fractions: Sequence[float], block: int = 1) -> Iterator[Forecast]:
        """Networks with about these fractions of their units, in multiples of ``block``."""
        names = {layer.name for layer in self.layers}
        for fraction, sizes, equal in allocations(self.teacher, self.rankings, fractions, block):
            kept = [(r, np.sort(r.order[:size])) for r, size in zip(self.rankings, sizes, strict=True)]
            model = narrowed(self.teacher, kept)
            here = [layer for layer in find_layers(model) if layer.name in names]
            narrow = narrowed_stats(self.stats, here, kept)
            rows = {name: chosen for r, chosen in kept for name in r.group.producers}
            start = Start(fraction, model, here, narrow, _row_index(self.teacher, rows))
            lost = sum(float(ranking.left[len(index)]) for ranking, index in kept)
            work = Predictor(model, narrow, here, self.readers, fold=self.found[0].work.fold)
            if count_learnables(self.teacher) >= LARGE:  # a dozen of these at once would take gigabytes
                work.release()
                narrow.clear()
            yield Forecast(start, kept, work, count_learnables(model), lost, self.readers, equal)

    def near(self, best: Forecast, known: set[tuple[int, ...]]) -> list[Forecast]:
        """Networks with a few units less and more than the best one, shared out alike, none of ``known`` units."""
        fractions = [best.start.fraction * factor for factor in _NEAR if best.start.fraction * factor < 1.0]
        return [f for f in self.narrower(fractions) if f.equal is best.equal and f.units not in known]


def forecasts(
    teacher: nn.Module,
    layers: list[Layer],
    stats: Mapping[str, LayerStats],
    example: tuple[Tensor, ...],
    *,
    prune: bool | str,
    clock: Clock | None = None,
    block: int = 1,
    fold: bool = True,
) -> Forecasts:
    """The whole network, and every keep fraction unless ``prune`` is False.

    Args:
        example: a batch to export the model with.
        clock: counts the stage "ranks" of the whole network.
        block: units that the kernels of a target take at a time. fold: as of ``Predictor``.
    """
    recurrent = any(layer.hidden for layer in layers)
    few = trial_inputs(teacher, example)
    groups = find_groups(owned_copy(teacher).eval(), few) if prune or recurrent else []
    readers = shared_readers(groups, layers)
    with (clock or Clock()).stage("ranks"):
        work = Predictor(teacher, stats, layers, readers, fold=fold)
    whole = Start(1.0, teacher, layers, stats, {})
    found = [Forecast(whole, [], work, count_learnables(teacher), 0.0, readers)]
    if prune is False:
        return Forecasts(found, [], teacher, layers, stats, readers)
    allowed = {layer.module_name for layer in layers}
    settle(teacher, groups, {(s.layer.module_name, s.layer.cell) for s in stats.values()}, allowed, few)
    rankings = unit_rankings(teacher, stats, allowed, groups)
    known = Forecasts(found, rankings, teacher, layers, stats, readers)
    fractions = FRACTIONS if count_learnables(teacher) < LARGE else _LARGE_FRACTIONS
    found += known.narrower(fractions[1:], block)
    return known


def reachable(found: list[Forecast], goal: float, *, prune: bool | str) -> tuple[int, list[Forecast]]:
    """(budget, the forecasts that fit it, whole network first); a goal out of reach is clipped with a warning."""
    total = found[0].size
    budget = total - math.ceil(goal * total - 1e-9)
    least = min(f.least for f in found)
    if least > budget:
        warnings.warn(
            f"learnables_reduction_goal={goal:g} is more than the possible {1 - least / total:.4f}, which is used",
            stacklevel=4,
        )
        budget = least
    fitting = [f for f in found if f.least <= budget]
    if prune is True:
        narrower = [f for f in fitting if f.start.fraction < 1.0]
        if narrower:
            return budget, narrower
        warnings.warn("no unit or channel can go from this model at this size: it is projected only", stacklevel=4)
    return budget, fitting


def _row_index(model: nn.Module, rows: Mapping[str, Array]) -> dict[str, Array]:
    return {name: index for name, index in rows.items() if not isinstance(model.get_submodule(name), nn.LSTM | nn.GRU)}
