"""The schedule of a graph: the fastest, or with ``optimise="ram"`` the one with the smallest arena found."""

from __future__ import annotations

from dataclasses import replace

from projgen.ir.graph import Graph
from projgen.options import CompileOptions
from projgen.schedule import stream
from projgen.schedule.choose import candidates
from projgen.schedule.lower import Overrides, lower
from projgen.schedule.plan import plan
from projgen.schedule.records import Call, Schedule
from projgen.schedule.verify import verify
from projgen.targets import Target


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
    return s.plan.arena_bytes, s.plan.with_input_bytes


def _smallest(graph: Graph, target: Target, options: CompileOptions) -> Schedule:
    """Greedy: stream each chain, then give nodes kernels with less scratch, keeping what shrinks the arena."""
    overrides = Overrides()
    best = _planned(graph, target, options, overrides)
    calls = [c for s in best.segments for c in s.calls]
    for chain in stream.chains(graph, _row_calls(graph, target, options, calls)):
        kernels = {c.node.name: c.choice for c in chain}
        trial = Overrides({**overrides.kernels, **kernels}, overrides.streamed | {chain[0].node.name})
        made = _planned(graph, target, options, trial)
        if _size(made) < _size(best):
            best, overrides = made, trial
    for call in calls:
        chosen = next(c.choice for s in best.segments for c in s.calls if c.node is call.node)
        for choice in candidates(graph, call.node, target, options.kernels):
            if choice.scratch_bytes >= chosen.scratch_bytes or call.node.name in overrides.kernels:
                continue
            trial = replace(overrides, kernels={**overrides.kernels, call.node.name: choice})
            made = _planned(graph, target, options, trial)
            if _size(made) < _size(best):
                best, overrides, chosen = made, trial, choice
    return best


def _row_calls(graph: Graph, target: Target, options: CompileOptions, calls: list[Call]) -> list[Call]:
    """The calls, with a kernel that can work row by row where the chosen one can't and another can."""
    rows: list[Call] = []
    for call in calls:
        able = [c for c in candidates(graph, call.node, target, options.kernels) if c.row_function]
        if call.choice.row_function or not able:
            rows.append(call)
        else:
            rows.append(Call(call.node, min(able, key=lambda c: c.instructions)))
    return rows
