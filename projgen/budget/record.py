"""``Budget``: limits on what a compressed model may cost on a target."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from projgen.errors import InputError, InputTypeError
from projgen.options import Optimise, choice
from projgen.targets import Target, load_target

if TYPE_CHECKING:
    from torch import nn

_SIZE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE]\+?[0-9]+)?)\s*([A-Za-z]*)\s*")
_BYTES: Final = {"": 1, "b": 1, "kb": 1000, "kib": 1024, "k": 1024, "mb": 1000**2, "mib": 1024**2, "m": 1024**2}
_COUNTS: Final = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}
_BLOCKS: Final = {"mve": 8, "neon": 8, "dsp": 4}  # by the features of a target, those with larger blocks first
_SIZES: Final = "a number of bytes, or one with B, KB, KiB, MB or MiB, e.g. 64KiB"


def _number(value: Any, units: dict[str, int], name: str, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputTypeError(f"budget {name} is {value!r}", allowed, f"budget {name}")
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None or match[2].lower() not in units:
            raise InputError(f"budget {name} {value!r} is not understood", allowed, f"budget {name} (--budget)")
        value = float(match[1]) * units[match[2].lower()]
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"budget {name} is {value!r}", f"{allowed}, above 0", f"budget {name} (--budget)")
    return float(value)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a model may cost on a target; any of the limits, those left out are the target's own.

    Args:
        target: a name, the path of a TOML file, or a loaded target.
        flash: bytes of weights and code, a number or text such as "64KiB".
        ram: bytes of the arena with the input in it (not the stack).
        instructions: executed for one inference (a sequence as long as the calibration data's).
        accuracy_drop: how much ``metric`` may fall: then the smallest model within it is wanted.
        metric: metric(model) -> float, higher is better; called with a float model, never modified by it.
        optimise: what the later compilation favours: "speed", "ram" or "flash".

    Raises:
        InputError: a size that is not understood, a limit of 0 or less, no limit, a metric without its drop.
    """

    target: str | Path | Target = "cortex-m4"
    flash: int | float | str | None = None
    ram: int | float | str | None = None
    instructions: int | float | str | None = None
    accuracy_drop: float | None = None
    metric: Callable[[nn.Module], float] | None = None
    optimise: str = "speed"

    def __post_init__(self) -> None:
        machine = self.target if isinstance(self.target, Target) else load_target(self.target)
        object.__setattr__(self, "target", machine)
        choice(self.optimise, ("speed", "ram", "flash"), "optimise")
        for name in ("flash", "ram"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, int(_number(given, _BYTES, name, _SIZES)))
        if self.instructions is not None:
            counted = _number(self.instructions, _COUNTS, "instructions", "a number, or one with k, M or G, e.g. 2e6")
            object.__setattr__(self, "instructions", counted)
        if (self.accuracy_drop is None) is not (self.metric is None):
            raise InputError(
                "accuracy_drop without metric" if self.metric is None else "metric without accuracy_drop",
                "both together",
                "budget",
            )
        if self.accuracy_drop is not None and not _plain(self.accuracy_drop) >= 0:
            raise InputError(f"accuracy_drop is {self.accuracy_drop!r}", "0 or more", "budget accuracy_drop")
        if not self.limits and self.metric is None:
            raise InputError(
                "a budget without limits", "flash, ram, instructions or accuracy_drop", "budget (--budget)"
            )

    @property
    def machine(self) -> Target:
        """The target, loaded."""
        if not isinstance(self.target, Target):
            raise TypeError("the target of a budget is loaded when the budget is made")
        return self.target

    @property
    def block(self) -> int:
        """Units, channels or ranks that the target's kernels take at a time: eight lanes of a vector, or two pairs."""
        isa = self.machine.isa
        return next((size for feature, size in _BLOCKS.items() if feature in isa), 1)

    @property
    def favour(self) -> Optimise:
        return choice(self.optimise, ("speed", "ram", "flash"), "optimise")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that were given, by name: flash, ram, instructions."""
        given = {name: getattr(self, name) for name in ("flash", "ram", "instructions")}
        return {name: float(value) for name, value in given.items() if value is not None}

    @staticmethod
    def parse(text: str, target: str | Path | Target = "cortex-m4", optimise: str = "speed") -> Budget:
        """The budget of a command line: ``flash=64KiB,ram=16KiB,instructions=2e6``.

        Raises:
            InputError: an entry is not LIMIT=VALUE.
        """
        given: dict[str, str] = {}
        for entry in text.split(","):
            name, equals, value = (part.strip() for part in entry.partition("="))
            if not equals or name not in ("flash", "ram", "instructions", "target") or name in given:
                raise InputError(
                    f"budget entry {entry!r} is not understood",
                    "flash=SIZE, ram=SIZE, instructions=N and target=NAME, each once",
                    "--budget",
                )
            given[name] = value
        chosen = given.pop("target", None)
        return Budget(
            chosen or target, given.get("flash"), given.get("ram"), given.get("instructions"), optimise=optimise
        )


def _plain(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputTypeError(f"accuracy_drop is {value!r}", "a number from 0 on", "budget accuracy_drop")
    return float(value)
