"""Sizes of axes: integers, or products of an integer and symbols (the batch, the time, ...).

A file may bake a batch of 1 or 2 into its input. Axis 0 is a symbol all the same; it remembers the baked value,
so that constants of the file that speak of it (a Reshape to [1, -1]) can be recognised.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from math import prod
from typing import TypeAlias

_serial = count()


@dataclass(frozen=True, slots=True, order=True)
class Symbol:
    """An axis whose length is open. ``baked``: the length the file happens to state, if any."""

    serial: int
    baked: int | None = None


@dataclass(frozen=True, slots=True)
class Symbolic:
    """``coefficient`` times the product of ``symbols`` (sorted, at least one)."""

    coefficient: int
    symbols: tuple[Symbol, ...]

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, Symbolic):
            return _make(self.coefficient * other.coefficient, (*self.symbols, *other.symbols))
        return _make(self.coefficient * int(other), self.symbols)

    __rmul__ = __mul__

    def __add__(self, other: Size) -> Size:
        if not isinstance(other, Symbolic) and int(other) == 0:
            return self
        mine, theirs = baked(self), baked(other)
        return new_symbol(None if mine is None or theirs is None else mine + theirs)

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        if self == other:
            return 0
        return self + (other * -1)

    def __rsub__(self, other: Size) -> Size:
        return (self * -1) + other

    def __floordiv__(self, other: Size) -> Size:
        exact = divide(self, other)
        if exact is not None:
            return exact
        mine, theirs = baked(self), baked(other)
        return new_symbol(None if mine is None or not theirs else mine // theirs)

    def __rfloordiv__(self, other: int) -> Size:
        return new_symbol()


Size: TypeAlias = "int | Symbolic"


def new_symbol(value: int | None = None) -> Symbolic:
    """A size of one fresh symbol."""
    return Symbolic(1, (Symbol(next(_serial), value),))


def _make(coefficient: int, symbols: Iterable[Symbol]) -> Size:
    ordered = tuple(sorted(symbols))
    return Symbolic(coefficient, ordered) if ordered and coefficient else coefficient


def baked(size: Size) -> int | None:
    """The length the file states for a size; None if it leaves it open."""
    if not isinstance(size, Symbolic):
        return int(size)
    lengths = [symbol.baked for symbol in size.symbols]
    known = [length for length in lengths if length is not None]
    return size.coefficient * prod(known) if len(known) == len(lengths) else None


def product(sizes: Iterable[Size]) -> Size:
    """Product of sizes; 1 for none."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def divide(size: Size, by: Size) -> Size | None:
    """Exact quotient, or None where it isn't one."""
    mine = size if isinstance(size, Symbolic) else Symbolic(int(size), ())
    theirs = by if isinstance(by, Symbolic) else Symbolic(int(by), ())
    left = list(mine.symbols)
    for symbol in theirs.symbols:
        if symbol not in left:
            return None
        left.remove(symbol)
    if theirs.coefficient == 0 or mine.coefficient % theirs.coefficient:
        return None
    return _make(mine.coefficient // theirs.coefficient, left)


def same(size: Size, wanted: Size) -> bool:
    """Whether a constant or symbolic size of the file speaks of this axis."""
    return size == wanted or (not isinstance(wanted, Symbolic) and baked(size) == wanted)
