"""Row-streamed segments: rings, pad rows, lag, in place where proven; the same bytes as the unsegmented schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_integer
from projgen.kernels.record import KernelChoice
from projgen.options import CompileOptions
from projgen.schedule import Schedule, schedule, stream
from projgen.schedule.choose import candidates, cost
from projgen.schedule.interpret import run_scheduled
from projgen.schedule.lower import Overrides
from projgen.schedule.records import Kind, Ring, Segment, Stage
from projgen.schedule.verify import ScheduleError, verify
from projgen.targets import load_target
from tests.schedule.nets import Net, depthwise_pointwise, draw, equal, residual_block, sample_lut

HOST = load_target("host")


def by_rows(graph: Graph, target: str = "host") -> dict[str, KernelChoice]:
    """The quickest kernel of every convolution that works row by row."""
    found = {}
    for node in graph.nodes:
        if node.op.startswith("conv2d"):
            able = [c for c in candidates(graph, node, load_target(target), "fast") if c.row_function]
            found[node.name] = min(able, key=lambda c: cost(c, "speed", by_rows=True))
    return found


def streamed(graph: Graph, target: str = "host") -> tuple[Schedule, Segment]:
    """All convolutions of a graph as one segment."""
    kernels = by_rows(graph, target)
    overrides = Overrides(kernels, frozenset({tuple(kernels)}))
    made = schedule(graph, load_target(target), CompileOptions(), overrides)
    return made, next(s for s in made.segments if s.kind is Kind.ROWS)


def test_depthwise_pointwise_streams_in_place() -> None:
    graph = depthwise_pointwise(9, 7, 8, 8)
    made, segment = streamed(graph)
    window, point = (s.window for s in segment.stages)
    assert (window.depth, window.pad_top, window.pad_bottom, window.lag, window.pad_value) == (0, 1, 1, 1, 4)
    assert (point.depth, point.padded, point.lag, point.producer) == (1, False, 0, 0)
    assert dict(segment.in_place) == {segment.inputs[0]: 64}  # a row of 56 bytes, aligned
    assert (segment.output, segment.inputs[0], 64) in made.plan.overlays
    whole = schedule(graph, HOST, CompileOptions(), Overrides())
    assert made.plan.arena_bytes < whole.plan.arena_bytes
    inputs = draw(graph)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


def test_every_objective_streams_where_it_costs_nothing() -> None:
    graph = depthwise_pointwise(9, 7, 8, 8)
    small = schedule(graph, HOST, CompileOptions(optimise="ram"))
    assert Kind.ROWS in {s.kind for s in small.segments}
    assert small.plan.arena_bytes == streamed(graph)[0].plan.arena_bytes
    fast = schedule(graph, HOST, CompileOptions())
    plain = schedule(graph, HOST, CompileOptions(), Overrides())
    assert fast.plan.with_input_bytes <= plain.plan.with_input_bytes
    assert plain.instructions <= fast.instructions <= 1.03 * plain.instructions


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
    plain = schedule(graph, HOST, CompileOptions(), Overrides())
    assert made.plan.with_input_bytes < min(whole.plan.with_input_bytes, plain.plan.with_input_bytes)
    inputs = draw(graph)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


def test_a_whole_map_is_read_where_it_lies() -> None:
    made, segment = streamed(depthwise_pointwise(6, 5, 4, 8, before=False))
    assert segment.stages[0].window.depth == 0 and segment.stages[0].window.padded
    assert made.plan.overlays == frozenset()  # the output is the caller's


def test_a_growing_output_starts_as_many_bytes_earlier() -> None:
    """12 channels from 4: row r may be written once row r + 1 of the input has been read."""
    made, segment = streamed(depthwise_pointwise(6, 5, 4, 12))
    (lead,) = segment.in_place.values()
    assert lead == 5 * 60 - 4 * 20 + 4  # before the last row but one is read for the last time; aligned
    new, old = made.plan[segment.output], made.plan[segment.inputs[0]]
    assert old.offset - new.offset == lead
    assert max(new.end, old.end) < new.offset + new.bytes + old.bytes


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
    middle = next(n for n in graph.nodes if n.op == "conv2d").output
    assume(int(graph.type(middle).shape[0]) > 1)  # one row: nothing to stream
    made, _ = streamed(graph)
    inputs = draw(graph, batch=1, seed=h * w)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


@settings(deadline=None, max_examples=40)
@given(
    h=st.integers(4, 12),
    w=st.integers(3, 13),
    c=st.integers(1, 9),
    out=st.integers(1, 9),
    stride=st.integers(1, 2),
    before=st.booleans(),
    target=st.sampled_from(["host", "cortex-m4", "cortex-m55"]),
)
def test_residual_blocks_of_any_shape_give_the_same_bytes(
    h: int, w: int, c: int, out: int, stride: int, before: bool, target: str
) -> None:
    graph = residual_block(h, w, c, out, stride=stride, before=before)
    made, segment = streamed(graph, target)
    assert len(segment.calls) == (2 if stride == 1 and c == out else 3)
    inputs = draw(graph, batch=1, seed=h * w)
    for fill in (0xA5, 0x3C):
        assert equal(run_scheduled(made, inputs, fill), run_integer(graph, inputs))


def test_a_residual_block_is_written_over_its_input() -> None:
    """With two rows at a time: the block's map, the rings and a pad row are all there is."""
    made, segment = streamed(residual_block(16, 16, 16, 16), "cortex-m4")
    first, second = segment.stages
    assert [s.rows for s in segment.stages] == [2, 2]
    assert first.window.depth == 0 and first.window.kernel == 4
    assert (second.window.depth, second.window.producer) == (6, 0)
    assert second.residual is not None and (second.residual.depth, second.residual.producer) == (0, -1)
    assert dict(segment.in_place) == {segment.inputs[0]: 0}
    assert made.plan.arena_bytes == 16 * 16 * 16 + (6 + 1) * 256 + segment.scratch_bytes


