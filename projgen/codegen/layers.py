"""From segments to layer functions: pointers, parameter structs and comments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from projgen import ops
from projgen.codegen.names import CTYPES, comment, describe, identifier
from projgen.codegen.program import CArg, CCall, CField, CLayer, CPad, CRing, CStage, CTable, LayerKind
from projgen.codegen.structs import Structs, member_lines
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.record import TableRef
from projgen.schedule.plan import pad_name, ring_name, scratch_name
from projgen.schedule.records import Call, Kind, Reader, Ring, Schedule, Segment, row_scratch_bytes

_KINDS: dict[Kind, LayerKind] = {
    Kind.CALL: "call",
    Kind.LOOP: "loop",
    Kind.ROWS: "rows",
    Kind.ACCUMULATE: "accumulate",
    Kind.FINISH: "finish",
}
_CONSTANTS = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "uint16": "uint16_t", "uint32": "uint32_t"}
_PER_LINE = {"int8": 20, "int16": 14, "uint16": 14, "int32": 9, "uint32": 8}


@dataclass(frozen=True, slots=True)
class Namer:
    """C names of a schedule's parts, under the model's prefix."""

    schedule: Schedule
    prefix: str
    structs: Structs = field(default_factory=dict)  # of the kernels
    arrays: Mapping[str, str] = field(default_factory=dict)  # of each table, the array that holds it

    def layer(self, segment: Segment) -> str:
        return f"{self.prefix}_{segment.index}_{identifier(segment.name)}"

    def owner(self, segment: Segment) -> Segment:
        """The segment that defines the parameters: the first that calls the node."""
        return next(s for s in self.schedule.segments if s.calls and s.calls[0] is segment.calls[0])

    def call(self, segment: Segment, stage: int) -> str:
        """Prefix of a call's struct and tables."""
        base = self.layer(self.owner(segment))
        return base if len(segment.calls) == 1 else f"{base}_{stage}"

    def table(self, segment: Segment, stage: int, name: str) -> str:
        """The array that a table of a call would be alone."""
        return f"{self.call(segment, stage)}_{identifier(name)}"

    def local(self, root: str) -> str:
        """The run function's pointer to a value in the arena."""
        views = self.schedule.lowered.views
        born = next(s.index for s in self.schedule.segments if s.output and views[s.output].root == root)
        return f"b{born}_{identifier(root)}"

    def pointer(self, value: str) -> tuple[str, int]:
        """Pointer and offset in elements at which a value lies, as the run function sees it."""
        graph, place = self.schedule.graph, self.schedule.place(value)
        elements = place.offset
        if place.base != "arena":
            ports = graph.inputs if place.base == "input" else graph.outputs
            suffix = "" if len(ports) == 1 else f"_{place.index}"
            return f"{place.base}{suffix}", elements // graph.type(value).dtype.bytes
        view = self.schedule.lowered.views[value]
        return self.local(view.root), view.offset // graph.type(value).dtype.bytes


def macs(graph: Graph, node: Node) -> int:
    """Multiplications of one inference (of one step where the node runs over time)."""
    types = {role: graph.type(v) for role, v in node.inputs.items()}
    out = graph.type(node.output)
    cost = ops.get(node.op).cost(node.attrs, types, out).macs
    loops = isinstance(node.attrs, Lstm | Gru) and not out.has_time
    return cost * int(out.shape[0]) if loops else cost


def ranks(graph: Graph, node: Node) -> tuple[int, ...]:
    """Ranks of a factored layer, one of a joint LSTM; () for a dense one."""
    if isinstance(node.attrs, Lstm | Gru):
        joint = isinstance(node.attrs, Lstm) and node.attrs.joint
        roles = [r for r in (("q_in",) if joint else ("q_in", "q_out")) if r in node.inputs]
        return tuple(int(graph.data(node, r).shape[0]) for r in roles)
    out = graph.type(node.output)
    return (int(out.shape[-1]),) if out.dtype is DType.INT16 and "w" in node.inputs else ()


def array(namer: Namer, readers: Sequence[Reader]) -> CTable:
    """An array of the weights header; its first reader gives it its name."""
    first = readers[0]
    data = first.table.data.reshape(-1)
    return CTable(
        symbol=namer.table(first.segment, first.stage, first.table.name),
        ctype=_CONSTANTS[data.dtype.name],
        length=data.size,
        rows=lines(data.tolist(), _PER_LINE[data.dtype.name]),
        packed=data.dtype.name == "uint32",
        comment=" and ".join(map(_content, readers)),
        low=int(data.min()),
        high=int(data.max()),
    )


