"""Lowering: a quantised graph becomes segments, with a kernel for every node and a home for every value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from projgen.errors import UnsupportedError
from projgen.ir.attrs import Concat, Gru, Lstm, MeanTime, Reshape, Select, Slice, Transpose
from projgen.ir.graph import Graph, Node
from projgen.ir.types import TIME, TensorType
from projgen.kernels.record import KernelChoice
from projgen.kernels.shape import concat
from projgen.options import CompileOptions
from projgen.schedule import stream
from projgen.schedule.choose import choose
from projgen.schedule.records import Call, Kind, Lowered, Phase, Segment, View
from projgen.targets import Target


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a search over schedules may change.

    Attributes:
        kernels: by node name.
        streamed: the regions to stream, as the names of their nodes.
        joined: whether parts of a Concat are written where they belong, if nothing forbids it, or copied there.
        copied: parts that are copied nevertheless.
    """

    kernels: Mapping[str, KernelChoice] = field(default_factory=dict)
    streamed: frozenset[tuple[str, ...]] = frozenset()
    joined: bool = True
    copied: frozenset[str] = frozenset()


def lower(graph: Graph, target: Target, options: CompileOptions, overrides: Overrides | None = None) -> Lowered:
    """The segments of a quantised graph on a target.

    Args:
        overrides: kernels and streamed regions that override the choice by ``options``.

    Raises:
        UnsupportedError: a node has no kernel, or the graph mixes what can't run in one pass over time.
    """
    _check_time(graph)
    overrides = overrides or Overrides()
    late = _late(graph)
    one_row = _one_row(graph)
    alone = _views(graph, one_row)
    chosen = {
        n.output: overrides.kernels.get(n.name)
        or choose(graph, n, target, options.kernels, options.optimise, options.cmsis_nn)
        for n in graph.nodes
        if alone[n.output].root == n.output
    }

    def writes(value: str, pitch: int) -> bool:
        return chosen[value].pitched(pitch) is not None

    parts = _parts(graph, alone, late, overrides.copied, writes) if overrides.joined else {}
    views = {value: _joined(view, parts) for value, view in alone.items()}
    held: dict[str, tuple[str, ...]] = {}
    for value, place in parts.items():
        held[place.root] = (*held.get(place.root, ()), value)
    executed = [n for n in graph.nodes if n.output in chosen and len(held.get(n.output, ())) < max(1, len(n.inputs))]
    calls = {
        n.name: Call(n, _placed(graph, n, target, chosen[n.output], views[n.output].pitch, held.get(n.output, ())))
        for n in executed
    }
    direct = _direct(graph, views, one_row)
    ends = _streamed(graph, calls, overrides)
    inside = {c.node.name for region in ends.values() for c in region[:-1]}
    drafts: list[Segment] = []
    for node in executed:
        if node.name in inside:
            continue
        if node.name in ends:
            drafts.append(_rows(graph, ends[node.name], views, late))
        else:
            drafts.extend(_segments(graph, calls[node.name], views, held.get(node.output, ()), one_row, late))
    drafts.extend(_copies(graph, views, direct, late))
    order = {Phase.MAIN: 0, Phase.STEP: 0, Phase.TAIL: 1}
    drafts.sort(key=lambda s: order[s.phase])  # stable: nodes keep their order within a phase
    segments = tuple(replace(s, index=i) for i, s in enumerate(drafts))
    return Lowered(graph, target, segments, views, direct, one_row)


def _check_time(graph: Graph) -> None:
    """Refuses what one pass over the steps can't compute."""
    if not graph.has_time:
        return
    over_time = {graph.type(p.value).has_time for p in graph.outputs}
    if len(over_time) > 1:
        raise UnsupportedError("some outputs have a time axis and others have none", "outputs of one kind", "the model")
    late = _late(graph)
    directions = set()
    for node in graph.nodes:
        where = node.source or node.name
        stepped = graph.type(node.output).has_time
        for role, value in graph.activations(node):
            if stepped and value.name in late:
                raise UnsupportedError(
                    f"{role} of {where!r} is known only after the last step, but the layer runs at every step",
                    "one pass over time",
                    "the model",
                )
        if isinstance(node.attrs, Lstm | Gru) and stepped:
            directions.add(node.attrs.reverse)
    if len(directions) > 1:
        raise UnsupportedError(
            "recurrent layers run forwards and backwards over a sequence of any length",
            "one direction, or a fixed number of steps",
            "the model",
        )
    if True in directions and any(_takes_last_step(graph, n) for n in graph.nodes):
        raise UnsupportedError(
            "the last time step is selected in a model that runs backwards over time",
            "a mean over time, an output at every step, or a fixed number of steps",
            "the model",
        )


