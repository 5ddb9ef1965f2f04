"""Proofs about a schedule before anything is emitted: order, memory, rings and packed constants.

A failure is a fault of projgen, never of the user: it raises ``ScheduleError``, which exits 1.
"""

from __future__ import annotations

import math

import numpy as np

from projgen.ir.attrs import Concat
from projgen.ir.graph import Graph, Node
from projgen.schedule import stream
from projgen.schedule.records import ALIGN, ArenaPlan, Buffer, Kind, Lowered, Phase, Schedule, Segment


class ScheduleError(Exception):
    """A schedule that breaks a rule of the scheduled stage."""


def verify(schedule: Schedule) -> None:
    """Checks every rule; raises ``ScheduleError`` with the first one broken."""
    _check_views(schedule.lowered)
    _check_order(schedule)
    check_memory(schedule.plan)
    _check_places(schedule)
    for segment in schedule.segments:
        _check_pitches(schedule.lowered, segment)
        _check_tables(schedule.graph, segment)
        if segment.kind is Kind.ROWS:
            _check_rows(schedule, segment)


def _check_order(schedule: Schedule) -> None:
    """Every node runs once, each byte is written once and before it is read, the tail follows the steps."""
    graph, lowered = schedule.graph, schedule.lowered
    written = {view.root: np.zeros(lowered.bytes(view.root), bool) for view in lowered.views.values()}
    done: list[str] = []
    seen_tail = False

    def is_there(value: str) -> bool:
        return bool(written[lowered.views[value].root][lowered.places(value)].all())

    for port in graph.inputs:
        written[port.value][:] = True
    for place, segment in enumerate(schedule.segments):
        if segment.index != place:
            raise ScheduleError(f"segment {segment.name!r} has index {segment.index} at place {place}")
        if segment.phase is Phase.TAIL:
            seen_tail = True
        elif seen_tail:
            raise ScheduleError(f"segment {segment.name!r} runs at every step, after the tail")
        for value in segment.inputs:
            if not is_there(value):
                raise ScheduleError(f"segment {segment.name!r} reads {value!r} before it is written")
        if segment.kind is not Kind.FINISH:
            done.extend(c.node.name for c in segment.calls)
        if segment.output:
            places = lowered.places(segment.output)
            for value in segment.held:
                places = np.setdiff1d(places, lowered.places(value))
            made = written[lowered.views[segment.output].root]
            if made[places].any():
                raise ScheduleError(f"{segment.output!r} is written twice")
            made[places] = True
    executed = [n.name for n in graph.nodes if not _needs_no_code(lowered, n)]
    if sorted(done) != sorted(executed):
        raise ScheduleError(f"nodes {sorted(set(executed) ^ set(done))} don't run exactly once")
    for port in graph.outputs:
        if not is_there(port.value):
            raise ScheduleError(f"output {port.name!r} is never written")


def _needs_no_code(lowered: Lowered, node: Node) -> bool:
    """Whether a node's output is there without it: a view lies inside its input, a Concat's parts are its output."""
    if isinstance(node.attrs, Concat):
        return _in_place(lowered, node) == set(node.inputs)
    root, low, high = lowered.extent(node.output)
    if "x" not in node.inputs or root == node.output:
        return False
    other, begin, end = lowered.extent(node.inputs["x"])
    return root == other and begin <= low and high <= end


def _in_place(lowered: Lowered, node: Node) -> set[str]:
    """Roles of a Concat's parts each of whose bytes lies where the output has it."""
    out = lowered.graph.type(node.output)
    if not isinstance(node.attrs, Concat):
        return set()
    whole, axis = lowered.places(node.output), node.attrs.axis - int(out.has_time)
    whole = whole.reshape(*out.step_shape[:axis], -1)
    root, begin = lowered.views[node.output].root, 0
    found: set[str] = set()
    for role, value in node.inputs.items():
        t = lowered.graph.type(value)
        end = begin + t.nbytes // math.prod(out.step_shape[:axis])
        if value in lowered.views and lowered.views[value].root == root:
            places = lowered.places(value)
            if np.array_equal(whole[..., begin:end].reshape(-1), places):
                found.add(role)
        begin = end
    return found


def _check_pitches(lowered: Lowered, segment: Segment) -> None:
    """Kernels write pixels as far apart as their places are, and read those that lie side by side."""
    for value in segment.inputs:
        if lowered.views[value].pitch:
            raise ScheduleError(f"segment {segment.name!r} reads {value!r}, whose pixels lie apart")
    written = segment.calls[-1].choice.pitch if segment.calls else 0
    if segment.output and lowered.views[segment.output].pitch != written:
        raise ScheduleError(
            f"segment {segment.name!r} writes pixels {written} bytes apart to {segment.output!r}, whose places are "
            f"{lowered.views[segment.output].pitch} bytes apart"
        )
    for call in segment.calls[:-1]:
        if call.choice.pitch:
            raise ScheduleError(f"stage {call.node.name!r} of segment {segment.name!r} spreads pixels in a ring")
    node = segment.calls[-1].node if segment.held else None
    if node is not None and not set(segment.held) <= {node.inputs[role] for role in _in_place(lowered, node)}:
        raise ScheduleError(f"segment {segment.name!r} leaves out parts that are not in their places")


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
            handed_over = [
                old.offset - new.offset - lead
                for new, old in ((a, b), (b, a))
                for new_name, old_name, lead in plan.overlays
                if (new.name, old.name) == (new_name, old_name) and new.first == old.last
            ]
            if not handed_over or len(together) > 1:
                raise ScheduleError(f"buffers {a.name!r} and {b.name!r} live at the same time and share bytes")
            if handed_over != [0]:
                raise ScheduleError(f"buffers {a.name!r} and {b.name!r} overlay each other at the wrong distance")
    if plan.arena_bytes < plan.lower_bound:
        raise ScheduleError(f"arena of {plan.arena_bytes} bytes below the bound {plan.lower_bound}")


