"""compress: a model and its principal components in, a model with projected layers out."""

from __future__ import annotations

import fnmatch
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from projgen.budget.record import Budget
from projgen.data import Batches, as_batches
from projgen.errors import InputError, InputTypeError
from projgen.pca.attention import joined_attention
from projgen.pca.counting import count_learnables, dense_cost
from projgen.pca.discover import Kind, Layer, as_module, choose_layers, find_layers, owned_copy, tied_layers
from projgen.pca.neuron_pca import NeuronPCA
from projgen.progress import Reporter
from projgen.projection.assemble import remember
from projgen.projection.forecast import Forecasts, Start, forecasts
from projgen.projection.info import CompressionInfo, LayerInfo, summarise
from projgen.projection.layers import ProjectedLayer, unpack_projected_layers
from projgen.projection.measure import OutputError, samples_of
from projgen.projection.narrow import REFIT, best_candidate, predicted_candidate, refit_to
from projgen.projection.pca_method import PcaWork
from projgen.projection.predict import Predictor
from projgen.projection.ranks import (
    DENSE,
    Choice,
    given_ranks,
    output_cost,
    pca_cost,
)
from projgen.projection.search import realise

METHODS = ("output", "pca")
_DEFAULT_GOAL = 0.95


def compress(
    model: nn.Module | str | Path,
    data_or_pca: Any,
    *,
    data: Any = None,
    explained_variance_goal: float | None = None,
    learnables_reduction_goal: float | None = None,
    ranks: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    layer_names: list[str] | str | None = None,
    method: str = "output",
    prune: bool | str = "auto",
    unpack: bool = False,
    verbosity: str = "summary",
    device: torch.device | str | None = None,
) -> tuple[nn.Module, CompressionInfo]:
    """Replace layers by projected ones with fewer learnables.

    Args:
        model: nn.Module (not modified) or the path of an ONNX file.
        data_or_pca: calibration data in any form ``projgen.data`` accepts, or a NeuronPCA of this model.
        data: beside a NeuronPCA: the data again, so that method "output" can refit its layers to what really
            reaches them and choose by measured output error; data given directly serves for that too.
        explained_variance_goal: proportion of variance to keep per layer, 0 to 1; .95 if nothing else is given.
        learnables_reduction_goal: proportion of the model's learnables to remove at least, 0 to 1; clipped to
            what is possible, with a warning.
        ranks: {layer: r} or {layer: (r_in, r_out)}, None leaves a layer or a projector out; layers that are not
            named stay dense.
        budget: what the target allows (method "output"): units and ranks of least output error whose lowering fits,
            nothing projected if the model fits already, and no layer whose factors cost the target more than the
            dense ones; with ``accuracy_drop``, the smallest model within it.
        layer_names: only these layers; wildcards allowed.
        method: "output" minimises the output error, weighted by the outputs' curvature; "pca" projects onto the
            principal components of the activations.
        prune: "output" with a goal for learnables: select and merge units or channels first. "auto" keeps that
            where the output error (measured, or predicted without data) is smaller at the same size, True
            always, False never.
        unpack: return ordinary layers instead of ``ProjectedLayer``.
        verbosity: off, summary, steps or iterations.
        device: where the statistics are gathered; the model's own by default.
    Returns:
        (compressed model, CompressionInfo).
    """
    reporter = Reporter(verbosity)
    _check_arguments(method, prune, explained_variance_goal, learnables_reduction_goal, ranks, budget)
    module = as_module(model)
    sized = learnables_reduction_goal is not None or budget is not None
    merging = method == "output" and prune is not False and sized
    pca, batches = _statistics(module, data_or_pca, data, layer_names, method, ranks is None, merging, device, reporter)
    if batches is not None and batches.one_shot:
        batches = None  # read already: enough for the moments
    layers = _selected(pca, layer_names)
    _warn_small(pca, layers)
    own = owned_copy(module)
    reporter.step(f"Choosing ranks of {len(layers)} layers")
    clock, here = reporter.clock, _device(own)
    if pca is not data_or_pca:
        clock.add(pca.seconds)
    known: Forecasts | None = None
    if method == "output" and sized:
        with clock.stage("selection"):
            block = 1 if budget is None else budget.block
            known = forecasts(
                own, layers, pca.collected.layers, pca.example(own),
                prune=prune, clock=clock, block=block, fold=budget is None,
            )  # fmt: skip
    work: PcaWork | Predictor
    with clock.stage("ranks"):
        if known is not None:
            work = known.found[0].work
        else:
            work = PcaWork(own, pca, layers) if method == "pca" else Predictor(own, pca.collected.layers, layers)
    error_of = None if batches is None or method == "pca" else OutputError(own, batches, here, clock)
    how = "threshold" if method == "pca" else "predicted"
    chosen: Mapping[str, Choice]
    narrow = layers
    result: nn.Module | None = None
    refit = False
    if ranks is not None:
        how, chosen = "given", given_ranks(layers, ranks)
    elif budget is not None and known is not None:
        from projgen.budget.search import fitting

        with clock.stage("selection"):
            fit = fitting(
                own, known.found, budget, error_of, batches, pca.collected.input_shapes, here, reporter, prune=prune
            )
        how, refit = "predicted" if error_of is None else "measured", fit.refit
        chosen, result, work, narrow = fit.chosen, fit.model, fit.forecast.work, fit.layers
    elif learnables_reduction_goal is not None:
        if known is None:
            assert isinstance(work, PcaWork)
            chosen = work.for_removal(_removal(work, pca.learnables, learnables_reduction_goal))
        else:
            if error_of is not None and batches is not None:
                with clock.stage("selection"):
                    best = best_candidate(
                        own, known, learnables_reduction_goal, error_of, batches, here, reporter, prune=prune
                    )
                how, refit = "measured", best.refit
            else:
                with clock.stage("factors"):
                    best = predicted_candidate(known.found, learnables_reduction_goal, clock, prune=prune)
            chosen, result, work, narrow = best.chosen, best.model, best.work, best.layers
    else:
        with clock.stage("ranks"):
            chosen = work.for_explained(_DEFAULT_GOAL if explained_variance_goal is None else explained_variance_goal)
    if result is None:
        with clock.stage("factors"):
            result = realise(work, own, layers, chosen)
        if error_of is not None and batches is not None and isinstance(work, Predictor):
            start = Start(1.0, own, layers, pca.collected.layers, {})
            with clock.stage("refit"):
                second = refit_to(own, start, work, chosen, samples_of(batches, own, REFIT), here)
            refit = error_of(second) < error_of(result)
            result = second if refit else result
    result = joined_attention(result)
    remember(result, module, pca.collected.input_shapes)
    details = [_layer_info(a, b, chosen[b.name], work) for a, b in zip(layers, narrow, strict=True)]
    if narrow is not layers:
        _note_reductions(result, layers, details)
    for d in details:
        reporter.iteration(f"{d.name}: ranks {d.ranks}, {d.learnables_before:,} -> {d.learnables_after:,} learnables")
    measured = None if error_of is None else error_of(result)
    info = summarise(pca.learnables, count_learnables(result), details, method, how, refit, measured, clock.seconds)
    reporter.step(f"Time: {clock}")
    if unpack:
        result = unpack_projected_layers(result)
    _report(reporter, info)
    return result, info


