"""Choosing units and ranks together by measured output error: every keep fraction is projected to the same size."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from projgen.data import Batches
from projgen.pca.collect import LayerStats, collect
from projgen.pca.counting import count_learnables
from projgen.pca.discover import Layer, find_layers, owned_copy
from projgen.progress import Clock, Reporter
from projgen.projection.allocate import allocations
from projgen.projection.factors import Array
from projgen.projection.measure import OutputError, samples_of
from projgen.projection.merge import Ranking, narrowed, narrowed_stats, rank_units
from projgen.projection.predict import Predictor, Weighting
from projgen.projection.ranks import Choice
from projgen.projection.refit import refitted
from projgen.projection.rehearse import rehearsed
from projgen.projection.search import measured_choice, realise
from projgen.projection.shared import shared_readers
from projgen.projection.trace import Group, find_groups
from projgen.projection.units import mark, settle, trial_inputs

FRACTIONS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.26, 0.23, 0.2, 0.16, 0.13, 0.1, 0.08, 0.05, 0.03)
_LARGE_FRACTIONS = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)
_LARGE = 1_000_000
STATISTICS = 1024
_REFIT = 4096
_MEASURED = 5
_BEHIND = 4.0
_APART = 2
_USABLE = 0.3
_BASE_TRIALS = 24
_TRIALS = 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network of the wanted size.

    Attributes:
        model: with projected layers. error: its measured output error, or predicted loss.
        chosen: ranks per layer. layers: its layers after narrowing. work: the predictor that made it.
        fraction: of the units of each group that may lose some, 1 for none lost. refit: whether the sequential
            refit is in it.
    """

    model: nn.Module
    error: float
    chosen: Mapping[str, Choice]
    layers: list[Layer]
    work: Predictor
    fraction: float
    refit: bool


@dataclass(frozen=True, slots=True)
class Start:
    """A network to project: the original, or narrowed; its statistics, and the rows of the original it kept."""

    fraction: float
    model: nn.Module
    layers: list[Layer]
    stats: Mapping[str, LayerStats]
    rows: Mapping[str, Array]


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
    def least(self) -> int:
        """Learnables when every layer takes its cheapest option."""
        return self.size - self.work.most_removed()

    def loss(self, budget: int) -> float:
        """Predicted loss at a size."""
        return self.merge_loss + self.work.loss(self.work.for_removal(self.size - budget))

    def realise(self, budget: int) -> nn.Module:
        """The network of least predicted loss at a size."""
        return realise(self.work, self.start.model, self.start.layers, self.work.for_removal(self.size - budget))


def forecasts(
    teacher: nn.Module,
    layers: list[Layer],
    stats: Mapping[str, LayerStats],
    example: tuple[Tensor, ...],
    *,
    prune: bool | str,
    clock: Clock | None = None,
    block: int = 1,
) -> list[Forecast]:
    """The whole network first, then every keep fraction unless ``prune`` is False.

    Args:
        block: units that the kernels of a target take at a time.
        example: a batch to export the model with.
        clock: counts the stage "ranks" of the whole network.
    """
    whole = Start(1.0, teacher, layers, stats, {})
    recurrent = any(layer.hidden for layer in layers)
    few = trial_inputs(teacher, example)
    groups = find_groups(owned_copy(teacher).eval(), few) if prune or recurrent else []
    readers = shared_readers(groups, layers)
    with (clock or Clock()).stage("ranks"):
        work = Predictor(teacher, stats, layers, readers)
    found = [Forecast(whole, [], work, count_learnables(teacher), 0.0, readers)]
    if prune is False:
        return found
    allowed = {layer.module_name for layer in layers}
    settle(teacher, groups, {(s.layer.module_name, s.layer.cell) for s in stats.values()}, allowed, few)
    rankings = unit_rankings(teacher, stats, allowed, groups)
    for fraction, equal, kept, model, here in _fractions(teacher, layers, rankings, block):
        narrow = narrowed_stats(stats, here, kept)
        rows = {name: chosen for r, chosen in kept for name in r.group.producers}
        start = Start(fraction, model, here, narrow, _row_index(teacher, rows))
        lost = sum(float(ranking.left[len(index)]) for ranking, index in kept)
        work = Predictor(model, narrow, here, readers)
        found.append(Forecast(start, kept, work, count_learnables(model), lost, readers, equal))
    return found


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


def best_candidate(
    teacher: nn.Module,
    found: list[Forecast],
    goal: float,
    error_of: OutputError,
    batches: Batches,
    device: torch.device,
    reporter: Reporter,
    *,
    prune: bool | str,
) -> Candidate:
    """The network of the wanted size with the least measured output error.

    The most promising forecasts (by measured error, of large models by predicted loss) are made anew from
    statistics of their own and searched around. Where even the best is far from the original, every forecast
    takes part and the error after a short distillation decides.
    """
    budget, fitting = reachable(found, goal, prune=prune)
    narrower, tried = _promising(fitting, budget, error_of if found[0].size < _LARGE else None)
    few = samples_of(batches, teacher, STATISTICS)
    made: list[Candidate] = []
    for forecast in tried:
        start, work = restarted(forecast, few, device)
        for candidate in _projections(
            teacher, start, work, forecast.size - budget, error_of, batches, device, reporter, trials=True
        ):
            how = " refitted" * candidate.refit
            reporter.step(f"{candidate.fraction:.0%} of the units{how}: output error {candidate.error:.4g}")
            made.append(candidate)
    best = min(made, key=lambda c: c.error)
    if best.error < _USABLE or found[0].size >= _LARGE:
        return best
    for forecast in narrower:
        if forecast not in tried:
            start, work = restarted(forecast, few, device)
            removal = forecast.size - budget
            made += _projections(teacher, start, work, removal, error_of, batches, device, reporter, trials=False)
    widths = {tuple(layer.outputs for layer in candidate.layers): candidate for candidate in sorted(made, key=_badness)}
    chosen = rehearsed(teacher, list(widths.values()), few, error_of, device, reporter)
    reporter.step(f"{chosen.fraction:.0%} of the units chosen after a short distillation of each candidate")
    return chosen


