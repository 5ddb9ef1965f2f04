"""Choosing units and ranks together by measured output error: every keep fraction is projected to the same size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from projgen.data import Batches, input_layout, place
from projgen.pca.collect import LayerStats, collect
from projgen.pca.counting import count_learnables, dense_cost, smallest_cost
from projgen.pca.discover import Layer, find_layers, owned_copy
from projgen.progress import Reporter
from projgen.projection.factors import Array
from projgen.projection.measure import OutputError, samples_of
from projgen.projection.merge import Ranking, narrowed, rank_units
from projgen.projection.predict import Predictor
from projgen.projection.ranks import Choice
from projgen.projection.refit import refitted
from projgen.projection.search import measured_choice
from projgen.projection.trace import find_groups

FRACTIONS = (1.0, 0.85, 0.7, 0.5, 0.35, 0.26, 0.2, 0.16, 0.12, 0.08, 0.05, 0.03)
_STATISTICS = 1024
_REFIT = 4096
_BASE_TRIALS = 24
_TRIALS = 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network of the wanted size.

    Attributes:
        model: with projected layers. error: its measured output error.
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
    model: nn.Module, stats: Mapping[str, LayerStats], allowed: set[str], example: tuple[Tensor, ...]
) -> list[Ranking]:
    """The groups of units that may lose some, ranked.

    Args:
        allowed: names of the modules that may lose units; a group needs all of its producers among them.
        example: one batch of at least two observations.
    """
    by_module = {s.layer.module_name: s for s in stats.values()}
    rankings = []
    for group in find_groups(model, example):
        if group.reason or not set(group.producers) <= allowed:
            continue
        ranking = rank_units(group, model, by_module)
        if ranking is not None:
            rankings.append(ranking)
    return rankings


def best_candidate(
    teacher: nn.Module,
    layers: list[Layer],
    stats: Mapping[str, LayerStats],
    budget: int,
    error_of: OutputError,
    batches: Batches,
    device: torch.device,
    reporter: Reporter,
    *,
    prune: bool | str,
) -> Candidate:
    """The network of at most ``budget`` learnables with the least measured output error.

    Where not even the narrowest one fits, the budget is raised to its size, with a warning.
    """
    best: Candidate | None = None
    unpruned: Candidate | None = None
    reach = [count_learnables(teacher)]
    for start in _starts(teacher, layers, stats, batches, device, prune, budget, reach):
        total = count_learnables(start.model)
        work = Predictor(start.model, start.stats, start.layers)
        reach.append(total - work.most_removed())
        if total - work.most_removed() > budget:
            continue
        for candidate in _projections(teacher, start, work, total - budget, error_of, batches, device, reporter):
            how = " refitted" * candidate.refit
            reporter.step(f"{candidate.fraction:.0%} of the units{how}: output error {candidate.error:.4g}")
            whole = prune is True and candidate.fraction == 1.0
            if whole and (unpruned is None or candidate.error < unpruned.error):
                unpruned = candidate
            elif not whole and (best is None or candidate.error < best.error):
                best = candidate
    if best is None and unpruned is not None:
        warnings.warn("no unit or channel can go from this model at this size: it is projected only", stacklevel=3)
        best = unpruned
    if best is not None:
        return best
    possible = 1 - min(reach) / reach[0]
    warnings.warn(f"the goal is more than the possible reduction of {possible:.4f}, which is used", stacklevel=3)
    return best_candidate(teacher, layers, stats, min(reach), error_of, batches, device, reporter, prune=prune)


def _projections(
    teacher: nn.Module,
    start: Start,
    work: Predictor,
    removal: int,
    error_of: OutputError,
    batches: Batches,
    device: torch.device,
    reporter: Reporter,
) -> list[Candidate]:
    """The start projected to size, with and without refit."""
    fraction, narrow, layers = start.fraction, start.model, start.layers
    trials = _BASE_TRIALS if fraction == 1.0 else _TRIALS
    found = measured_choice(work, narrow, layers, removal, error_of, reporter, trials=trials)
    made = [Candidate(found.model, found.error, found.chosen, layers, work, fraction, False)]
    if all(layer.hidden for layer in layers):
        return made
    for chosen in _distinct(work.for_removal(removal), found.chosen):
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


def _starts(
    teacher: nn.Module,
    layers: list[Layer],
    stats: Mapping[str, LayerStats],
    batches: Batches,
    device: torch.device,
    prune: bool | str,
    budget: int,
    reach: list[int],
) -> Iterator[Start]:
    """The original, then narrower networks until one fits without projection."""
    yield Start(1.0, teacher, layers, stats, {})
    if prune is False:
        return
    few = samples_of(batches, teacher, _STATISTICS)
    largest = place(max(few, key=lambda batch: batch[0].numel()), teacher, device)
    evaluated = owned_copy(teacher).eval()
    rankings = unit_rankings(evaluated, stats, {layer.module_name for layer in layers}, _example(teacher, largest))
    names = {layer.name for layer in layers}
    seen: set[tuple[int, ...]] = set()
    for fraction in FRACTIONS[1:] if rankings else ():
        sizes = tuple(max(1, round(fraction * r.group.size)) for r in rankings)
        if sizes in seen:
            continue
        seen.add(sizes)
        kept = [(r, np.sort(r.order[:size])) for r, size in zip(rankings, sizes, strict=True)]
        model = narrowed(teacher, kept)
        here = [layer for layer in find_layers(model) if layer.name in names]
        total = count_learnables(model)
        least = total - sum(max(0, dense_cost(x) - smallest_cost(x)) for x in here)
        reach.append(least)
        if least > budget:
            continue
        own = owned_copy(model).eval().requires_grad_(False)
        collected = collect(own, here, few, curvature=True, device=device)
        rows = {name: chosen for r, chosen in kept for name in r.group.producers}
        yield Start(fraction, model, here, collected.layers, _row_index(teacher, rows))
        if total <= budget:
            return


def _example(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Two to four observations to export the model with (a batch of one would be taken for a constant)."""
    axis = 1 if input_layout(model).time_axis == 0 else 0
    few = tuple(x.narrow(axis, 0, min(4, x.shape[axis])) if x.dim() > axis else x for x in batch)
    return few if few[0].shape[axis] > 1 else tuple(torch.cat((x, x), axis) for x in few)


def _row_index(model: nn.Module, rows: Mapping[str, Array]) -> dict[str, Array]:
    return {name: index for name, index in rows.items() if not isinstance(model.get_submodule(name), nn.LSTM | nn.GRU)}
