"""MVE kernels with inputs and outputs at odd addresses: the same bytes, and no access that the core would fault at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from projgen.harness.counting import count_image
from projgen.harness.records import Record
from projgen.harness.run import run_image
from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_integer
from projgen.kernels.record import KernelChoice
from projgen.ops.record import Sample
from tests.kernels import test_conv_mve, test_conv_mve_depthwise, test_conv_mve_residual, test_odds_mve
from tests.kernels.single_node import build

WORK = {
    "dense": lambda: test_conv_mve.work(test_conv_mve.hard()),
    "depthwise": lambda: test_conv_mve_depthwise.work(test_conv_mve_depthwise.hard()[-30:]),
    "residual": test_conv_mve_residual.work,
    "odds": test_odds_mve.work,
}


def _itemsize(graph: Graph) -> int:
    """Of the widest input or output, in bytes."""
    return max(graph.type(port.value).dtype.bytes for port in (*graph.inputs, *graph.outputs))


@pytest.mark.parametrize("kind", list(WORK))
def test_odd_addresses(kind: str, tmp_path: Path) -> None:
    todo: list[tuple[Sample, KernelChoice]] = WORK[kind]()
    image = build(todo, "cortex-m55", tmp_path)
    records = [
        Record(tuple(x[0] for x in s.inputs), model=i, misalign=_itemsize(s.graph)) for i, (s, _) in enumerate(todo)
    ]
    for (s, choice), result in zip(todo, run_image(image, records), strict=True):
        [expected] = run_integer(s.graph, [x[:1] for x in s.inputs])
        np.testing.assert_array_equal(np.asarray(result).reshape(-1), expected.reshape(-1), err_msg=choice.function)
    counts = count_image(image, records)  # refuses accesses that are not aligned as the core wants them
    assert counts is not None
    assert len(counts.totals) == len(todo)