def _statistics(
    module: nn.Module,
    data_or_pca: Any,
    data: Any,
    layer_names: list[str] | str | None,
    method: str,
    goal: bool,
    merging: bool,
    device: torch.device | str | None,
    reporter: Reporter,
) -> tuple[NeuronPCA, Batches | None]:
    """The moments, and the data for further passes if there is any."""
    choosing = goal and method == "output"
    if isinstance(data_or_pca, NeuronPCA):
        pca, batches = data_or_pca, None if data is None else as_batches(data, module)
        if batches is not None and choosing:
            batches.require_passes("the choice by measured output error")
        pca.check(module)
        if method == "output" and not pca.has_curvature:
            raise InputError(
                "this NeuronPCA holds moments only", "a NeuronPCA made with curvature=True, or method='pca'", "method"
            )
    elif data is not None:
        raise InputError("data was given twice", "data= only beside a NeuronPCA", "data")
    else:
        batches = as_batches(data_or_pca, module)
        if choosing:
            batches.require_passes("the choice by measured output error")
        level = reporter.verbosity if reporter.verbosity in {"steps", "iterations"} else "off"
        curvature = method == "output"
        names: list[str] | str | None = layer_names
        if merging and layer_names is not None:  # the readers of the named layers' units are looked at too
            choose_layers(module, layer_names)
            found = find_layers(module)
            tied = tied_layers(module, found)
            names = [x.name for x in found if x.kind is not None and x.name not in tied] if tied else None
        pca = NeuronPCA(module, batches, layer_names=names, curvature=curvature, device=device, verbosity=level)
    return pca, batches


