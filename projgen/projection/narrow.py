"""Choosing units and ranks together by measured output error: every keep fraction is projected to the same size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from projgen.data import Batches
from projgen.pca.collect import collect
from projgen.pca.counting import count_learnables
from projgen.pca.discover import Layer, owned_copy
from projgen.progress import Clock, Reporter
from projgen.projection.forecast import LARGE, Forecast, Forecasts, Start, predictions, reachable
from projgen.projection.measure import OutputError, samples_of
from projgen.projection.options import Weighting
from projgen.projection.predict import Predictor
from projgen.projection.ranks import Choice, rated
from projgen.projection.refit import refitted
from projgen.projection.rehearse import rehearsed
from projgen.projection.search import measured_choice, realise

REFIT = 4096
STATISTICS = 1024
_MEASURED = 5
_BEHIND = 4.0
_APART = 2
_USABLE = 0.3
_CLOSE = 0.02
_ROUNDS = 2
_FINAL = 4
_BASE_TRIALS = 24
_TRIALS = 10


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network of the wanted size.

    Attributes:
        model: with projected layers. error: its measured output error, or predicted loss.
        chosen: ranks per layer. layers: its layers after narrowing. work: the predictor that made it.
        forecast: which units it keeps. refit: whether the sequential refit is in it.
    """

    model: nn.Module
    error: float
    chosen: Mapping[str, Choice]
    layers: list[Layer]
    work: Predictor
    forecast: Forecast
    refit: bool


