"""The arena planner: no overlap, never below the bound, and the plans of known graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.plan import Demand, _attempts, _overlay_choices, align, lower_bound
from projgen.schedule.records import ALIGN, ArenaPlan, Buffer, Overlay
from projgen.schedule.verify import ScheduleError, check_memory
from projgen.targets import load_target
from tests.schedule.nets import Net, depthwise_pointwise, residual, sample_lut

HOST = load_target("host")


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    """Random buffers with lifetimes, some of which may be written in place over a dying one."""
    count = draw(st.integers(1, 12))
    buffers: list[Buffer] = []
    overlays: set[Overlay] = set()
    for i in range(count):
        first = draw(st.integers(0, 10))
        last = first + draw(st.integers(0, 5))
        role = "input" if i == 0 and draw(st.booleans()) else "value"
        buffers.append(Buffer(f"b{i}", role, draw(st.integers(1, 300)), first, last))
        dying = [b for b in buffers[:-1] if b.last == first and b.first < first]
        if dying and draw(st.booleans()):
            overlays.add((f"b{i}", draw(st.sampled_from(dying)).name, ALIGN * draw(st.integers(0, 3))))
    return Demand(tuple(buffers), frozenset(overlays))


@settings(deadline=None, max_examples=150)
@given(demands())
def test_no_two_live_buffers_share_a_byte(demanded: Demand) -> None:
    bound = lower_bound(demanded)
    for overlays in _overlay_choices(demanded):
        for placed in _attempts(Demand(demanded.buffers, overlays)):
            inside = tuple(b for b in placed if b.role != "input")
            arena = max((b.end for b in inside), default=0)
            top = max(b.end for b in placed)
            inputs = tuple(b for b in placed if b.role == "input")
            check_memory(ArenaPlan(inside, inputs, overlays, arena, top, bound, {}, None, 0))
            occupied: dict[tuple[int, int], list[Buffer]] = {}
            for b in placed:  # the same, byte by byte and segment by segment, without the planner's own rules
                for now in range(b.first, b.last + 1):
                    for byte in range(b.offset, b.end, ALIGN):
                        occupied.setdefault((now, byte), []).append(b)
            for (now, _), owners in occupied.items():
                for i, a in enumerate(owners):
                    for b in owners[i + 1 :]:
                        handed_over = (a.name, b.name, b.offset - a.offset) in overlays
                        handed_over |= (b.name, a.name, a.offset - b.offset) in overlays
                        assert handed_over and now in (a.first, b.first)


@settings(deadline=None, max_examples=100)
@given(demands())
def test_the_bound_is_what_is_live_at_once(demanded: Demand) -> None:
    """Without overlays the bound is the largest sum of live bytes, up to the slack of alignment."""
    plain = Demand(demanded.buffers, frozenset())
    sums = [sum(b.bytes for b in plain.buffers if b.role != "input" and b.first <= now <= b.last) for now in range(20)]
    rounded = [
        sum(align(b.bytes) for b in plain.buffers if b.role != "input" and b.first <= now <= b.last)
        for now in range(20)
    ]
    assert max(sums) <= lower_bound(plain) <= max(rounded)
    assert lower_bound(demanded) <= lower_bound(plain)


@pytest.mark.parametrize(
    "graph", [residual(), residual(tap=False), depthwise_pointwise(), depthwise_pointwise(12, 5, 4, 9)]
)
def test_small_nets_reach_the_bound(graph) -> None:  # type: ignore[no-untyped-def]
    plan = schedule(graph, HOST, CompileOptions()).plan
    assert plan.arena_bytes == plan.lower_bound
    assert plan.arena_bytes <= plan.with_input_bytes <= align(plan.arena_bytes) + sum(b.bytes for b in plan.inputs)


def test_a_chain_of_in_place_operators_needs_one_map() -> None:
    net = Net("tables")
    x = net.input((100,))
    for _ in range(4):
        x = net.apply(sample_lut(net, x), x)
    plan = schedule(net.graph(x), HOST, CompileOptions()).plan
    assert plan.arena_bytes == 100  # read from the caller's pointer, written to the caller's pointer
    assert plan.inputs[0].offset == 0  # the first table may be applied over the input
    assert plan.with_input_bytes == 100


def test_one_operator_needs_no_arena() -> None:
    net = Net("one")
    x = net.input((10,))
    plan = schedule(net.graph(net.linear(x, 4)), HOST, CompileOptions()).plan
    assert (plan.arena_bytes, plan.with_input_bytes, plan.inputs[0].offset) == (0, 10, 0)


def test_the_verifier_finds_shared_bytes() -> None:
    plan = schedule(residual(tap=False), HOST, CompileOptions()).plan
    check_memory(plan)
    first, second = plan.buffers[0], next(b for b in plan.buffers[1:] if b.first <= plan.buffers[0].last)
    moved = replace(plan, buffers=(first, replace(second, offset=first.offset)))
    with pytest.raises(ScheduleError, match="live at the same time and share bytes"):
        check_memory(moved)
    with pytest.raises(ScheduleError, match=f"buffer '{first.name}' at 8"):
        check_memory(replace(plan, buffers=(replace(first, offset=8),)))
    with pytest.raises(ScheduleError, match="below the bound"):
        check_memory(replace(plan, lower_bound=plan.arena_bytes + 1))
