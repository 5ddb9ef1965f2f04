"""Parts of a Concat along the channels are computed between each other's pixels, where their kernels can do that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_integer
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.interpret import run_scheduled
from projgen.schedule.lower import Overrides, lower
from projgen.schedule.order import ordered
from projgen.schedule.plan import plan
from projgen.schedule.printer import print_schedule
from projgen.schedule.records import Kind, Lowered, Schedule, View
from projgen.schedule.verify import ScheduleError, verify
from projgen.targets import load_target
from tests.schedule.nets import Branch, branches, draw, equal, wide_branches

CORES = ("host", "cortex-m0", "cortex-m4", "cortex-m55")
HOST = load_target("host")


def copied(made: Schedule) -> list[tuple[str, ...]]:
    """What each remaining copy of a Concat moves."""
    return [s.inputs for s in made.segments for c in s.calls if c.node.op == "concat"]


def check(graph: Graph, made: Schedule) -> None:
    inputs = draw(graph)
    meant = run_integer(graph, inputs)
    assert all(equal(run_scheduled(made, inputs, fill), meant) for fill in (0, 0x5A))


@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
def test_branches_are_written_between_each_other(target: str) -> None:
    graph = branches(8, 8, 8, [("1x1", 8), ("3x3", 16), ("reduced", 4, 8)])
    made = schedule(graph, load_target(target), CompileOptions(), Overrides())
    assert copied(made) == []
    assert [made.lowered.views[v] for v in ("v1", "v2", "v4")] == [View("v5", at, 32) for at in (0, 8, 24)]
    assert made.plan["v5"].first == min(s.index for s in made.segments if s.output in ("v1", "v2", "v4"))
    assert made.plan["v5"].bytes == 8 * 8 * 32
    assert all(b.name not in ("v1", "v2", "v4") for b in made.plan.buffers)
    check(graph, made)
    apart = schedule(graph, load_target(target), CompileOptions(), Overrides(joined=False))
    assert len(copied(apart)) == 1
    assert made.instructions < apart.instructions
    assert made.plan.with_input_bytes < apart.plan.with_input_bytes


def test_a_concat_of_concats_and_one_that_is_the_output() -> None:
    graph = branches(5, 7, 4, [("1x1", 3), [("3x3", 5), [("depthwise",), ("1x1", 2)]]], tail=False)
    made = schedule(graph, HOST, CompileOptions())
    assert copied(made) == []
    places = {v: made.place(v) for v in ("v1", "v2", "v3", "v4")}
    assert {v: (p.base, p.offset) for v, p in places.items()} == {
        "v1": ("output", 0),
        "v2": ("output", 3),
        "v3": ("output", 8),
        "v4": ("output", 12),
    }
    assert {made.lowered.views[v].pitch for v in places} == {14}
    check(graph, made)


@pytest.mark.parametrize("target", CORES)
def test_what_has_no_place_there_is_copied_alone(target: str) -> None:
    """The input, a constant, a map that something else reads, and what a kernel can't write so."""
    parts: list[Branch] = [("1x1", 4), ("input",), ("3x3", 5), ("constant", 2), ("table",)]
    graph = branches(6, 5, 4, parts, tap=True)
    made = schedule(graph, load_target(target), CompileOptions(kernels="portable"), Overrides())
    assert copied(made) == [("v1", "in0", "v3")]
    assert [s.held for s in made.segments if s.held] == [("v2",)]
    check(graph, made)
    fast = schedule(graph, load_target(target), CompileOptions(), Overrides())
    check(graph, fast)


def test_an_inner_concat_with_a_copy_of_its_own_stays_in_place() -> None:
    graph = branches(6, 6, 4, [("1x1", 3), [("input",), ("3x3", 5)]])
    made = schedule(graph, HOST, CompileOptions(), Overrides())
    assert copied(made) == [("in0",)]
    (inner,) = (c.choice for s in made.segments for c in s.calls if c.node.op == "concat")
    assert (inner.pitch, inner.fields["block"]) == (12, 12)
    check(graph, made)


@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
def test_a_streamed_branch_ends_between_the_others(target: str) -> None:
    graph = branches(12, 12, 8, [("1x1", 4), ("reduced", 40, 4)])
    first = lower(graph, load_target(target), CompileOptions())
    names = next(
        (a.name, b.name)
        for a, b in ((c.node, graph.producer(c.node.inputs["x"])) for s in first.segments for c in s.calls)
        if b is not None and a.op == b.op == "conv2d"
    )
    region = tuple(reversed(names))
    made = schedule(graph, load_target(target), CompileOptions(), Overrides(streamed=frozenset({region})))
    (rows,) = (s for s in made.segments if s.kind is Kind.ROWS)
    assert [c.choice.pitch for c in rows.calls] == [0, 8]
    assert copied(made) == []
    check(graph, made)


def test_less_ram_may_need_the_copy() -> None:
    """In its place the first part keeps the room of the second while that one's wide maps are there."""
    graph = wide_branches()
    made = [schedule(graph, HOST, CompileOptions(), Overrides(joined=j)) for j in (True, False)]
    smallest = min(m.plan.with_input_bytes for m in made)
    assert made[1].plan.with_input_bytes == smallest < made[0].plan.with_input_bytes
    chosen = schedule(graph, HOST, CompileOptions(optimise="ram"))
    assert chosen.plan.with_input_bytes <= smallest
    check(graph, chosen)


