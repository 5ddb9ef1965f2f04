"""What compress reports: per layer and for the whole network."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.table import Table

_FORMS = ("joint", "folded", "shared", "separable")


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer after compression.

    Attributes:
        name: the layer's name; kind: linear, conv, lstm or gru.
        projected: whether it was replaced; ranks: (r_in, r_out) per group, None where a projector is left out.
        joint: an LSTM whose two products share their first factor.
        units: rows (hidden units, channels, features) before and after select-and-merge.
        learnables_before, learnables_after: counts; learnables_reduction: proportion removed.
        explained_variance: the smaller proportion kept of what it reads and emits ("pca"), or the proportion
            of its output's weighted variance that remains ("output").
        shared: it reads a hidden state through the recurrent layer's own projector, which counts there.
        separable: a convolution of the kernel's rows, to ranks[0] channels, and then of its columns.
        folded: the bias of a joint LSTM comes through the shared factor too, ranks[0] values.
    """

    name: str
    kind: str
    projected: bool
    ranks: tuple[int | None, int | None]
    joint: bool
    units: tuple[int, int]
    learnables_before: int
    learnables_after: int
    explained_variance: float
    shared: bool = False
    separable: bool = False
    folded: bool = False

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
        choice: how the ranks were chosen: "given", "threshold", "predicted" or "measured".
        refit: whether the sequential refit is in it.
        output_error: divergence of the outputs on the calibration data where it was measured, else None: mean
            square error over variance, for class scores (centred over the classes) plus their mean KL divergence.
        seconds: time per stage: those of the neuron PCA if it was made on the way, then "ranks" (every layer's
            error table and the choice), "selection" (narrower networks and theirs), "factors", "refit" and
            "measuring" (output errors).
    """

    learnables_reduction: float
    explained_variance: float
    layer_names: list[str]
    layers: list[LayerInfo]
    method: str
    learnables_before: int
    learnables_after: int
    choice: str
    refit: bool = False
    output_error: float | None = None
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    def __rich__(self) -> Table:
        table = Table(title=f"Projection ({self.method}, ranks {self.choice})")
        for heading in ("layer", "kind", "units", "ranks", "learnables", "fewer", "explained"):
            table.add_column(heading, justify="left" if heading in {"layer", "kind"} else "right")
        for layer in self.layers:
            ranks = ", ".join("-" if r is None else str(r) for r in layer.ranks) if layer.projected else "dense"
            ranks += "".join(f" {form}" for form in _FORMS if getattr(layer, form))
            counts = f"{layer.learnables_before:,} -> {layer.learnables_after:,}"
            fewer, kept = f"{layer.learnables_reduction:.1%}", f"{layer.explained_variance:.2%}"
            units = str(layer.units[1]) if layer.units[0] == layer.units[1] else f"{layer.units[0]} -> {layer.units[1]}"
            table.add_row(layer.name, layer.kind, units, ranks, counts, fewer, kept)
        return table


def summarise(
    before: int,
    after: int,
    details: list[LayerInfo],
    method: str,
    choice: str,
    refit: bool,
    output_error: float | None,
    seconds: dict[str, float],
) -> CompressionInfo:
    """The record of a whole network from those of its layers."""
    projected = [d for d in details if d.projected]
    explained = sum(d.explained_variance for d in projected) / len(projected) if projected else 1.0
    names = [d.name for d in projected]
    return CompressionInfo(
        1.0 - after / before, explained, names, details, method, before, after, choice, refit, output_error, seconds
    )
