"""The charts of a report as inline SVG text (matplotlib; no scripts, no fonts embedded, same data same bytes)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from projgen.harness.measurement import Measurement
from projgen.report.records import ArenaBuffer, Level

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "projgen",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
# of the arena's map, in points: its axes, and a character and a line of small text
_WIDE, _HIGH, _SMALL, _CHARACTER, _LINE = 390.0, 170.0, 7, 4.0, 8.0
_COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#8d6a9f", "#d4a03a", "#5c677d")

Spectra = Mapping[str, tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]]


@contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def spectra_chart(spectra: Spectra) -> str:
    """Variance left out against rank, per layer, inputs solid and outputs dashed (log scale)."""
    with _axes(6.4, 3.0) as (figure, axes):
        for i, (name, (inputs, outputs)) in enumerate(spectra.items()):
            for values, style, side in ((inputs, "-", "in"), (outputs, "--", "out")):
                total = float(np.sum(values))
                if total <= 0:
                    continue
                left = np.maximum(1 - np.cumsum(values) / total, 1e-9)
                axes.semilogy(
                    np.arange(1, len(left) + 1), left, style, color=_COLOURS[i % len(_COLOURS)], label=f"{name} {side}"
                )
        axes.set_xlabel("components kept")
        axes.set_ylabel("share of variance left out")
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def levels_chart(levels: Sequence[Level], dense: tuple[int, float]) -> str:
    """Accuracy over learnables: closed form and fine-tuned, with the dense model as reference."""
    with _axes(6.4, 3.0) as (figure, axes):
        sizes = [entry.learnables for entry in levels]
        axes.plot(sizes, [e.closed_accuracy for e in levels], "o-", color=_COLOURS[0], label="projected, closed form")
        axes.plot(sizes, [e.tuned_accuracy for e in levels], "s--", color=_COLOURS[2], label="projected, fine-tuned")
        axes.plot([dense[0]], [dense[1]], "D", color=_COLOURS[1], label="dense float")
        axes.set_xscale("log")
        axes.set_xlabel("learnables")
        axes.set_ylabel("accuracy")
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def pareto_chart(points: Sequence[Any], measure: str, front: Set[str]) -> str:
    """Accuracy or output error over learnables, a colour per method; a line joins the points named in ``front``.

    Args:
        points: with ``name``, ``method``, ``learnables`` and the attribute that ``measure`` names.
    """
    with _axes(6.4, 3.6) as (figure, axes):
        best = sorted((p for p in points if p.name in front), key=lambda p: p.learnables)
        sizes, values = [p.learnables for p in best], [getattr(p, measure) for p in best]
        axes.plot(sizes, values, "-", color=_COLOURS[5], linewidth=1, zorder=1)
        for i, method in enumerate(dict.fromkeys(p.method for p in points)):
            own = [p for p in points if p.method == method]
            sizes, values = [p.learnables for p in own], [getattr(p, measure) for p in own]
            axes.plot(sizes, values, "oDs^"[i % 4], color=_COLOURS[i % len(_COLOURS)], label=method, zorder=2)
        axes.set_xscale("log")
        if measure == "output_error":
            positive = [getattr(p, measure) for p in points if getattr(p, measure) > 0]
            axes.set_yscale("symlog", linthresh=max(min(positive, default=1e-3) / 2, 1e-12))
            axes.set_ylim(bottom=0)
        axes.set_xlabel("learnables")
        axes.set_ylabel(measure.replace("_", " "))
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def layers_chart(measurements: Sequence[Measurement]) -> str:
    """Instructions per layer and target, horizontal bars."""
    names = list(dict.fromkeys(layer.name for m in measurements for layer in m.layers))
    with _axes(6.4, 0.8 + 0.32 * len(names) * max(1, len(measurements))) as (figure, axes):
        height = 0.8 / max(1, len(measurements))
        for i, m in enumerate(measurements):
            by_name = {layer.name: layer.instructions or 0 for layer in m.layers}
            rows = np.arange(len(names)) + (i - (len(measurements) - 1) / 2) * height
            colour = _COLOURS[i % len(_COLOURS)]
            axes.barh(rows, [by_name.get(n, 0) for n in names], height, color=colour, label=m.target)
        axes.set_yticks(np.arange(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("instructions per inference")
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def arena_chart(buffers: Sequence[ArenaBuffer]) -> str:
    """The arena over time: each buffer a rectangle, layers to the right, bytes upwards, named where the name fits."""
    layers = max((b.last for b in buffers), default=0) + 1
    top = max((b.offset + b.size for b in buffers), default=1)
    with _axes(6.4, 3.4) as (figure, axes):
        for i, b in enumerate(buffers):
            span = b.last - b.first + 1
            colour = _COLOURS[i % len(_COLOURS)]
            middle = b.offset + b.size / 2
            axes.barh(middle, span, b.size, left=b.first - 0.5, color=colour, alpha=0.75, edgecolor="white")
            text = f"{b.name} ({b.size} B)"
            if len(text) * _CHARACTER <= span / layers * _WIDE and b.size / top * _HIGH >= _LINE:
                axes.text(b.first - 0.45, middle, text, va="center", fontsize=_SMALL)
        axes.set_xlim(-0.5, layers - 0.5)
        axes.set_ylim(0, top)
        axes.set_xticks(range(0, layers, -(-layers // 20)))
        axes.set_xlabel("layer")
        axes.set_ylabel("bytes from the arena's start")
        return _svg(figure)
