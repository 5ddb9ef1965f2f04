"""The order of segments in branching graphs."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

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
from projgen.schedule.plan import demand, lower_bound
from projgen.schedule.records import Lowered
from projgen.targets import load_target
from tests.schedule.nets import Net, depthwise_pointwise, draw, equal, residual_block, sample_lut

HOST = load_target("host")


def branches(widths: tuple[int, ...], seed: int = 0) -> Graph:
    """Wide layers and narrow ones after them from one vector, all wide ones first; every branch is an output."""
    net = Net("branches")
    x = net.input((40,))
    x = net.apply(sample_lut(net, x), x)
    wide = [net.linear(x, w) for w in widths]
    wide = [net.apply(sample_lut(net, w), w) for w in wide]
    random.Random(seed).shuffle(wide)
    return net.graph(*(net.linear(w, 3) for w in wide))


def bound(lowered: Lowered) -> tuple[int, int]:
    demanded = demand(lowered)
    return lower_bound(demanded, with_inputs=True), lower_bound(demanded)


def test_a_branch_is_finished_before_the_next_one_starts() -> None:
    graph = branches((200, 200, 200))
    given_order = lower(graph, HOST, CompileOptions())
    found = ordered(given_order)
    assert bound(given_order)[0] >= 600
    assert bound(found)[0] < 300
    made = schedule(graph, HOST, CompileOptions(), Overrides())
    assert made.plan.with_input_bytes == bound(found)[0]
    inputs = draw(graph)
    assert equal(run_scheduled(made, inputs), run_integer(graph, inputs))


@pytest.mark.parametrize("graph", [depthwise_pointwise(), residual_block(), residual_block(stride=2)])
def test_orders_that_gain_nothing_stay(graph: Graph) -> None:
    lowered = lower(graph, HOST, CompileOptions())
    assert ordered(lowered) is lowered


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=3), st.integers(0, 1000))
def test_no_order_of_whole_branches_needs_less(widths: list[int], seed: int) -> None:
    lowered = lower(branches(tuple(widths), seed), HOST, CompileOptions())
    found = ordered(lowered)
    assert sorted(s.name for s in found.segments) == sorted(s.name for s in lowered.segments)
    assert _peak(lowered, tuple(s.output for s in found.segments)) <= min(_peak(lowered, o) for o in _legal(lowered))


def _legal(lowered: Lowered) -> list[tuple[str, ...]]:
    """Every order of whole branches."""
    first, *rest = lowered.segments
    chains: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for s in rest:
        root = lowered.views[s.inputs[0]].root
        name = owner.get(root, s.output)
        owner[s.output] = name
        chains.setdefault(name, []).append(s.output)
    return [(first.output, *(v for name in order for v in chains[name])) for order in permutations(chains)]


def _peak(lowered: Lowered, order: tuple[str, ...]) -> int:
    by_output = {s.output: s for s in lowered.segments}
    segments = tuple(replace(by_output[o], index=i) for i, o in enumerate(order))
    return bound(replace(lowered, segments=segments))[0]
