"""What long work shows: nothing, a summary, its steps, or every iteration; bars only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from projgen.errors import InputError

LEVELS = ("off", "summary", "steps", "iterations")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reporter:
    """Prints what its verbosity allows: text to stdout, progress bars to stderr."""

    verbosity: str = "summary"

    def __post_init__(self) -> None:
        if self.verbosity not in LEVELS:
            raise InputError(f"verbosity {self.verbosity!r}", ", ".join(LEVELS), "verbosity")

    def summary(self, content: Any) -> None:
        """A result: text or a rich renderable."""
        self._print(content, 1)

    def step(self, content: Any) -> None:
        """The name of the work that begins, or its result."""
        self._print(content, 2)

    def iteration(self, content: Any) -> None:
        """One line per iteration of a loop."""
        self._print(content, 3)

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Pass items on, with a bar on stderr when that is a terminal and verbosity is not off."""
        if self.verbosity == "off" or not sys.stderr.isatty():
            yield from items
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            yield from progress.track(items, total=total, description=description)

    def _print(self, content: Any, level: int) -> None:
        if LEVELS.index(self.verbosity) < level:
            return
        console = Console(soft_wrap=isinstance(content, str))
        console.print(content, highlight=False, markup=False)