def _streamed(graph: Graph, calls: Mapping[str, Call], overrides: Overrides) -> dict[str, tuple[Call, ...]]:
    """The regions to stream, by their last node."""
    ordered = list(calls.values())
    for wanted in overrides.streamed:
        last = calls.get(wanted[-1])
        if last is None or wanted not in (tuple(c.node.name for c in r) for r in stream.grown(graph, ordered, last)):
            raise ValueError(f"nodes {', '.join(wanted)} are no region that can be streamed")
    return {names[-1]: tuple(calls[n] for n in names) for names in overrides.streamed}


def _takes_last_step(graph: Graph, node: Node) -> bool:
    return isinstance(node.attrs, Select) and node.attrs.axis == 0 and graph.arg(node, "x").type.has_time


def _late(graph: Graph) -> frozenset[str]:
    """Values without a time axis that depend on one: they exist after the last step."""
    timed = {p.value for p in graph.inputs if graph.type(p.value).has_time}
    for node in graph.nodes:
        if any(v in timed for v in node.inputs.values()):
            timed.add(node.output)
    return frozenset(v for v in timed if not graph.type(v).has_time)


def _phase(graph: Graph, value: str, late: frozenset[str]) -> Phase:
    """When a value is computed; what needs no time axis at all is computed anew at every step."""
    if not graph.has_time:
        return Phase.MAIN
    return Phase.TAIL if value in late else Phase.STEP


def _views(graph: Graph, one_row: frozenset[str]) -> dict[str, View]:
    """Where each activation's bytes are: its own buffer, or inside another value's."""
    views = {p.value: View(p.value) for p in graph.inputs}
    for node in graph.nodes:
        offset = _view_offset(graph, node, one_row)
        if offset is None:
            views[node.output] = View(node.output)
        else:
            source = views[node.inputs["x"]]
            views[node.output] = View(source.root, source.offset + offset)
    return views


def _parts(
    graph: Graph,
    views: Mapping[str, View],
    late: frozenset[str],
    copied: frozenset[str],
    writes: Callable[[str, int], bool],
) -> dict[str, View]:
    """Values that are computed where a Concat has them, if they are not to be ``copied``: each one's place there.

    Each of them is a buffer of its own that is made in the same phase, that no other Concat has, and that no output of
    the model shares. One whose pixels lie apart there is read by nothing else, and made by a kernel that ``writes`` so.
    """
    parts: dict[str, View] = {}
    given = {views[p.value].root for p in (*graph.inputs, *graph.outputs)}
    for node in reversed(graph.nodes):  # of nested ones the outer first: what it holds has its place then
        if not isinstance(node.attrs, Concat):
            continue
        out, offset, sources = graph.type(node.output), 0, list(node.inputs.values())
        axis = node.attrs.axis - int(out.has_time)
        outer, pixel = math.prod(out.step_shape[:axis]), math.prod(out.step_shape[axis:]) * out.dtype.bytes
        for value in sources:
            place = View(node.output, offset, pixel if outer > 1 else 0)
            pitch = _joined(place, parts).pitch
            own = value in views and views[value] == View(value) and value not in given | copied
            same_phase = _phase(graph, value, late) is _phase(graph, node.output, late)
            if own and same_phase and value not in parts and sources.count(value) == 1:
                alone = axis == len(out.step_shape) - 1 and graph.readers(value) == (node,)
                if not pitch or (alone and writes(value, pitch)):
                    parts[value] = place
            offset += graph.type(value).nbytes // outer
    return parts


def pitches(graph: Graph) -> dict[str, int]:
    """Values that could be written between other parts of a Concat, and their pitches, if all kernels could do that."""
    alone = _views(graph, _one_row(graph))
    parts = _parts(graph, alone, _late(graph), frozenset(), lambda _value, _pitch: True)
    found = {value: _joined(view, parts).pitch for value, view in alone.items()}
    return {value: pitch for value, pitch in found.items() if pitch}


def _joined(view: View, parts: Mapping[str, View]) -> View:
    """A view of a part as one of the Concat that holds it, of the outermost where they are nested."""
    while view.root in parts:
        outer = parts[view.root]  # with a pitch, what it holds are its own channels: they have it too
        view = View(outer.root, outer.offset + view.offset, outer.pitch or view.pitch)
    return view


def _placed(
    graph: Graph, node: Node, target: Target, choice: KernelChoice, pitch: int, held: Sequence[str]
) -> KernelChoice:
    """A kernel for the place of its output; that of a Concat copies only what is not held there."""
    if held:
        choice = concat(graph, node, target, frozenset(held))
    return (choice.pitched(pitch) if pitch else None) or choice


def _view_offset(graph: Graph, node: Node, one_row: frozenset[str]) -> int | None:
    """Bytes from the input's first byte to the output's where the output needs no copy, else None."""
    attrs = node.attrs
    if isinstance(attrs, Reshape):
        return 0
    if not isinstance(attrs, Slice | Select | Transpose):
        return None
    x = graph.arg(node, "x").type
    if isinstance(attrs, Transpose):
        moved = [a for a in attrs.perm if x.shape[a] != 1]
        return 0 if moved == sorted(moved) else None
    if isinstance(attrs, Select):
        if x.shape[attrs.axis] == TIME or node.inputs["x"] in one_row:
            return 0  # the last step's row is what is there after the last step
        index = attrs.index % int(x.shape[attrs.axis])
        return _contiguous(x, attrs.axis, index)
    if attrs.step != 1 and attrs.stop - attrs.start > 1:
        return None
    return _contiguous(x, attrs.axis, attrs.start)


