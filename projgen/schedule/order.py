"""The order of segments where a graph branches: the one with the least memory in use at its fullest moment.

Finding the best order is NP-hard; a beam search over the ready segments keeps the orders that need least so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from projgen.schedule.plan import align, demand, lower_bound
from projgen.schedule.records import Lowered, Segment

_BEAM: Final = 32  # orders kept at every step


@dataclass(frozen=True, slots=True)
class _Step:
    """What a segment does to memory: buffers read, the one written and its bytes, bytes in use only meanwhile."""

    segment: Segment
    reads: frozenset[str]
    output: str
    bytes: int
    meanwhile: int
    leads: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Order:
    """The start of an order: steps taken, maps that are still needed, and the most that was in use."""

    peak: int
    live: int
    taken: tuple[int, ...]
    held: frozenset[str]


def ordered(lowered: Lowered) -> Lowered:
    """The same segments, phase by phase, in the order found best if it lowers the bound of the arena."""
    phases: dict[str, list[Segment]] = {}
    for segment in lowered.segments:
        phases.setdefault(segment.phase, []).append(segment)
    steps = {phase: [_step(lowered, s) for s in segments] for phase, segments in phases.items()}
    if all(_is_chain(s) for s in steps.values()):
        return lowered
    found = [s for phase in steps.values() for s in _best(lowered, phase)]
    moved = replace(lowered, segments=tuple(replace(s, index=i) for i, s in enumerate(found)))
    return moved if _bound(moved) < _bound(lowered) else lowered


def _bound(lowered: Lowered) -> tuple[int, int]:
    demanded = demand(lowered)
    return lower_bound(demanded, with_inputs=True), lower_bound(demanded)


def _step(lowered: Lowered, segment: Segment) -> _Step:
    roots = {value: lowered.views[value].root for value in segment.inputs}
    output = lowered.views[segment.output].root if segment.output else ""
    in_arena = output and output not in lowered.direct
    meanwhile = align(segment.scratch_bytes) + sum(align(r.ring_bytes) for r in segment.rings)
    return _Step(
        segment,
        frozenset(roots.values()),
        output,
        align(lowered.bytes(output)) if in_arena else 0,
        meanwhile + sum(align(p.bytes) for p in segment.pads),
        {roots[value]: lead for value, lead in segment.in_place.items()},
    )


def _is_chain(steps: Sequence[_Step]) -> bool:
    """Whether each step needs the one before it, so that there is one order."""
    written = [s.output for s in steps if s.output]
    return len(written) == len(set(written)) and all(a.output in b.reads for a, b in pairwise(steps))


def _needs(lowered: Lowered, steps: Sequence[_Step]) -> list[set[int]]:
    """Steps before each: those that write bytes which it reads."""
    made = [(i, extent) for i, s in enumerate(steps) if s.output for extent in lowered.written(s.segment)]
    return [
        {
            i
            for root, low, high in map(lowered.extent, step.segment.inputs)
            for i, (other, begin, end) in made
            if root == other and begin < high and low < end
        }
        for step in steps
    ]


def _best(lowered: Lowered, steps: Sequence[_Step]) -> list[Segment]:
    """An order of the steps of one phase."""
    made = {s.output for s in steps}
    readers = {root: {i for i, s in enumerate(steps) if root in s.reads} for s in steps for root in s.reads}
    sizes = {root: align(lowered.bytes(root)) for root in readers if root not in lowered.direct}
    needs = _needs(lowered, steps)
    before = frozenset(root for root in sizes if root not in made)
    beam = [_Order(0, sum(sizes[r] for r in before), (), before)]
    for _ in steps:
        grown: dict[frozenset[int], _Order] = {}
        for order in beam:
            done = set(order.taken)
            for i, step in enumerate(steps):
                if i in done or not needs[i] <= done:
                    continue
                after = done | {i}
                dying = {r for r in step.reads & order.held if readers[r] <= after}
                shared = max((min(sizes[r], step.bytes - step.leads[r]) for r in dying & set(step.leads)), default=0)
                new_bytes = 0 if step.output in order.held else step.bytes
                in_use = order.live + new_bytes + step.meanwhile - max(0, shared)
                made_map = {step.output} & set(sizes) - order.held
                live = order.live - sum(sizes[r] for r in dying) + sum(sizes[r] for r in made_map)
                held = (order.held - dying) | made_map
                new = _Order(max(order.peak, in_use), live, (*order.taken, i), frozenset(held))
                key = frozenset(after)
                if key not in grown or (new.peak, new.taken) < (grown[key].peak, grown[key].taken):
                    grown[key] = new
        beam = sorted(grown.values(), key=lambda o: (o.peak, o.live, o.taken))[:_BEAM]
    return [steps[i].segment for i in beam[0].taken]
