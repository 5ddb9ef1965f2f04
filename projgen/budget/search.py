"""Compression down to a budget: units and ranks of least output error whose real lowering fits the target."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import nn

from projgen.budget.predict import Footprint, predict
from projgen.budget.record import Budget
from projgen.data import Batches
from projgen.errors import FitError
from projgen.pca.discover import Layer
from projgen.progress import Reporter
from projgen.projection.layers import unpack_projected_layers
from projgen.projection.narrow import Forecast, Start, refit_to
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE, Choice
from projgen.projection.search import realise

_PROBES: Final = 6  # sizes tried of each width
_FINALISTS: Final = 3  # whose output error is measured
_ROUNDS: Final = 3  # with tighter limits where quantising for good costs more

Measure = Callable[[nn.Module], float]
Refit = Callable[[Start, Predictor, Mapping[str, Choice]], nn.Module]


@dataclass(frozen=True, slots=True)
class Fitting:
    """A network and what its lowering costs.

    Attributes:
        model: with projected layers. chosen: ranks per layer, on the layers of ``forecast``.
        footprint: of the unpacked model on the target. loss: predicted, or the measured output error.
        forecast: the widths it has. refit: whether the sequential refit is in it.
    """

    model: nn.Module
    chosen: Mapping[str, Choice]
    footprint: Footprint
    loss: float
    forecast: Forecast
    refit: bool = False

    @property
    def layers(self) -> list[Layer]:
        return self.forecast.start.layers


class Pricing:
    """Models on the target of a budget, lowered for real: weights and arena are exact.

    Args:
        example: a batch of inputs, (N, ...) each, in a tuple. calibration: all of them, None where they are gone.
    """

    def __init__(self, budget: Budget, example: tuple[Any, ...], calibration: Batches | None) -> None:
        self.budget = budget
        self.limits = budget.limits
        self._example = example
        self._calibration = calibration
        self._dense: dict[int, Footprint] = {}

    def of(self, model: nn.Module, *, equalise: bool = False) -> Footprint:
        """The footprint; with ``equalise`` as the model will be quantised for good."""
        own = unpack_projected_layers(copy.deepcopy(model).cpu())
        return predict(
            own,
            self.budget.machine,
            self._example,
            calibration=self._calibration,
            equalise=equalise,
            optimise=self.budget.favour,
        )

    def tighten(self, found: Footprint) -> None:
        """Lower the limits that a network exceeds after all by as much, and a little more."""
        for name, allowed in self.budget.limits.items():
            if found.cost(name) > allowed:
                self.limits[name] *= 0.98 * allowed / found.cost(name)

    def dense(self, forecast: Forecast) -> Footprint:
        """Of a forecast's network without any projection."""
        key = id(forecast)
        if key not in self._dense:
            self._dense[key] = self.of(forecast.start.model)
        return self._dense[key]

    def fits(self, found: Footprint) -> bool:
        return found.fits(self.limits)

    def priced(self, forecast: Forecast, chosen: Mapping[str, Choice]) -> Fitting:
        """The network of a choice, without the projections that cost the target more than they replace."""
        start = forecast.start
        kept = dict(chosen)
        while True:
            model = realise(forecast.work, start.model, start.layers, kept)
            found = self.of(model)
            losing = self.losing(found, self.dense(forecast), start.layers, kept)
            if not losing:
                return Fitting(model, kept, found, forecast.merge_loss + forecast.work.loss(kept), forecast)
            kept |= dict.fromkeys(losing, DENSE)

    def losing(
        self, found: Footprint, dense: Footprint, layers: list[Layer], chosen: Mapping[str, Choice]
    ) -> list[str]:
        """Projected layers that are no cheaper than dense ones, by what the budget limits."""
        names = [n for n in ("instructions", "flash") if n in self.budget.limits] or ["instructions", "flash"]
        modules: dict[str, list[str]] = {}
        for layer in layers:
            modules.setdefault(layer.module_name, []).append(layer.name)
        losing: list[str] = []
        for module, cells in modules.items():
            if all(chosen[cell] == DENSE for cell in cells) or any(chosen[cell].shared for cell in cells):
                continue
            after, before = (_costs(f, module) for f in (found, dense))
            ratio = sum(after[n] / max(before[n], 1.0) for n in names) / len(names)
            if before["flash"] and ratio >= 1.0:
                losing += [cell for cell in cells if chosen[cell] != DENSE]
        return losing


