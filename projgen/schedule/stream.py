"""Row-streamed segments: convolutions whose middle maps never exist as a whole.

Each stage pulls the rows it needs from the stages before it, which keep only the rows of one window in a ring. Maps
that exist before the segment are read where they lie. The output may be written over one of them where every row is
written after the last read of what lay there; ``lead`` finds by how many bytes it must start earlier for that, by
walking through all rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MatrixNumerics
from projgen.ir.types import TensorType
from projgen.schedule.records import ALIGN, Call, Ring, Stage

SOURCES = 2  # maps that a segment reads, at most


def regions(graph: Graph, calls: Sequence[Call], longest: int) -> list[tuple[Call, ...]]:
    """Groups of two or more convolutions that can run as one segment, in execution order.

    One of them is read outside; every other is read by one more of the group alone. A region grows backwards from its
    last node, so regions with the same last node contain each other; the largest has no limit, others have up to
    ``longest`` nodes.
    """
    found: list[tuple[Call, ...]] = []
    for call in calls:
        nested = list(grown(graph, calls, call))
        found += [r for r in nested if len(r) <= longest or r is nested[-1]]
    return found


def grown(graph: Graph, calls: Sequence[Call], last: Call) -> Iterator[tuple[Call, ...]]:
    """The regions that end with a call, each with one call more than the one before."""
    able = {c.node.output: c for c in calls if _streams(graph, c)}
    order = {c.node.output: i for i, c in enumerate(calls)}
    inside = {last.node.output} & set(able)
    outside = {v for name in inside for v in _maps(graph, able[name].node)}
    while growing := [v for v in outside if v in able and _has_one_reader(graph, v)]:
        taken = max(growing, key=order.__getitem__)
        inside.add(taken)
        outside = (outside | _maps(graph, able[taken].node)) - inside
        if len(outside) <= SOURCES:
            yield tuple(sorted((able[v] for v in inside), key=lambda c: order[c.node.output]))


def _streams(graph: Graph, call: Call) -> bool:
    if not isinstance(call.node.attrs, Conv2d) or not call.choice.row_function:
        return False
    return int(graph.arg(call.node, "x").type.shape[0]) > 1


def _maps(graph: Graph, node: Node) -> set[str]:
    """The activations a node reads."""
    return {value.name for _, value in graph.activations(node)}


def _has_one_reader(graph: Graph, value: str) -> bool:
    """Whether a value is read once, by one node."""
    uses = sum(v == value for n in graph.readers(value) for v in n.inputs.values())
    return uses == 1 and not graph.is_output(value)


def row_bytes(t: TensorType) -> int:
    """Bytes of one row of a map (H, W, C)."""
    return math.prod(t.step_shape[1:]) * t.dtype.bytes


def stages(graph: Graph, calls: Sequence[Call]) -> tuple[Stage, ...]:
    """How each call of a region is fed: by a ring of just enough rows, or by a whole map."""
    producers = {c.node.output: i for i, c in enumerate(calls)}
    made: list[Stage] = []
    for call in calls:
        window = _window(graph, call, producers)
        residual = _residual(graph, call, producers) if "residual" in call.node.inputs else None
        made.append(Stage(window, residual, call.choice.rows))
    depths = _depths(made, int(graph.type(calls[-1].node.output).shape[0]))

    def with_memory(ring: Ring, consumer: int) -> Ring:
        return replace(ring, depth=depths.get((consumer, ring.value), 0))

    return tuple(
        Stage(with_memory(s.window, i), None if s.residual is None else with_memory(s.residual, i), s.rows)
        for i, s in enumerate(made)
    )


def _window(graph: Graph, call: Call, producers: dict[str, int]) -> Ring:
    node, rows = call.node, call.choice.rows
    attrs, numerics = node.attrs, node.numerics
    if not (isinstance(attrs, Conv2d) and isinstance(numerics, MatrixNumerics)):
        raise TypeError(f"node {node.name!r} can't be streamed")
    x = graph.arg(node, "x").type
    top, step = attrs.padding[0], attrs.stride[0]
    kernel = int(graph.data(node, "w").shape[1])
    in_h, out_h = int(x.shape[0]), int(graph.type(node.output).shape[0])
    if out_h % rows or (rows > 1 and attrs.dilation[0] > 1):
        raise ValueError(f"kernel {call.choice.kernel} can't compute {rows} rows of {node.name!r} at a time")
    span = (kernel - 1) * attrs.dilation[0] + 1 + (rows - 1) * step
    # Rows read below the map: fewer than the padding where the stride skips the last of them.
    bottom = max(0, (out_h - rows) * step - top + span - in_h)
    ring = _ring(node.inputs["x"], x, producers)
    return replace(
        ring,
        kernel=kernel + (rows - 1) * step,
        step=step,
        dilation=attrs.dilation[0],
        pad_top=top,
        pad_bottom=bottom,
        pad_value=numerics.input_zero_point,
        lag=max(0, span - 1 - top),
    )


def _residual(graph: Graph, call: Call, producers: dict[str, int]) -> Ring:
    ring = _ring(call.node.inputs["residual"], graph.arg(call.node, "residual").type, producers)
    return replace(ring, kernel=call.choice.rows, lag=call.choice.rows - 1)


def _ring(value: str, t: TensorType, producers: dict[str, int]) -> Ring:
    """Rows read one by one; calls that write or read several at once need them without gaps."""
    width = row_bytes(t)
    return Ring(value, producers.get(value, -1), int(t.shape[0]), width, t.dtype.bytes, 0, width, 1, 1, 1, 0, 0, 0, 0)


def _depths(made: Sequence[Stage], out_height: int) -> dict[tuple[int, str], int]:
    """Rows that the ring in front of a stage must hold, by stage and value."""
    rows = [0] * len(made)
    depths: dict[tuple[int, str], int] = {}
    for stage, row in ticks(made, out_height):
        for ring in made[stage].feeds:
            inside = [r for r in ring.reads(row) if 0 <= r < ring.height]
            if ring.producer < 0 or not inside:
                continue
            unit = made[ring.producer].rows
            if ring is made[stage].residual:
                unit = math.lcm(unit, made[stage].rows)
            held = -(-(rows[ring.producer] - min(inside)) // unit) * unit
            key = (stage, ring.value)
            depths[key] = max(depths.get(key, 1), min(held, ring.height))
        rows[stage] += made[stage].rows
    return depths


def ticks(made: Sequence[Stage], out_height: int) -> Iterator[tuple[int, int]]:
    """(stage, first output row) of every call, in execution order."""
    rows = [0] * len(made)  # that exist of each stage's output

    def pull(stage: int, wanted: int) -> Iterator[tuple[int, int]]:
        while rows[stage] < wanted:
            for ring in made[stage].feeds:
                if ring.producer >= 0:
                    yield from pull(ring.producer, ring.needed(rows[stage]))
            yield stage, rows[stage]
            rows[stage] += made[stage].rows

    yield from pull(len(made) - 1, out_height)


def lead(made: Sequence[Stage], value: str, out_height: int, out_row_bytes: int, *, over_residual: bool) -> int:
    """Bytes by which the output must start before the map ``value`` so that it may be written over it.

    Args:
        over_residual: whether the last call may write its rows over the residual's.

    Returns:
        0 or more, a multiple of the alignment of buffers. 0: both start at the same address.
    """
    last = len(made) - 1
    after, within, unread = 0, 0, math.inf  # unread: the first byte of the map that is still read later
    for stage, row in reversed(list(ticks(made, out_height))):
        rings = [r for r in made[stage].feeds if r.value == value and r.producer < 0]
        begins = min((_first(r, row) for r in rings), default=math.inf)
        if stage == last:
            end = (row + made[last].rows) * out_row_bytes
            after = max(after, math.ceil(end - unread) if unread < math.inf else 0)
            within = max(within, math.ceil(end - begins) if begins < math.inf else 0)
        unread = min(unread, begins)
    residual = made[last].residual
    same = over_residual and residual is not None and residual.value == value != made[last].window.value
    if same and after == 0:
        return 0
    return -(-max(after, within) // ALIGN) * ALIGN


def _first(ring: Ring, row: int) -> float:
    """The first byte of the map that a call reads."""
    inside = [r for r in ring.reads(row) if 0 <= r < ring.height]
    return min(inside) * ring.row_bytes if inside else math.inf
