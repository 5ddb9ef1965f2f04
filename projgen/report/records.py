"""What a report shows: plain records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from projgen.harness.measurement import Measurement


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One line of the table; None is shown as "-" (where there is no C)."""

    model: str
    target: str
    accuracy: float | None
    learnables: int | None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    instructions: float | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """One compression level: share of learnables removed, learnables left, accuracy before and after fine-tuning."""

    reduction: float
    learnables: int
    closed_accuracy: float
    tuned_accuracy: float


@dataclass(frozen=True, slots=True)
class ArenaBuffer:
    """One buffer of the static arena: place in bytes, and the first and last layer (by index) that needs it."""

    name: str
    offset: int
    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One deployed model on its targets; the arena is that of the first target."""

    title: str
    learnables: int
    accuracy: float | None
    measurements: tuple[Measurement, ...]
    arena: tuple[ArenaBuffer, ...] = ()

    def summary_rows(self) -> list[SummaryRow]:
        return [
            SummaryRow(
                self.title,
                m.target,
                self.accuracy,
                self.learnables,
                m.weight_bytes + m.code_bytes,
                m.arena_bytes,
                m.instructions,
            )
            for m in self.measurements
        ]


def arena_buffers(manifest: Mapping[str, Any]) -> tuple[ArenaBuffer, ...]:
    """The arena map of a manifest."""
    rows: Sequence[Mapping[str, Any]] = manifest["arena_map"]
    return tuple(ArenaBuffer(r["name"], r["offset"], r["bytes"], r["first"], r["last"]) for r in rows)
