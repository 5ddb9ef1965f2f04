"""compress: a model and its principal components in, a model with projected layers out."""

from __future__ import annotations

import fnmatch
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from projgen.data import input_layout
from projgen.errors import InputError, InputTypeError
from projgen.importers.spec import InputSpec, input_specs, remember_inputs
from projgen.pca.counting import count_learnables, dense_cost
from projgen.pca.discover import Kind, Layer, as_module, owned_copy
from projgen.pca.neuron_pca import NeuronPCA, explained_share
from projgen.progress import Reporter
from projgen.projection.closed_form import pca_factors
from projgen.projection.factors import Factors, build, cost_of, dense_weights
from projgen.projection.layers import unpack_projected_layers
from projgen.projection.predict import Predictor
from projgen.projection.ranks import (
    Pair,
    Spectra,
    given_ranks,
    pca_cost,
    threshold_for_reduction,
    threshold_ranks,
)

METHODS = ("output", "pca")
_DEFAULT_GOAL = 0.95


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer after compression.

    Attributes:
        name: the layer's name; kind: linear, conv, lstm or gru.
        projected: whether it was replaced; ranks: (r_in, r_out) per group, None where a projector is left out.
        learnables_before, learnables_after: counts; learnables_reduction: proportion removed.
        explained_variance: the smaller proportion kept of what it reads and emits ("pca"), or the proportion
            of its output's weighted variance that remains ("output").
    """

    name: str
    kind: str
    projected: bool
    ranks: Pair
    learnables_before: int
    learnables_after: int
    explained_variance: float

    @property
    def learnables_reduction(self) -> float:
        return 1.0 - self.learnables_after / self.learnables_before


@dataclass(frozen=True, slots=True)
class CompressionInfo:
    """What compress did.

    Attributes:
        learnables_reduction: proportion of the whole model's learnables that were removed.
        explained_variance: mean over the projected layers of the proportion explained (1 if there are none).
        layer_names: the projected layers. layers: details of every layer looked at.
        method: "pca" or "output". learnables_before, learnables_after: counts of the whole model.
    """

    learnables_reduction: float
    explained_variance: float
    layer_names: list[str]
    layers: list[LayerInfo]
    method: str
    learnables_before: int
    learnables_after: int

    def __rich__(self) -> Table:
        table = Table(title=f"Projection ({self.method})")
        for heading in ("layer", "kind", "ranks", "learnables", "fewer", "explained"):
            table.add_column(heading, justify="left" if heading in {"layer", "kind"} else "right")
        for layer in self.layers:
            ranks = ", ".join("-" if r is None else str(r) for r in layer.ranks) if layer.projected else "dense"
            counts = f"{layer.learnables_before:,} -> {layer.learnables_after:,}"
            fewer, kept = f"{layer.learnables_reduction:.1%}", f"{layer.explained_variance:.2%}"
            table.add_row(layer.name, layer.kind, ranks, counts, fewer, kept)
        return table


def compress(
    model: nn.Module | str | Path,
    data_or_pca: Any,
    *,
    explained_variance_goal: float | None = None,
    learnables_reduction_goal: float | None = None,
    ranks: Mapping[str, Any] | None = None,
    layer_names: list[str] | str | None = None,
    method: str = "output",
    unpack: bool = False,
    verbosity: str = "summary",
    device: torch.device | str | None = None,
) -> tuple[nn.Module, CompressionInfo]:
    """Replace layers by projected ones with fewer learnables.

    Args:
        model: nn.Module (not modified) or the path of an ONNX file.
        data_or_pca: calibration data in any form ``projgen.data`` accepts, or a NeuronPCA of this model.
        explained_variance_goal: proportion of variance to keep per layer, 0 to 1; .95 if nothing else is given.
        learnables_reduction_goal: proportion of the model's learnables to remove at least, 0 to 1; clipped to
            what is possible, with a warning.
        ranks: {layer: r} or {layer: (r_in, r_out)}, None leaves a layer or a projector out; layers that are not
            named stay dense.
        layer_names: only these layers; wildcards allowed.
        method: "output" minimises the output error, weighted by the outputs' curvature; "pca" projects onto the
            principal components of the activations.
        unpack: return ordinary layers instead of ``ProjectedLayer``.
        verbosity: off, summary, steps or iterations.
        device: where the statistics are gathered; the model's own by default.
    Returns:
        (compressed model, CompressionInfo).
    """
    reporter = Reporter(verbosity)
    _check_arguments(method, explained_variance_goal, learnables_reduction_goal, ranks)
    module = as_module(model)
    if isinstance(data_or_pca, NeuronPCA):
        pca = data_or_pca
        pca.check(module)
    else:
        level = verbosity if verbosity in {"steps", "iterations"} else "off"
        names, curvature = layer_names, method == "output"
        pca = NeuronPCA(module, data_or_pca, layer_names=names, curvature=curvature, device=device, verbosity=level)
    if method == "output" and not pca.has_curvature:
        raise InputError(
            "this NeuronPCA holds moments only", "a NeuronPCA made with curvature=True, or method='pca'", "method"
        )
    layers = _selected(pca, layer_names)
    _warn_small(pca, layers)
    own = owned_copy(module)
    reporter.step(f"Choosing ranks of {len(layers)} layers")
    work = PcaWork(own, pca, layers) if method == "pca" else Predictor(own, pca.collected, layers)
    if ranks is not None:
        chosen = given_ranks(layers, ranks)
    elif learnables_reduction_goal is not None:
        chosen = _for_reduction(work, pca.learnables, learnables_reduction_goal)
    else:
        goal = _DEFAULT_GOAL if explained_variance_goal is None else explained_variance_goal
        chosen = work.for_explained(goal)
    factors: dict[str, Factors] = {}
    details: list[LayerInfo] = []
    for layer in reporter.track(layers, "projecting", len(layers)):
        pair = chosen[layer.name]
        projected = pair != (None, None)
        if projected:
            factors[layer.name] = work.factors(layer, pair)
        after = cost_of(layer, factors.get(layer.name))
        explained = work.explained(layer, pair)
        details.append(LayerInfo(layer.name, _kind(layer), projected, pair, dense_cost(layer), after, explained))
        reporter.iteration(f"{layer.name}: ranks {pair}, {dense_cost(layer):,} -> {after:,} learnables")
    result = _assemble(own, layers, factors)
    _remember(result, module, pca.collected.input_shapes)
    info = _info(pca.learnables, count_learnables(result), details, method)
    if unpack:
        result = unpack_projected_layers(result)
    _report(reporter, info)
    return result, info


class PcaWork:
    """The choices and factors of ``method="pca"``."""

    def __init__(self, model: nn.Module, pca: NeuronPCA, layers: list[Layer]) -> None:
        self._model = model
        self._pca = pca
        read, emitted = pca.input_eigenvalues, pca.output_eigenvalues
        self._spectra = [Spectra(layer, read[layer.name], emitted[layer.name]) for layer in layers]

    def for_explained(self, goal: float) -> dict[str, Pair]:
        return threshold_ranks(self._spectra, goal)

    def for_removal(self, removal: int) -> dict[str, Pair]:
        return threshold_ranks(self._spectra, threshold_for_reduction(self._spectra, removal))

    def most_removed(self) -> int:
        chosen = threshold_ranks(self._spectra, 0.0)
        return sum(dense_cost(s.layer) - pca_cost(s.layer, chosen[s.layer.name]) for s in self._spectra)

    def factors(self, layer: Layer, pair: Pair) -> Factors:
        vectors = (self._pca.input_eigenvectors[layer.name], self._pca.output_eigenvectors[layer.name])
        return pca_factors(dense_weights(self._model, layer), self._pca.collected.layers[layer.name], vectors, *pair)

    def explained(self, layer: Layer, pair: Pair) -> float:
        kept = (self._pca.input_eigenvalues[layer.name], self._pca.output_eigenvalues[layer.name])
        return min(1.0 if r is None else explained_share(v, r) for v, r in zip(kept, pair, strict=True))


def _for_reduction(work: PcaWork | Predictor, total: int, goal: float) -> dict[str, Pair]:
    removal = math.ceil(goal * total - 1e-9)
    most = work.most_removed()
    if removal > most:
        warnings.warn(
            f"learnables_reduction_goal={goal:g} is more than the possible {most / total:.4f}, which is used",
            stacklevel=3,
        )
        removal = most
    return work.for_removal(removal)


def _check_arguments(method: str, explained: float | None, reduction: float | None, ranks: object) -> None:
    if method not in METHODS:
        raise InputError(f"method {method!r}", " or ".join(repr(m) for m in METHODS), "method")
    goals = {"explained_variance_goal": explained, "learnables_reduction_goal": reduction, "ranks": ranks}
    given = [name for name, value in goals.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given together", "at most one of them", given[1])
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


def _assemble(own: nn.Module, layers: list[Layer], factors: dict[str, Factors]) -> nn.Module:
    modules: dict[str, list[tuple[Layer, Factors | None]]] = {}
    for layer in layers:
        if layer.name in factors:
            modules.setdefault(layer.module_name, []).append((layer, factors[layer.name]))
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in own.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places.setdefault(id(child), []).append((parent, name))
    result = own
    for module_name, cells in modules.items():
        module = own.get_submodule(module_name)
        replacement = build(module, cells, module_name or cells[0][0].name)
        for parent, name in places.get(id(module), []):
            setattr(parent, name, replacement)
        if module is own:
            result = replacement
    return result


def _remember(result: nn.Module, module: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Keep the model's input specifications on the result, or note those of the data."""
    specs = input_specs(module)
    if specs is None:
        layout = input_layout(module)
        names = layout.names if len(layout.names) == len(shapes) else [f"input{i}" for i in range(len(shapes))]
        specs = tuple(
            InputSpec(name, tuple(None if axis == layout.time_axis else size for axis, size in enumerate(shape))[1:])
            for name, shape in zip(names, shapes, strict=True)
        )
    remember_inputs(result, specs)


def _info(before: int, after: int, details: list[LayerInfo], method: str) -> CompressionInfo:
    projected = [d for d in details if d.projected]
    explained = sum(d.explained_variance for d in projected) / len(projected) if projected else 1.0
    names = [d.name for d in projected]
    return CompressionInfo(1.0 - after / before, explained, names, details, method, before, after)


def _report(reporter: Reporter, info: CompressionInfo) -> None:
    names = ", ".join(f'"{name}"' for name in info.layer_names) or "none"
    reporter.step(info)
    reporter.summary(
        f"Compressed network has {info.learnables_reduction:.1%} fewer learnable parameters.\n"
        f"Projection compressed {len(info.layer_names)} layers: {names}"
    )


def _kind(layer: Layer) -> str:
    kind = layer.kind
    assert isinstance(kind, Kind)
    return kind.value
