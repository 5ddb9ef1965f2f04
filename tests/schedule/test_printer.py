"""Schedules as text. Predicted instructions are left out: they follow the cost model."""

from __future__ import annotations

import re

from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph
from projgen.options import CompileOptions
from projgen.schedule import Schedule, schedule
from projgen.schedule.lower import Overrides
from projgen.schedule.printer import print_schedule
from projgen.targets import load_target
from tests.schedule.nets import Net, depthwise_pointwise, recurrent

HOST = load_target("host")


def made(graph: Graph, *streamed: tuple[str, ...]) -> Schedule:
    return schedule(graph, HOST, CompileOptions(), Overrides(streamed=frozenset(streamed)))


def lines(scheduled: Schedule) -> list[str]:
    text = print_schedule(scheduled)
    calls = sum(len(segment.calls) for segment in scheduled.segments)
    text, counts = re.subn(r"; \d+ instructions", "", text)
    assert counts == calls and text.endswith("\n")
    return text.splitlines()


def test_calls_with_kernels_and_places_then_the_arena() -> None:
    net = Net("small")
    graph = net.graph(net.linear(net.linear(net.input((6,)), 5), 3))
    linear = "linear by linear_portable (pg_linear_s8_s8) : int8"
    assert lines(made(graph)) == [
        "schedule small on host",
        "  input in0 = in0 : int8[6] s=0.03125 z=4",
        "  0 main call linear0 : in0@input0+0 -> v0@arena+0",
        f"      {linear}[5] s=0.0911693 z=-5; weights int8[30], bias int32[5], multipliers int32[5]",
        "  1 main call linear1 : v0@arena+0 -> v1@output0+0",
        f"      {linear}[3] s=0.0636969 z=-5; weights int8[15], bias int32[3], multipliers int32[3]",
        "  output out0 = v1@output0+0",
        "arena 5 B, with input 22 B, at least 5 B; state 0 B; constants 109 B",
        "  +0..5    value  v0   segments 0..1",
        "  +16..22  input  in0  segments 0..0",
    ]


def test_streamed_rows_show_their_rings() -> None:
    net = Net("rows")
    x = net.input((6, 4, 2))
    graph = net.graph(net.conv(net.conv(x, 2, (3, 3), Conv2d((1, 1), (1, 1, 1, 1))), 4, (1, 1)))
    found = lines(made(graph, tuple(n.name for n in graph.nodes)))
    assert found[2] == "  0 main rows conv2d0_conv2d1 : in0@input0+0 -> v1@output0+0"
    assert found[3].startswith("      conv2d by conv2d_portable (pg_conv2d_s8_s8) : int8[6x4x2]")
    assert found[3].endswith("; 18 B scratch")
    assert found[4] == "      ring of in0 : the whole map, window 3, step 1, lag 1, pad 1+1 rows of 4"
    assert found[6] == "      ring of v0 : 1 rows of 8 B, window 1, step 1, lag 0"
    assert [line.split()[1:3] for line in found[9:]] == [
        ["pad", "@conv2d0_conv2d1.pad0"],
        ["ring", "@conv2d0_conv2d1.ring.v0"],
        ["scratch", "@conv2d0_conv2d1.scratch"],
        ["input", "in0"],
    ]


def test_steps_state_and_tail() -> None:
    found = lines(made(recurrent("lstm", "lstm_3_5_k2", tail="mean")))
    heads = [line for line in found if re.match(r"  \d ", line)]
    assert heads == [
        "  0 step call lstm0 : in0@input0+0 -> v0@arena+0",
        "  1 step accumulate mean_time1 : v0@arena+0",
        "  2 tail finish mean_time1:finish : state -> v1@arena+0",
        "  3 tail call linear2 : v1@arena+0 -> v2@output0+0",
    ]
    assert found[-3:] == [
        "  state of lstm0 : +0",
        "  state of mean_time1 : +16",
        "  state of the step counter : +48",
    ]


def test_overlays_are_listed() -> None:
    graph = depthwise_pointwise()
    scheduled = made(graph, tuple(n.name for n in graph.nodes if n.op == "conv2d"))
    assert scheduled.plan.overlays
    text, overlays = print_schedule(scheduled), scheduled.plan.overlays
    assert all(f"  overlay {new} over {old}, {lead} B before it\n" in text for new, old, lead in overlays)
