"""Row-streamed segments: chains of convolutions whose middle maps never exist as a whole.

Each stage pulls the rows it needs from the one before, which keeps only the rows of one window in a ring. The
segment may write its output over its input map where every row is written after the last read of what lay there;
``overlay_is_safe`` decides that by walking through all rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MatrixNumerics
from projgen.schedule.records import Call, Ring


def chains(graph: Graph, calls: Sequence[Call]) -> list[tuple[Call, ...]]:
    """The longest chains of two or more convolutions that can stream: each map between them has one reader."""
    found: list[tuple[Call, ...]] = []
    by_input = {c.node.inputs["x"]: c for c in calls if _streams(graph, c)}
    inner = {
        c.node.output: by_input[c.node.output]
        for c in by_input.values()
        if c.node.output in by_input and len(graph.readers(c.node.output)) == 1 and not graph.is_output(c.node.output)
    }
    followers = {id(c) for c in inner.values()}
    for call in calls:
        if id(call) in followers or call.node.output not in inner:
            continue
        chain = [call]
        while chain[-1].node.output in inner:
            chain.append(inner[chain[-1].node.output])
        found.append(tuple(chain))
    return found


def _streams(graph: Graph, call: Call) -> bool:
    if not isinstance(call.node.attrs, Conv2d) or not call.choice.row_function:
        return False
    return int(graph.arg(call.node, "x").type.shape[0]) > 1


def row_bytes(graph: Graph, value: str) -> int:
    """Bytes of one row of a map (H, W, C)."""
    t = graph.type(value)
    return math.prod(t.step_shape[1:]) * t.dtype.bytes


def rings(graph: Graph, nodes: Sequence[Node], *, copy_input: bool) -> tuple[Ring, ...]:
    """The ring in front of each stage; the first reads the map itself unless ``copy_input``."""
    made: list[Ring] = []
    for stage, node in enumerate(nodes):
        attrs, numerics = node.attrs, node.numerics
        if not (isinstance(attrs, Conv2d) and isinstance(numerics, MatrixNumerics)):
            raise TypeError(f"node {node.name!r} can't be streamed")
        top = attrs.padding[0]
        kernel = int(graph.data(node, "w").shape[1])
        width = row_bytes(graph, node.inputs["x"])
        in_h, out_h = int(graph.arg(node, "x").type.shape[0]), int(graph.type(node.output).shape[0])
        span = (kernel - 1) * attrs.dilation[0] + 1
        # Rows read below the map: fewer than the padding where the stride skips the last of them.
        bottom = max(0, (out_h - 1) * attrs.stride[0] - top + span - in_h)
        made.append(
            Ring(
                value=node.inputs["x"],
                height=in_h,
                row_bytes=width,
                depth=span if stage or copy_input else 0,
                stride=-(-width // 4) * 4,
                kernel=kernel,
                step=attrs.stride[0],
                dilation=attrs.dilation[0],
                pad_top=top,
                pad_bottom=bottom,
                pad_value=numerics.input_zero_point,
                lag=max(0, span - 1 - top),
            )
        )
    return tuple(made)


def ticks(stages: Sequence[Ring], out_height: int) -> Iterator[tuple[int, int]]:
    """(stage, row) of every row computed, in execution order; stage -1 copies a row of the input into its ring."""
    made = [0] * (len(stages) + 1)  # rows that exist in front of each stage; the last entry: output rows

    def pull(stage: int, rows: int) -> Iterator[tuple[int, int]]:
        while made[stage] < rows:
            if stage:
                yield from pull(stage - 1, stages[stage - 1].needed(made[stage]))
            if stage or stages[0].depth:
                yield stage - 1, made[stage]
            made[stage] += 1

    yield from pull(len(stages), out_height)


def overlay_is_safe(stages: Sequence[Ring], out_height: int, out_row_bytes: int) -> bool:
    """Whether the output rows may be written over the input map, both starting at the same address."""
    source = stages[0]
    if not source.depth:
        return False
    copied = 0
    for stage, row in ticks(stages, out_height):
        if stage == -1:
            copied = row + 1
        elif stage == len(stages) - 1:
            unread = source.height * source.row_bytes if copied == source.height else copied * source.row_bytes
            if copied < source.height and (row + 1) * out_row_bytes > unread:
                return False
    return True
