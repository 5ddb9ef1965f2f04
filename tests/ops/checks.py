"""What every sample of a non-recurrent operator must satisfy."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from projgen import ops
from projgen.ir.interpreter import trace_integer
from projgen.ops.record import OpDef, Sample
from tests.ops.loops import meaning

FAMILIES = ("linear", "conv", "conv_residual", "elementwise", "pool", "softmax", "shape")
# One requantisation rounds once: half a unit, and a little for the multiplier's own rounding. (0.505: docs, softmax.)
ROUNDING = 0.51


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
        assert error <= ROUNDING, f"{sample.name}: {error} LSB from the oracle"
        outputs += 1
    assert outputs == 1
