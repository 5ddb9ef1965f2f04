"""What a pass is: a pure function on graphs with conditions before and after, and the runner's bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from projgen.ir.graph import Graph, Node


@dataclass(frozen=True, slots=True)
class Condition:
    """Something true of a whole graph; ``offender`` finds a node that breaks it."""

    name: str
    offender: Callable[[Graph], Node | None]


@dataclass(frozen=True, slots=True)
class Pass:
    """One verb: ``run`` returns a new graph. ``requires`` holds before it, ``ensures`` after it."""

    name: str
    run: Callable[[Graph], Graph]
    requires: tuple[Condition, ...] = ()
    ensures: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A pass at its place in the pipeline, and why it stands there."""

    action: Pass
    reason: str
