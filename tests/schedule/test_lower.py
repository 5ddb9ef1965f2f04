"""Lowering: kernels, views, phases, loops, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from projgen.errors import UnsupportedError
from projgen.ir.attrs import Lstm, Reshape, Select
from projgen.ir.graph import Graph, Port
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.choose import candidates
from projgen.schedule.records import Kind, Phase
from projgen.targets import load_target
from tests.schedule.nets import Net, add_of, recurrent, residual, static_recurrent

HOST, M4 = load_target("host"), load_target("cortex-m4")


def test_portable_means_no_instruction_set() -> None:
    net = Net("kernels")
    x = net.input((64,))
    graph = net.graph(net.linear(x, 32))
    fast = schedule(graph, M4, CompileOptions()).segments[0].calls[0].choice
    portable = schedule(graph, M4, CompileOptions(kernels="portable")).segments[0].calls[0].choice
    assert fast.kernel != portable.kernel == "linear_portable"
    assert fast.instructions < portable.instructions
    every = candidates(graph, graph.nodes[0], M4, "fast")
    assert fast.instructions == min(c.instructions for c in every)


def test_flash_prefers_the_smaller_constants() -> None:
    net = Net("kernels")
    x = net.input((16, 16, 16))
    graph = net.graph(net.conv(x, 16, (3, 3)))
    small = schedule(graph, M4, CompileOptions(optimise="flash"))
    fast = schedule(graph, M4, CompileOptions(optimise="speed"))
    assert small.weight_bytes < fast.weight_bytes
    assert fast.instructions < small.instructions


def test_views_cost_nothing() -> None:
    made = schedule(residual(), HOST, CompileOptions())
    assert [s.calls[0].node.op for s in made.segments] == ["conv2d", "conv2d", "add", "linear"]
    assert made.lowered.views["v3"].root == "v2"


def test_outputs_are_written_where_the_caller_wants_them() -> None:
    made = schedule(residual(), HOST, CompileOptions())
    assert made.lowered.direct == {"v4": 0, "v0": 1}
    assert made.place("v0").base == "output"


def test_an_output_that_is_an_input_or_twice_the_same_is_copied() -> None:
    net = Net("copies")
    x = net.input((10,))
    y = net.linear(x, 4)
    graph = net.graph(y, x, y)
    made = schedule(graph, HOST, CompileOptions())
    assert [(s.kind, s.copy_to) for s in made.segments[1:]] == [(Kind.COPY, 1), (Kind.COPY, 2)]


def test_phases_of_a_sequence_model() -> None:
    made = schedule(recurrent("lstm", "lstm_3_5_k2"), HOST, CompileOptions())
    assert [(s.calls[0].node.op, s.phase) for s in made.segments] == [("lstm", Phase.STEP), ("linear", Phase.TAIL)]
    assert made.plan.state_bytes == made.segments[0].calls[0].choice.state_bytes
    every = schedule(recurrent("lstm", "lstm_3_5_k2", "every"), HOST, CompileOptions())
    assert {s.phase for s in every.segments} == {Phase.STEP}


def test_a_mean_over_time_counts_its_steps_in_the_state() -> None:
    made = schedule(recurrent("gru", "gru_3_5_k1", "mean"), HOST, CompileOptions())
    assert [s.kind for s in made.segments] == [Kind.CALL, Kind.ACCUMULATE, Kind.FINISH, Kind.CALL]
    assert made.plan.counter_offset is not None
    assert made.plan.state_bytes == made.plan.counter_offset + 4


def test_a_fixed_number_of_rows_is_a_loop_that_keeps_one_row() -> None:
    last = schedule(static_recurrent("lstm", "lstm_3_5_k2"), HOST, CompileOptions())
    whole = schedule(static_recurrent("lstm", "lstm_3_5_k2", last=False), HOST, CompileOptions())
    assert last.segments[0].kind is whole.segments[0].kind is Kind.LOOP
    assert last.segments[0].last_only and not whole.segments[0].last_only
    assert last.plan["v0"].bytes == 5
    assert whole.plan["v0"].bytes == 20
    assert last.plan.state_bytes == 0


def _reversed(graph: Graph, *names: str) -> Graph:
    nodes = [
        replace(n, attrs=replace(n.attrs, reverse=True)) if n.name in names and isinstance(n.attrs, Lstm) else n
        for n in graph.nodes
    ]
    return graph.with_(nodes=nodes)


def test_both_directions_over_any_length_are_refused() -> None:
    graph = recurrent("lstm", "lstm_3_5_k2", "every")
    second = replace(graph.nodes[0], name="back", output="w", attrs=replace(graph.nodes[0].attrs, reverse=True))
    values = [replace(graph.values["v0"], name="w")]
    both = graph.with_(nodes=[*graph.nodes, second], values=values, outputs=(*graph.outputs, Port("w", "w", (0, 1))))
    with pytest.raises(UnsupportedError, match=r"forwards and backwards over a sequence of any length.*Allowed: one"):
        schedule(both, HOST, CompileOptions())


def test_the_last_step_of_a_backward_model_is_refused() -> None:
    graph = _reversed(recurrent("lstm", "lstm_3_5_k2"), "lstm0")
    with pytest.raises(UnsupportedError, match="last time step is selected in a model that runs backwards"):
        schedule(graph, HOST, CompileOptions())


def test_outputs_of_two_kinds_are_refused() -> None:
    net_graph = recurrent("lstm", "lstm_3_5_k2")
    mixed = net_graph.with_(outputs=(*net_graph.outputs, Port("v0", "steps", (0, 1))))
    with pytest.raises(UnsupportedError, match="some outputs have a time axis and others have none"):
        schedule(mixed, HOST, CompileOptions())


def test_a_late_value_can_not_feed_a_step() -> None:
    net = Net("late")
    x = net.input(("T", 5))
    last = net.view("select", Select(0, -1), x, (5,))
    row = net.view("reshape", Reshape((1, 5)), last, (1, 5))
    y = net.apply(add_of(net, x, row), x, row)
    with pytest.raises(UnsupportedError, match="known only after the last step, but the layer runs at every step"):
        schedule(net.graph(y), HOST, CompileOptions())


def test_a_node_without_a_kernel_is_named() -> None:
    graph = residual()
    node = replace(graph.nodes[0], op="conv9d", source="features.0")
    with pytest.raises(UnsupportedError, match=r"no kernel for conv9d 'features.0'.*on host"):
        schedule(graph.with_(nodes=[node, *graph.nodes[1:]]), HOST, CompileOptions())
