"""Means over the seeds, and whether they keep their limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from benchmarks.projection.cells import REFUSED, Cell, Cells
from benchmarks.projection.rows import Level, Limit, Lost, Row

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Spread:
    """One value per seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation of the seeds; 0 for one of them."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(len(self.values))

    def text(self, digits: int = 2) -> str:
        """Mean ± standard deviation; one value alone has none."""
        if len(self.values) == 1:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {self.deviation:.{digits}f}"

    def each(self, digits: int = 2) -> str:
        """The values in the order of the seeds."""
        return " ".join(f"{value:.{digits}f}" for value in self.values)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit: what it asks for, what was measured, whether it holds (less one standard error)."""

    row: Row
    level: Level
    stage: str
    asked: str
    baseline: str
    measured: str
    holds: bool


def lost(cells: Sequence[Cell], stage: str) -> Spread:
    """Points below each seed's own dense network; ``stage`` is "closed" or "distilled"."""
    return Spread(tuple(100 * (cell.dense - _accuracy(cell, stage)) for cell in cells))


def int8_lost(cells: Sequence[Cell], stage: str) -> Spread:
    """Points that int8 loses against the float compressed network."""
    found = [cell.int8_closed if stage == "closed" else cell.int8_distilled for cell in cells]
    return Spread(tuple(int8.lost for int8 in found if int8 is not None))


def verdicts(rows: Sequence[Row], cells: Cells) -> list[Verdict]:
    """Every limit of the rows."""
    found = []
    for row in rows:
        for level in row.levels:
            ours, pca = (list(cells[row.name, level.name, method].values()) for method in ("output", "pca"))
            for stage, limit in (("closed", level.closed), ("distilled", level.distilled)):
                if limit is not None:
                    found.append(_limit(row, level, stage, limit, ours, pca))
                elif level.beyond_pca:
                    theirs, mine = lost(pca, stage), lost(ours, stage)
                    found.append(
                        Verdict(
                            row, level, stage, 'less than `"pca"`', theirs.text(), mine.text(), mine.mean < theirs.mean
                        )
                    )
                if limit is not None or level.beyond_pca:
                    int8 = int8_lost(ours, stage)
                    holds = int8.mean - int8.error <= REFUSED + _ROUNDING
                    found.append(
                        Verdict(row, level, f"{stage}, int8", f"≤ {REFUSED} below float", "", int8.text(), holds)
                    )
    return found


def _limit(row: Row, level: Level, stage: str, limit: Limit, ours: Sequence[Cell], pca: Sequence[Cell]) -> Verdict:
    known = stage == "closed" or "pca" in level.distil
    if isinstance(limit, Lost):
        mine = lost(ours, stage)
        baseline = lost(pca, stage).text() if known else ""
        holds = mine.mean - mine.error <= limit.points + _ROUNDING
        return Verdict(row, level, stage, f"≤ {limit.points}", baseline, mine.text(), holds)
    reached = Spread(tuple(_accuracy(cell, stage) for cell in ours))
    baseline = Spread(tuple(_accuracy(cell, stage) for cell in pca)).text(3) if known else ""
    holds = reached.mean + reached.error >= limit.accuracy - _ROUNDING
    return Verdict(row, level, stage, f"accuracy ≥ {limit.accuracy}", baseline, reached.text(3), holds)


def _accuracy(cell: Cell, stage: str) -> float:
    if stage == "closed":
        return cell.closed
    assert cell.distilled is not None
    return cell.distilled
