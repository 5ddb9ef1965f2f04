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
from projgen.quant.fixed import Floats
from projgen.quant.probe import Probe, Sample

if TYPE_CHECKING:
    from projgen.data import Batches

Measure = Literal["accuracy", "decisions", "error"]
Limit = float | Literal["auto"]
Labels = npt.NDArray[np.int64]

LIMITS: Final[dict[Measure, float]] = {"accuracy": 0.005, "decisions": 0.02, "error": 0.2}
MACS: Final = 1 << 31  # most multiply-accumulates of the measurement
_ALIKE: Final = 8.0  # columns of class scores spread by factors below this
_ROWS: Final = 1024  # scores, and ...
_ERRORS: Final = 256  # ... errors of scores that are combined, evenly spread over all
_CONFIDENCE: Final = 1.645  # standard errors: 95%, one-sided


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
        expected, expected_limit: accuracy that the changed decisions are expected to cost, upper 95% confidence, and
            the limit on it; None unless the measure is "decisions".
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
    expected: float | None = None
    expected_limit: float | None = None

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
        if self.expected is not None:
            more.insert(0, f"expected to cost up to {100 * self.expected:.2f} points of accuracy")
        return f"{said} on {self.samples} calibration inputs" + (f" ({', '.join(more)})" if more else "")

    @property
    def limit_text(self) -> str:
        """The limits in their measures' units."""
        unit = {"accuracy": f"{100 * self.limit:g} points", "decisions": f"{100 * self.limit:g}%"}
        text = unit.get(self.measure, f"{self.limit:g}")
        return text if self.expected_limit is None else f"{text} and {100 * self.expected_limit:g} points"

    def require(self) -> None:
        """Refuse what is beyond a limit; a single sample decides nothing.

        Raises:
            Int8LossError: naming measure, value and limit.
        """
        single = 0.0 if self.measure == "error" else 1.0 / self.samples
        costs = self.expected is not None and self.expected_limit is not None and self.expected > self.expected_limit
        if self.value > max(self.limit, single) + 1e-12 or costs:
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
        limit: on the measure that is used; "auto": 0.005 of accuracy, 0.02 of the decisions and 0.005 of the accuracy
            that these are expected to cost, 0.2 of error. A number is the limit of both where there are two.
    Raises:
        InputError: labels for a model without one vector of class scores, or beyond its classes.
    """
    probe = Probe(graph, samples)
    got = probe.run(quantised)
    error = float(np.sqrt(probe.noise_of(got)))
    decisions = expected = None
    if labels is not None or has_scores(graph, probe):
        want, have = (_rows([outputs[0] for outputs in of]) for of in (probe.wanted, got))
        decisions = float((have.argmax(1) != want.argmax(1)).mean())
        expected = expected_cost(want, have) if labels is None else None
    right: tuple[float, float] | None = None
    if labels is not None:
        right = _accuracy(graph, probe, probe.wanted, labels), _accuracy(graph, probe, got, labels)
    measure: Measure = "accuracy" if right else "error" if decisions is None else "decisions"
    value = right[0] - right[1] if right else error if decisions is None else decisions
    most = LIMITS[measure] if limit == "auto" else limit
    price = None if expected is None else LIMITS["accuracy"] if limit == "auto" else limit
    before, after = right or (None, None)
    return Int8Loss(measure, value, most, len(samples), error, decisions, before, after, expected, price)


def expected_cost(wanted: Floats, got: Floats) -> float:
    """Accuracy that changed decisions are expected to cost on inputs like these, the upper end of 95% confidence.

    The float scores' probabilities say how likely each class is right; a change from class a to class b costs
    p_a - p_b. Every input may meet the error of every other: few changes are seen, but the margins of all inputs and
    the errors of all tell how many to expect. Errors that are larger where margins are small show in the changes that
    were seen; the larger of the two counts (of seen ones, from two on).

    Args:
        wanted, got: class scores of the floats and of the integers, (rows, classes).
    """
    chance = _probabilities(wanted)
    places = np.arange(len(wanted))
    before, after = wanted.argmax(1), got.argmax(1)
    seen = float((chance[places, before] - chance[places, after]).mean())
    errors = (got - wanted)[_spaced(len(wanted), _ERRORS)]
    rows = _spaced(len(wanted), _ROWS)
    costs = np.array([chance[i, before[i]] - chance[i, (wanted[i] + errors).argmax(1)].mean() for i in rows])
    bound = float(costs.mean() + _CONFIDENCE * costs.std() / np.sqrt(len(costs)))
    return round(max(bound, seen) if int((before != after).sum()) > 1 else bound, 6)


def _probabilities(scores: Floats) -> Floats:
    """Class probabilities: the rows as they are if they are that, else their softmax."""
    if bool((scores >= 0.0).all()) and bool((np.abs(scores.sum(1) - 1.0) < 0.02).all()):
        return scores
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _spaced(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most so many evenly spread indices."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _rows(parts: Sequence[Array]) -> Floats:
    """Outputs of all groups as rows of class scores."""
    return np.concatenate([np.asarray(p, np.float64).reshape(-1, p.shape[-1]) for p in parts])


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
