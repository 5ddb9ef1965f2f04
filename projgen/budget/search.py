"""Compression down to a budget: units and ranks of least output error whose real lowering fits the target."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import nn

from projgen.budget.predict import Footprint, predict, steps_of
from projgen.budget.prices import Prices
from projgen.budget.record import Budget
from projgen.budget.tables import Tables
from projgen.data import Batches
from projgen.errors import FitError
from projgen.pca.discover import Layer
from projgen.progress import Reporter
from projgen.projection.forecast import Forecast, Start
from projgen.projection.layers import unpack_projected_layers
from projgen.projection.measure import samples_of
from projgen.projection.narrow import REFIT, STATISTICS, refit_to, restarted
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE, Choice
from projgen.projection.search import realise
from projgen.quant.model import QuantizedModel, quantize

_TRIALS: Final = 6  # networks of each width that are lowered
_FINALISTS: Final = 3  # whose output error is measured
_ROUNDS: Final = 3  # with tighter limits where quantising for good costs more

Measure = Callable[[nn.Module], float]
Again = Callable[["Fitting", "Pricing"], "list[Fitting]"]


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


@dataclass(frozen=True, slots=True, eq=False)
class _Ground:
    """A network of some widths without projection: its footprint, and what its layers would cost projected."""

    model: nn.Module
    footprint: Footprint
    prices: Prices


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
        self._grounds: dict[int, _Ground] = {}

    def of(self, model: nn.Module, *, equalise: bool = False) -> Footprint:
        """The footprint; with ``equalise`` as the model will be quantised for good."""
        return self._lowered(model, equalise=equalise)[1]

    def _lowered(self, model: nn.Module, *, equalise: bool = False) -> tuple[QuantizedModel, Footprint]:
        own = unpack_projected_layers(copy.deepcopy(model).cpu())
        data = [self._example] if self._calibration is None else self._calibration
        q = quantize(own, data, equalise=equalise, keep_dead_channels=True)
        return q, predict(q, self.budget.machine, self._example, optimise=self.budget.favour)

    def tighten(self, found: Footprint) -> None:
        """Lower the limits that a network exceeds after all by as much, and a little more."""
        for name, allowed in self.budget.limits.items():
            if found.cost(name) > allowed:
                self.limits[name] *= 0.98 * allowed / found.cost(name)

    def dense(self, start: Start) -> Footprint:
        """Of a network without any projection."""
        return self._ground(start).footprint

    def tables(self, start: Start, work: Predictor) -> Tables:
        """The priced choices of a network's layers."""
        return Tables(work, self._ground(start).prices)

    def _ground(self, start: Start) -> _Ground:
        key = id(start.model)
        if key not in self._grounds:
            q, found = self._lowered(start.model)
            budget, steps = self.budget, steps_of(q, self._example)
            prices = Prices(q.graph, start.layers, found, budget.machine, steps, budget.favour)
            self._grounds[key] = _Ground(start.model, found, prices)
        return self._grounds[key]

    def fits(self, found: Footprint) -> bool:
        return found.fits(self.limits)

    def losing(self, found: Footprint, forecast: Forecast, chosen: Mapping[str, Choice]) -> list[str]:
        """Layers that are slower or larger than dense as they are lowered, or neither faster nor smaller.

        A layer that shares the projector of an RNN cell is judged together with it.
        """
        dense, modules = self.dense(forecast.start), {x.name: x.module_name for x in forecast.start.layers}
        parts: dict[str, set[str]] = {module: {module} for module in modules.values()}
        for reader, cell in forecast.readers.items():
            if chosen[reader].shared:
                both = parts[modules[reader]] | parts[modules[cell]]
                parts |= dict.fromkeys(both, both)
        losing: list[str] = []
        for together in {frozenset(part) for part in parts.values()}:
            names = [name for name, module in modules.items() if module in together and chosen[name] != DENSE]
            after, before = (_costs(f, together) for f in (found, dense))
            if names and before and (after == before or any(a > b for a, b in zip(after, before, strict=True))):
                losing += names
        return losing

    def worse(self, found: Footprint, whole: Forecast) -> bool:
        """Whether any layer of the network is slower or larger than that of the original, narrower or not."""
        plain = self.dense(whole.start)
        pairs = [(_costs(found, {x.module_name}), _costs(plain, {x.module_name})) for x in whole.start.layers]
        return any(a > b for after, before in pairs for a, b in zip(after, before, strict=False))


