"""Every sample: interpreter, plain loops and oracle agree; shapes, costs and proofs hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from projgen import ops
from projgen.ir.graph import Stage
from projgen.ir.types import TIME
from projgen.ops.record import OpDef, Sample
from tests.ops.checks import check, records, samples

SAMPLES = samples()
MULTIPLYING = ("linear", "conv2d", "conv2d_residual", "conv_transpose2d", "attention")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_integer_meaning(sample: Sample) -> None:
    check(sample)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_shape_rule_and_proof(sample: Sample) -> None:
    graph = sample.graph
    (node,) = graph.nodes
    op = ops.get(node.op)
    types = {role: graph.values[value].type for role, value in node.inputs.items()}
    assert op.infer(node.attrs, types).shape == graph.type(node.output).shape
    assert isinstance(node.attrs, op.attrs)
    assert graph.stage is Stage.QUANTISED
    cost = op.cost(node.attrs, types, graph.type(node.output))
    assert (cost.macs > 0) == (node.op in MULTIPLYING)
    if op.prove is not None:
        op.prove(graph, node)


@pytest.mark.parametrize("op", [r for r in records() if r.integer is not None], ids=lambda r: r.name)
def test_samples_reach_the_extremes(op: OpDef) -> None:
    """Each operator's samples feed the lowest and highest integers and have outputs that are not all clamped."""
    made = list(op.samples())
    assert len(made) >= 2
    assert len({s.name for s in made}) == len(made)
    for low_or_high in (np.min, np.max):
        limits = {int(low_or_high(x)) for s in made for x in s.inputs}
        assert limits & {-128, 127}


def test_names_are_unique_over_all_operators() -> None:
    names = [s.name for s in SAMPLES]
    assert len(set(names)) == len(names) >= 100


def test_samples_are_the_same_every_time() -> None:
    for first, second in zip(SAMPLES, samples(), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(first.inputs, second.inputs, strict=True))
        for name, value in first.graph.values.items():
            assert value.data is None or np.array_equal(value.data, second.graph.constant(name))


def test_matrix_cost_counts_each_multiplication() -> None:
    for sample in SAMPLES:
        (node,) = sample.graph.nodes
        if node.op in ("linear", "conv2d", "conv2d_residual"):
            types = {r: sample.graph.values[v].type for r, v in node.inputs.items()}
            out = sample.graph.type(node.output)
            positions = math.prod(d for d in out.shape[:-1] if d != TIME)
            assert ops.get(node.op).cost(node.attrs, types, out).macs == positions * sample.graph.data(node, "w").size
