"""One choice per layer with the least sum of errors, while the sums of several costs keep a limit each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
T = TypeVar("T")

_SUMS: Final = 4096  # partial sums that are kept
_EPSILON: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[T]):
    """What a layer, or several whose choices hang together, can become.

    ``error`` (n,) and ``cost`` (n, m) stand beside the n choices; m costs, such as instructions and bytes of flash.
    """

    choices: tuple[T, ...]
    error: Array
    cost: Array

    def useful(self) -> Table[T]:
        """Without the choices that another one is not worse than in anything: the least error of a step of costs."""
        values = np.column_stack((self.error, self.cost))
        order = np.lexsort(values.T[::-1])
        kept: list[int] = []
        for i in order:  # whatever beats it comes before it
            if not (values[kept] <= values[i]).all(axis=1).any():
                kept.append(int(i))
        return Table(tuple(self.choices[i] for i in kept), self.error[kept], self.cost[kept])


def least_error(tables: Sequence[Table[T]], limits: Array, sums: int = _SUMS) -> list[T] | None:
    """A choice of each table with the least sum of errors within the limits; None if no choices are.

    Tables are added one by one, and sums that exceed a limit even with the cheapest of what is left go. While at most
    ``sums`` are left this is exact; more are thinned to the least error of equal slots of cost, beside the cheapest.

    Args:
        limits: (m,), inf where a cost has none.
    """
    bounded = np.isfinite(limits)
    top = limits[bounded] * (1 + _EPSILON)
    costs = [table.cost[:, bounded] for table in tables]
    rest = np.array([c.min(axis=0) for c in costs]).reshape(len(tables), -1).sum(axis=0)
    total, error = np.zeros((1, len(top))), np.zeros(1)
    trail: list[tuple[Ints, Ints]] = []
    for table, cost in zip(tables, costs, strict=True):
        rest = rest - cost.min(axis=0)
        every = (total[:, None] + cost[None]).reshape(len(total) * len(cost), len(top))
        within = np.flatnonzero((every + rest <= top).all(axis=1))
        if not len(within):
            return None
        loss = (error[:, None] + table.error[None]).ravel()
        kept = within[_kept(every[within], loss[within], top - rest, sums)]
        previous, index = np.divmod(kept, len(table.error))
        total, error = every[kept], loss[kept]
        trail.append((previous, index))
    position = int(error.argmin())
    chosen: list[T] = []
    for table, (previous, index) in zip(reversed(tables), reversed(trail), strict=True):
        chosen.append(table.choices[int(index[position])])
        position = int(previous[position])
    return chosen[::-1]


def cheapest(tables: Sequence[Table[T]], limits: Array) -> list[T]:
    """The choices with the least sum of costs, each in units of its limit; of equals the one of least error."""
    bounded = np.isfinite(limits)
    found = []
    for table in tables:
        spent = (table.cost[:, bounded] / limits[bounded]).sum(axis=1)
        found.append(table.choices[int(np.lexsort((table.error, spent))[0])])
    return found


def _kept(total: Array, error: Array, top: Array, sums: int) -> Ints:
    """Indices of the sums that go on: all, or the least error of each slot and what is cheapest in anything."""
    if not total.shape[1]:
        return np.array([error.argmin()])
    if len(error) <= sums:
        return np.arange(len(error))
    low = total.min(axis=0)
    width = np.maximum(top - low, 1e-300)
    side = max(1, int(sums ** (1 / max(1, total.shape[1]))))
    place = np.minimum((total - low) / width * side, side - 1).astype(np.int64)
    slot = place @ side ** np.arange(total.shape[1])
    order = np.lexsort((total.sum(axis=1), error, slot))
    first = np.concatenate(([True], slot[order][1:] != slot[order][:-1]))
    lowest = [int(np.lexsort((error, c))[0]) for c in (*total.T, (total / top).sum(axis=1), (total / top).max(axis=1))]
    return np.unique(np.concatenate((order[first], np.array(lowest, np.int64))))
