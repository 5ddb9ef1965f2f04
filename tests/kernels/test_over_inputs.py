"""Convolutions for cores in plain C: whole, row by row, and over their inputs, in guarded buffers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from projgen import kernels, ops
from projgen.ir.attrs import Conv2d
from projgen.ir.interpreter import trace_integer
from projgen.ops import conv, conv_residual
from projgen.ops.record import Sample
from projgen.targets import load_target
from tests.kernels.rig import TRAPS, Case, Library

SAME = Conv2d(padding=(1, 1, 1, 1))
STEM = Conv2d((2, 2), (0, 1, 0, 1))


def samples() -> list[Sample]:
    """Shapes whose outputs are no longer than their inputs, row for row, and shapes whose rows are chunked."""
    deep = replace(SAME, groups=8)
    return [
        *(s for op in ("conv2d", "conv2d_residual") for s in ops.get(op).samples()),
        conv.sample("stem", (10, 12, 3), 6, (3, 3), STEM),
        conv.sample("chunks", (8, 20, 8), 8, (3, 3), SAME),
        conv.sample("chunks_left", (6, 18, 4), 4, (3, 3), Conv2d(padding=(2, 0, 2, 0))),
        conv.sample("narrower", (6, 18, 4), 4, (3, 3), Conv2d(padding=(1, 1, 0, 0))),
        conv.sample("five_columns", (9, 5, 16), 16, (3, 3), SAME),
        conv.sample("depthwise", (8, 7, 8), 8, (3, 3), deep),
        conv.sample("depthwise_halved", (8, 9, 8), 8, (3, 3), replace(deep, stride=(2, 2), padding=(0, 1, 1, 1))),
        conv.sample("depthwise_20", (6, 6, 20), 20, (3, 3), replace(SAME, groups=20)),
        conv_residual.sample("chunks_residual", (8, 20, 8), 8, (3, 3), SAME),
        conv_residual.sample("pointwise_residual", (6, 5, 8), 8, (1, 1), Conv2d()),
    ]


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_every_way_of_calling_gives_the_same_bytes(target: str, tmp_path: Path) -> None:
    cases: list[Case] = []
    for s in samples():
        *_, (node, args, expected) = trace_integer(s.graph, s.inputs)
        inputs = tuple(np.ascontiguousarray(args[role]) for role, _ in s.graph.activations(node))
        for kernel in kernels.registry():
            if kernel.op == node.op and kernel.isa <= load_target(target).isa:
                choice = kernel.apply(s.graph, node, load_target(target))
                if choice is not None:
                    cases.append(Case(s, node, choice, inputs, np.asarray(expected)))
    over = {c.choice.kernel for c in cases if c.choice.in_place}
    if target == "cortex-m4":
        assert {"conv2d_dsp", "depthwise_rows_dsp", "winograd2d_dsp", "winograd2d_residual_dsp"} <= over
    else:
        assert {"conv2d_mve_gathered", "depthwise_rows_mve", "conv2d_residual_mve"} <= over
    assert {c.choice.rows for c in cases if c.choice.row_function} >= {1, 2}
    assert Library(cases, tmp_path, ("gcc", "-O1", *TRAPS["gcc"])).check() > 50000
