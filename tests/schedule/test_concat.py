"""Parts of a Concat are computed where they belong, or copied there where something forbids it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.ir.attrs import Reshape, Select
from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_integer
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.interpret import run_scheduled
from projgen.schedule.lower import Overrides, lower
from projgen.schedule.order import ordered
from projgen.schedule.plan import plan
from projgen.schedule.records import Schedule, View
from projgen.schedule.verify import ScheduleError, verify
from projgen.targets import load_target
from tests.schedule.nets import Net, add_of, draw, equal, halves, sample_lut

HOST = load_target("host")


def ops(made: Schedule) -> list[str]:
    return [c.node.op for s in made.segments for c in s.calls]


def check(graph: Graph, made: Schedule) -> None:
    inputs = draw(graph)
    meant = run_integer(graph, inputs)
    assert all(equal(run_scheduled(made, inputs, fill), meant) for fill in (0, 0x5A))


def test_parts_lie_one_after_the_other() -> None:
    graph = halves()
    made = schedule(graph, HOST, CompileOptions(), Overrides())
    assert "concat" not in ops(made)
    size = 5 * 6 * 4
    places = {v: made.lowered.views[v] for v in ("v0", "v1", "v2", "v3", "v4")}
    offsets = {"v0": 0, "v1": size, "v2": 0, "v3": 2 * size, "v4": 0}  # parts, the inner Concat, a part, the outer one
    assert places == {v: View("v4", offset) for v, offset in offsets.items()}
    check(graph, made)
    copied = schedule(graph, HOST, CompileOptions(), Overrides(joined=False))
    assert ops(copied).count("concat") == 2
    check(graph, copied)
    assert made.plan.with_input_bytes < copied.plan.with_input_bytes
    assert made.instructions < copied.instructions


def test_a_concat_that_is_the_output_is_written_there() -> None:
    net = Net("direct")
    x = net.input((12,))
    graph = net.graph(net.concat(0, net.linear(x, 5), net.linear(x, 3)))
    made = schedule(graph, HOST, CompileOptions())
    assert ops(made) == ["linear", "linear"]
    assert [(p.base, p.offset) for p in map(made.place, ("v0", "v1"))] == [("output", 0), ("output", 5)]
    assert made.plan.arena_bytes == 0
    check(graph, made)


def test_channels_of_one_pixel_and_of_a_time_step() -> None:
    net = Net("pixel")
    x = net.input((1, 1, 12), perm=(1, 2, 0))
    y = net.concat(2, net.conv(x, 5, (1, 1)), net.conv(x, 3, (1, 1)))
    steps = Net("steps")
    t = steps.input(("T", 12))
    z = steps.concat(1, steps.linear(t, 5), steps.linear(t, 3))
    for graph in (net.graph(net.apply(sample_lut(net, y), y)), steps.graph(steps.linear(z, 2))):
        made = schedule(graph, HOST, CompileOptions())
        assert "concat" not in ops(made)
        check(graph, made)


def _channels(net: Net, x: str) -> str:
    return net.concat(1, net.linear(x, 4), net.linear(x, 4))


def _constant(net: Net, x: str) -> str:
    y = net.linear(x, 4)
    return net.concat(0, y, net.constant(np.ones((2, 4), np.int8), y))


def _input(net: Net, x: str) -> str:
    return net.concat(0, x, net.linear(x, 6))


def _twice(net: Net, x: str) -> str:
    y = net.linear(x, 4)
    return net.concat(0, y, y)


def _view(net: Net, x: str) -> str:
    y = net.linear(x, 4)
    return net.concat(0, net.view("select", Select(0, 1), y, (4,)), net.view("reshape", Reshape((12,)), y, (12,)))


@pytest.mark.parametrize("build", [_channels, _constant, _input, _twice, _view])
def test_what_can_t_be_joined_is_copied(build: Callable[[Net, str], str]) -> None:
    net = Net("copied")
    joined = build(net, net.input((3, 6)))
    graph = net.graph(net.apply(sample_lut(net, joined), joined))
    made = schedule(graph, HOST, CompileOptions())
    assert ops(made).count("concat") == 1
    check(graph, made)


def test_a_part_that_is_an_output_or_in_two_concats_is_copied() -> None:
    net = Net("output")
    x = net.input((6,))
    a, b = net.linear(x, 4), net.linear(x, 3)
    graph = net.graph(net.apply(sample_lut(net, c), c) if (c := net.concat(0, a, b)) else "", a)
    made = schedule(graph, HOST, CompileOptions())
    assert ops(made).count("concat") == 1
    check(graph, made)
    net = Net("two")
    x = net.input((6,))
    a, b, c = (net.linear(x, n) for n in (4, 3, 2))
    first, second = net.concat(0, a, b), net.concat(0, a, c)
    graph = net.graph(*(net.apply(sample_lut(net, v), v) for v in (first, second)))
    made = schedule(graph, HOST, CompileOptions())
    assert ops(made).count("concat") == 1
    check(graph, made)


def test_ram_may_ask_for_a_copy() -> None:
    """While the later part's wide layer runs, the first part need not keep its room."""
    graph = halves(late=True)
    sizes = [schedule(graph, HOST, CompileOptions(), Overrides(joined=j)).plan.with_input_bytes for j in (True, False)]
    chosen = schedule(graph, HOST, CompileOptions(optimise="ram"))
    assert chosen.plan.with_input_bytes <= min(sizes)
    check(graph, chosen)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_random_nets(data: st.DataObject) -> None:
    """Vectors of any size from tables, adds and layers, joined, nested, read again: the simulator's bytes."""
    net = Net("random")
    made = [net.input((data.draw(st.integers(1, 9)),))]
    for _ in range(data.draw(st.integers(3, 9))):
        a = data.draw(st.sampled_from(made))
        kind = data.draw(st.sampled_from(["linear", "table", "add", "concat", "concat"]))
        if kind == "linear":
            made.append(net.linear(a, data.draw(st.integers(1, 9))))
        elif kind == "table":
            made.append(net.apply(sample_lut(net, a), a))
        elif kind == "add":
            made.append(net.apply(add_of(net, a, a), a, a))
        else:
            made.append(net.concat(0, a, *data.draw(st.lists(st.sampled_from(made), min_size=1, max_size=2))))
    outputs = data.draw(st.lists(st.sampled_from(made[1:]), min_size=1, max_size=2, unique=True))
    graph = net.graph(made[-1], *(v for v in outputs if v != made[-1]))
    for joined in (True, False):
        check(graph, schedule(graph, HOST, CompileOptions(), Overrides(joined=joined)))


def test_the_verifier_sees_parts_in_wrong_places() -> None:
    graph = halves()
    lowered = ordered(lower(graph, HOST, CompileOptions()))
    for value, place, message in (
        ("v1", View("v4", 100), "written twice"),
        ("v1", View("v4", 16), "written twice"),
        ("v3", View("v4", 250), "leaves the buffer|don't run exactly once|before it is written"),
    ):
        moved = replace(lowered, views={**lowered.views, value: place})
        with pytest.raises(ScheduleError, match=message):
            verify(Schedule(moved, plan(moved)))
    late = lowered.segments[-1]
    swapped = (replace(late, index=0), *(replace(s, index=i + 1) for i, s in enumerate(lowered.segments[:-1])))
    early = replace(lowered, segments=swapped)
    with pytest.raises(ScheduleError, match="before it is written"):
        verify(Schedule(early, plan(early)))