def _overlap(a: Buffer, b: Buffer) -> bool:
    return a.offset < b.end and b.offset < a.end and a.bytes > 0 and b.bytes > 0


def _check_views(lowered: Lowered) -> None:
    """Views lie inside their buffers, aligned to their element."""
    for value, view in lowered.views.items():
        size = lowered.graph.type(value).dtype.bytes
        if view.offset % size or view.pitch % size or lowered.extent(value)[2] > lowered.bytes(view.root):
            raise ScheduleError(f"view {value!r} leaves the buffer of {view.root!r}")
        if 0 < view.pitch <= lowered.pixel_bytes(value):
            raise ScheduleError(f"pixels of {value!r} overlap or lie side by side, {view.pitch} bytes apart")


def _check_places(schedule: Schedule) -> None:
    """Lifetimes cover every access; what is laid over something else may be."""
    lowered = schedule.lowered
    for segment in schedule.segments:
        for value in (*segment.inputs, *([segment.output] if segment.output else [])):
            root = lowered.views[value].root
            if root in lowered.direct or lowered.input_port(root) is not None:
                continue
            buffer = schedule.plan[root]
            if not buffer.first <= segment.index <= buffer.last:
                does = "writes" if value == segment.output else "reads"
                raise ScheduleError(f"segment {segment.name!r} {does} {value!r} outside its lifetime")
    for new, old, lead in schedule.plan.overlays:
        segment = next(s for s in schedule.segments if s.output == new)
        if (old, lead) not in {(lowered.views[v].root, allowed) for v, allowed in segment.in_place.items()}:
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
    """Each row that a call reads is still in its ring, and no map is overwritten where it is still read."""
    made = segment.stages
    if len(made) != len(segment.calls):
        raise ScheduleError(f"segment {segment.name!r} has {len(made)} stages for {len(segment.calls)} calls")
    for i, fed in enumerate(made):
        for ring in fed.feeds:
            if ring.depth and ring.stride < ring.row_bytes:
                raise ScheduleError(f"rows of {ring.value!r} overlap in their ring")
            together = made[ring.producer].rows if ring.producer >= 0 else 1
            if ring is fed.residual:
                together = math.lcm(together, fed.rows)
            if (ring.depth % together or (together > 1 and ring.stride != ring.row_bytes)) and ring.depth < ring.height:
                raise ScheduleError(f"rows of {ring.value!r} are split where a call needs {together} side by side")
            if ring.producer >= i:
                raise ScheduleError(f"stage {i} of segment {segment.name!r} reads what stage {ring.producer} makes")
    rows = [0] * len(made)
    out_height = int(schedule.graph.type(segment.output).shape[0])
    for stage, row in stream.ticks(made, out_height):
        for ring in made[stage].feeds:
            for read in ring.reads(row):
                outside = not 0 <= read < ring.height
                if outside and not ring.padded:
                    raise ScheduleError(f"row {read} of {ring.value!r} is read without padding")
                newest = rows[ring.producer] if ring.producer >= 0 else ring.height
                if not outside and not newest - (ring.depth or ring.height) <= read < newest:
                    raise ScheduleError(f"row {read} of {ring.value!r} is not in its ring of {ring.depth}")
        rows[stage] += made[stage].rows
    for new, old, lead in schedule.plan.overlays:
        if new == segment.output:
            _check_overwriting(schedule, segment, old, lead)


def _check_overwriting(schedule: Schedule, segment: Segment, old: str, lead: int) -> None:
    """No byte of a map below the output is written before its last read, byte by byte: a call may write only over the
    rows of its own residual, each where it lies."""
    out = schedule.graph.type(segment.output)
    out_row, last = stream.row_bytes(out), len(segment.stages) - 1
    calls = list(stream.ticks(segment.stages, int(out.shape[0])))
    last_read: dict[int, int] = {}  # row of the map: the call
    height = width = 0
    for now, (stage, row) in enumerate(calls):
        for ring in segment.stages[stage].feeds:
            if ring.producer < 0 and schedule.lowered.views[ring.value].root == old:
                height, width = ring.height, ring.row_bytes
                last_read.update((read, now) for read in ring.reads(row) if 0 <= read < ring.height)
    for now, (stage, row) in enumerate(calls):
        if stage < last:
            continue
        residual = segment.stages[last].residual
        own = set()
        if residual is not None and residual.value == old and "residual" in segment.calls[last].choice.in_place:
            own = {r for r in residual.reads(row) if lead + r * width == r * out_row}
        begin, end = row * out_row - lead, (row + segment.stages[last].rows) * out_row - lead
        for read in range(max(0, begin // width), min(height, -(-end // width))):
            if last_read.get(read, -1) >= now and not (read in own and last_read[read] == now):
                raise ScheduleError(f"segment {segment.name!r} overwrites row {read} of {old!r}, which it still needs")
