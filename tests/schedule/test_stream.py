"""Row-streamed segments: rings, pad rows, lag, in place where proven; the same bytes as the unsegmented schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_integer
from projgen.options import CompileOptions
from projgen.schedule import Schedule, schedule, stream
from projgen.schedule.interpret import run_scheduled
from projgen.schedule.lower import Overrides
from projgen.schedule.records import Kind, Ring, Segment
from projgen.schedule.verify import ScheduleError, verify
from projgen.targets import load_target
from tests.schedule.nets import Net, depthwise_pointwise, draw, equal, sample_lut

HOST = load_target("host")


def streamed(graph: Graph) -> tuple[Schedule, Segment]:
    chain = tuple(n.name for n in graph.nodes if n.op.startswith("conv2d"))
    made = schedule(graph, HOST, CompileOptions(), Overrides(streamed=frozenset({chain})))
    return made, next(s for s in made.segments if s.kind is Kind.ROWS)


def test_depthwise_pointwise_streams_in_place() -> None:
    graph = depthwise_pointwise(9, 7, 8, 8)
    made, segment = streamed(graph)
    window, point = segment.rings
    assert (window.depth, window.pad_top, window.pad_bottom, window.lag, window.pad_value) == (3, 1, 1, 1, 4)
    assert (point.depth, point.padded, point.lag) == (1, False, 0)
    assert (segment.output, segment.inputs[0]) in made.plan.overlays
    whole = schedule(graph, HOST, CompileOptions())
    assert made.plan.arena_bytes < whole.plan.arena_bytes
    inputs = draw(graph)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


def test_ram_streams_by_itself_and_speed_does_not() -> None:
    graph = depthwise_pointwise(9, 7, 8, 8)
    small = schedule(graph, HOST, CompileOptions(optimise="ram"))
    assert Kind.ROWS in {s.kind for s in small.segments}
    assert Kind.ROWS not in {s.kind for s in schedule(graph, HOST, CompileOptions()).segments}
    assert small.plan.arena_bytes == streamed(graph)[0].plan.arena_bytes


def test_part_of_a_chain_streams_where_that_needs_less() -> None:
    """Large maps first, small ones last: streaming the whole chain would keep the rings of all."""
    net = Net("deep")
    x = net.input((24, 8, 2), perm=(1, 2, 0))
    y = net.conv(x, 12, (3, 3), Conv2d((1, 1), (1, 1, 1, 1)))
    y = net.conv(y, 2, (3, 3), Conv2d((2, 2), (1, 1, 1, 1)))
    for _ in range(4):
        y = net.conv(y, 4, (3, 3), Conv2d((1, 1), (2, 2, 2, 2), (2, 2)))
    graph = net.graph(y)
    made = schedule(graph, HOST, CompileOptions(optimise="ram"))
    sizes = [len(s.calls) for s in made.segments if s.kind is Kind.ROWS]
    assert sizes and max(sizes) < 6
    whole = streamed(graph)[0]
    plain = schedule(graph, HOST, CompileOptions())
    assert made.plan.with_input_bytes < min(whole.plan.with_input_bytes, plain.plan.with_input_bytes)
    inputs = draw(graph)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


def test_the_callers_input_is_read_row_by_row_without_a_copy() -> None:
    made, segment = streamed(depthwise_pointwise(6, 5, 4, 8, before=False))
    assert segment.rings[0].depth == 0 and segment.rings[0].padded
    assert made.plan.overlays == frozenset()


def test_an_output_larger_than_the_input_is_not_written_over_it() -> None:
    _, segment = streamed(depthwise_pointwise(6, 5, 4, 12))
    assert segment.in_place == frozenset()
    assert segment.rings[0].depth == 0


@settings(deadline=None, max_examples=40)
@given(
    h=st.integers(2, 9),
    w=st.integers(1, 6),
    c=st.integers(2, 6),
    out=st.integers(1, 9),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    before=st.booleans(),
)
def test_any_shape_gives_the_same_bytes(
    h: int, w: int, c: int, out: int, stride: int, dilation: int, before: bool
) -> None:
    graph = depthwise_pointwise(h, w, c, out, stride=stride, dilation=dilation, before=before)
    middle = next(n for n in graph.nodes if n.op.startswith("conv2d")).output
    assume(int(graph.type(middle).shape[0]) > 1)  # one row: nothing to stream
    made, _ = streamed(graph)
    inputs = draw(graph, batch=1, seed=h * w)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


def test_three_stages_stream() -> None:
    net = Net("three")
    x = net.input((8, 6, 4), perm=(1, 2, 0))
    x = net.apply(sample_lut(net, x), x)
    y = net.conv(x, 6, (1, 1))
    y = net.conv(y, 6, (3, 3), Conv2d((2, 2), (0, 1, 0, 1), (1, 1), 6))
    y = net.conv(y, 4, (2, 3), Conv2d((1, 1), (1, 0, 1, 1)))
    graph = net.graph(net.apply(sample_lut(net, y), y))
    made, segment = streamed(graph)
    assert [r.depth for r in segment.rings][1:] == [3, 2]
    inputs = draw(graph)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


def with_rings(made: Schedule, segment: Segment, rings: tuple[Ring, ...]) -> Schedule:
    segments = tuple(replace(s, rings=rings) if s is segment else s for s in made.segments)
    return replace(made, lowered=replace(made.lowered, segments=segments))


def test_the_verifier_rejects_a_ring_that_is_too_short() -> None:
    made, segment = streamed(depthwise_pointwise())
    shallow = replace(segment.rings[0], depth=2)
    with pytest.raises(ScheduleError, match="is not in its ring of 2"):
        verify(with_rings(made, segment, (shallow, segment.rings[1])))


def test_the_verifier_rejects_missing_pad_rows() -> None:
    made, segment = streamed(depthwise_pointwise())
    bare = replace(segment.rings[0], pad_bottom=0, pad_top=0)
    with pytest.raises(ScheduleError, match="read without padding"):
        verify(with_rings(made, segment, (bare, segment.rings[1])))


def test_the_overlay_proof_walks_every_row() -> None:
    _, segment = streamed(depthwise_pointwise(9, 7, 8, 8))
    assert stream.overlay_is_safe(segment.rings, 9, 56)
    assert not stream.overlay_is_safe(segment.rings, 9, 57 * 2)
    without_copy = (replace(segment.rings[0], depth=0), segment.rings[1])
    assert not stream.overlay_is_safe(without_copy, 9, 56)


def test_a_chain_that_does_not_exist_is_a_fault() -> None:
    for names in (("conv2d1", "nowhere"), ("conv2d2", "conv2d1"), ("conv2d1",)):
        with pytest.raises(ValueError, match="are no chain that can be streamed"):
            schedule(depthwise_pointwise(), HOST, CompileOptions(), Overrides(streamed=frozenset({names})))
