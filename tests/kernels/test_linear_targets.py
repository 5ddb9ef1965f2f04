"""Fully connected blocks that few networks choose, on emulated cores: the simulator's bytes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from projgen import kernels, ops, resources
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.harness.toolchain import HarnessError
from projgen.ir.interpreter import run_integer
from projgen.kernels import render
from projgen.schedule import choose
from tests.kernels import draws
from tests.kernels.images import build, merged

pytestmark = pytest.mark.qemu

ON = [
    ("linear_dsp_looped", "cortex-m4", "-O2", "gcc"),
    ("linear_dsp_looped", "cortex-m7", "-Os", "clang"),
    ("linear_dsp_looped", "cortex-m33", "-O3", "gcc"),
    ("linear_mve_shared", "cortex-m55", "-O2", "gcc"),
    ("linear_mve_looped", "cortex-m55", "-Os", "clang"),
]
EMITTED = {
    "linear_dsp_looped": ("rows_looped_s8", "rows_plain_looped_s8"),
    "linear_mve_shared": ("pg_linear_mve_s8_s8_row", "pg_linear_mve_s16_s8_row", "pg_linear_mve_s8_s8_clamped_row"),
    "linear_mve_looped": ("pg_linear_mve_s8_s8_looped_row", "pg_linear_mve_s16_s16_looped_row"),
}


@pytest.mark.parametrize(("kernel", "target", "optimise", "compiler"), ON)
def test_bytes(
    kernel: str, target: str, optimise: str, compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(kernel, monkeypatch)
    compared = compare(target, tmp_path, optimise, compiler)
    assert compared > 100
    text = "".join(file.read_text() for file in sorted(tmp_path.rglob("*_kernels.h")))
    for function in EMITTED[kernel]:
        assert function in text
    for statement in re.findall(r"__asm volatile\((.*?)\);", text, flags=re.DOTALL):
        last = statement.strip().split("\n")[-1].strip()
        assert not last.startswith(('"it', '"vpst')), "a block of conditional instructions is cut in two"


FAULTS = [
    ("linear_mve_shared", "moveq r5, #8", "moveq r5, #7"),
    ("linear_mve_shared", "adds r3, r3, #1", "adds r3, r3, #0"),
    ("linear_mve_looped", "subs r3, r3, #{{ lanes }}", "subs r3, r3, #{{ lanes + 1 }}"),
]


@pytest.mark.parametrize(("kernel", "good", "bad"), FAULTS, ids=[f"{k}: {bad}" for k, _, bad in FAULTS])
def test_a_fault_in_a_block_for_every_size_is_found(
    kernel: str, good: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "templates"
    shutil.copytree(resources.templates(), copy)
    file = copy / "kernels" / "linear_mve.h.j2"
    assert good in file.read_text()
    file.write_text(file.read_text().replace(good, bad))
    with monkeypatch.context() as patched:
        patched.setattr(resources, "templates", lambda: copy)
        only(kernel, patched)
        forget()
        with pytest.raises((AssertionError, HarnessError)):
            compare("cortex-m55", tmp_path, "-O2", "gcc")
    forget()


def forget() -> None:
    """Templates are read anew."""
    render.environment.cache_clear()
    render.render_block.cache_clear()


def only(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fully connected layers take ``kernel``; where it may not fit, portable C."""
    fitting = [k for k in kernels.registry() if k.op != "linear" or k.name == kernel]
    if kernel.startswith("linear_mve"):  # int16 outputs with a zero point
        fitting += [k for k in kernels.registry() if k.name == "linear_portable"]
    monkeypatch.setattr(choose.kernels, "registry", lambda: fitting)


def compare(target: str, folder: Path, optimise: str, compiler: str) -> int:
    """Outputs that are the simulator's."""
    made = merged([*ops.registry()["linear"].samples(), *draws.collect(draws.linears(), 40)])
    image = build(made, target, "fast", folder, optimise=optimise, compiler=compiler)
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
    return compared