def _content(reader: Reader) -> str:
    node, table = reader.segment.calls[reader.stage].node, reader.table
    return comment(f"{node.source or node.name}: {table.name}" + (f" {table.comment}" if table.comment else ""))


def lines(numbers: list[int], width: int) -> tuple[tuple[int, ...], ...]:
    """The numbers in lines of ``width``."""
    return tuple(tuple(numbers[i : i + width]) for i in range(0, len(numbers), width))


def _fields(namer: Namer, segment: Segment, stage: int) -> tuple[CField, ...]:
    choice = segment.calls[stage].choice
    made: list[CField] = []
    for name, value in choice.fields.items():
        if isinstance(value, TableRef):
            alone = namer.table(segment, stage, value.table)
            made.append(CField(name, symbol=namer.arrays.get(alone, alone)))
        elif isinstance(value, tuple):
            numbers = tuple(int(v) for v in value)
            rest = iter(numbers)
            named = member_lines(namer.structs, choice.struct, name, len(numbers))
            lines = tuple(tuple((member, next(rest)) for member in line) for line in named)
            made.append(CField(name, numbers=numbers, is_list=True, lines=lines))
        else:
            made.append(CField(name, numbers=(int(value),)))
    return tuple(made)


def _call(namer: Namer, segment: Segment, stage: int) -> CCall:
    choice, rows = segment.calls[stage].choice, segment.kind is Kind.ROWS
    return CCall(
        function=choice.function,
        row_function=choice.row_function,
        struct=choice.struct,
        params=f"{namer.call(segment, stage)}_params" if choice.struct else "",
        fields=_fields(namer, segment, stage),
        scratch=(row_scratch_bytes(choice) if rows else choice.scratch_bytes) > 0,
    )