def _device(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _layer_info(before: Layer, layer: Layer, choice: Choice, work: PcaWork | Predictor) -> LayerInfo:
    """The record of a layer, ``before`` and after losing units."""
    dense = dense_cost(before)
    after = pca_cost(layer, choice) if isinstance(work, PcaWork) else output_cost(layer, choice)
    projected, explained = choice != DENSE, work.explained(layer, choice)
    units = (before.hidden or before.outputs * before.groups, layer.hidden or layer.outputs * layer.groups)
    joint, folded = (flag and layer.hidden > 0 for flag in (choice.joint, choice.folded))
    forms = (choice.shared, choice.separable, folded)
    return LayerInfo(layer.name, _kind(layer), projected, choice[:2], joint, units, dense, after, explained, *forms)


def _removal(work: PcaWork, total: int, goal: float) -> int:
    removal = math.ceil(goal * total - 1e-9)
    most = work.most_removed()
    if removal > most:
        warnings.warn(
            f"learnables_reduction_goal={goal:g} is more than the possible {most / total:.4f}, which is used",
            stacklevel=3,
        )
        removal = most
    return removal


def _note_reductions(model: nn.Module, layers: list[Layer], details: list[LayerInfo]) -> None:
    """Give the layers of a narrowed net their reduction against the original, which also counts units that went."""
    for module_name, module in model.named_modules():
        if isinstance(module, ProjectedLayer):
            cells = [d for x, d in zip(layers, details, strict=True) if x.module_name == module_name]
            before = sum(d.learnables_before for d in cells)
            if len(cells) == len(getattr(module.network, "input_rank", [0])):
                module.learnables_reduction = 1.0 - sum(d.learnables_after for d in cells) / before


def _check_arguments(
    method: str, prune: bool | str, explained: float | None, reduction: float | None, ranks: object, budget: object
) -> None:
    if prune not in {"auto", True, False}:
        raise InputError(f"prune={prune!r}", "'auto', True or False", "prune")
    if method not in METHODS:
        raise InputError(f"method {method!r}", " or ".join(repr(m) for m in METHODS), "method")
    goals = {"explained_variance_goal": explained, "learnables_reduction_goal": reduction, "ranks": ranks}
    goals["budget"] = budget
    given = [name for name, value in goals.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together", "at most one of them", given[1])
    if budget is not None and not isinstance(budget, Budget):
        raise InputTypeError(f"budget of type {type(budget).__name__}", "a projgen.Budget", "budget")
    if budget is not None and method != "output":
        raise InputError(f"a budget with method {method!r}", "method 'output'", "method")
    for name, value in (("explained_variance_goal", explained), ("learnables_reduction_goal", reduction)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputTypeError(f"{name}={value!r}", "a number from 0 to 1", name)
        if not 0.0 <= value <= 1.0:
            raise InputError(f"{name}={value!r}", "a number from 0 to 1", name)


def _selected(pca: NeuronPCA, layer_names: list[str] | str | None) -> list[Layer]:
    layers = [stats.layer for stats in pca.collected.layers.values()]
    if layer_names is None:
        return layers
    patterns = [layer_names] if isinstance(layer_names, str) else list(layer_names)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(x.name, pattern) or x.module_name == pattern for x in layers):
            raise InputError(
                f"the NeuronPCA has no layer called {pattern!r}", f"one of {', '.join(pca.layer_names)}", "layer_names"
            )
    return [x for x in layers if any(fnmatch.fnmatchcase(x.name, p) or x.module_name == p for p in patterns)]


def _warn_small(pca: NeuronPCA, layers: list[Layer]) -> None:
    short = [x.name for x in layers if pca.collected.layers[x.name].inputs[0].rows < x.inputs]
    if short:
        warnings.warn(
            f"fewer observations than dimensions for {', '.join(short)}: their statistics can't be trusted",
            stacklevel=3,
        )


def _report(reporter: Reporter, info: CompressionInfo) -> None:
    names = ", ".join(f'"{name}"' for name in info.layer_names) or "none"
    reporter.step(info)
    text = (
        f"Compressed network has {info.learnables_reduction:.1%} fewer learnable parameters.\n"
        f"Projection compressed {len(info.layer_names)} layers: {names}"
    )
    narrowed = [f'"{x.name}" {x.units[0]} -> {x.units[1]}' for x in info.layers if x.units[0] != x.units[1]]
    if narrowed:
        text += f"\nUnits or channels left of {len(narrowed)} layers: {', '.join(narrowed)}"
    reporter.summary(text)


def _kind(layer: Layer) -> str:
    kind = layer.kind
    assert isinstance(kind, Kind)
    return kind.value
