"""Schedules as text: segments in order with their kernels and addresses, then the arena."""

from __future__ import annotations

from collections.abc import Sequence

from projgen.ir.types import TensorType
from projgen.schedule.records import Buffer, Call, Ring, Schedule, Segment


def print_schedule(schedule: Schedule) -> str:
    """The whole schedule: one line a segment, one for each call and ring inside it, then one for each buffer.

    A place is ``arena+offset``, ``input0+offset`` or ``output0+offset``, in bytes; ``every`` tells how
    far apart pixels are that have others between them. Instructions are predicted.
    """
    plan, graph = schedule.plan, schedule.graph
    lines = [f"schedule {graph.name} on {schedule.target.name}"]
    lines += [f"  input {port.name} = {port.value} : {graph.type(port.value)}" for port in graph.inputs]
    for segment in schedule.segments:
        lines += _segment(schedule, segment)
    lines += [f"  output {port.name} = {_placed(schedule, port.value)}" for port in graph.outputs]
    lines.append(
        f"arena {plan.arena_bytes} B, with input {plan.with_input_bytes} B, at least {plan.lower_bound} B; "
        f"state {plan.state_bytes} B; constants {schedule.weight_bytes} B"
    )
    lines += _table([_buffer(buffer) for buffer in sorted((*plan.buffers, *plan.inputs), key=_position)])
    lines += [f"  overlay {new} over {old}, {lead} B before it" for new, old, lead in sorted(plan.overlays)]
    lines += [f"  state of {node} : +{offset}" for node, offset in plan.state_offsets.items()]
    if plan.counter_offset is not None:
        lines.append(f"  state of the step counter : +{plan.counter_offset}")
    return "\n".join(lines) + "\n"


def _segment(schedule: Schedule, segment: Segment) -> list[str]:
    inputs = ", ".join(_placed(schedule, value) for value in segment.inputs) or "state"
    output = f" -> {_placed(schedule, segment.output)}" if segment.output else ""
    if segment.copy_to >= 0:
        output = f" -> output{segment.copy_to}"
    rows = f" x{segment.repeats}" if segment.repeats > 1 else ""
    kept = ", last row kept" if segment.last_only else ""
    head = f"  {segment.index} {segment.phase.value} {segment.kind.value}{rows} {segment.name} : {inputs}{output}{kept}"
    lines = [head]
    for i, call in enumerate(segment.calls):
        lines.append(f"      {_call(schedule, call)}")
        lines += [f"      {_ring(ring)}" for ring in (segment.stages[i].feeds if segment.stages else ())]
    return lines


def _call(schedule: Schedule, call: Call) -> str:
    choice = call.choice
    tables = ", ".join(f"{t.name} {_short(t.data.dtype.name, t.data.shape)}" for t in choice.tables)
    sizes = [(choice.scratch_bytes, "B scratch"), (choice.state_bytes, "B state")]
    parts = [tables, *(f"{size} {what}" for size, what in sizes if size), f"{choice.instructions:.0f} instructions"]
    made: TensorType = schedule.graph.type(call.node.output)
    return f"{call.node.op} by {choice.kernel} ({choice.function}) : {made}; {'; '.join(p for p in parts if p)}"


def _ring(ring: Ring) -> str:
    held = f"{ring.depth} rows of {ring.stride} B" if ring.depth else "the whole map"
    padded = f", pad {ring.pad_top}+{ring.pad_bottom} rows of {ring.pad_value}" if ring.padded else ""
    return f"ring of {ring.value} : {held}, window {ring.span}, step {ring.step}, lag {ring.lag}{padded}"


def _placed(schedule: Schedule, value: str) -> str:
    place = schedule.place(value)
    number = "" if place.base == "arena" else str(place.index)
    pitch = schedule.lowered.views[value].pitch
    return f"{value}@{place.base}{number}+{place.offset}{f' every {pitch}' if pitch else ''}"


def _short(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{'x'.join(map(str, shape))}]"


def _position(buffer: Buffer) -> tuple[int, int, str]:
    return buffer.offset, buffer.first, buffer.name


def _buffer(buffer: Buffer) -> tuple[str, ...]:
    span = f"+{buffer.offset}..{buffer.end}"
    return span, buffer.role, buffer.name, f"segments {buffer.first}..{buffer.last}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows with aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
