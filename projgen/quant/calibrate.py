"""Calibration: the float graph runs over representative inputs, and every activation's range is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from projgen.errors import InputError
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Array, Graph, Node
from projgen.ir.interpreter import trace_float
from projgen.ops.recurrent_float import reference_traces
from projgen.quant.fixed import Floats
from projgen.quant.low_rank import find_low_rank
from projgen.quant.scope import Stats


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What calibration saw.

    Attributes:
        stats: of every activation, by value name.
        inner: of the insides of recurrent nodes, by node name: "h" (fed back), "c", "z_in", "z_out", "z" (joint).
        samples: how many inputs (sequences) were run.
    """

    stats: Mapping[str, Stats]
    inner: Mapping[str, Mapping[str, Stats]]
    samples: int


@dataclass(slots=True)
class _Running:
    """Extremes and the mean sum of squares over batches, of each channel or (one entry) of the whole tensor."""

    by_channel: bool
    minimum: Floats = field(default_factory=lambda: np.full(1, np.inf))
    maximum: Floats = field(default_factory=lambda: np.full(1, -np.inf))
    squares: Floats = field(default_factory=lambda: np.zeros(1))
    vectors: int = 0

    def update(self, x: Array, vectors: int) -> None:
        rows = x.reshape(-1, x.shape[-1] if self.by_channel else 1)
        self.minimum = np.minimum(self.minimum, rows.min(axis=0))
        self.maximum = np.maximum(self.maximum, rows.max(axis=0))
        self.squares = self.squares + np.square(rows, dtype=np.float64).sum(axis=0)
        self.vectors += vectors

    def stats(self) -> Stats:
        energies = self.squares / self.vectors
        every = zip(self.minimum.tolist(), self.maximum.tolist(), energies.tolist(), strict=True)
        channels = tuple(Stats(*seen) for seen in every) if self.by_channel else ()
        return Stats(float(self.minimum.min()), float(self.maximum.max()), float(energies.sum()), channels)


@dataclass(slots=True)
class _Recorder:
    low_rank: frozenset[str]
    stats: dict[str, _Running] = field(default_factory=dict)
    inner: dict[str, dict[str, _Running]] = field(default_factory=dict)

    def see(self, graph: Graph, value: str, x: Array) -> None:
        vectors = len(x) * (x.shape[1] if graph.type(value).has_time else 1)
        self.stats.setdefault(value, _Running(value in self.low_rank)).update(x, vectors)

    def see_inside(self, node: Node, traces: Mapping[str, Array]) -> None:
        seen = self.inner.setdefault(node.name, {})
        for name, x in traces.items():
            seen.setdefault(name, _Running(name.startswith("z"))).update(x, x.shape[0] * x.shape[1])


def calibrate(graph: Graph, batches: Iterable[Sequence[Array]]) -> Calibration:
    """Run the float graph over batches and record every activation.

    Args:
        graph: at the float stage.
        batches: each one array per input, (N, ...) in the user's layout (PyTorch's); sequences of other lengths come
            as other batches.
    Raises:
        InputError: no data, data of the wrong shape, a NaN or an infinity in the data or in what the model makes of it.
    """
    recorder = _Recorder(find_low_rank(graph))
    samples = 0
    for index, batch in enumerate(batches):
        _check_batch(graph, batch, index)
        inputs = [port.to_ir(np.asarray(x)) for port, x in zip(graph.inputs, batch, strict=True)]
        samples += len(inputs[0])
        for port, x in zip(graph.inputs, inputs, strict=True):
            recorder.see(graph, port.value, x)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for node, args, y in trace_float(graph, inputs):
                _require_finite(y, f"batch {index}: the output of {node.source or node.name} ({node.op})")
                recorder.see(graph, node.output, y)
                if isinstance(node.attrs, Lstm | Gru):
                    recorder.see_inside(node, reference_traces(node.attrs, args))
    if samples == 0:
        raise InputError("the calibration data holds no sample", "at least one batch", "calibration")
    return Calibration(
        {name: running.stats() for name, running in recorder.stats.items()},
        {name: {k: r.stats() for k, r in traces.items()} for name, traces in recorder.inner.items()},
        samples,
    )


def _check_batch(graph: Graph, batch: Sequence[Array], index: int) -> None:
    """Number, rank and finite values of a batch's inputs; the interpreter checks the sizes."""
    if len(batch) != len(graph.inputs):
        names = ", ".join(p.name for p in graph.inputs)
        raise InputError(f"batch {index} has {len(batch)} inputs", f"{len(graph.inputs)}: {names}", "calibration")
    for port, given in zip(graph.inputs, batch, strict=True):
        x = np.asarray(given)
        if x.dtype.kind not in "fiu":
            raise InputError(f"batch {index}: input {port.name!r} holds {x.dtype}", "real numbers", "calibration")
        if x.ndim != len(port.perm) + 1 or x.size == 0:
            want = f"{len(port.perm) + 1} axes, the first one the batch, and at least one value"
            raise InputError(f"batch {index}: input {port.name!r} has shape {x.shape}", want, "calibration")
        _require_finite(x, f"batch {index}: input {port.name!r}")


def _require_finite(x: Array, what: str) -> None:
    if not np.isfinite(x).all():
        kind = "NaN" if np.isnan(x).any() else "an infinity"
        raise InputError(f"{what} holds {kind}", "finite numbers", "calibration")
