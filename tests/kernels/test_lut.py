"""Tables on cores with Thumb-2 instructions: bytes of every length and value, over the input, instructions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from projgen import resources
from projgen.harness.toolchain import HarnessError
from projgen.ir.attrs import Unary
from projgen.ir.types import Quant
from projgen.kernels.record import KernelChoice
from projgen.ops.elementwise import lut_sample, lut_samples
from projgen.ops.record import Sample
from tests.kernels.rig import Case, Library
from tests.kernels.single_node import build, check, choice_of, chosen, differing, instructions

CORES = {"cortex-m3": "lut_thumb2", "cortex-m4": "lut_dsp", "cortex-m33": "lut_dsp"}


def every_value(count: int) -> Sample:
    """A table without symmetry and inputs that hold every value where there is room."""
    made = lut_sample(f"lut_{count}", Unary("gelu"), (count,), Quant(0.04, -20), Quant(0.03, -122))
    x = np.stack([np.roll(np.resize(np.arange(-128, 128), count), k) for k in range(2)]).astype(np.int8)
    return Sample(made.name, made.graph, (x,))


def work(target: str) -> list[tuple[Sample, KernelChoice]]:
    made = [*(every_value(n) for n in (1, 2, 3, 4, 5, 7, 8, 255, 256, 515)), *lut_samples()]
    found = [(s, choice_of(s, CORES[target], target)) for s in made if not s.graph.has_time]
    todo = [(s, c) for s, c in found if c is not None]
    assert len(todo) == len(found)
    return todo


@pytest.mark.parametrize("optimise", ["-O0", "-O2"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("target", CORES)
def test_bytes(target: str, compiler: str, optimise: str, tmp_path: Path) -> None:
    check(work(target), target, tmp_path, compiler=compiler, optimise=optimise)


def test_plain_c_in_guarded_buffers(tmp_path: Path) -> None:
    """Also over the input."""
    parts = []
    for s, choice in work("cortex-m4"):
        x = s.inputs[0]
        table = s.graph.data(s.graph.nodes[0], "table")
        parts.append(Case(s, s.graph.nodes[0], choice, (x,), table[x.astype(int) + 128]))
    Library(parts, tmp_path).check()


@pytest.mark.parametrize("target", CORES)
@pytest.mark.parametrize("count", [32, 3840, 515])
def test_instructions(target: str, count: int, tmp_path: Path) -> None:
    s = every_value(count)
    choice = chosen(s, target)
    assert choice.kernel == CORES[target]
    (counted,) = instructions(build([(s, choice)], target, tmp_path), [s])
    assert counted <= 3.75 * count + 40
    assert choice.instructions == pytest.approx(counted, rel=0.02, abs=3)


FAULTS = (
    ("sxtb r5, r7, ror #8", "sxtb r5, r7"),
    ("asrs r7, r7, #24", "lsrs r7, r7, #24"),
    ("orr r6, r6, r7, lsl #8", "orr r6, r7, r6, lsl #8"),
    ("adds r3, r3, #4", "adds r3, r3, #3"),
    ("adds r0, r0, #128", "adds r0, r0, #127"),
)


@pytest.mark.qemu
@pytest.mark.parametrize(("good", "bad"), FAULTS, ids=[bad for _, bad in FAULTS])
def test_a_fault_is_found(good: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "runtime_c"
    shutil.copytree(resources.runtime_c(), copy)
    path = copy / "src" / "pg_lut_thumb2.h"
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad))
    monkeypatch.setattr(resources, "runtime_c", lambda: copy)
    todo = work("cortex-m4")
    image = build(todo, "cortex-m4", tmp_path)
    with pytest.raises((AssertionError, HarnessError)):
        assert differing(image, [s for s, _ in todo]) == {}
