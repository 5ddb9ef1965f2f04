"""The page, the plot and the JSON of an exploration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import projgen
from projgen import resources
from projgen.report import charts
from projgen.report.page import write_text


class Point(Protocol):
    """What the plot needs of a level."""

    @property
    def name(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def learnables(self) -> int: ...
    @property
    def output_error(self) -> float: ...
    @property
    def accuracy(self) -> float | None: ...


class Compared(Protocol):
    """Levels side by side, the original first."""

    @property
    def results(self) -> Sequence[Point]: ...
    @property
    def measure(self) -> str: ...
    @property
    def pareto(self) -> tuple[str, ...]: ...
    def rows(self) -> tuple[list[str], list[list[str]]]: ...
    def to_json(self) -> str: ...


def write_exploration(folder: Path, found: Compared) -> None:
    """``explore.json``, ``pareto.svg`` and ``explore.html`` (no scripts), each moved into place when complete.

    Raises:
        InputError: the folder can't be written.
    """
    plot = charts.pareto_chart(found.results, found.measure, set(found.pareto))
    environment = Environment(
        loader=FileSystemLoader(resources.templates()),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    headings, rows = found.rows()
    html = environment.get_template("report/explore.html.j2").render(
        version=projgen.__version__, plot=plot, headings=headings, rows=rows, measure=found.measure
    )
    write_text(folder / "explore.json", found.to_json())
    write_text(folder / "pareto.svg", plot)
    write_text(folder / "explore.html", html)