def _promising(
    fitting: list[Forecast], budget: int, error_of: OutputError | None
) -> tuple[list[Forecast], list[Forecast]]:
    """The narrower forecasts, best first by measured error (predicted loss without ``error_of``), and those to try.

    The whole network is not tried where it is clearly behind the best of them.
    """
    judged = [(f.loss(budget) if error_of is None else error_of(f.realise(budget)), f) for f in fitting]
    judged.sort(key=lambda pair: pair[0])
    narrower = [f for _, f in judged if f.start.fraction < 1.0]
    least = judged[0][0]
    whole = [f for error, f in judged if f.start.fraction == 1.0 and (error_of is None or error <= _BEHIND * least)]
    apart = [f for f in narrower if not f.equal][:_APART]
    return narrower, whole + [f for f in narrower if f.equal][: _MEASURED - len(apart) // 2] + apart


def _badness(candidate: Candidate) -> float:
    return -candidate.error


def restarted(forecast: Forecast, samples: list[tuple[Tensor, ...]], device: torch.device) -> tuple[Start, Predictor]:
    """The start of a forecast with statistics of its own if it is narrower."""
    start = forecast.start
    if start.fraction == 1.0:
        return start, forecast.work
    own = owned_copy(start.model).eval().requires_grad_(False)
    collected = collect(own, start.layers, samples, curvature=True, device=device)
    start = replace(start, stats=collected.layers)
    return start, Predictor(start.model, start.stats, start.layers, forecast.readers)


def predicted_candidate(found: list[Forecast], goal: float, *, prune: bool | str) -> Candidate:
    """The network of the wanted size with the least predicted loss, from stored moments alone."""
    budget, fitting = reachable(found, goal, prune=prune)
    best = min(fitting, key=lambda f: f.loss(budget))
    start, chosen = best.start, best.work.for_removal(best.size - budget)
    model = realise(best.work, start.model, start.layers, chosen)
    return Candidate(model, best.loss(budget), chosen, start.layers, best.work, start.fraction, False)


def _fractions(
    teacher: nn.Module, layers: list[Layer], rankings: list[Ranking], block: int
) -> Iterator[tuple[float, bool, list[tuple[Ranking, Array]], nn.Module, list[Layer]]]:
    """Per keep fraction, and whether it is the same for all groups: kept units, narrowed network, its layers."""
    names = {layer.name for layer in layers}
    fractions = FRACTIONS if count_learnables(teacher) < _LARGE else _LARGE_FRACTIONS
    for fraction, sizes, equal in allocations(teacher, rankings, fractions[1:], block):
        kept = [(r, np.sort(r.order[:size])) for r, size in zip(rankings, sizes, strict=True)]
        model = narrowed(teacher, kept)
        yield fraction, equal, kept, model, [layer for layer in find_layers(model) if layer.name in names]


def _projections(
    teacher: nn.Module,
    start: Start,
    work: Predictor,
    removal: int,
    error_of: OutputError,
    batches: Batches,
    device: torch.device,
    reporter: Reporter,
    *,
    trials: bool,
) -> list[Candidate]:
    """The start projected to size, with and without refit, with and without shared projectors.

    Args:
        trials: search around the predicted choice by measured error.
    """
    fraction, narrow, layers = start.fraction, start.model, start.layers
    count = (_BASE_TRIALS if fraction == 1.0 else _TRIALS) if trials else 1
    found = measured_choice(work, narrow, layers, removal, error_of, reporter, trials=count)
    made = [Candidate(found.model, found.error, found.chosen, layers, work, fraction, False)]
    if all(layer.hidden for layer in layers):
        return made
    shared = work.for_removal(removal, {name: Weighting(shared=True) for name in work.cells_with_readers})
    choices = (shared,) if work.removed(shared) >= removal else ()
    for chosen in _distinct(work.for_removal(removal), found.chosen, *choices):
        with reporter.clock.stage("refit"):
            model = refit_to(teacher, start, work, chosen, batches, device)
        made.append(Candidate(model, error_of(model), chosen, layers, work, fraction, True))
    return made


def refit_to(
    teacher: nn.Module,
    start: Start,
    work: Predictor,
    chosen: Mapping[str, Choice],
    batches: Batches,
    device: torch.device,
) -> nn.Module:
    """The start with the chosen ranks, its feed-forward layers refitted to the teacher on some thousand samples."""
    some = samples_of(batches, teacher, _REFIT)
    return refitted(teacher, start.model, start.layers, chosen, work, start.stats, start.rows, some, device)


def _distinct(*choices: Mapping[str, Choice]) -> list[Mapping[str, Choice]]:
    seen: list[Mapping[str, Choice]] = []
    for choice in choices:
        if dict(choice) not in [dict(s) for s in seen]:
            seen.append(choice)
    return seen


def _row_index(model: nn.Module, rows: Mapping[str, Array]) -> dict[str, Array]:
    return {name: index for name, index in rows.items() if not isinstance(model.get_submodule(name), nn.LSTM | nn.GRU)}
