"""Emitted kernels, one golden file a family: what a reader of NAME_kernels.h sees, line by line.

``pytest tests/codegen/test_golden_blocks.py --update-golden`` rewrites them; the diff is then to be read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from projgen import kernels
from projgen.kernels.record import KernelChoice
from projgen.kernels.render import render_block
from projgen.targets import load_target
from tests.chain.support import operator_samples

GOLDEN = Path(__file__).parents[1] / "golden" / "blocks"
FAMILIES = {  # kernel: the target it is for
    "linear_dsp": "cortex-m4",
    "pointwise_dsp": "cortex-m4",
    "winograd2d_dsp_looped": "cortex-m4",
    "depthwise_dsp": "cortex-m4",
    "lstm_dsp": "cortex-m4",
    "pointwise_thumb1": "cortex-m0",
    "depthwise_thumb1": "cortex-m0",
    "linear_thumb2": "cortex-m3",
    "pointwise_thumb2": "cortex-m3",
    "depthwise_thumb2": "cortex-m3",
    "lstm_thumb2": "cortex-m3",
    "linear_mve": "cortex-m55",
    "pointwise_mve": "cortex-m55",
    "gru_mve": "cortex-m55",
}


def first_choice(kernel: str, target: str) -> KernelChoice:
    """The kernel applied to the first sample that it fits."""
    machine = load_target(target)
    (record,) = (k for k in kernels.registry() if k.name == kernel)
    for sample in operator_samples():
        (node, *_) = sample.graph.nodes
        if node.op == record.op and (choice := record.apply(sample.graph, node, machine)) is not None:
            return choice
    raise AssertionError(f"no sample fits {kernel}")


@pytest.mark.parametrize("kernel", FAMILIES)
def test_golden_block(kernel: str, update_golden: bool) -> None:
    choice = first_choice(kernel, FAMILIES[kernel])
    text = "\n".join(render_block(block) for block in choice.blocks)
    file = GOLDEN / f"{kernel}.h"
    if update_golden:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text(), f"{file.name} differs: read the diff after --update-golden"
    assert "#else" in text  # the plain C beside the assembly
