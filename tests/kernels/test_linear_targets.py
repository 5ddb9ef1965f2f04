"""The looped fully connected block on emulated cores: the simulator's bytes, though few networks choose it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from projgen import kernels, ops
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.ir.interpreter import run_integer
from projgen.schedule import choose
from tests.kernels import draws
from tests.kernels.images import build, merged

pytestmark = pytest.mark.qemu

ON = [("cortex-m4", "-O2", "gcc"), ("cortex-m7", "-Os", "clang"), ("cortex-m33", "-O3", "gcc")]


@pytest.mark.parametrize(("target", "optimise", "compiler"), ON)
def test_bytes_of_the_looped_block(
    target: str, optimise: str, compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = [k for k in kernels.registry() if k.op != "linear" or k.name == "linear_dsp_looped"]
    monkeypatch.setattr(choose.kernels, "registry", lambda: only)
    made = merged([*ops.registry()["linear"].samples(), *draws.collect(draws.linears(), 40)])
    image = build(made, target, "fast", tmp_path, optimise=optimise, compiler=compiler)
    records, wanted = [], []
    for place, model in enumerate(made):
        for batch in range(model.batches):
            inputs = model.inputs(batch)
            records.append(Record(inputs, model=place, mode="run", misalign=0))
            wanted.append(run_integer(model.graph, [x[None] for x in inputs]))
    compared = 0
    for result, outputs in zip(execute(image, records), wanted, strict=True):
        for actual, expected in zip(result.outputs, outputs, strict=True):
            np.testing.assert_array_equal(actual.ravel(), expected.ravel())
            compared += 1
    assert compared > 100
    text = "".join(file.read_text() for file in sorted(tmp_path.rglob("*_kernels.h")))
    assert "rows_looped_s8" in text
    assert "rows_plain_looped_s8" in text
    for statement in re.findall(r"__asm volatile\((.*?)\);", text, flags=re.DOTALL):
        last = statement.strip().split("\n")[-1].strip()
        assert not last.startswith('"it'), "a block of conditional instructions is cut in two"