SIMPLE = st.one_of(
    st.tuples(st.sampled_from(["1x1", "3x3", "strip", "constant"]), st.integers(1, 9)),
    st.tuples(st.just("reduced"), st.integers(1, 6), st.integers(1, 9)),
    st.sampled_from([("input",), ("table",), ("depthwise",)]),
)
PARTS = st.lists(st.one_of(SIMPLE, st.lists(SIMPLE, min_size=2, max_size=3)), min_size=2, max_size=3)


@given(PARTS, st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans(), st.data())
@settings(deadline=None, max_examples=40)
def test_random_branches(
    parts: list[Branch], h: int, w: int, c: int, tap: bool, tail: bool, data: st.DataObject
) -> None:
    if isinstance(parts[0], list) or parts[0][0] in ("constant", "input"):
        parts = [("1x1", 3), *parts]
    graph = branches(h, w, c, parts, tap=tap, tail=tail)
    target = load_target(data.draw(st.sampled_from(CORES)))
    made = schedule(graph, target, CompileOptions(optimise=data.draw(st.sampled_from(["speed", "ram", "flash"]))))
    check(graph, made)
    joined = schedule(graph, target, CompileOptions(), Overrides())
    check(graph, joined)
    assert joined.plan.arena_bytes >= joined.plan.lower_bound
    for values in copied(joined):  # what is made for a concat alone by a kernel that can is never moved
        for value in values:
            maker = next((c for s in joined.segments for c in s.calls if c.node.output == value), None)
            alone = len(graph.readers(value)) == 1 and not graph.is_output(value)
            assert maker is None or not alone or maker.choice.pitched(4096 // 3 // 2 * 2) is None or h * w == 1


def _lowered() -> Lowered:
    return ordered(lower(branches(6, 5, 4, [("1x1", 4), ("3x3", 5), ("table",)]), HOST, CompileOptions()))


@pytest.mark.parametrize(
    ("value", "place", "message"),
    [
        ("v2", View("v4", 3, 13), "written twice"),
        ("v2", View("v4", 4, 12), "written twice"),
        ("v2", View("v4", 4), "written twice"),
        ("v2", View("v4", 4, 5), "overlap or lie side by side"),
        ("v2", View("v4", 8, 13), "leaves out parts that are not in their places"),
        ("v2", View("v4", 4, 26), "leaves the buffer"),
        ("v0", View("v0", 0, 13), "leaves the buffer"),
    ],
)
def test_the_verifier_sees_parts_in_wrong_places(value: str, place: View, message: str) -> None:
    lowered = _lowered()
    moved = replace(lowered, views={**lowered.views, value: place})
    with pytest.raises(ScheduleError, match=message):
        verify(Schedule(moved, plan(moved)))


def test_the_verifier_sees_kernels_that_write_otherwise() -> None:
    """A part's kernel that writes its pixels side by side, and a reader of pixels that lie apart."""
    lowered = _lowered()

    def with_pitch(index: int, pitch: int) -> Lowered:
        segment = lowered.segments[index]
        call = replace(segment.calls[0], choice=replace(segment.calls[0].choice, pitch=pitch))
        segments = list(lowered.segments)
        segments[index] = replace(segment, calls=(call,))
        return replace(lowered, segments=tuple(segments))

    part = next(s.index for s in lowered.segments if s.output == "v2")
    for broken in (with_pitch(part, 0), with_pitch(part, 26), with_pitch(0, 13)):
        with pytest.raises(ScheduleError, match="bytes apart to"):
            verify(Schedule(broken, plan(broken)))
    graph = branches(6, 5, 4, [("1x1", 4), ("3x3", 5)], tap=True)
    made = lower(graph, HOST, CompileOptions())
    apart = replace(made, views={**made.views, "v1": View("v3", 0, 9)})
    with pytest.raises(ScheduleError, match=r"whose pixels lie apart|bytes apart to|written twice|run exactly once"):
        verify(Schedule(apart, plan(apart)))


def test_the_interpreter_writes_as_the_kernel_does() -> None:
    """A kernel with another pitch than its place has changes the outputs."""
    graph = branches(6, 5, 4, [("1x1", 4), ("3x3", 5)])
    made = schedule(graph, HOST, CompileOptions(), Overrides())
    at = next(s.index for s in made.segments if s.output == "v2")
    segment = made.segments[at]
    call = replace(segment.calls[0], choice=replace(segment.calls[0].choice, pitch=0))
    segments = (*made.segments[:at], replace(segment, calls=(call,)), *made.segments[at + 1 :])
    broken = replace(made, lowered=replace(made.lowered, segments=segments))
    inputs = draw(graph)
    assert not equal(run_scheduled(broken, inputs), run_integer(graph, inputs))


def test_a_printed_place_tells_the_pitch() -> None:
    text = print_schedule(schedule(branches(6, 5, 4, [("1x1", 4), ("3x3", 5)]), HOST, CompileOptions(), Overrides()))
    assert "v2@arena+" in text and " every 9\n" in text