def _costs(footprint: Footprint, module: str) -> dict[str, float]:
    mine = [c for c in footprint.layers if c.source == module or c.source.startswith(f"{module}.")]
    return {"instructions": sum(c.instructions for c in mine), "flash": float(sum(c.weight_bytes for c in mine))}


def within(
    found: list[Forecast],
    pricing: Pricing,
    *,
    prune: bool | str,
    error_of: Measure | None,
    refit: Refit | None,
    note: Callable[[str], None],
) -> Fitting:
    """The network of least output error that fits the limits of a budget.

    Every width is projected as little as its lowering allows: by bisection over its learnables, each size with the
    ranks of least predicted loss. The best few are refitted and their output errors measured where there is data.

    Raises:
        FitError: not even the smallest network fits; it says how small that is.
    """
    whole = found[0]
    plain = pricing.dense(whole)
    if pricing.fits(plain):
        note(f"fits as it is: {plain.text}")
        chosen = {layer.name: DENSE for layer in whole.start.layers}
        return Fitting(copy.deepcopy(whole.start.model), chosen, plain, 0.0, whole)
    made: list[Fitting] = []
    tried: list[Fitting] = []
    for forecast in sorted(found, key=lambda f: f.merge_loss):
        if made and forecast.merge_loss >= min(f.loss for f in made):
            continue
        best, smallest = _least_loss(forecast, pricing)
        tried.append(smallest)
        if best is not None:
            note(f"{forecast.start.fraction:.0%} of the units: {best.footprint.text}")
            made.append(best)
    if not made:
        raise _too_small(tried, pricing.budget)
    if prune is True:
        made = [f for f in made if f.forecast.start.fraction < 1.0] or made
    made.sort(key=lambda f: f.loss)
    return _measured(made[:_FINALISTS], pricing, error_of, refit)