def best_candidate(
    teacher: nn.Module,
    forecasts: Forecasts,
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
    statistics of their own and searched around; then numbers of units near the best one's. Of the best few the
    error on more samples decides. Where even the best is far from the original, every forecast takes part and
    the error after a short distillation decides.
    """
    budget, fitting = reachable(forecasts.found, goal, prune=prune)
    small = forecasts.found[0].size < LARGE
    narrower, tried = _promising(fitting, budget, error_of if small else None)
    maker = _Maker(
        teacher, budget, error_of, samples_of(batches, teacher, STATISTICS), samples_of(batches, teacher, REFIT),
        device, reporter,
    )  # fmt: skip
    made = [candidate for forecast in tried for candidate in maker.projections(forecast)]
    best = _least(made)
    if not small:
        return best
    if best.error < _USABLE:
        for _ in range(_ROUNDS):
            near = _near(forecasts, best.forecast, made, budget) if best.error > _CLOSE else []
            made += [candidate for forecast in near for candidate in maker.projections(forecast)]
            best = _least(made)
        return _finest(teacher, made, batches, device, reporter)
    made += [c for f in narrower if f not in tried for c in maker.projections(f, trials=False)]
    chosen = rehearsed(teacher, _one_per_width(made), maker.many, error_of, device, reporter)
    reporter.step(f"{chosen.forecast.start.fraction:.0%} of the units chosen after a short distillation of each")
    return chosen


def _near(forecasts: Forecasts, best: Forecast, made: Sequence[Candidate], budget: int) -> list[Forecast]:
    """Forecasts of about the best one's units that were not made yet."""
    if best.start.fraction == 1.0:
        return []
    known = {candidate.forecast.units for candidate in made}
    return [f for f in forecasts.near(best, known) if f.least <= budget]


def _finest(
    teacher: nn.Module, made: Sequence[Candidate], batches: Batches, device: torch.device, reporter: Reporter
) -> Candidate:
    """The best of the few best by their error on more samples than all were measured on."""
    few = sorted(made, key=_error)[:_FINAL]
    error_of = OutputError(teacher, batches, device, reporter.clock, REFIT)
    errors = [rated(error_of(candidate.model), candidate.chosen.values()) for candidate in few]
    return few[errors.index(min(errors))]


def _one_per_width(made: Sequence[Candidate]) -> list[Candidate]:
    """The candidate of least error of each number of units."""
    best: dict[tuple[int, ...], Candidate] = {}
    for candidate in sorted(made, key=_error):
        best.setdefault(candidate.forecast.units, candidate)
    return list(best.values())


def _least(made: Sequence[Candidate]) -> Candidate:
    return min(made, key=_error)


def _error(candidate: Candidate) -> float:
    return rated(candidate.error, candidate.chosen.values())


def _promising(
    fitting: list[Forecast], budget: int, error_of: OutputError | None
) -> tuple[list[Forecast], list[Forecast]]:
    """The narrower forecasts, best first by measured error (predicted loss without ``error_of``), and those to try.

    The whole network is not tried where it is clearly behind the best of them.
    """
    if error_of is None:
        judged = [(f.loss(budget), f) for f in fitting]
    else:
        judged = [(min(map(error_of, f.realisations(budget))), f) for f in fitting]
    judged.sort(key=lambda pair: pair[0])
    narrower = [f for _, f in judged if f.start.fraction < 1.0]
    least = judged[0][0]
    whole = [f for error, f in judged if f.start.fraction == 1.0 and (error_of is None or error <= _BEHIND * least)]
    apart = [f for f in narrower if not f.equal][:_APART]
    return narrower, whole + [f for f in narrower if f.equal][: _MEASURED - len(apart) // 2] + apart


def predicted_candidate(found: list[Forecast], goal: float, clock: Clock, *, prune: bool | str) -> Candidate:
    """The network of the wanted size with the least predicted loss, from stored moments alone."""
    budget, fitting = reachable(found, goal, prune=prune)
    with clock.stage("selection"):
        best = min(fitting, key=lambda f: f.loss(budget))
        start, chosen = best.start, best.work.for_removal(best.size - budget)
        best.work.prepare(chosen)
    model = realise(best.work, start.model, start.layers, chosen)
    return Candidate(model, best.loss(budget), chosen, start.layers, best.work, best, False)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes forecasts real: projected to ``budget`` learnables, refitted and measured.

    Attributes:
        few: samples for statistics. many: for the refit.
    """

    teacher: nn.Module
    budget: int
    error_of: OutputError
    few: list[tuple[Tensor, ...]]
    many: list[tuple[Tensor, ...]]
    device: torch.device
    reporter: Reporter

    def projections(self, forecast: Forecast, *, trials: bool = True) -> list[Candidate]:
        """The forecast projected to size, with and without refit, with and without shared projectors.

        Args:
            trials: search around the predicted choice by measured error.
        """
        start, work = restarted(forecast, self.few, self.device)
        layers, removal = start.layers, forecast.size - self.budget
        count = (_BASE_TRIALS if start.fraction == 1.0 else _TRIALS) if trials else 1
        found = measured_choice(work, start.model, layers, removal, self.error_of, self.reporter, trials=count)
        made = [Candidate(found.model, found.error, found.chosen, layers, work, forecast, False)]
        if not all(layer.hidden for layer in layers):
            shared = work.for_removal(removal, {name: Weighting(shared=True) for name in work.cells_with_readers})
            choices = (shared,) if work.removed(shared) >= removal else ()
            for chosen in _distinct(*predictions(work, removal), found.chosen, *choices):
                with self.reporter.clock.stage("refit"):
                    model = refit_to(self.teacher, start, work, chosen, self.many, self.device)
                made.append(Candidate(model, self.error_of(model), chosen, layers, work, forecast, True))
        if count_learnables(self.teacher) >= LARGE:
            work.release(statistics=start.fraction < 1.0)
        for candidate in made:
            how = " refitted" * candidate.refit
            self.reporter.step(f"{start.fraction:.0%} of the units{how}: output error {candidate.error:.4g}")
        return made


def restarted(forecast: Forecast, samples: list[tuple[Tensor, ...]], device: torch.device) -> tuple[Start, Predictor]:
    """The start of a forecast with statistics of its own if it is narrower."""
    start = forecast.start
    if start.fraction == 1.0:
        return start, forecast.work
    own = owned_copy(start.model).eval().requires_grad_(False)
    collected = collect(own, start.layers, samples, curvature=True, device=device)
    start = replace(start, stats=collected.layers)
    return start, Predictor(start.model, start.stats, start.layers, forecast.readers, fold=forecast.work.fold)


def refit_to(
    teacher: nn.Module,
    start: Start,
    work: Predictor,
    chosen: Mapping[str, Choice],
    samples: list[tuple[Tensor, ...]],
    device: torch.device,
) -> nn.Module:
    """The start with the chosen ranks, its feed-forward layers refitted to the teacher on ``samples``."""
    return refitted(teacher, start.model, start.layers, chosen, work, start.stats, start.rows, samples, device)


def _distinct(*choices: Mapping[str, Choice]) -> list[Mapping[str, Choice]]:
    seen: list[Mapping[str, Choice]] = []
    for choice in choices:
        if dict(choice) not in [dict(s) for s in seen]:
            seen.append(choice)
    return seen