def layer(namer: Namer, segment: Segment) -> CLayer:
    """The layer function of a segment that isn't a copy."""
    schedule, graph, plan = namer.schedule, namer.schedule.graph, namer.schedule.plan
    first, last = segment.calls[0], segment.calls[-1]
    state = plan.state_offsets.get(last.node.name) if segment.kind is not Kind.LOOP else None
    arguments = [] if state is None else [CArg("state", "void", False, "state", "", state)]
    arguments += [_arg(namer, _role(first, segment, i), value, const=True) for i, value in enumerate(segment.inputs)]
    if segment.output:
        arguments.append(_arg(namer, "y", segment.output, const=False))
    for ring in segment.rings:
        ctype = CTYPES[graph.type(ring.value).dtype]
        arguments.append(_raw(f"ring{ring.producer}", ctype, plan[ring_name(segment, ring.value)].offset))
    for i, pad in enumerate(segment.pads):
        arguments.append(_raw(f"pad{i}", f"int{8 * pad.itemsize}_t", plan[pad_name(segment, i)].offset))
    if segment.scratch_bytes and segment.kind is not Kind.FINISH:
        arguments.append(_raw("scratch", "void", plan[scratch_name(segment)].offset))
    rows = row_in = row_out = 0
    if segment.kind is Kind.LOOP:
        rows = segment.repeats
        row_in = graph.type(segment.inputs[0]).elements // rows
        row_out = 0 if segment.last_only else graph.type(segment.output).elements // rows
    if segment.kind is Kind.ROWS:
        rows = int(graph.type(segment.output).shape[0])
    reverse = isinstance(first.node.attrs, Lstm | Gru) and first.node.attrs.reverse
    return CLayer(
        index=segment.index,
        function=namer.layer(segment),
        kind=_KINDS[segment.kind],
        comment=tuple(_comment(schedule, segment)),
        calls=tuple(_call(namer, segment, i) for i in range(len(segment.calls))),
        arguments=tuple(arguments),
        state_offset=state or 0,
        rows=rows,
        row_in=row_in,
        row_out=row_out,
        reverse=reverse,
        state_bytes=segment.loop_state_bytes,
        stages=tuple(_stages(graph, segment)),
        pads=tuple(
            CPad(f"pad{i}", p.value, p.bytes // p.itemsize, p.itemsize == DType.INT16.bytes)
            for i, p in enumerate(segment.pads)
        ),
        owns_params=namer.owner(segment) is segment,
        in_place=any(new == segment.output for new, *_ in plan.overlays),
        lead=next((lead for new, _, lead in plan.overlays if new == segment.output), 0),
    )


def _role(call: Call, segment: Segment, i: int) -> str:
    """Parameter name of an input: the operator's role."""
    if segment.kind is Kind.ROWS:
        return _map_name(segment, segment.inputs[i])
    roles = [r for r, v in call.node.inputs.items() if v in segment.inputs]
    return identifier(roles[i])


def _arg(namer: Namer, name: str, value: str, *, const: bool) -> CArg:
    pointer, offset = namer.pointer(value)
    return CArg(name, CTYPES[namer.schedule.graph.type(value).dtype], const, "value", pointer, offset)


def _raw(name: str, ctype: str, offset: int) -> CArg:
    """A pointer to ``offset`` bytes into the arena."""
    return CArg(name, ctype, False, "arena", "", offset)


def _map_name(segment: Segment, value: str) -> str:
    """Parameter name of a map that a streamed segment reads."""
    return "x" if len(segment.inputs) == 1 else f"x{segment.inputs.index(value)}"


def _stages(graph: Graph, segment: Segment) -> list[CStage]:
    rings = {r.producer: _ring(graph, segment, r) for r in segment.rings}
    out = graph.type(segment.output) if segment.stages else None
    made: list[CStage] = []
    for i, stage in enumerate(segment.stages):
        window, *rest = (_ring(graph, segment, r) for r in stage.feeds)
        if out is not None and i + 1 == len(segment.stages):
            pixel = segment.calls[i].choice.pitch // out.dtype.bytes or out.step_shape[-1]
            row = math.prod(out.step_shape[1:-1]) * pixel
            to = CRing("y", CTYPES[out.dtype], i, out.step_shape[0], row, 0, row, 1, 1, 1, 0, 0, 1, "", 0, 0)
        else:
            to = rings[i]
        made.append(CStage(window, rest[0] if rest else None, to, stage.rows))
    return made


def _ring(graph: Graph, segment: Segment, ring: Ring) -> CRing:
    return CRing(
        name=f"ring{ring.producer}" if ring.depth else _map_name(segment, ring.value),
        ctype=CTYPES[graph.type(ring.value).dtype],
        producer=ring.producer,
        height=ring.height,
        row=ring.row_bytes // ring.itemsize,
        depth=ring.depth,
        stride=ring.stride // ring.itemsize,
        kernel=ring.kernel,
        step=ring.step,
        dilation=ring.dilation,
        pad_top=ring.pad_top,
        pad_bottom=ring.pad_bottom,
        span=ring.span,
        pad=f"pad{segment.pad_of(ring)}" if ring.padded else "",
        pad_value=ring.pad_value,
        lag=ring.lag,
    )


def _comment(schedule: Schedule, segment: Segment) -> list[str]:
    """What the layer is, for the reader of the C source."""
    graph = schedule.graph
    text: list[str] = []
    if segment.kind is Kind.FINISH:
        node = segment.calls[0].node
        text.append(f'Layer {segment.index} "{node.source or node.name}": {node.op}, after the last step.')
        text.append(f"out {describe(graph.type(segment.output))}")
        return [comment(t) for t in text]
    for i, call in enumerate(segment.calls):
        node = call.node
        head = f"Layer {segment.index}" if len(segment.calls) == 1 else f"Layer {segment.index}, stage {i}"
        kind = ", one time step" if segment.phase.value == "step" else ""
        text.append(f'{head} "{node.source or node.name}": {node.op}{kind}.')
        for role, value in graph.activations(node):
            text.append(f"{role} {describe(value.type)}")
        text.append(f"out {describe(graph.type(node.output))}")
        if call.choice.pitch:
            text.append(f"a part of a concat: {call.choice.pitch} bytes from pixel to pixel, other parts between")
        if segment.held:
            there = [role for role, value in node.inputs.items() if value in segment.held]
            text.append(f"in place already: {', '.join(there)}")
        rank = ranks(graph, node)
        parts = [f"{macs(graph, node)} MAC"] if macs(graph, node) else []
        parts += [f"rank {', '.join(map(str, rank))}"] if rank else []
        text.append(", ".join([*parts, f"kernel {call.choice.kernel}"]))
    return [comment(t) for t in text]
