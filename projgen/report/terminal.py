"""The summary as rich tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from projgen.report.records import Level, SummaryRow


def console() -> Console:
    """Standard output; wide enough for the tables where it is no terminal."""
    standard = Console()
    return standard if standard.is_terminal else Console(width=120)


def cell(value: float | None, form: str) -> str:
    """A figure, or "-" where there is none."""
    return "-" if value is None else format(value, form)


def print_summary(rows: Sequence[SummaryRow], levels: Sequence[Level]) -> None:
    """The deployed models per target, then the compression levels."""
    table = Table(title="Deployed models")
    table.add_column("model")
    table.add_column("target")
    for heading in ("accuracy", "learnables", "flash B", "RAM B", "instructions"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model,
            row.target,
            cell(row.accuracy, ".4f"),
            cell(row.learnables, ",d"),
            cell(row.flash_bytes, ",d"),
            cell(row.ram_bytes, ",d"),
            cell(row.instructions, ",.0f"),
        )
    out = console()
    out.print(table)
    if levels:
        curve = Table(title="Projection levels (float)")
        for heading in ("fewer learnables", "learnables", "accuracy, closed form", "accuracy, fine-tuned"):
            curve.add_column(heading, justify="right")
        for entry in levels:
            curve.add_row(
                f"{entry.reduction:.1%}",
                f"{entry.learnables:,d}",
                f"{entry.closed_accuracy:.4f}",
                f"{entry.tuned_accuracy:.4f}",
            )
        out.print(curve)