def _contiguous(x: TensorType, axis: int, start: int) -> int | None:
    """Offset of a range of ``axis`` where only axes of size 1 lie outside it (the time axis aside)."""
    axis -= int(x.has_time)
    shape = x.step_shape
    if math.prod(shape[:axis]) != 1:
        return None
    return start * math.prod(shape[axis + 1 :]) * x.dtype.bytes


def _direct(graph: Graph, views: Mapping[str, View], one_row: frozenset[str]) -> dict[str, int]:
    """Buffers that are written straight to the caller's output: the output's bytes are the whole buffer."""
    direct: dict[str, int] = {}
    for i, port in enumerate(graph.outputs):
        view = views[port.value]
        root = graph.type(view.root)
        kept = root.nbytes // int(root.shape[0]) if view.root in one_row else root.nbytes
        is_whole = view.offset == 0 and kept == graph.type(port.value).nbytes
        if is_whole and not graph.is_input(view.root) and view.root not in direct:
            direct[view.root] = i
    return direct


def _copies(graph: Graph, views: Mapping[str, View], direct: Mapping[str, int], late: frozenset[str]) -> list[Segment]:
    """Segments for the outputs whose bytes lie elsewhere."""
    copies: list[Segment] = []
    for i, port in enumerate(graph.outputs):
        if direct.get(views[port.value].root) == i:
            continue
        phase = _phase(graph, port.value, late)
        copies.append(Segment(-1, f"copy to {port.name}", Kind.COPY, phase, (), (port.value,), "", copy_to=i))
    return copies


def _segments(
    graph: Graph,
    call: Call,
    views: Mapping[str, View],
    held: tuple[str, ...],
    one_row: frozenset[str],
    late: frozenset[str],
) -> list[Segment]:
    """The segment(s) of one node outside a streamed region."""
    node = call.node
    inputs = tuple(value.name for _, value in graph.activations(node) if value.name not in held)
    over = call.choice.in_place if views[node.output].root == node.output else ()
    in_place = dict.fromkeys((node.inputs[role] for role in over), 0)
    phase = _phase(graph, node.output, late)
    if isinstance(node.attrs, MeanTime):
        return [
            Segment(-1, node.name, Kind.ACCUMULATE, Phase.STEP, (call,), inputs, ""),
            Segment(-1, f"{node.name}:finish", Kind.FINISH, Phase.TAIL, (call,), (), node.output),
        ]
    x = graph.arg(node, "x").type if "x" in node.inputs else None
    if isinstance(node.attrs, Lstm | Gru) and x is not None and not x.has_time:
        last_only = node.output in one_row
        return [
            Segment(
                -1,
                node.name,
                Kind.LOOP,
                phase,
                (call,),
                inputs,
                node.output,
                last_only=last_only,
                repeats=int(x.shape[0]),
            )
        ]
    return [Segment(-1, node.name, Kind.CALL, phase, (call,), inputs, node.output, in_place, held=held)]


def _one_row(graph: Graph) -> frozenset[str]:
    """Outputs of loops of which only the row computed last is read: they need one row of memory."""
    return frozenset(n.output for n in graph.nodes if _keeps_one_row(graph, n))


def _keeps_one_row(graph: Graph, node: Node) -> bool:
    attrs = node.attrs
    if not isinstance(attrs, Lstm | Gru) or graph.type(node.output).has_time or graph.is_output(node.output):
        return False
    rows = int(graph.type(node.output).shape[0])
    final = 0 if attrs.reverse else rows - 1
    readers = graph.readers(node.output)
    return bool(readers) and all(
        isinstance(r.attrs, Select) and r.attrs.axis == 0 and r.attrs.index % rows == final for r in readers
    )


def _rows(
    graph: Graph,
    region: Sequence[Call],
    views: Mapping[str, View],
    late: frozenset[str],
) -> Segment:
    """One streamed segment; it writes over a map that it reads where that map dies here."""
    last = region[-1]
    output, made = last.node.output, stream.stages(graph, region)
    out = graph.type(output)
    sources = tuple(dict.fromkeys(r.value for s in made for r in s.feeds if r.producer < 0))
    in_place: dict[str, int] = {}
    for value in sources:
        if views[output].root == output and sum(v.root == views[value].root for v in views.values()) == 1:
            in_place[value] = stream.lead(
                made,
                value,
                int(out.shape[0]),
                stream.row_bytes(out),
                over_residual="residual" in last.choice.in_place,
            )
    return Segment(
        -1,
        "_".join(c.node.name for c in region),
        Kind.ROWS,
        _phase(graph, output, late),
        tuple(region),
        sources,
        output,
        in_place,
        made,
    )