def test_a_shortcut_streams_beside_its_branch() -> None:
    made, segment = streamed(residual_block(16, 16, 8, 16, stride=2), "cortex-m4")
    assert [c.node.op for c in segment.calls] == ["conv2d", "conv2d", "conv2d_residual"]
    branch, side = segment.rings
    assert (branch.value, side.value) == tuple(segment.calls[2].node.inputs[r] for r in ("x", "residual"))
    assert (branch.depth, side.depth) == ({1: 4, 2: 6}[segment.stages[0].rows], max(2, segment.stages[1].rows))
    assert made.plan.overlays


def test_three_stages_stream() -> None:
    net = Net("three")
    x = net.input((8, 6, 4), perm=(1, 2, 0))
    x = net.apply(sample_lut(net, x), x)
    y = net.conv(x, 6, (1, 1))
    y = net.conv(y, 6, (3, 3), Conv2d((2, 2), (0, 1, 0, 1), (1, 1), 6))
    y = net.conv(y, 4, (2, 3), Conv2d((1, 1), (1, 0, 1, 1)))
    graph = net.graph(net.apply(sample_lut(net, y), y))
    made, segment = streamed(graph)
    assert [r.depth for r in segment.rings] == [3, 2]
    inputs = draw(graph)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


def test_regions_have_one_way_out() -> None:
    """A map that is read twice, or that is an output, ends a region."""
    graph = residual_block(6, 6, 4, 4)
    made = streamed(graph)[0]
    calls = [c for s in made.segments for c in s.calls if c.node.op.startswith("conv2d")]
    names = {tuple(c.node.name for c in r) for r in stream.regions(graph, calls, 6)}
    assert names == {tuple(c.node.name for c in calls)}
    branch = calls[0].node.output
    tapped = replace(graph, outputs=(*graph.outputs, replace(graph.outputs[0], value=branch, name="tap")))
    assert stream.regions(tapped, calls, 6) == []


