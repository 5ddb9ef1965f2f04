"""Streaming first and second moments of row vectors, in memory that does not grow with the rows.

Rows are shifted by the mean of the first block seen, multiplied in their own precision and added up in float64.
The shift keeps the small eigenvalues: plain float32 sums of squares lose them where the mean is large. The product
is symmetric: per block of rows each panel of features is multiplied with itself and those after it only, which
takes little more than half of a full product's work. Sums of moments are moments, so parts computed apart
(batches, processes) can be joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

_BLOCK = 1024  # rows
_PANEL = 128  # features
_PANELS = 16


@dataclass(slots=True)
class Moments:
    """Running moments of vectors of one width.

    Attributes:
        width: number of features d.
        rows: vectors seen, by all processes once finished.
        group: torch process group whose members each see a part of the rows; they must make their first update
            and finish in the same order as their other moments. The shift is that of the group's first member.
    """

    width: int
    rows: int = 0
    group: Any = None
    _shift: Tensor | None = field(default=None, repr=False)
    _sum: Tensor | None = field(default=None, repr=False)
    _outer: Tensor | None = field(default=None, repr=False)

    def update(self, rows: Tensor) -> None:
        """Add rows of shape (n, d), on any device, float32 or float64."""
        if rows.shape[0] == 0:
            return
        if self._shift is None or self._sum is None or self._outer is None:
            self._shift = rows[:_BLOCK].mean(0)
            if self.group is not None:
                distributed.broadcast(self._shift, group=self.group, group_src=0)
            self._sum = torch.zeros(self.width, dtype=torch.float64, device=rows.device)
            self._outer = torch.zeros(self.width, self.width, dtype=torch.float64, device=rows.device)
        for start in range(0, rows.shape[0], _BLOCK):
            block = rows[start : start + _BLOCK] - self._shift
            for first, last in self._panels():
                self._outer[first:last, first:] += block[:, first:last].T @ block[:, first:]
            self._sum += block.sum(0)
        self.rows += rows.shape[0]

    def finish(self) -> MomentSummary:
        """The moments so far, as float64 NumPy arrays; at least one row must have been seen."""
        if self._shift is None or self._sum is None or self._outer is None:
            raise ValueError("no rows were seen")
        if self.group is not None:
            self.rows = int(summed(torch.tensor(self.rows, device=self._sum.device), self.group))
            summed(self._sum, self.group)
            summed(self._outer, self.group)
        shift = self._shift.double()
        delta = self._sum / self.rows
        covariance = (self._outer / self.rows).addr_(delta, delta, alpha=-1.0)
        for first, last in self._panels():
            square = covariance[first:last, first:last]
            square.copy_((square + square.T) / 2)
            covariance[last:, first:last] = covariance[first:last, last:].T
        return MomentSummary(self.rows, (shift + delta).cpu().numpy(), covariance.cpu().numpy())

    def _panels(self) -> Iterator[tuple[int, int]]:
        """(first, last + 1) of the panels of features; of their products only those on and right of the diagonal
        are added up."""
        size = max(_PANEL, -(-self.width // _PANELS))
        return ((first, min(first + size, self.width)) for first in range(0, self.width, size))


@dataclass(frozen=True, slots=True)
class MomentSummary:
    """Moments of ``rows`` vectors: ``mean`` (d) and centred ``covariance`` (d, d), population form, float64."""

    rows: int
    mean: np.ndarray
    covariance: np.ndarray

    @property
    def second(self) -> np.ndarray:
        """Uncentred second moment E[x x^T], (d, d)."""
        mean = torch.from_numpy(np.ascontiguousarray(self.mean))
        return np.asarray(torch.addr(torch.from_numpy(self.covariance), mean, mean).numpy())

    def part(self, start: int, stop: int) -> MomentSummary:
        """Moments of the features start..stop-1."""
        return MomentSummary(self.rows, self.mean[start:stop], self.covariance[start:stop, start:stop])

    def pick(self, index: np.ndarray) -> MomentSummary:
        """Moments of some of the features, in the order given."""
        return MomentSummary(self.rows, self.mean[index], self.covariance[np.ix_(index, index)])

    def through(self, matrix: np.ndarray, offset: np.ndarray | None = None) -> MomentSummary:
        """Moments of ``matrix @ x + offset``."""
        mean = matrix @ self.mean if offset is None else matrix @ self.mean + offset
        return MomentSummary(self.rows, mean, matrix @ self.covariance @ matrix.T)


def summed(value: Tensor, group: Any) -> Tensor:
    """The sum of a tensor over the members of a process group, in place."""
    if group is not None:
        distributed.all_reduce(value, group=group)
    return value


def spectrum(second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (descending, none negative) and eigenvectors (columns, largest entry positive) of a PSD matrix."""
    values, vectors = np.linalg.eigh(second)
    values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
    return values, np.ascontiguousarray(vectors * np.where(signs == 0, 1.0, signs))
