"""The output error of a compressed network on calibration data, against the original; no labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from projgen.data import Batches, input_layout, place, run_model
from projgen.pca.outputs import OutputScale
from projgen.progress import Clock

_SAMPLES = 512
_TOGETHER = 64


class OutputError:
    """Compares models with a teacher on samples of the data (512, if there are more).

    Class scores are compared by the mean KL divergence of their softmax plus the mean square error over the variance
    of the scores, centred over the classes: a network that is sure of its training data hides in its softmax what
    the scores still show. Any other outputs are compared by the mean square error over their variance.
    """

    def __init__(
        self,
        teacher: nn.Module,
        batches: Batches,
        device: torch.device,
        clock: Clock | None = None,
        samples: int = _SAMPLES,
    ) -> None:
        """``clock`` counts the stage "measuring"; ``samples``: so many at most."""
        self._clock = clock or Clock()
        self._batches = [place(batch, teacher, device) for batch in samples_of(batches, teacher, samples)]
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
    """At most so many samples, each of the data equally likely, in batches of equal shape; the same ones every time.

    Whole batches would not do: data is often stored class by class, or speaker by speaker. Reservoir sampling
    (Vitter, "Random sampling with a reservoir", 1985), which needs no number of samples beforehand.
    """
    axis = 1 if input_layout(model).time_axis == 0 else 0
    generator = np.random.default_rng(0)
    kept: list[tuple[int, tuple[Tensor, ...]]] = []
    seen = 0
    for batch in batches:
        for row in range(batch[0].shape[axis]):
            place_in = seen if seen < samples else int(generator.integers(seen + 1))
            if place_in < samples:
                sample = seen, tuple(x.narrow(axis if x.dim() > axis else 0, row, 1).clone() for x in batch)
                kept[place_in : place_in + 1] = [sample]
            seen += 1
    groups: dict[tuple[object, ...], list[tuple[Tensor, ...]]] = {}
    for _, single in sorted(kept, key=lambda entry: entry[0]):
        groups.setdefault(tuple((x.shape, x.dtype) for x in single), []).append(single)
    return [
        tuple(torch.cat(parts, axis) for parts in zip(*group[first : first + _TOGETHER], strict=True))
        for group in groups.values()
        for first in range(0, len(group), _TOGETHER)
    ]
