"""Choosing where the closed forms are bad guides: candidates are distilled for a moment and judged by what comes out.

Far from the original, the error before training says little of the error after it; that of a hundred steps says
more, and that of some hundred still more: the best are trained again and longer (successive halving). Only the choice
is kept: the candidate itself is returned as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from projgen.progress import Reporter
from projgen.projection.distill import distill
from projgen.projection.measure import OutputError

_ROUNDS = ((8, 100), (3, 300))  # so many candidates, so many steps
_BATCH = 56


class Judged(Protocol):
    """A network with its output error before training."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def error(self) -> float: ...


J = TypeVar("J", bound=Judged)


def rehearsed(
    teacher: nn.Module,
    candidates: Sequence[J],
    samples: list[tuple[Tensor, ...]],
    error_of: OutputError,
    device: torch.device,
    reporter: Reporter,
) -> J:
    """The candidate with the least output error after a short distillation.

    Args:
        candidates: at least one; the eight of least error take part, the three best of them once more, for longer.
        samples: calibration batches to train on.
    """
    left = sorted(candidates, key=lambda c: c.error)
    for count, steps in _ROUNDS:
        judged = []
        for candidate in left[:count]:
            student = distill(
                candidate.model, teacher, samples, steps=steps, batch_size=_BATCH, device=device, verbosity="off"
            )
            judged.append((error_of(student), candidate))
            reporter.iteration(f"output error {candidate.error:.4g}, after {steps} steps {judged[-1][0]:.4g}")
        left = [candidate for _, candidate in sorted(judged, key=lambda pair: pair[0])]
    return left[0]
