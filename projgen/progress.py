"""What long work shows: nothing, a summary, its steps, or every iteration; bars only on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from projgen.errors import InputError

LEVELS = ("off", "summary", "steps", "iterations")

T = TypeVar("T")

now = time.perf_counter


@dataclass(slots=True)
class Clock:
    """Where the time goes: seconds per stage; a stage inside another one counts for itself alone."""

    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside under a name."""
        self._credit()
        self._open.append(name)
        try:
            yield
        finally:
            self._credit()
            self._open.pop()

    def add(self, seconds: dict[str, float]) -> None:
        """Take over what another clock counted, out of the stage that is open."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
            if self._open:
                self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) - value

    def __str__(self) -> str:
        largest = sorted(self.seconds.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {value:.1f} s" for name, value in largest)

    def _credit(self) -> None:
        """Give the time since the last change to the innermost stage."""
        time_now = now()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + time_now - self._since
        self._since = time_now


@dataclass(frozen=True, slots=True)
class Reporter:
    """Prints what its verbosity allows: text to stdout, progress bars to stderr. ``clock`` times the work's stages."""

    verbosity: str = "summary"
    clock: Clock = field(default_factory=Clock)

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