def changed(made: Schedule, segment: Segment, change: Callable[[Stage], Stage], stage: int = 0) -> Schedule:
    """The schedule with one stage of a segment changed."""
    stages = tuple(change(s) if i == stage else s for i, s in enumerate(segment.stages))
    segments = tuple(replace(s, stages=stages) if s is segment else s for s in made.segments)
    return replace(made, lowered=replace(made.lowered, segments=segments))


def window(**fields: int) -> Callable[[Stage], Stage]:
    def change(s: Stage) -> Stage:
        ring: Ring = replace(s.window, **fields)
        return replace(s, window=ring)

    return change


def test_the_verifier_rejects_a_ring_that_is_too_short() -> None:
    made, segment = streamed(residual_block(9, 7, 8, 8))
    with pytest.raises(ScheduleError, match="is not in its ring of 2"):
        verify(changed(made, segment, window(depth=2), stage=1))


def test_the_verifier_rejects_rows_that_do_not_lie_side_by_side() -> None:
    made, segment = streamed(residual_block(16, 16, 16, 16), "cortex-m4")
    with pytest.raises(ScheduleError, match="are split where a call needs 2 side by side"):
        verify(changed(made, segment, window(depth=7), stage=1))
    with pytest.raises(ScheduleError, match="are split where a call needs 2 side by side"):
        verify(changed(made, segment, window(stride=260), stage=1))


def test_the_verifier_rejects_missing_pad_rows() -> None:
    made, segment = streamed(depthwise_pointwise())
    with pytest.raises(ScheduleError, match="read without padding"):
        verify(changed(made, segment, window(pad_bottom=0, pad_top=0)))


def test_the_verifier_rejects_stages_out_of_order() -> None:
    made, segment = streamed(depthwise_pointwise())
    with pytest.raises(ScheduleError, match="reads what stage 1 makes"):
        verify(changed(made, segment, window(producer=1), stage=1))


@pytest.mark.parametrize("graph", [depthwise_pointwise(9, 7, 8, 8), residual_block(10, 6, 4, 8, stride=2)])
def test_the_verifier_finds_rows_overwritten_too_early(graph: Graph) -> None:
    """The same plan with the output a little closer to the map it is written over."""
    made, segment = streamed(graph)
    ((value, lead),) = segment.in_place.items()
    for closer in range(0, lead, 16):
        allowed = replace(segment, in_place={value: closer})
        segments = tuple(allowed if s is segment else s for s in made.segments)
        plan = replace(made.plan, overlays=frozenset({(segment.output, value, closer)}))
        buffers = tuple(
            replace(b, offset=b.offset - lead + closer) if b.name == value else b for b in made.plan.buffers
        )
        nearer = replace(made, lowered=replace(made.lowered, segments=segments), plan=replace(plan, buffers=buffers))
        with pytest.raises(ScheduleError, match=r"which it still needs|share bytes"):
            verify(nearer)


def test_the_lead_walks_every_row() -> None:
    _, segment = streamed(depthwise_pointwise(9, 7, 8, 8))
    value = segment.inputs[0]
    assert stream.lead(segment.stages, value, 9, 56, over_residual=False) == 64
    assert stream.lead(segment.stages, value, 9, 28, over_residual=False) == 32  # only the first row is in the way
    assert stream.lead(segment.stages, value, 9, 112, over_residual=False) == 8 * 112 - 7 * 56 + 8
    _, block = streamed(residual_block(8, 8, 4, 4))
    value = block.inputs[0]
    assert stream.lead(block.stages, value, 8, 32, over_residual=True) == 0
    assert stream.lead(block.stages, value, 8, 32, over_residual=False) == 32


def test_a_region_that_does_not_exist_is_a_fault() -> None:
    for names in (("conv2d1", "nowhere"), ("conv2d2", "conv2d1"), ("conv2d1",)):
        with pytest.raises(ValueError, match="are no region that can be streamed"):
            schedule(depthwise_pointwise(), HOST, CompileOptions(), Overrides(streamed=frozenset({names})))
