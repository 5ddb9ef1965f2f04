"""Choosing by measured output error: predicted losses are bent layer by layer while that helps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from projgen.pca.discover import Kind, Layer
from projgen.progress import Reporter
from projgen.projection.assemble import assemble
from projgen.projection.factors import Factors
from projgen.projection.measure import OutputError
from projgen.projection.options import Weighting
from projgen.projection.pca_method import PcaWork
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE, Choice, rated

_FACTOR = 4.0


@dataclass(frozen=True, slots=True)
class Found:
    """A choice per layer, the network made of it and its measured error.

    ``rated``: the error as it counts against others.
    """

    chosen: Mapping[str, Choice]
    model: nn.Module
    error: float

    @property
    def rated(self) -> float:
        return rated(self.error, self.chosen.values())


def realise(
    work: PcaWork | Predictor, model: nn.Module, layers: list[Layer], chosen: Mapping[str, Choice]
) -> nn.Module:
    """The network with the chosen factors."""
    factors: dict[str, Factors] = {x.name: work.factors(x, chosen[x.name]) for x in layers if chosen[x.name] != DENSE}
    return assemble(model, factors, layers)


def measured_choice(
    work: Predictor,
    model: nn.Module,
    layers: list[Layer],
    removal: int,
    error_of: OutputError,
    reporter: Reporter,
    *,
    trials: int = 40,
) -> Found:
    """The choice of least measured error that removes at least ``removal`` learnables.

    The predicted loss is of second order: near the original it ranks options well, far from it a layer may be
    worth more or less than predicted. Starting from the prediction, each layer's losses (an RNN's two sides
    apart) are multiplied or divided by four while the measured error falls; an LSTM tries all its forms.
    """
    seen: dict[tuple[Choice, ...], Found] = {}

    def attempt(bent: Mapping[str, Weighting]) -> Found:
        with reporter.clock.stage("ranks"):
            chosen = work.for_removal(removal, bent)
        key = tuple(chosen[x.name] for x in layers)
        if work.removed(chosen) < removal:  # a form that can't be made that small
            return Found(chosen, model, math.inf)
        if key not in seen:
            with reporter.clock.stage("factors"):
                network = realise(work, model, layers, chosen)
            seen[key] = Found(chosen, network, error_of(network))
            ranks = ", ".join(f"{x.name} {chosen[x.name][:2]}" for x in layers)
            reporter.iteration(f"output error {seen[key].error:.4g}: {ranks}")
        return seen[key]

    bent: dict[str, Weighting] = {x.name: Weighting() for x in layers}
    best = attempt(bent)
    for layer in layers:
        forms = ("joint", "separate", "folded") if layer.kind is Kind.LSTM and trials > 1 else ()
        sharing = (True, False) if layer.name in work.cells_with_readers and trials > 1 else ()
        for change in (*({"form": form} for form in forms), *({"shared": shared} for shared in sharing)):
            tried = {**bent, layer.name: replace(bent[layer.name], **change)}  # type: ignore[arg-type]
            found = attempt(tried)
            if found.rated < best.rated:
                best, bent = found, tried
    improved = True
    while improved and len(seen) < trials:
        improved = False
        for layer in layers:
            for side in ("read", "hidden") if layer.hidden else ("read",):
                for factor in (_FACTOR, 1 / _FACTOR):
                    if len(seen) >= trials:
                        break
                    now = bent[layer.name]
                    tried = {**bent, layer.name: replace(now, **{side: getattr(now, side) * factor})}
                    found = attempt(tried)
                    if found.rated < best.rated * 0.999:
                        best, bent, improved = found, tried, True
                        break
    return best
