"""The schedule of a graph: the fastest, or with ``optimise="ram"`` the one with the smallest arena found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from projgen.ir.graph import Graph
from projgen.kernels.record import KernelChoice
from projgen.options import CompileOptions
from projgen.schedule import stream
from projgen.schedule.choose import candidates
from projgen.schedule.lower import Overrides, lower
from projgen.schedule.plan import plan
from projgen.schedule.records import Call, Schedule
from projgen.schedule.verify import verify
from projgen.targets import Target

_LONGEST: Final = 6  # nodes of the parts of a chain that are tried
_SLOWEST: Final = 2.5  # times the instructions that less scratch may cost


def schedule(graph: Graph, target: Target, options: CompileOptions, overrides: Overrides | None = None) -> Schedule:
    """Lower, plan and verify a quantised graph.

    Args:
        overrides: kernels and streamed chains given by hand; nothing is searched then.

    Raises:
        UnsupportedError: the graph can't be lowered to this target.
    """
    if overrides is None and options.optimise == "ram":
        best = _smallest(graph, target, options)
    else:
        best = _planned(graph, target, options, overrides or Overrides())
    verify(best)
    return best


def _planned(graph: Graph, target: Target, options: CompileOptions, overrides: Overrides) -> Schedule:
    lowered = lower(graph, target, options, overrides)
    return Schedule(lowered, plan(lowered))


def _size(s: Schedule) -> tuple[int, int]:
    """RAM with the input in it, which every caller needs somewhere, then without."""
    return s.plan.with_input_bytes, s.plan.arena_bytes


def _smallest(graph: Graph, target: Target, options: CompileOptions) -> Schedule:
    """Greedy: stream the chains around the fullest moment, then take kernels with less scratch, while RAM shrinks."""
    best = _planned(graph, target, options, Overrides())
    chosen = {c.node.name: c.choice for s in best.segments for c in s.calls}
    nodes = [n for n in graph.nodes if n.name in chosen]
    able = {n.name: candidates(graph, n, target, options.kernels, options.cmsis_nn) for n in nodes}
    rows = {n.name: _row_choice(chosen[n.name], able[n.name]) for n in nodes}
    lean = {n.name: _lean_choice(rows[n.name], able[n.name]) for n in nodes}
    chains = [
        tuple(c.node.name for c in chain) for chain in stream.chains(graph, [Call(n, rows[n.name]) for n in nodes])
    ]
    overrides = Overrides(chosen)
    while True:
        full = _fullest(best)
        trials = [
            Overrides(
                {**overrides.kernels, **{n: kernels[n] for n in part}},
                frozenset({part, *(c for c in overrides.streamed if not set(c) & set(part))}),
            )
            for kernels in (rows, lean)
            for part in _parts(chains)
            if full & set(part) and part not in overrides.streamed
        ]
        made = [(_planned(graph, target, options, t), t) for t in trials]
        smallest = min(made, key=lambda pair: _size(pair[0]), default=None)
        if smallest is None or _size(smallest[0]) >= _size(best):
            break
        best, overrides = smallest
    streamed = {n for chain in overrides.streamed for n in chain}
    return _leaner(best, overrides, lambda o: _planned(graph, target, options, o), able, streamed)


def _leaner(
    start: Schedule,
    overrides: Overrides,
    planned: Callable[[Overrides], Schedule],
    able: Mapping[str, Sequence[KernelChoice]],
    streamed: set[str],
) -> Schedule:
    """The schedule with kernels of less scratch where they shrink RAM, be it only several of them together."""
    best, start_of = start, overrides.kernels
    for name in able:
        for choice in able[name]:
            held = overrides.kernels[name]
            slow = choice.instructions > _SLOWEST * start_of[name].instructions
            if name in streamed or slow or choice.scratch_bytes >= held.scratch_bytes:
                continue
            trial = replace(overrides, kernels={**overrides.kernels, name: choice})
            found = planned(trial)
            if (_size(found), _at_the_end(found)) < (_size(best), _at_the_end(best)):
                best, overrides = found, trial
    return best if _size(best) < _size(start) else start


def _parts(chains: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Every chain, and its parts of two to ``_LONGEST`` nodes."""
    for chain in chains:
        for size in range(2, min(_LONGEST, len(chain) - 1) + 1):
            for start in range(len(chain) - size + 1):
                yield chain[start : start + size]
        yield chain


def _at_the_end(s: Schedule) -> int:
    """Segments during which the last byte of the arena is in use: each of them keeps it from shrinking."""
    buffers = (*s.plan.buffers, *s.plan.inputs)
    ends = [max((b.offset + b.bytes for b in buffers if b.first <= x.index <= b.last), default=0) for x in s.segments]
    return ends.count(max(ends))


def _fullest(s: Schedule) -> set[str]:
    """Nodes of the segments during which most bytes are live."""
    buffers = (*s.plan.buffers, *s.plan.inputs)
    live = [sum(b.bytes for b in buffers if b.first <= x.index <= b.last) for x in s.segments]
    peak = max(live)
    return {c.node.name for x, n in zip(s.segments, live, strict=True) if n == peak for c in x.calls}


def _lean_choice(fastest: KernelChoice, able: list[KernelChoice]) -> KernelChoice:
    """The kernel with the least scratch that works row by row, if it takes at most twice the instructions."""
    slowest = 2 * fastest.instructions
    fitting = [c for c in able if c.row_function and c.instructions <= slowest]
    return min(fitting, key=lambda c: (c.scratch_bytes, c.instructions), default=fastest)


def _row_choice(chosen: KernelChoice, able: Sequence[KernelChoice]) -> KernelChoice:
    """The chosen kernel, or the quickest that can work row by row where it can't."""
    rows = [c for c in able if c.row_function]
    return chosen if chosen.row_function or not rows else min(rows, key=lambda c: c.instructions)
