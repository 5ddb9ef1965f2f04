"""The schedule of a graph: kernels by the objective, then regions streamed and scratch traded while RAM shrinks.

``speed`` and ``flash`` take less RAM where it costs nearly nothing of what they favour; ``ram`` pays more for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from projgen.ir.graph import Graph, Node
from projgen.kernels.code_size import code_units
from projgen.kernels.record import KernelChoice
from projgen.kernels.shape import concat
from projgen.options import CompileOptions
from projgen.schedule import stream
from projgen.schedule.choose import candidates, cost, rank, table_bytes
from projgen.schedule.lower import Overrides, lower, pitches
from projgen.schedule.order import ordered
from projgen.schedule.plan import demand, lower_bound, plan
from projgen.schedule.records import Call, Kind, Lowered, Phase, Schedule, Segment, row_scratch_bytes
from projgen.schedule.share import SHARE_A_BYTE, STEPS, pick
from projgen.schedule.verify import verify
from projgen.targets import Target

_LONGEST: Final = 6  # nodes of the regions that are tried, the largest of each last node aside
_SLOWEST: Final = 2.5  # times the instructions of one kernel that optimise="ram" gives for less scratch
_DEARER: Final = 1.025  # times the cost of a whole network that other objectives give for less RAM


def schedule(graph: Graph, target: Target, options: CompileOptions, overrides: Overrides | None = None) -> Schedule:
    """Lower, plan and verify a quantised graph.

    Args:
        overrides: kernels and streamed regions given by hand; nothing is searched then.

    Raises:
        UnsupportedError: the graph can't be lowered to this target.
    """
    if overrides is not None:
        lowered = ordered(lower(graph, target, options, overrides))
        best = Schedule(lowered, plan(lowered))
    else:
        best = _searched(graph, target, options).schedule
    verify(best)
    return best


def _searched(graph: Graph, target: Target, options: CompileOptions) -> _State:
    """The best schedule, parts of a Concat in their places; copied there only where that shrinks RAM at a low price.

    In its place a part keeps room for those that are made later.
    """
    joined = _Search(graph, target, options, Overrides()).best()
    lowered = joined.schedule.lowered
    if all(lowered.views[s.output].root == s.output for s in lowered.segments if s.output):
        return joined
    copied = _Search(graph, target, options, Overrides(joined=False)).best()
    cheap = options.optimise == "ram" or copied.cost <= _DEARER * joined.cost
    return copied if cheap and copied.size < joined.size else joined


def _size(s: Schedule) -> tuple[int, int]:
    """RAM with the input in it, which every caller needs somewhere, then without."""
    return s.plan.with_input_bytes, s.plan.arena_bytes


@dataclass(frozen=True, slots=True)
class _Trial:
    """A schedule before its memory is planned: no plan of it is smaller than ``bound``."""

    overrides: Overrides
    lowered: Lowered
    bound: tuple[int, int]
    spent: float  # beside code
    cost: float
    flash: float  # bytes of tables and code


@dataclass(frozen=True, slots=True)
class _State:
    """A planned schedule and how it came about; ``key`` orders states, the best first."""

    schedule: Schedule
    overrides: Overrides
    cost: float

    @property
    def size(self) -> tuple[int, int]:
        return _size(self.schedule)

    @property
    def key(self) -> tuple[float, ...]:
        return (*self.size, _at_the_end(self.schedule), self.cost)


class _Search:
    """Greedy: stream a region around the fullest moment, then take kernels with less scratch, while RAM shrinks."""

    def __init__(self, graph: Graph, target: Target, options: CompileOptions, first: Overrides) -> None:
        self.graph, self.target, self.options = graph, target, options
        lowered = lower(graph, target, options, first).segments
        times = {c.node.name: s.repeats * (STEPS if s.phase is Phase.STEP else 1) for s in lowered for c in s.calls}
        nodes = [n for n in graph.nodes if n.name in times]
        self.able = {n.name: candidates(graph, n, target, options.kernels, options.cmsis_nn) for n in nodes}
        forms = self._forms(nodes, first)
        alone = {name: min(able, key=lambda c: rank(c, options.optimise)) for name, able in forms.items()}
        picked = pick(forms, alone, options.optimise, target.flash_bytes, times)
        chosen = {name: self.able[name][forms[name].index(c)] for name, c in picked.items()}
        instructions = sum(times.get(name, 1) * c.instructions for name, c in chosen.items())
        self.byte = 1.0 if options.optimise == "flash" else SHARE_A_BYTE * instructions
        self.code = {
            (c, by_rows): code_units(c, by_rows=by_rows)
            for choices in (*self.able.values(), chosen.values())
            for c in choices
            for by_rows in (False, True)
        }
        self.used = {unit for c in picked.values() for unit in code_units(c)}
        trial = self._trial(replace(first, kernels=chosen))
        self.start = self._planned(trial)
        self.limit = _DEARER * trial.spent
        self.room = _DEARER * trial.flash if options.optimise == "flash" else float("inf")
        self.rows = {n.name: self._row_choice(chosen[n.name], self.able[n.name]) for n in nodes}
        self.lean = {n.name: self._lean_choice(self.rows[n.name], self.able[n.name]) for n in nodes}
        calls = [Call(n, self.rows[n.name]) for n in nodes]
        self.regions = [tuple(c.node.name for c in region) for region in stream.regions(graph, calls, _LONGEST)]

    def _forms(self, nodes: Sequence[Node], first: Overrides) -> dict[str, list[KernelChoice]]:
        """Each node's candidates in the form that its place in a Concat takes, or with the price of the copy to it."""
        wanted = pitches(self.graph) if first.joined else {}
        forms = dict(self.able)
        for node in (n for n in nodes if n.output in wanted):
            (reader,) = self.graph.readers(node.output)
            held = (concat(self.graph, reader, self.target, frozenset(v)) for v in ((), (node.output,)))
            whole, rest = (c.instructions for c in held)
            forms[node.name] = [
                c.pitched(wanted[node.output]) or replace(c, instructions=c.instructions + whole - rest)
                for c in self.able[node.name]
            ]
        return forms

    def best(self) -> _State:
        state = self._descended(self.start)
        if self.options.optimise == "ram":  # what costs little first, or whatever saves most first
            self.limit = float("inf")
            state = min((self._descended(s) for s in (state, self.start)), key=lambda s: s.key)
        return state

    def _descended(self, state: _State) -> _State:
        while (found := self._better(state, (*self._streaming(state), *self._parting(state)))) is not None:
            state = found
        state = self._leaner(state)
        while (found := self._cheaper(state)) is not None:
            state = found
        return state

    def _trial(self, overrides: Overrides, lowered: Lowered | None = None) -> _Trial:
        made = ordered(lowered or lower(self.graph, self.target, self.options, overrides))
        demanded = demand(made)
        bound = (lower_bound(demanded, with_inputs=True), lower_bound(demanded))
        spent, tables, code = 0.0, 0, dict[str, float]()
        for s in made.segments:
            for c in s.calls:
                tables += table_bytes(c.choice)
                spent += s.repeats * cost(c.choice, self.options.optimise, by_rows=s.kind is Kind.ROWS)
                code |= self._code(c.choice, by_rows=s.kind is Kind.ROWS)
        size = sum(code.values())
        return _Trial(overrides, made, bound, spent, spent + self.byte * size, tables + size)

    def _cheap(self, trial: _Trial) -> bool:
        return trial.spent <= self.limit and trial.flash <= self.room

    def _code(self, choice: KernelChoice, *, by_rows: bool) -> dict[str, float]:
        """Units of code behind a choice, which may be one for its place in a Concat."""
        return self.code.get((choice, by_rows)) or code_units(choice, by_rows=by_rows)

    def _planned(self, trial: _Trial) -> _State:
        return _State(Schedule(trial.lowered, plan(trial.lowered)), trial.overrides, trial.cost)

    def _better(self, state: _State, trials: Iterable[_Trial]) -> _State | None:
        """The best of the trials, if it is better; those whose bound is worse than another's plan are not planned."""
        best = state
        for trial in sorted(trials, key=lambda t: (t.bound, t.cost)):
            if trial.bound > best.size:
                break
            if self._cheap(trial):
                best = min(best, self._planned(trial), key=lambda s: s.key)
        return best if best.key < state.key and best.key[:3] < state.key[:3] else None

    def _streaming(self, state: _State) -> Iterable[_Trial]:
        """Every region around the fullest moment streamed, instead of those it shares nodes with."""
        full, held = _fullest(state.schedule), state.overrides
        for region in self.regions:
            if full & set(region) and region not in held.streamed:
                others = frozenset(r for r in held.streamed if not set(r) & set(region))
                freed = {n for r in held.streamed - others for n in r}
                kernels = {**held.kernels, **{n: self.start.overrides.kernels[n] for n in freed}}
                for taken in (self.rows, self.lean):
                    choices = {**kernels, **{n: taken[n] for n in region}}
                    yield self._trial(replace(held, kernels=choices, streamed=frozenset({region, *others})))

    def _parting(self, state: _State) -> Iterable[_Trial]:
        """Every part of a Concat that is there at the fullest moment copied to it instead: it holds no room before."""
        s, held = state.schedule, state.overrides
        full = [x.index for x in _full(s)]
        there = {b.name for b in s.plan.buffers if any(b.first <= i <= b.last for i in full)}
        for segment in s.segments:
            if segment.output and segment.output != (root := s.lowered.views[segment.output].root) and root in there:
                yield self._trial(replace(held, copied=held.copied | {segment.output}))

    def _leaner(self, start: _State) -> _State:
        """Kernels of less scratch where they shrink RAM, be it only several of them together."""
        best = start
        streamed = {n for region in start.overrides.streamed for n in region}
        for name, choices in self.able.items():
            for choice in choices:
                held = best.overrides
                slow = choice.instructions > _SLOWEST * self.start.overrides.kernels[name].instructions
                if name in streamed or slow or choice.scratch_bytes >= held.kernels[name].scratch_bytes:
                    continue
                trial = self._trial(replace(held, kernels={**held.kernels, name: choice}))
                if self._cheap(trial) and trial.bound <= best.size:
                    found = self._planned(trial)
                    best = found if found.key[:3] < best.key[:3] else best
        return best if best.size < start.size else start

    def _cheaper(self, state: _State) -> _State | None:
        """One change undone that saves cost and takes no RAM, if there is one."""
        held, first = state.overrides, self.start.overrides.kernels
        trials = [
            self._trial(
                replace(
                    held,
                    kernels={**held.kernels, **{n: first[n] for n in region}},
                    streamed=held.streamed - {region},
                )
            )
            for region in sorted(held.streamed)
        ]
        trials += [self._trial(replace(held, copied=held.copied - {value})) for value in sorted(held.copied)]
        streamed = {n for region in held.streamed for n in region}
        wanted = {name: self.rows[name] if name in streamed else first[name] for name in first}
        trials += [
            self._trial(replace(held, kernels={**held.kernels, name: choice}))
            for name, choice in wanted.items()
            if held.kernels[name] is not choice
        ]
        for trial in sorted(trials, key=lambda t: t.cost):
            if trial.cost < state.cost and trial.bound <= state.size:
                found = self._planned(trial)
                if found.size <= state.size:
                    return found
        return None

    def _row_choice(self, chosen: KernelChoice, able: Sequence[KernelChoice]) -> KernelChoice:
        """The chosen kernel, or the best that can work row by row where it can't."""
        rows = [c for c in able if c.row_function]
        if chosen.row_function or not rows:
            return chosen
        return min(rows, key=self._cost_of_rows)

    def _lean_choice(self, fastest: KernelChoice, able: Sequence[KernelChoice]) -> KernelChoice:
        """The kernel with the least scratch that works row by row, if it takes at most twice the instructions."""
        slowest = 2 * fastest.instructions
        fitting = [c for c in able if c.row_function and c.instructions <= slowest]
        return min(fitting, key=lambda c: (row_scratch_bytes(c), self._cost_of_rows(c)), default=fastest)

    def _cost_of_rows(self, choice: KernelChoice) -> float:
        """Of a kernel row by row, with the code that the kernels chosen first do not have."""
        added = sum(size for unit, size in self.code[choice, True].items() if unit not in self.used)
        return cost(choice, self.options.optimise, by_rows=True) + self.byte * added


