"""Kernels of all nodes together: code that several layers share is paid once.

Minimises instructions plus ``price`` times bytes of flash by local search: single nodes, all users of one unit of code
driven away from it, and all that gain from a unit drawn to it, until nothing helps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from projgen.kernels.code_size import code_units
from projgen.kernels.record import KernelChoice
from projgen.options import Optimise
from projgen.schedule.choose import INSTRUCTIONS_A_BYTE, table_bytes

_HALVINGS: Final = 12  # of the price's range
_MARGIN: Final = 1.1
_A_LAYER: Final = 90.0  # bytes of its parameters and its call
_A_MODEL: Final = 60.0  # of the interface
STEPS: Final = 16  # that count for a sequence of any length
SHARE_A_BYTE: Final = 1 / 70_000  # of all instructions that a byte of code is worth where flash is not favoured

Chosen = dict[str, KernelChoice]


@dataclass(slots=True, eq=False)
class _Search:
    """What is chosen, and how many nodes use each unit of code."""

    able: Mapping[str, Sequence[KernelChoice]]
    code_price: float
    table_price: float
    chosen: Chosen
    calls: Mapping[str, int]
    users: Counter[str] = field(default_factory=Counter)  # choices that use each unit
    units: dict[int, dict[str, float]] = field(default_factory=dict)  # of each candidate, by its identity

    def __post_init__(self) -> None:
        for choices in (*self.able.values(), self.chosen.values()):
            self.units.update((id(c), code_units(c)) for c in choices)
        for choice in self.chosen.values():
            self.users.update(self.of(choice).keys())

    def of(self, choice: KernelChoice) -> dict[str, float]:
        return self.units[id(choice)]

    def alone(self, name: str, choice: KernelChoice) -> float:
        """Cost beside code."""
        return self.calls.get(name, 1) * choice.instructions + self.table_price * table_bytes(choice)

    def marginal(self, name: str, choice: KernelChoice, free: frozenset[str] = frozenset()) -> float:
        """Cost of adding a choice to what is there; ``free`` units cost nothing."""
        code = sum(size for unit, size in self.of(choice).items() if not self.users[unit] and unit not in free)
        return self.alone(name, choice) + self.code_price * code

    def cheapest(self, name: str, choices: Sequence[KernelChoice], free: frozenset[str]) -> KernelChoice:
        return min(choices, key=lambda c: self.marginal(name, c, free))

    def remove(self, name: str) -> None:
        self.users.subtract(self.of(self.chosen[name]).keys())

    def add(self, name: str, choice: KernelChoice) -> None:
        self.chosen[name] = choice
        self.users.update(self.of(choice).keys())

    def total(self) -> float:
        units: dict[str, float] = {}
        for choice in self.chosen.values():
            units |= self.of(choice)
        return sum(self.alone(*item) for item in self.chosen.items()) + self.code_price * sum(units.values())

    def attempt(
        self, names: Sequence[str], banned: str = "", free: frozenset[str] = frozenset(), beside: bool = False
    ) -> bool:
        """Choose ``names`` anew one after the other; kept if the whole is better.

        ``beside``: each while the units of those after it are still there.
        """
        before, kept = self.total(), {n: self.chosen[n] for n in names}
        for name in () if beside else names:
            self.remove(name)
        for name in names:
            if beside:
                self.remove(name)
            fitting = [c for c in self.able[name] if banned not in self.of(c)] if banned else self.able[name]
            self.add(name, self.cheapest(name, fitting or [kept[name]], free))
        if self.total() < before * (1 - 1e-9):
            return True
        for name in names:
            self.remove(name)
        for name, choice in kept.items():
            self.add(name, choice)
        return False

    def settle(self) -> None:
        """Moves until none helps."""
        while True:
            improved = False
            for name in self.able:
                improved |= self.attempt([name])
            for unit in sorted(+self.users):
                improved |= self.attempt([n for n in self.able if unit in self.of(self.chosen[n])], banned=unit)
            for unit in sorted({u for choices in self.able.values() for c in choices for u in self.of(c)}):
                drawn = [n for n, choices in self.able.items() if any(unit in self.of(c) for c in choices)]
                improved |= self.attempt(drawn, free=frozenset({unit}))
                improved |= self.attempt(drawn, free=frozenset({unit}), beside=True)
            if not improved:
                return


def pick(
    able: Mapping[str, Sequence[KernelChoice]],
    first: Mapping[str, KernelChoice],
    optimise: Optimise,
    limit: float = float("inf"),
    calls: Mapping[str, int] | None = None,
) -> Chosen:
    """The kernel of every node, code counted once.

    Args:
        able: candidates of each node, by its name.
        first: the best of each node alone.
        limit: bytes of flash. Where the choice needs more, tables cost as well: encodings that save the fewest
            instructions a byte go first, until it fits, and what room is left is filled again; or, where nothing
            fits, every byte is saved that ``flash`` would save.
        calls: how often a node runs in one inference, where more than once.
    """
    calls = calls or {}
    spent = sum(calls.get(name, 1) * c.instructions for name, c in first.items())
    dear = float(INSTRUCTIONS_A_BYTE)
    if optimise == "flash":
        return _settled(able, first, calls, dear, dear)
    cheap = SHARE_A_BYTE * spent
    chosen = _settled(able, first, calls, cheap, 0.0)
    if flash(chosen) <= limit:
        return chosen
    low, high = cheap / 64, max(dear, cheap)
    best = _settled(able, first, calls, high, high)
    for _ in range(_HALVINGS if flash(best) <= limit else 0):
        price = math.sqrt(low * high)
        found = _settled(able, first, calls, max(price, cheap), price)
        if flash(found) <= limit:
            best, high = found, price
        else:
            low = price
    return _filled(able, best, limit, calls)


def _filled(
    able: Mapping[str, Sequence[KernelChoice]], chosen: Chosen, limit: float, calls: Mapping[str, int]
) -> Chosen:
    """The kernels that save most instructions in the room that is left, one node after the other."""
    while True:
        gains = [
            (calls.get(name, 1) * (chosen[name].instructions - choice.instructions), name, choice)
            for name, choices in able.items()
            for choice in choices
            if choice.instructions < chosen[name].instructions and flash({**chosen, name: choice}) <= limit
        ]
        if not gains:
            return chosen
        _, name, choice = max(gains, key=lambda g: g[0])
        chosen = {**chosen, name: choice}


def flash(chosen: Mapping[str, KernelChoice]) -> float:
    """Predicted bytes of constants and code, ``_MARGIN`` above what is expected of code."""
    units: dict[str, float] = {}
    for choice in chosen.values():
        units |= code_units(choice)
    code = _A_MODEL + _A_LAYER * len(chosen) + sum(units.values())
    return sum(map(table_bytes, chosen.values())) + _MARGIN * code


def _settled(
    able: Mapping[str, Sequence[KernelChoice]],
    first: Mapping[str, KernelChoice],
    calls: Mapping[str, int],
    code_price: float,
    table_price: float,
) -> Chosen:
    search = _Search(able, code_price, table_price, dict(first), calls)
    search.settle()
    return search.chosen