def _costs(footprint: Footprint, modules: Set[str]) -> tuple[float, ...]:
    """(instructions, bytes of constants) of the nodes of some modules; nothing where there are none."""
    mine = [c for c in footprint.layers if any(c.belongs(module) for module in modules)]
    return (sum(c.instructions for c in mine), float(sum(c.weight_bytes for c in mine))) if mine else ()


def within(
    found: list[Forecast],
    pricing: Pricing,
    *,
    prune: bool | str,
    error_of: Measure | None,
    again: Again | None,
    note: Callable[[str], None],
) -> Fitting:
    """The network of least output error that fits the limits of a budget.

    Of every width the choices of least predicted loss within the limits are made and lowered. The best few are made
    anew from statistics of their own and refitted, and their output errors measured, where there is data.

    Raises:
        FitError: not even the smallest network fits; it says how small that is.
    """
    whole = found[0]
    plain = pricing.dense(whole.start)
    if pricing.fits(plain):
        note(f"fits as it is: {plain.text}")
        chosen = {layer.name: DENSE for layer in whole.start.layers}
        return Fitting(copy.deepcopy(whole.start.model), chosen, plain, 0.0, whole)
    made: list[Fitting] = []
    tried: list[Fitting] = []
    for forecast in sorted(found, key=lambda f: f.merge_loss):
        if len(made) >= _FINALISTS and forecast.merge_loss >= sorted(f.loss for f in made)[_FINALISTS - 1]:
            break
        several = fitted(forecast, pricing)
        tried += several
        inside = [f for f in several if pricing.fits(f.footprint)]
        if inside:
            best = min(inside, key=lambda f: (pricing.worse(f.footprint, whole), f.loss))
            note(f"{forecast.start.fraction:.0%} of the units: {best.footprint.text}")
            made.append(best)
    if not made:
        raise _too_small(tried, pricing.budget)
    made = [f for f in made if not pricing.worse(f.footprint, whole)] or made
    if prune is True:
        made = [f for f in made if f.forecast.start.fraction < 1.0] or made
    made.sort(key=lambda f: f.loss)
    if error_of is None or again is None:
        return made[0]
    finalists = made[:_FINALISTS]
    for finalist in made[:_FINALISTS]:
        finalists += again(finalist, pricing)
    finalists = [replace(f, loss=error_of(f.model)) for f in finalists]
    return min(finalists, key=lambda f: (pricing.worse(f.footprint, whole), f.loss))


def fitted(forecast: Forecast, pricing: Pricing) -> list[Fitting]:
    """Networks of one width near the limits, within them if any is, each lowered.

    The prices of the layers leave out what lies between them: each network that is lowered shows how much that is,
    and the next one is chosen with it.
    """
    start, dense = forecast.start, pricing.dense(forecast.start)
    nothing = {layer.name: DENSE for layer in start.layers}
    plain = Fitting(start.model, nothing, dense, forecast.merge_loss, forecast)
    if pricing.fits(dense):
        return [plain]
    tables, found = pricing.tables(start, forecast.work), [plain]
    last, shared = plain, tables.shared(nothing)
    ram = float("inf")
    for _ in range(_TRIALS):
        beside = tables.total(last.chosen, shared)
        limits = {
            name: limit - (last.footprint.cost(name) - beside[name])
            for name, limit in pricing.limits.items()
            if name != "ram"
        }
        if last.footprint.ram > pricing.limits.get("ram", float("inf")):
            ram = min(ram, beside["ram"] - 1)
        chosen = tables.best(limits | {"ram": ram}, shared)
        if chosen is None:
            chosen = tables.smallest(pricing.limits | {"ram": ram})
        if any(chosen == f.chosen for f in found):
            break
        model = realise(forecast.work, start.model, start.layers, chosen)
        last = Fitting(model, chosen, pricing.of(model), forecast.merge_loss + forecast.work.loss(chosen), forecast)
        shared = tables.shared(chosen)
        losing = pricing.losing(last.footprint, forecast, chosen)
        tables.ban({name: chosen[name] for name in losing})
        if not losing:
            found.append(last)
    return found


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


