"""What every sample of a non-recurrent operator must satisfy."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from projgen import ops
from projgen.ir.graph import Graph, Node
from projgen.ir.interpreter import trace_integer
from projgen.ir.numerics import AttentionNumerics
from projgen.ops.record import OpDef, Sample
from tests.ops.loops import meaning

FAMILIES = ("linear", "conv", "conv_residual", "elementwise", "pool", "softmax", "attention", "layer_norm", "shape")
# One requantisation rounds once: half a unit, and a little for the multiplier's own rounding. (0.505: docs, softmax.)
ROUNDING = 0.51
NORMAL = 0.6  # a layer norm's normalised values and gammas have 11 bits
WEIGHTS = 0.03  # of a value's unit, what rounding the weights of attention adds where they have 15 bits


def tolerance(graph: Graph, node: Node) -> float:
    """Largest distance from the oracle in the output's unit: one rounding, and for attention what its weights round."""
    if node.op != "attention":
        return NORMAL if node.op == "layer_norm" else ROUNDING
    values, out = graph.arg(node, "v").type.quant, graph.type(node.output).quant
    assert values is not None
    assert isinstance(node.numerics, AttentionNumerics)
    assert out is not None
    return ROUNDING + WEIGHTS * 4**node.numerics.drop * values.scale / out.scale


def records() -> list[OpDef]:
    return [op for family in FAMILIES for op in import_module(f"projgen.ops.{family}").OPS]


def samples() -> list[Sample]:
    return [sample for op in records() for sample in op.samples()]


def check(sample: Sample) -> None:
    """Interpreter == plain loops, exactly; and both within rounding of the float64 oracle."""
    outputs = 0
    for node, args, y in trace_integer(sample.graph, sample.inputs):
        op = ops.get(node.op)
        assert op.oracle is not None
        np.testing.assert_array_equal(y, meaning(sample.graph, node, args), err_msg=sample.name)
        error = np.abs(op.oracle(sample.graph, node, args) - y).max()
        assert error <= tolerance(sample.graph, node), f"{sample.name}: {error} LSB from the oracle"
        outputs += 1
    assert outputs == 1
