"""The output error of a compressed network on calibration data, against the original; no labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from projgen.data import Batches, input_layout, place, run_model
from projgen.pca.outputs import OutputScale
from projgen.progress import Clock

_SAMPLES = 512
_TOGETHER = 64


class OutputError:
    """Compares models with a teacher on up to 512 samples of the data.

    Class scores are compared by the mean KL divergence of their softmax plus the mean square error over the variance
    of the scores, centred over the classes: a network that is sure of its training data hides in its softmax what
    the scores still show. Any other outputs are compared by the mean square error over their variance.
    """

    def __init__(self, teacher: nn.Module, batches: Batches, device: torch.device, clock: Clock | None = None) -> None:
        """``clock`` counts the stage "measuring"."""
        self._clock = clock or Clock()
        self._batches = [place(batch, teacher, device) for batch in samples_of(batches, teacher, _SAMPLES)]
        self._scale = OutputScale()
        with evaluating(teacher), torch.no_grad():
            results = [run_model(teacher, batch, index) for index, batch in enumerate(self._batches)]
            self._scale.calibrate(results, self._batches)
            self._wanted = [self._scale.normalise(result) for result in results]
        self._divergence = self._scale.scores
        spreads = zip(*self._wanted, strict=True)
        self._spread = [float(torch.cat([p.flatten() for p in parts]).var(correction=0)) or 1.0 for parts in spreads]

    def __call__(self, model: nn.Module) -> float:
        """Mean error over the samples; infinite if an output is no number."""
        total, rows = 0.0, 0
        with self._clock.stage("measuring"), evaluating(model), torch.no_grad():
            for batch, wanted in zip(self._batches, self._wanted, strict=True):
                got = self._scale.normalise(run_model(model, batch, 0))
                count = wanted[0].numel() // wanted[0].shape[-1]
                total += self._error(got, wanted) * count
                rows += count
        mean = total / max(rows, 1)
        return mean if math.isfinite(mean) else math.inf

    def _error(self, got: list[Tensor], wanted: list[Tensor]) -> float:
        if self._divergence:
            p, q = torch.log_softmax(wanted[0].double(), -1), torch.log_softmax(got[0].double(), -1)
            divergence = float((p.exp() * (p - q)).sum(-1).mean())
            return divergence + float((got[0] - wanted[0]).square().mean()) / self._spread[0]
        parts = zip(got, wanted, self._spread, strict=True)
        return sum(float((g - w).square().mean()) / spread for g, w, spread in parts)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards every module is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def samples_of(batches: Batches, model: nn.Module, samples: int) -> list[tuple[Tensor, ...]]:
    """About so many samples of the data, small batches of equal shape put together."""
    axis = 1 if input_layout(model).time_axis == 0 else 0
    groups: dict[tuple[object, ...], list[tuple[Tensor, ...]]] = {}
    for batch in spread(batches, samples):
        key = tuple((x.shape[:axis], x.shape[axis + 1 :], x.dtype) for x in batch)
        groups.setdefault(key, []).append(batch)
    merged = []
    for group in groups.values():
        pending: list[tuple[Tensor, ...]] = []
        for batch in group:
            pending.append(batch)
            if sum(b[0].shape[axis] for b in pending) >= _TOGETHER:
                merged.append(_together(pending, axis))
                pending = []
        if pending:
            merged.append(_together(pending, axis))
    return merged


def _together(batches: list[tuple[Tensor, ...]], axis: int) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts, axis) for parts in zip(*batches, strict=True))


def spread(batches: Batches, samples: int) -> Iterator[tuple[Tensor, ...]]:
    """About so many samples, from batches evenly spread over the data where their number is known."""
    stride, seen = 1, 0
    for index, batch in enumerate(batches):
        if index == 0 and batches.length:
            stride = max(1, batches.length * batch[0].shape[0] // samples)
        if index % stride:
            continue
        yield batch
        seen += batch[0].shape[0]
        if seen >= samples:
            return
