"""What the integers of a model lose against its floats, measured on calibration inputs, and the limit on it.

Close to the smallest size that a net still works at, rounding the weights to int8 alone can cost many points of
accuracy where the float net lost few. Such a net is refused instead of compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from projgen.arrays import check_classes
from projgen.errors import InputError, Int8LossError
from projgen.ir.graph import Array, Graph
from projgen.quant.probe import Probe, Sample

if TYPE_CHECKING:
    from projgen.data import Batches

Measure = Literal["accuracy", "decisions", "error"]
Limit = float | Literal["auto"]
Labels = npt.NDArray[np.int64]

LIMITS: Final[dict[Measure, float]] = {"accuracy": 0.005, "decisions": 0.02, "error": 0.2}
MACS: Final = 1 << 31  # most multiply-accumulates of the measurement
_ALIKE: Final = 8.0  # columns of class scores spread by factors below this


@dataclass(frozen=True, slots=True)
class Int8Loss:
    """The measured loss.

    Attributes:
        measure: what the limit is on: "accuracy" lost, with labels; else the share of class "decisions" that changed,
            where the output looks like class scores; else the relative output "error".
        value, limit: of the measure.
        samples: calibration inputs it was measured on.
        error: root of the mean square of (int8 - float) over that of the float outputs about their means.
        decisions: share of samples (steps, pixels) with another largest output; None without class scores.
        accuracy_float, accuracy_int8: on these samples; None without labels.
    """

    measure: Measure
    value: float
    limit: float
    samples: int
    error: float
    decisions: float | None = None
    accuracy_float: float | None = None
    accuracy_int8: float | None = None

    @property
    def text(self) -> str:
        """The measurement in words."""
        said = {
            "accuracy": f"int8 lowers the accuracy by {100 * self.value:.2f} points",
            "decisions": f"int8 changes {100 * self.value:.2f}% of the class decisions",
            "error": f"int8 has a relative output error of {self.value:.4f}",
        }[self.measure]
        more = [] if self.measure == "error" else [f"relative output error {self.error:.4f}"]
        if self.measure == "accuracy" and self.decisions is not None:
            more.insert(0, f"{100 * self.decisions:.2f}% of the decisions changed")
        return f"{said} on {self.samples} calibration inputs" + (f" ({', '.join(more)})" if more else "")

    @property
    def limit_text(self) -> str:
        """The limit in the measure's unit."""
        unit = {"accuracy": f"{100 * self.limit:g} points", "decisions": f"{100 * self.limit:g}%"}
        return unit.get(self.measure, f"{self.limit:g}")

    def require(self) -> None:
        """Refuse what is beyond the limit; a single sample decides nothing.

        Raises:
            Int8LossError: naming measure, value and limit.
        """
        single = 0.0 if self.measure == "error" else 1.0 / self.samples
        if self.value > max(self.limit, single) + 1e-12:
            raise Int8LossError(
                self.text,
                f"up to {self.limit_text}",
                "the compression goal, for more learnables (--learnables-reduction, --explained-variance, --ranks); "
                "projgen.distill before quantising; or int8_limit (--int8-limit)",
            )


def check_limit(limit: Limit) -> Limit:
    """The limit, if it is one.

    Raises:
        InputError: neither "auto" nor a number from 0 on.
    """
    if limit != "auto" and (isinstance(limit, str) or not limit >= 0.0):
        raise InputError(f"int8_limit={limit!r}", "'auto' or a number from 0 on", "int8_limit (--int8-limit)")
    return limit


def in_order(labels: npt.ArrayLike | None, data: Batches, count: int) -> Labels | None:
    """The class number of each place of the stream, from labels in the order of the observations.

    Args:
        labels: (N,) integers; None: those that came with the data, if they are that.
        data: the calibration data; count: how many samples it had.
    Raises:
        InputError: labels that are no integers, or not one for each sample.
    """
    given = data.labels if labels is None else np.asarray(labels.cpu() if hasattr(labels, "cpu") else labels)
    if given is None:
        return None
    if given.ndim != 1 or given.dtype.kind not in "iu" or len(given) != count:
        if labels is None:
            return None
        raise InputError(
            f"labels hold {given.dtype} of shape {given.shape}",
            f"one class number for each of the {count} calibration inputs",
            "labels (--labels)",
        )
    classes = np.asarray(given, np.int64)
    return classes if data.order is None else classes[data.order]


def measure_loss(
    graph: Graph, quantised: Graph, samples: Sequence[Sample], labels: Labels | None, limit: Limit
) -> Int8Loss:
    """Compare a quantised graph with its float graph on samples of the calibration inputs.

    Args:
        labels: class number of every place in the stream that the samples come from; None without.
        limit: on the measure that is used; "auto": 0.005 of accuracy, 0.02 of the decisions, 0.2 of error.
    Raises:
        InputError: labels for a model without one vector of class scores, or beyond its classes.
    """
    probe = Probe(graph, samples)
    got = probe.run(quantised)
    error = float(np.sqrt(probe.noise_of(got)))
    decisions = None
    if labels is not None or has_scores(graph, probe):
        changed = [g[0].argmax(-1) != w[0].argmax(-1) for g, w in zip(got, probe.wanted, strict=True)]
        decisions = float(np.concatenate([c.ravel() for c in changed]).mean())
    right: tuple[float, float] | None = None
    if labels is not None:
        right = _accuracy(graph, probe, probe.wanted, labels), _accuracy(graph, probe, got, labels)
    measure: Measure = "accuracy" if right else "error" if decisions is None else "decisions"
    value = right[0] - right[1] if right else error if decisions is None else decisions
    most = LIMITS[measure] if limit == "auto" else limit
    return Int8Loss(measure, value, most, len(samples), error, decisions, *(right or (None, None)))


def has_scores(graph: Graph, probe: Probe) -> bool:
    """Whether the outputs look like class scores: one output, not of the input's shape, columns that spread alike."""
    (first, *others), x = graph.outputs, graph.inputs[0]
    t = graph.type(first.value)
    if others or t.shape == graph.type(x.value).shape or t.step_shape[-1:] in ((), (1,)):
        return False
    spread = np.concatenate([w[0].reshape(-1, w[0].shape[-1]) for w in probe.wanted]).std(axis=0)
    return bool(spread.max() <= _ALIKE * spread.min()) and bool(spread.max() > 0)


def _accuracy(graph: Graph, probe: Probe, outputs: Sequence[tuple[Array, ...]], labels: Labels) -> float:
    t = graph.type(graph.outputs[0].value)
    if len(graph.outputs) > 1 or len(t.shape) != 1 or t.shape[0] == 1:
        raise InputError(
            f"labels for a model whose outputs are {', '.join(str(graph.type(p.value)) for p in graph.outputs)}",
            "one vector of class scores per input",
            "labels (--labels)",
        )
    check_classes(labels, outputs[0][0].shape[-1], "labels (--labels)")
    right = [
        int((y[0].argmax(-1) == labels[[s.index for s in group]]).sum())
        for y, group in zip(outputs, probe.groups, strict=True)
    ]
    return sum(right) / sum(len(group) for group in probe.groups)
