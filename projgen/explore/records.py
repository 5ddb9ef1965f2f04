"""What exploring found: one record per level, kept as a file, and all of them together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from projgen.report.terminal import cell

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class LevelResult:
    """One finished level.

    Attributes:
        name: stem of its files. key: hash of the model, the data and all options it depends on.
        method: "output", "pca", or "dense" for the model as it is. goal, value: what was asked of ``compress``.
        learnables, learnables_reduction, explained_variance: of the compressed model.
        output_error: divergence of its outputs from the original's on the calibration inputs: mean square error
            over variance, for class scores (centred over the classes) plus their mean KL divergence.
        accuracy: share of the labelled inputs whose largest output is the label's; None without labels.
        int8_output_error, int8_accuracy: the same of the quantised model; None if that was not asked for.
        choice, refit: how ranks were chosen, as ``CompressionInfo`` says. ranks: per layer that was projected.
        model: file name of the compressed model, empty for the original. seconds: time it took.
        notes: warnings on the way.
    """

    name: str
    key: str
    method: str
    goal: str
    value: float | str
    learnables: int
    learnables_reduction: float
    explained_variance: float
    output_error: float
    accuracy: float | None
    int8_output_error: float | None
    int8_accuracy: float | None
    choice: str
    refit: bool
    ranks: dict[str, Any]
    model: str
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LevelResult:
        """Read a record.

        Raises:
            ValueError: no record of this schema.
        """
        found = json.loads(text)
        if not isinstance(found, dict) or found.pop("schema", None) != SCHEMA:
            raise ValueError("not a record of a level")
        if set(found) != {f.name for f in fields(cls)}:
            raise ValueError("a record with other fields")
        return cls(**{**found, "notes": tuple(found["notes"])})


@dataclass(frozen=True, slots=True)
class Exploration:
    """The original first, then every level; and the names of those that were found finished.

    ``pareto``: names of the results that no other one beats in both learnables and quality.
    """

    results: tuple[LevelResult, ...]
    reused: tuple[str, ...]

    @property
    def measure(self) -> str:
        """What quality is judged by: "accuracy" where there are labels, else "output_error"."""
        return "output_error" if self.results[0].accuracy is None else "accuracy"

    def loss(self, result: LevelResult) -> float:
        """Quality of a result, smaller is better."""
        return result.output_error if result.accuracy is None else 1.0 - result.accuracy

    @property
    def pareto(self) -> tuple[str, ...]:
        best, names = float("inf"), []
        for result in sorted(self.results, key=lambda r: (r.learnables, self.loss(r))):
            if self.loss(result) < best:
                best = self.loss(result)
                names.append(result.name)
        return tuple(names)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells of the table; columns that nobody asked for are left out."""
        labelled, int8 = self.measure == "accuracy", self.results[0].int8_output_error is not None
        front = set(self.pareto)
        columns: Sequence[tuple[str, bool, Any]] = (
            ("level", True, lambda r: r.name),
            ("learnables", True, lambda r: f"{r.learnables:,}"),
            ("fewer", True, lambda r: f"{r.learnables_reduction:.1%}"),
            ("explained", True, lambda r: f"{r.explained_variance:.2%}"),
            ("error", True, lambda r: f"{r.output_error:.4g}"),
            ("accuracy", labelled, lambda r: cell(r.accuracy, ".4f")),
            ("int8 error", int8, lambda r: cell(r.int8_output_error, ".4g")),
            ("int8 accuracy", int8 and labelled, lambda r: cell(r.int8_accuracy, ".4f")),
            ("best", True, lambda r: "*" if r.name in front else ""),
        )
        shown = [(title, text) for title, wanted, text in columns if wanted]
        return [title for title, _ in shown], [[text(r) for _, text in shown] for r in self.results]

    def to_json(self) -> str:
        """Everything as JSON text."""
        results = [asdict(r) for r in self.results]
        whole = {"schema": SCHEMA, "measure": self.measure, "pareto": self.pareto, "results": results}
        return json.dumps(whole, indent=1) + "\n"

    def __rich__(self) -> Table:
        headings, rows = self.rows()
        table = Table(title="Levels side by side", box=SIMPLE_HEAD)
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=not index)
        for row in rows:
            table.add_row(*row)
        return table
