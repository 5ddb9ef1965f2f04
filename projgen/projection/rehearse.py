"""Choosing where the closed forms are bad guides: candidates are distilled for a moment and judged by what comes out.

Far from the original, the error before training says little of the error after it; that of a hundred steps says
more. Only the choice is kept: the candidate itself is returned as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from projgen.progress import Reporter
from projgen.projection.distill import distill
from projgen.projection.measure import OutputError

_FIRST = 8
_STEPS = 100
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
        candidates: at least one; the eight of least error take part. samples: calibration batches to train on.
    """
    left = sorted(candidates, key=lambda c: c.error)[:_FIRST]
    after = []
    for candidate in left:
        student = distill(
            candidate.model, teacher, samples, steps=_STEPS, batch_size=_BATCH, device=device, verbosity="off"
        )
        after.append(error_of(student))
        reporter.iteration(f"output error {candidate.error:.4g}, after {_STEPS} steps {after[-1]:.4g}")
    return left[after.index(min(after))]