def _paying(forecast: Forecast, chosen: Mapping[str, Choice], pricing: Pricing) -> Fitting:
    """The network of a choice, without the projections that make a layer slower or larger."""
    kept, start = dict(chosen), forecast.start
    while True:
        model = realise(forecast.work, start.model, start.layers, kept)
        found = pricing.of(model)
        losing = pricing.losing(found, forecast, kept)
        if not losing:
            return Fitting(model, kept, found, forecast.merge_loss + forecast.work.loss(kept), forecast)
        kept |= dict.fromkeys(losing, DENSE)


def within_drop(
    found: list[Forecast], pricing: Pricing, *, refit: Again | None, note: Callable[[str], None]
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
    best = Fitting(copy.deepcopy(whole.start.model), dense, pricing.dense(whole.start), 0.0, whole)
    low, high = min(f.least for f in found), whole.size
    while high - low > max(1, whole.size // 100):
        middle = (low + high) // 2
        fitting = [f for f in found if f.least <= middle]
        if not fitting:
            low = middle
            continue
        forecast = min(fitting, key=lambda f: f.loss(middle))
        made = _paying(forecast, forecast.work.for_removal(max(0, forecast.size - middle)), pricing)
        options = [made] if refit is None else [made, *refit(made, pricing)]
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
    again = refit = None
    if batches is not None:
        workshop = _Workshop(teacher, batches, device)
        again, refit = workshop.again, workshop.refitted
    usable = [found[0], *(f for f in found[1:] if f.equal)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(_ROUNDS):
            if budget.metric is not None:
                best = within_drop(usable, pricing, refit=refit, note=reporter.step)
            else:
                best = within(usable, pricing, prune=prune, error_of=error_of, again=again, note=reporter.step)
            best = replace(best, footprint=pricing.of(best.model, equalise=True))
            if best.footprint.fits(budget.limits):
                break
            pricing.tighten(best.footprint)
        else:
            raise _too_small([best], budget)
    before = pricing.dense(found[0].start)
    reporter.summary(f"On {budget.machine.name}: {before.text}\n  -> {best.footprint.text}")
    return best


class _Workshop:
    """Makes the best networks again from the data: statistics of narrowed ones, and the sequential refit."""

    def __init__(self, teacher: nn.Module, batches: Batches, device: torch.device) -> None:
        self._teacher, self._batches, self._device = teacher, batches, device
        self._anew: dict[int, tuple[Forecast, Forecast]] = {}

    def again(self, fitting: Fitting, pricing: Pricing) -> list[Fitting]:
        """The network refitted, and another with ranks and factors from statistics of its own, if it is narrower."""
        made = self.refitted(fitting, pricing)
        if fitting.forecast.start.fraction < 1.0:
            several = [f for f in fitted(self._from_data(fitting.forecast), pricing) if pricing.fits(f.footprint)]
            for best in sorted(several, key=lambda f: f.loss)[:1]:
                made += [best, *self.refitted(best, pricing)]
        return made

    def refitted(self, fitting: Fitting, pricing: Pricing) -> list[Fitting]:
        """The network with its feed-forward layers refitted, where that fits the limits of a budget."""
        forecast, chosen = fitting.forecast, fitting.chosen
        if all(choice == DENSE for choice in chosen.values()):
            return []
        many = samples_of(self._batches, self._teacher, REFIT)
        model = refit_to(self._teacher, forecast.start, forecast.work, chosen, many, self._device)
        made = replace(fitting, model=model, footprint=pricing.of(model), refit=True)
        return [made] if pricing.fits(made.footprint) and not pricing.losing(made.footprint, forecast, chosen) else []

    def _from_data(self, forecast: Forecast) -> Forecast:
        key = id(forecast)
        if key not in self._anew:
            few = samples_of(self._batches, self._teacher, STATISTICS)
            start, work = restarted(forecast, few, self._device)
            self._anew[key] = forecast, replace(forecast, start=start, work=work)
        return self._anew[key][1]


def _example(batches: Batches | None, shapes: Sequence[tuple[int, ...]]) -> tuple[Any, ...]:
    """A batch of calibration inputs, or noise of their shapes where the data is gone."""
    if batches is not None:
        return tuple(x.detach().cpu().numpy() for x in next(iter(batches)))
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator).numpy() for shape in shapes)
