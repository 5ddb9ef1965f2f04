"""The scheduled stage means what the quantised stage means: every operator sample, and whole nets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen import ops
from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_integer
from projgen.ops.record import Sample
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.interpret import run_scheduled
from projgen.targets import load_target
from tests.schedule.nets import depthwise_pointwise, draw, equal, random_net, recurrent, residual, static_recurrent

SAMPLES = [s for op in ops.registry().values() if op.integer is not None for s in op.samples()]
NETS = [
    residual(),
    residual(1, 1, 3),
    depthwise_pointwise(),
    recurrent("lstm", "lstm_3_5_k2"),
    recurrent("gru", "gru_3_5_k1", "mean"),
    recurrent("lstm", "lstm_3_5_k2", "every"),
    static_recurrent("lstm", "lstm_3_5_k2"),
    static_recurrent("gru", "gru_3_5_k1", last=False),
]


@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_samples(sample: Sample, target: str) -> None:
    """The target matters: its kernels pack the constants that the interpreter reads back."""
    made = schedule(sample.graph, load_target(target), CompileOptions())
    inputs = tuple(x[-2:] for x in sample.inputs)
    assert equal(run_scheduled(made, inputs), run_integer(sample.graph, inputs))


@pytest.mark.parametrize("optimise", ["speed", "ram", "flash"])
@pytest.mark.parametrize("graph", NETS, ids=lambda g: f"{g.name}{len(g.nodes)}")
def test_nets(graph: Graph, optimise: str) -> None:
    options = CompileOptions.checked("model", "c", "fast", optimise)
    made = schedule(graph, load_target("cortex-m4"), options)
    inputs = draw(graph, batch=2)
    meant = run_integer(graph, inputs)
    assert equal(run_scheduled(made, inputs, fill=0x00), meant)
    assert equal(run_scheduled(made, inputs, fill=0xFF), meant)


def test_a_wrong_place_changes_the_outputs() -> None:
    """The interpreter really goes through the planned memory: two live buffers at one place are noticed."""
    made = schedule(residual(tap=False), load_target("host"), CompileOptions())
    inputs = draw(made.graph)
    moved = tuple(replace(b, offset=0) for b in made.plan.buffers)
    broken = replace(made, plan=replace(made.plan, buffers=moved))
    good, bad = run_scheduled(made, inputs), run_scheduled(broken, inputs)
    assert not all(np.array_equal(a, b) for a, b in zip(good, bad, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    choices=st.lists(st.integers(0, 300), min_size=1, max_size=9),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4)),
    outputs=st.integers(1, 3),
    optimise=st.sampled_from(["speed", "ram", "flash"]),
)
def test_random_graphs(choices: list[int], shape: tuple[int, int, int], outputs: int, optimise: str) -> None:
    """Any wiring: several readers, in place and not, outputs in the middle, unused values."""
    graph = random_net(choices, *shape, outputs=min(outputs, len(choices)))
    options = CompileOptions.checked("model", "c", "portable", optimise)
    made = schedule(graph, load_target("host"), options)
    inputs = draw(graph, batch=1)
    meant = run_integer(graph, inputs)
    assert equal(run_scheduled(made, inputs, fill=0x00), meant)
    assert equal(run_scheduled(made, inputs, fill=0xFF), meant)
