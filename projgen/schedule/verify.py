"""Proofs about a schedule before anything is emitted: order, memory, rings and packed constants.

A failure is a fault of projgen, never of the user: it raises ``ScheduleError``, which exits 1.
"""

from __future__ import annotations

import math

import numpy as np

from projgen.ir.graph import Graph
from projgen.ir.types import DType
from projgen.schedule import stream
from projgen.schedule.records import ALIGN, ArenaPlan, Buffer, Kind, Phase, Schedule, Segment


class ScheduleError(Exception):
    """A schedule that breaks a rule of the scheduled stage."""


def verify(schedule: Schedule) -> None:
    """Checks every rule; raises ``ScheduleError`` with the first one broken."""
    _check_order(schedule)
    check_memory(schedule.plan)
    _check_places(schedule)
    for segment in schedule.segments:
        _check_tables(schedule.graph, segment)
        if segment.kind is Kind.ROWS:
            _check_rows(schedule, segment)


def _check_order(schedule: Schedule) -> None:
    """Every node runs once, each value is written before it is read, the tail follows the steps."""
    graph, views = schedule.graph, schedule.lowered.views
    ready = {p.value for p in graph.inputs}
    done: list[str] = []
    seen_tail = False
    for place, segment in enumerate(schedule.segments):
        if segment.index != place:
            raise ScheduleError(f"segment {segment.name!r} has index {segment.index} at place {place}")
        if segment.phase is Phase.TAIL:
            seen_tail = True
        elif seen_tail:
            raise ScheduleError(f"segment {segment.name!r} runs at every step, after the tail")
        for value in segment.inputs:
            if views[value].root not in ready:
                raise ScheduleError(f"segment {segment.name!r} reads {value!r} before it is written")
        if segment.kind is not Kind.FINISH:
            done.extend(c.node.name for c in segment.calls)
        if segment.output:
            if segment.output in ready:
                raise ScheduleError(f"{segment.output!r} is written twice")
            ready.add(segment.output)
    executed = [n.name for n in graph.nodes if views[n.output].root == n.output]
    if sorted(done) != sorted(executed):
        raise ScheduleError(f"nodes {sorted(set(executed) ^ set(done))} don't run exactly once")
    for port in graph.outputs:
        if views[port.value].root not in ready:
            raise ScheduleError(f"output {port.name!r} is never written")


def check_memory(plan: ArenaPlan) -> None:
    """No two buffers that live at the same time share a byte, unless one is written in place over the other."""
    for buffer in (*plan.buffers, *plan.inputs):
        limit = plan.with_input_bytes if buffer.role == "input" else plan.arena_bytes
        if buffer.offset < 0 or buffer.offset % ALIGN or buffer.end > limit:
            raise ScheduleError(f"buffer {buffer.name!r} at {buffer.offset}, {buffer.bytes} bytes, in {limit}")
    everything = (*plan.buffers, *plan.inputs)
    for i, a in enumerate(everything):
        for b in everything[i + 1 :]:
            together = range(max(a.first, b.first), min(a.last, b.last) + 1)
            if not _overlap(a, b) or not together:
                continue
            handed_over = any(
                (new.name, old.name) in plan.overlays and new.first == old.last for new, old in ((a, b), (b, a))
            )
            if not handed_over or len(together) > 1:
                raise ScheduleError(f"buffers {a.name!r} and {b.name!r} live at the same time and share bytes")
            if a.offset != b.offset:
                raise ScheduleError(f"buffers {a.name!r} and {b.name!r} overlay each other at different offsets")
    if plan.arena_bytes < plan.lower_bound:
        raise ScheduleError(f"arena of {plan.arena_bytes} bytes below the bound {plan.lower_bound}")


def _overlap(a: Buffer, b: Buffer) -> bool:
    return a.offset < b.end and b.offset < a.end and a.bytes > 0 and b.bytes > 0


def _check_places(schedule: Schedule) -> None:
    """Views lie inside their buffers, aligned to their element; lifetimes cover every access."""
    graph, lowered = schedule.graph, schedule.lowered
    for value, view in lowered.views.items():
        t = graph.type(value)
        if value in lowered.one_row and view.root == value:
            continue
        if view.offset % t.dtype.bytes or view.offset + t.nbytes > lowered.bytes(view.root):
            raise ScheduleError(f"view {value!r} leaves the buffer of {view.root!r}")
    for segment in schedule.segments:
        for value in segment.inputs:
            root = lowered.views[value].root
            if root in lowered.direct or lowered.input_port(root) is not None:
                continue
            buffer = schedule.plan[root]
            if not buffer.first <= segment.index <= buffer.last:
                raise ScheduleError(f"segment {segment.name!r} reads {value!r} outside its lifetime")
    for new, old in schedule.plan.overlays:
        segment = next(s for s in schedule.segments if s.output == new)
        if old not in {lowered.views[v].root for v in segment.in_place}:
            raise ScheduleError(f"{new!r} is laid over {old!r}, which segment {segment.name!r} does not allow")


def _check_tables(graph: Graph, segment: Segment) -> None:
    """Every packed table gives back exactly the constants of its node, and packs to itself again."""
    for call in segment.calls:
        for table in call.choice.tables:
            constants = table.layout.unpack(table.data)
            if set(constants) != set(table.roles):
                raise ScheduleError(f"table {table.name!r} of {call.node.name!r} holds {sorted(constants)}")
            for role, values in constants.items():
                if not np.array_equal(values, graph.data(call.node, role)):
                    raise ScheduleError(f"table {table.name!r} of {call.node.name!r} holds another {role!r}")
            if not np.array_equal(table.layout.pack(constants), table.data):
                raise ScheduleError(f"table {table.name!r} of {call.node.name!r} does not survive unpacking")


def _check_rows(schedule: Schedule, segment: Segment) -> None:
    """Each row a window reads is still in its ring, and an overlay never destroys a row that is read later."""
    graph = schedule.graph
    out = graph.type(segment.output)
    out_height = int(out.shape[0])
    stages = segment.rings
    if len(stages) != len(segment.calls):
        raise ScheduleError(f"segment {segment.name!r} has {len(stages)} rings for {len(segment.calls)} calls")
    for ring in stages:
        if ring.depth and ring.stride < ring.row_bytes:
            raise ScheduleError(f"rows of {ring.value!r} overlap in their ring")
    newest = [-1] * len(stages)
    for stage, row in stream.ticks(stages, out_height):
        if stage >= 0:
            ring = stages[stage]
            for tap in range(ring.kernel):
                read = row * ring.step - ring.pad_top + tap * ring.dilation
                outside = not 0 <= read < ring.height
                if outside and not ring.padded:
                    raise ScheduleError(f"row {read} of {ring.value!r} is read without padding")
                if not outside and ring.depth and not newest[stage] - ring.depth < read <= newest[stage]:
                    raise ScheduleError(f"row {read} of {ring.value!r} is not in its ring of {ring.depth}")
        if stage + 1 < len(stages):
            newest[stage + 1] = row
    if (segment.output, stages[0].value) in schedule.plan.overlays:
        row_bytes = math.prod(out.step_shape[1:]) * DType(out.dtype).bytes
        if not stream.overlay_is_safe(stages, out_height, row_bytes):
            raise ScheduleError(f"segment {segment.name!r} overwrites rows of its input that it still needs")
