"""analyze: which layers can be compressed, how far, and what it would cost."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import nn

from projgen.pca.counting import count_learnables, dense_cost, smallest_cost
from projgen.pca.discover import Layer, as_module, find_layers, owned_copy, tied_layers
from projgen.pca.neuron_pca import NeuronPCA
from projgen.projection.pca_method import PcaWork
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE
from projgen.projection.trace import find_groups
from projgen.projection.units import settle, trial_inputs

_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)


@dataclass(frozen=True, slots=True)
class LayerAnalysis:
    """One layer.

    Attributes:
        name, kind: as in ``compress``; kind is empty where the layer can't be projected.
        eligible: whether it can be projected; reason: why not, else empty.
        learnables: as it is. max_reduction: proportion that goes at rank one.
        ranks_at_95: (r_in, r_out) that keep 95% of the variance by ``method="pca"``.
        units: units or channels that ``prune`` may take from; 0 where all must stay. units_reason: why they must,
            empty if some may go and for layers that are not eligible.
    """

    name: str
    kind: str
    eligible: bool
    reason: str
    learnables: int
    max_reduction: float
    ranks_at_95: tuple[int | None, int | None]
    units: int = 0
    units_reason: str = ""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What the whole network keeps at a level: proportion of learnables removed, and of variance explained.

    ``explained_pca`` is the mean over projected layers of ``method="pca"``, ``explained_output`` that of
    ``method="output"`` (None without curvature, or where the level is out of its reach).
    """

    learnables_reduction: float
    explained_pca: float
    explained_output: float | None


@dataclass(frozen=True, slots=True)
class Analysis:
    """Table per layer and the curve of the network; prints itself with rich and in notebooks."""

    learnables: int
    max_reduction: float
    layers: tuple[LayerAnalysis, ...]
    curve: tuple[CurvePoint, ...]

    def __rich__(self) -> Table | Text:
        if not self.layers:
            return Text(self._title())
        table = Table(title=self._title())
        for heading in _HEADINGS:
            table.add_column(heading, justify="left" if heading in {"layer", "kind", "note"} else "right")
        for row in self._rows():
            table.add_row(*row)
        if self.curve:
            table.caption = "learnables removed -> variance explained, pca | output\n" + "\n".join(
                f"{p.learnables_reduction:.1%} -> {p.explained_pca:.2%} | {_percent(p.explained_output)}"
                for p in self.curve
            )
        return table

    def _repr_html_(self) -> str:
        def line(tag: str, cells: Any) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

        if not self.layers:
            return f"<p>{html.escape(self._title())}</p>"
        layers = line("th", _HEADINGS) + "".join(line("td", row) for row in self._rows())
        heads = ("learnables removed", "explained (pca)", "explained (output)")
        points = "".join(
            line("td", (f"{p.learnables_reduction:.1%}", _percent(p.explained_pca), _percent(p.explained_output)))
            for p in self.curve
        )
        curve = f"<table>{line('th', heads)}{points}</table>" if self.curve else ""
        return f"<p>{html.escape(self._title())}</p><table>{layers}</table>{curve}"

    def _title(self) -> str:
        if not self.layers:
            return f"{self.learnables:,} learnables, none in a layer with a weight matrix: there is nothing to compress"
        return f"{self.learnables:,} learnables, up to {self.max_reduction:.1%} can go"

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for layer in self.layers:
            ranks = ", ".join("-" if r is None else str(r) for r in layer.ranks_at_95) if layer.eligible else ""
            most = f"{layer.max_reduction:.1%}" if layer.eligible else ""
            units = f"{layer.units:,}" if layer.units else "-" if layer.eligible else ""
            note = layer.reason or (f"all units stay: {layer.units_reason}" if layer.units_reason else "")
            rows.append((layer.name, layer.kind, f"{layer.learnables:,}", most, ranks, units, note))
        return rows


_HEADINGS = ("layer", "kind", "learnables", "max reduction", "ranks at 95%", "units to prune", "note")