def _live(s: Schedule) -> list[int]:
    """Bytes in use during each segment; bytes that two buffers share count once."""
    found: list[int] = []
    buffers = sorted((*s.plan.buffers, *s.plan.inputs), key=lambda b: b.offset)
    for segment in s.segments:
        total = end = 0
        for b in buffers:
            if b.first <= segment.index <= b.last:
                total += max(0, b.end - max(b.offset, end))
                end = max(end, b.end)
        found.append(total)
    return found


def _ends(s: Schedule) -> list[int]:
    """The last byte in use during each segment."""
    buffers = (*s.plan.buffers, *s.plan.inputs)
    return [max((b.end for b in buffers if b.first <= x.index <= b.last), default=0) for x in s.segments]


def _at_the_end(s: Schedule) -> int:
    """Segments during which the last byte of the arena is in use: each of them keeps it from shrinking."""
    ends = _ends(s)
    return ends.count(max(ends))


def _full(s: Schedule) -> list[Segment]:
    """The segments during which most bytes, or the last byte of the arena, are in use."""
    live, ends = _live(s), _ends(s)
    full = (a == max(live) or b == max(ends) for a, b in zip(live, ends, strict=True))
    return [x for x, is_full in zip(s.segments, full, strict=True) if is_full]


def _fullest(s: Schedule) -> set[str]:
    """The nodes of those segments."""
    return {c.node.name for x in _full(s) for c in x.calls}
