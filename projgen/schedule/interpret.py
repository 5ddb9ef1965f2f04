"""The scheduled stage, executed: segment by segment over one byte array, exactly as the emitted C runs.

Values are read from and written to their planned places, constants are read through their packed tables, recurrent
layers step with their state, streamed segments really go through their rings. It is slow and for checking only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from projgen import ops
from projgen.ir.attrs import Conv2d, Gru, Lstm
from projgen.ir.graph import Array, Node
from projgen.ir.numerics import GruNumerics, LstmNumerics, MeanTimeNumerics
from projgen.ops.recurrent_integer import gru_output, gru_step, initial_state, integers, lstm_step
from projgen.schedule import stream
from projgen.schedule.plan import pad_name, ring_name
from projgen.schedule.records import Call, Kind, Phase, Ring, Schedule, Segment, spread

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass
class _Machine:
    """Memory of one run: the arena, the caller's inputs (of this step) and outputs, and recurrent states."""

    schedule: Schedule
    arena: Bytes
    inputs: list[Bytes]
    outputs: list[Bytes]
    states: dict[str, tuple[Ints, ...]] = field(default_factory=dict)
    sums: dict[str, list[Array]] = field(default_factory=dict)

    def memory(self, value: str) -> tuple[Bytes, int]:
        place = self.schedule.place(value)
        banks = {"arena": [self.arena], "input": self.inputs, "output": self.outputs}
        return banks[place.base][place.index], place.offset

    def read(self, value: str) -> Array:
        t, lowered = self.schedule.graph.type(value), self.schedule.lowered
        bank, offset = self.memory(value)
        places = offset + spread(t.nbytes, lowered.pixel_bytes(value), lowered.views[value].pitch)
        return bank[places].view(t.dtype.value).reshape(t.step_shape)

    def write(self, value: str, data: Array, pitch: int = 0) -> None:
        """The pixels of a value, ``pitch`` bytes apart as the kernel writes them."""
        t = self.schedule.graph.type(value)
        bank, offset = self.memory(value)
        raw = _narrow(data, t.dtype.value).reshape(-1).view(np.uint8)
        bank[offset + spread(raw.size, self.schedule.lowered.pixel_bytes(value), pitch)] = raw


def _narrow(data: Array, dtype: str) -> Array:
    made = np.ascontiguousarray(data).astype(dtype)
    if not np.array_equal(made, data):
        raise ValueError(f"integers {data.min()}..{data.max()} leave {dtype}")
    return made


def run_scheduled(schedule: Schedule, inputs: Sequence[Array], fill: int = 0xA5) -> tuple[Array, ...]:
    """Outputs of a schedule, as ``run_integer`` gives them for its graph.

    Args:
        inputs: one integer array per graph input, (N, ...) or (N, T, ...) in the IR's layout.
        fill: what the arena holds at the start; results must not depend on it.
    """
    graph = schedule.graph
    rows: list[list[Array]] = [[] for _ in graph.outputs]
    for sample in range(len(inputs[0])):
        results = _run_one(schedule, [np.asarray(x[sample]) for x in inputs], fill)
        for port, result in enumerate(results):
            rows[port].append(result)
    return tuple(np.stack(r) for r in rows)


def _run_one(schedule: Schedule, inputs: list[Array], fill: int) -> list[Array]:
    graph = schedule.graph
    types = [graph.type(p.value) for p in graph.inputs]
    out_types = [graph.type(p.value) for p in graph.outputs]
    outputs = [np.full(t.nbytes, fill, np.uint8) for t in out_types]
    arena = np.full(schedule.plan.arena_bytes, fill, np.uint8)
    narrow = [_narrow(x, t.dtype.value) for x, t in zip(inputs, types, strict=True)]
    machine = _Machine(schedule, arena, [], outputs)
    taken: list[list[Array]] = [[] for _ in outputs]

    def take() -> None:
        for port, t in enumerate(out_types):
            taken[port].append(outputs[port].view(t.dtype.value).reshape(t.step_shape).copy())

    if graph.has_time:
        steps = next(len(x) for x, t in zip(narrow, types, strict=True) if t.has_time)
        for t in range(steps - 1, -1, -1) if schedule.lowered.is_backward else range(steps):
            rows = (x[t] if k.has_time else x for x, k in zip(narrow, types, strict=True))
            machine.inputs = [x.reshape(-1).view(np.uint8) for x in rows]
            _run_phase(machine, Phase.STEP)
            if out_types[0].has_time:
                take()
        _run_phase(machine, Phase.TAIL)
    else:
        machine.inputs = [x.reshape(-1).view(np.uint8) for x in narrow]
        _run_phase(machine, Phase.MAIN)
    if not out_types[0].has_time:
        take()
        return [t[0] for t in taken]
    return [np.stack(t[::-1] if schedule.lowered.is_backward else t) for t in taken]