def analyze(model: nn.Module | str | Path, data_or_pca: Any) -> Analysis:
    """Look at every layer of a model: can it be projected, how far, and what variance each level keeps.

    Args:
        model: nn.Module (not modified) or the path of an ONNX file.
        data_or_pca: calibration data in any form ``projgen.data`` accepts, or a NeuronPCA of this model.
    """
    module = as_module(model)
    found = find_layers(module)
    tied = tied_layers(module, found)
    usable = [x.name for x in found if x.kind is not None and x.name not in tied]
    if isinstance(data_or_pca, NeuronPCA):
        pca = data_or_pca
        pca.check(module)
    elif usable:
        pca = NeuronPCA(module, data_or_pca, layer_names=usable, verbosity="off")
    else:
        rows = tuple(_refused(module, x, tied) for x in found)
        return Analysis(count_learnables(module), 0.0, rows, ())
    layers = [stats.layer for stats in pca.collected.layers.values()]
    own = owned_copy(module)
    work = PcaWork(own, pca, layers)
    at_95 = work.for_explained(0.95)
    units = _units(own, pca, layers)
    eligible = {
        x.name: LayerAnalysis(
            x.name, x.kind.value if x.kind else "", True, "", dense_cost(x), _max_reduction(x), at_95[x.name][:2],
            *units[x.name],
        )
        for x in layers
    }  # fmt: skip
    rows = tuple(eligible[x.name] if x.name in eligible else _refused(module, x, tied) for x in found)
    curve = _curve(pca, layers, work, Predictor(own, pca.collected.layers, layers) if pca.has_curvature else None)
    return Analysis(pca.learnables, pca.learnables_reduction_range[1], rows, curve)


def _units(model: nn.Module, pca: NeuronPCA, layers: list[Layer]) -> dict[str, tuple[int, str]]:
    """Per layer the number of units it makes that may be pruned, or 0 and why not."""
    inputs = trial_inputs(model, pca.example(model))
    groups = find_groups(owned_copy(model).eval(), inputs)
    settle(model, groups, {(x.module_name, x.cell) for x in layers}, {x.module_name for x in layers}, inputs)
    found: dict[str, tuple[int, str]] = {}
    for layer in layers:
        name = layer.module_name
        made = next((g for g in groups if name in g.producers and g.cells.get(name, 0) == layer.cell), None)
        if made is not None:
            found[layer.name] = (0 if made.reason else made.size), made.reason
        elif layer.groups > 1:
            found[layer.name] = 0, "the channels of a grouped convolution are bound to its groups"
        else:
            found[layer.name] = 0, "torch.export can't trace what reads them"
    return found


def _curve(pca: NeuronPCA, layers: list[Layer], work: PcaWork, predictor: Predictor | None) -> tuple[CurvePoint, ...]:
    points = []
    for level in _LEVELS:
        removal = int(level * pca.learnables) + 1
        if removal > work.most_removed():
            break
        explained = _mean_explained(work, layers, removal)
        ours = None
        if predictor is not None and removal <= predictor.most_removed():
            ours = _mean_explained(predictor, layers, removal)
        points.append(CurvePoint(level, explained, ours))
    return tuple(points)


def _mean_explained(work: PcaWork | Predictor, layers: list[Layer], removal: int) -> float:
    chosen = work.for_removal(removal)
    shares = [work.explained(x, chosen[x.name]) for x in layers if chosen[x.name] != DENSE]
    return sum(shares) / len(shares) if shares else 1.0


def _max_reduction(layer: Layer) -> float:
    return max(0.0, 1.0 - smallest_cost(layer) / dense_cost(layer))


def _refused(model: nn.Module, layer: Layer, tied: dict[str, str]) -> LayerAnalysis:
    reason = layer.reason or (
        f"it shares its weights with {tied[layer.name]!r}"
        if layer.name in tied
        else "the data does not reach it, or it was not asked for"
    )
    learnables = 0
    if layer.kind is not None:
        learnables = dense_cost(layer)
    elif layer.cell == 0 and "not initialised" not in reason:  # an RNN counts once, at its first cell
        learnables = count_learnables(model.get_submodule(layer.module_name))
    return LayerAnalysis(
        layer.name, "" if layer.kind is None else layer.kind.value, False, reason, learnables, 0.0, (None, None)
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