def _least_loss(forecast: Forecast, pricing: Pricing) -> tuple[Fitting | None, Fitting]:
    """The least projected network of one width that fits (None if none does), and the smallest."""
    dense = Fitting(
        forecast.start.model,
        {layer.name: DENSE for layer in forecast.start.layers},
        pricing.dense(forecast),
        forecast.merge_loss,
        forecast,
    )
    if pricing.fits(dense.footprint):
        return dense, dense
    low, high = forecast.least, forecast.size
    smallest = pricing.priced(forecast, forecast.work.for_removal(forecast.size - low))
    if not pricing.fits(smallest.footprint):
        worst = [_excess(f.footprint, pricing.budget) for f in (smallest, dense)]
        return None, smallest if worst[0] <= worst[1] else dense
    best = smallest
    for _ in range(_PROBES):
        if high - low <= max(1, forecast.size // 200):
            break
        middle = (low + high) // 2
        found = pricing.priced(forecast, forecast.work.for_removal(forecast.size - middle))
        if pricing.fits(found.footprint):
            low, best = middle, min(best, found, key=lambda f: f.loss)
        else:
            high = middle
    return best, smallest


def _measured(made: list[Fitting], pricing: Pricing, error_of: Measure | None, refit: Refit | None) -> Fitting:
    """The best of the finalists: by measured output error where there is data, else by predicted loss."""
    if error_of is None:
        return made[0]
    finalists = [replace(f, loss=error_of(f.model)) for f in made]
    for fitting in made:
        if refit is None or not any(choice != DENSE for choice in fitting.chosen.values()):
            continue
        model = refit(fitting.forecast.start, fitting.forecast.work, fitting.chosen)
        footprint = pricing.of(model)
        if pricing.fits(footprint):
            finalists.append(replace(fitting, model=model, footprint=footprint, loss=error_of(model), refit=True))
    return min(finalists, key=lambda f: f.loss)


def _excess(footprint: Footprint, budget: Budget) -> float:
    return max((footprint.cost(name) / limit for name, limit in budget.limits.items()), default=0.0)


def _too_small(tried: list[Fitting], budget: Budget) -> FitError:
    best = min(tried, key=lambda f: _excess(f.footprint, budget)).footprint
    wanted = ", ".join(f"{name} {limit:,.0f}" for name, limit in budget.limits.items())
    reached = ", ".join(f"{name} {best.cost(name):,.0f}" for name in budget.limits)
    return FitError(
        f"no compression of this model fits {wanted} on {budget.machine.name}: the smallest that is reachable needs "
        f"{reached}",
        f"at least {reached}",
        "the budget (--budget), or the model",
    )


def within_drop(
    found: list[Forecast], pricing: Pricing, *, refit: Refit | None, note: Callable[[str], None]
) -> Fitting:
    """The smallest network whose metric falls by at most the budget's drop.

    Raises:
        FitError: the limits beside it can't be kept within the drop.
    """
    budget, whole = pricing.budget, found[0]
    metric, drop = budget.metric, budget.accuracy_drop
    if metric is None or drop is None:
        raise TypeError("a budget without a metric")
    wanted = metric(copy.deepcopy(whole.start.model)) - drop
    dense = {layer.name: DENSE for layer in whole.start.layers}
    best = Fitting(copy.deepcopy(whole.start.model), dense, pricing.dense(whole), 0.0, whole)
    low, high = min(f.least for f in found), whole.size
    while high - low > max(1, whole.size // 100):
        middle = (low + high) // 2
        fitting = [f for f in found if f.least <= middle]
        if not fitting:
            low = middle
            continue
        forecast = min(fitting, key=lambda f: f.loss(middle))
        made = pricing.priced(forecast, forecast.work.for_removal(max(0, forecast.size - middle)))
        options = [made]
        if refit is not None and any(choice != DENSE for choice in made.chosen.values()):
            options.append(replace(made, model=refit(forecast.start, forecast.work, made.chosen), refit=True))
        scores = [metric(copy.deepcopy(option.model)) for option in options]
        score, option = max(zip(scores, options, strict=True), key=lambda pair: pair[0])
        note(f"{middle:,} learnables: metric {score:.4g}, {option.footprint.text}")
        if score >= wanted:
            high, best = middle, option
        else:
            low = middle
    if not pricing.fits(best.footprint):
        raise _too_small([best], budget)
    return best


def fitting(
    teacher: nn.Module,
    found: list[Forecast],
    budget: Budget,
    error_of: Measure | None,
    batches: Batches | None,
    shapes: Sequence[tuple[int, ...]],
    device: torch.device,
    reporter: Reporter,
    *,
    prune: bool | str,
) -> Fitting:
    """The network of a budget.

    Args:
        found: the whole network first, then narrower ones. shapes: of a batch of each input.
        prune: True: a narrower network if any fits.

    Raises:
        FitError: none fits.
    """
    pricing = Pricing(budget, _example(batches, shapes), batches)

    def refit(start: Start, work: Predictor, chosen: Mapping[str, Choice]) -> nn.Module:
        assert batches is not None
        return refit_to(teacher, start, work, chosen, batches, device)

    again = None if batches is None else refit
    usable = [found[0], *(f for f in found[1:] if f.equal)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(_ROUNDS):
            if budget.metric is not None:
                best = within_drop(usable, pricing, refit=again, note=reporter.step)
            else:
                best = within(usable, pricing, prune=prune, error_of=error_of, refit=again, note=reporter.step)
            best = replace(best, footprint=pricing.of(best.model, equalise=True))
            if best.footprint.fits(budget.limits):
                break
            pricing.tighten(best.footprint)
        else:
            raise _too_small([best], budget)
    before = pricing.dense(found[0])
    reporter.summary(f"On {budget.machine.name}: {before.text}\n  -> {best.footprint.text}")
    return best


def _example(batches: Batches | None, shapes: Sequence[tuple[int, ...]]) -> tuple[Any, ...]:
    """A batch of calibration inputs, or noise of their shapes where the data is gone."""
    if batches is not None:
        return tuple(x.detach().cpu().numpy() for x in next(iter(batches)))
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).numpy() for shape in shapes)
