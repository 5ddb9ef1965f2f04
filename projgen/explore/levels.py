"""What is explored: a method and the goal that ``compress`` gets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from projgen.budget import Budget
from projgen.errors import InputError, InputTypeError

METHODS = ("output", "pca")
_ALLOWED = "shares of learnables to remove, each from 0 up to but not 1, e.g. 0.5,0.8,0.9"


_APART: Final = re.compile(r"[^\w.]+")


@dataclass(frozen=True, slots=True)
class Level:
    """One call of ``compress``: its method, the name of the goal and the goal's value (text for a budget)."""

    method: str
    goal: str
    value: float | str

    @property
    def name(self) -> str:
        """Stem of the level's files: "output-0.8", "budget-flash-64KiB-target-cortex-m4"."""
        if isinstance(self.value, str):
            return f"budget-{_APART.sub('-', self.value)}"
        return f"{self.method}-{self.value:g}" if self.goal else self.method

    @property
    def arguments(self) -> dict[str, Any]:
        """The goal as an argument of ``compress``."""
        return {self.goal: Budget.parse(self.value) if isinstance(self.value, str) else self.value}


DENSE = Level("dense", "", 0.0)


def parse_levels(text: str) -> list[float]:
    """``0.5,0.8,0.9`` as numbers.

    Raises:
        InputError: an entry is no number.
    """
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"levels {text!r} are not understood", _ALLOWED, "--levels") from error


def plan(levels: Iterable[float], methods: Iterable[str], budgets: Iterable[str] = ()) -> list[Level]:
    """Every level with every method, without repetition, methods in the order given and levels ascending; then budgets.

    Raises:
        InputError: no level, one outside [0, 1), an unknown method, or a budget that is not understood.
            InputTypeError: a level is no number.
    """
    limits = [Level("output", "budget", text) for text in dict.fromkeys(budgets)]
    for level in limits:
        _ = level.arguments  # refused here, before anything is computed
    values = list(levels)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputTypeError(f"level {value!r}", _ALLOWED, "levels")
        if not 0.0 <= value < 1.0:
            raise InputError(f"level {value!r}", _ALLOWED, "levels")
    wanted = list(dict.fromkeys(methods))
    for method in wanted:
        if method not in METHODS:
            raise InputError(f"method {method!r}", " or ".join(repr(m) for m in METHODS), "methods")
    if not (values or limits) or not wanted:
        raise InputError("there is nothing to explore", "at least one level or budget, and one method", "levels")
    ascending = sorted({float(v) for v in values})
    return [*(Level(m, "learnables_reduction_goal", v) for m in wanted for v in ascending), *limits]