def _run_phase(machine: _Machine, phase: Phase) -> None:
    for segment in machine.schedule.segments:
        if segment.phase is phase:
            _run_segment(machine, segment)


def _run_segment(machine: _Machine, segment: Segment) -> None:
    if segment.kind is Kind.COPY:
        machine.outputs[segment.copy_to][:] = machine.read(segment.inputs[0]).reshape(-1).view(np.uint8)
    elif segment.kind is Kind.ROWS:
        _run_rows(machine, segment)
    elif segment.kind is Kind.ACCUMULATE:
        machine.sums.setdefault(segment.calls[0].node.name, []).append(machine.read(segment.inputs[0]))
    elif segment.kind is Kind.FINISH:
        _finish(machine, segment)
    elif isinstance(segment.calls[0].node.attrs, Lstm | Gru):
        _run_recurrent(machine, segment)
    else:
        node = segment.calls[0].node
        args = {role: machine.read(v.name)[None] for role, v in machine.schedule.graph.activations(node)}
        call = segment.calls[0]
        machine.write(segment.output, _integer(machine, call, args)[0], call.choice.pitch)


def _constants(machine: _Machine, call: Call) -> dict[str, Array]:
    """The node's constants; those of the kernel's tables as the tables hold them."""
    graph = machine.schedule.graph
    found = {r: v.data for r in call.node.inputs if (v := graph.arg(call.node, r)).data is not None}
    for table in call.choice.tables:
        found.update(table.layout.unpack(table.data))
    return found


def _integer(machine: _Machine, call: Call, args: dict[str, Array], node: Node | None = None) -> Array:
    """The operator's integer meaning of a batch; on one time step where the node runs over time."""
    meaning = ops.get(call.node.op).integer
    if meaning is None:
        raise ValueError(f"operator {call.node.op!r} has no integer meaning")
    graph = machine.schedule.graph
    over_time = graph.type(call.node.output).has_time
    if over_time:
        args = {r: a[:, None] if graph.arg(call.node, r).type.has_time else a for r, a in args.items()}
    known = {**_constants(machine, call), **args}
    y = meaning(node or call.node, {role: known[role] for role in call.node.inputs})
    return y[:, 0] if over_time else y


def _run_recurrent(machine: _Machine, segment: Segment) -> None:
    """One step, or the loop over a static sequence."""
    call = segment.calls[0]
    node, attrs = call.node, call.node.attrs
    args = integers(_constants(machine, call))
    x = machine.read(node.inputs["x"]).astype(np.int64)
    if segment.kind is Kind.CALL:
        machine.write(segment.output, _step(node, args, x, machine.states)[0])
        return
    states: dict[str, tuple[Ints, ...]] = {}
    order = range(len(x) - 1, -1, -1) if isinstance(attrs, Lstm | Gru) and attrs.reverse else range(len(x))
    out = np.zeros((len(x), machine.schedule.graph.type(segment.output).step_shape[-1]), np.int64)
    last = 0
    for t in order:
        out[t] = _step(node, args, x[t], states)[0]
        last = t
    machine.write(segment.output, out[last] if segment.last_only else out)


def _step(node: Node, args: dict[str, Ints], x: Ints, states: dict[str, tuple[Ints, ...]]) -> Ints:
    attrs, n = node.attrs, node.numerics
    if isinstance(attrs, Lstm) and isinstance(n, LstmNumerics):
        h, c = states.get(node.name) or tuple(initial_state(args, r, 1, attrs.hidden) for r in ("h0", "c0"))
        states[node.name] = lstm_step(n, args, x[None], h, c)
        return states[node.name][0]
    if isinstance(attrs, Gru) and isinstance(n, GruNumerics):
        (h,) = states.get(node.name) or (initial_state(args, "h0", 1, attrs.hidden),)
        states[node.name] = (gru_step(n, args, x[None], h),)
        return gru_output(states[node.name][0])
    raise TypeError(f"node {node.name!r} is no quantised recurrent layer")


def _finish(machine: _Machine, segment: Segment) -> None:
    call = segment.calls[0]
    if not isinstance(call.node.numerics, MeanTimeNumerics):
        raise TypeError(f"node {call.node.name!r} is no quantised mean over time")
    steps = np.stack(machine.sums[call.node.name])[None]
    machine.write(segment.output, _integer(machine, call, {"x": steps})[0])


def _run_rows(machine: _Machine, segment: Segment) -> None:
    """Row by row through the rings, which lie in the arena like everything else."""
    schedule, graph, stages = machine.schedule, machine.schedule.graph, segment.stages
    target, out_base = machine.memory(segment.output)
    pixel, pitch = schedule.lowered.pixel_bytes(segment.output), segment.calls[-1].choice.pitch
    out_row = stream.row_bytes(graph.type(segment.output)) // pixel * (pitch or pixel)
    pads = [schedule.plan[pad_name(segment, i)].offset for i in range(len(segment.pads))]
    for place, pad in zip(pads, segment.pads, strict=True):
        filled = np.full(pad.bytes // pad.itemsize, pad.value, f"int{8 * pad.itemsize}")
        machine.arena[place : place + pad.bytes] = filled.view(np.uint8)
    readers = {r.producer: r for s in stages for r in s.feeds if r.depth}

    def rows(ring: Ring, row: int) -> Array:
        t = graph.type(ring.value)
        taken: list[Bytes] = []
        for read in ring.reads(row):
            if not 0 <= read < ring.height:
                bank, offset = machine.arena, pads[segment.pad_of(ring)]
            elif ring.depth:
                place = schedule.plan[ring_name(segment, ring.value)].offset
                bank, offset = machine.arena, place + (read % ring.depth) * ring.stride
            else:
                bank, offset = machine.memory(ring.value)
                offset += read * ring.row_bytes
            taken.append(bank[offset : offset + ring.row_bytes].copy())
        return np.stack(taken).view(t.dtype.value).reshape(ring.kernel, *t.step_shape[1:])

    for stage, row in stream.ticks(stages, int(graph.type(segment.output).shape[0])):
        call, fed = segment.calls[stage], stages[stage]
        attrs = call.node.attrs
        if not isinstance(attrs, Conv2d):
            raise TypeError(f"node {call.node.name!r} can't be streamed")
        args = {"x": rows(fed.window, row)[None]}
        if fed.residual is not None:
            args["residual"] = rows(fed.residual, row)[None]
        # The rows read are those of this call's windows, padding included; several output rows keep their stride.
        flat = replace(
            attrs,
            padding=(0, 0, *attrs.padding[2:]),
            stride=(attrs.stride[0] if fed.rows > 1 else 1, attrs.stride[1]),
            dilation=(1, attrs.dilation[1]),
        )
        y = _integer(machine, call, args, replace(call.node, attrs=flat))
        for i, made in enumerate(_narrow(y[0], graph.type(call.node.output).dtype.value)):
            raw = np.ascontiguousarray(made).reshape(-1).view(np.uint8)
            if stage + 1 == len(stages):
                target[out_base + (row + i) * out_row + spread(raw.size, pixel, pitch)] = raw
            else:
                ring = readers[stage]
                place = schedule.plan[ring_name(segment, ring.value)].offset
                place += ((row + i) % ring.depth) * ring.stride
                machine.arena[place : place + raw.size] = raw
