"""Floating point in run and step is found on every target; in the float helpers it is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from projgen.harness.build import build_image
from projgen.harness.disassembly import disassemble
from projgen.harness.records import Record
from projgen.harness.run import run_image
from projgen.targets import list_targets, load_target

from .conftest import Mutate

pytestmark = pytest.mark.qemu

ALL = [target.name for target in list_targets()]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("target", ALL)
def test_integer_code_has_none(target, compiler, pair, leak, tmp_path) -> None:
    image = build_image([pair, leak], load_target(target), tmp_path, compiler=compiler)
    code = disassemble(image.elf, image.target)
    names = [name for model in image.models for name in model.run_functions]
    assert all(code.functions.named(name) for name in names)
    assert code.float_uses(names) == []


@pytest.mark.parametrize("expression", ["(float)sum * 1.5F", "(double)sum / 3.0"])
@pytest.mark.parametrize("target", ALL)
def test_floating_point_below_run_is_found(target, expression, pair, mutate: Mutate, tmp_path) -> None:
    folder = mutate(pair, {"sum >>= 4;": f"sum = (int32_t)({expression}); sum >>= 4;"})
    changed = folder / "pair_kernels.h"
    text = changed.read_text().replace("int32_t sum = o;", "volatile int32_t sum = o;")
    changed.write_text(text)
    image = build_image([folder], load_target(target), tmp_path / "b")
    uses = disassemble(image.elf, image.target).float_uses(["pair_run"])
    assert uses, f"{expression} went unseen on {target}"
    if target in ("cortex-m0", "cortex-m3"):
        assert any("soft-float routine __aeabi_" in use.text for use in uses)


def test_the_float_helper_is_reachable_only_by_itself(pair, mutate: Mutate, tmp_path) -> None:
    calls = {"return 0;": "const float x[8] = {1.0F}; pair_quantize_input(x, output); return 0;"}
    image = build_image([mutate(pair, calls)], load_target("cortex-m4"), tmp_path / "b")
    assert len(run_image(image, [Record((np.zeros(8, np.int8),))])[0]) == 64
    code = disassemble(image.elf, image.target)
    assert {use.function for use in code.float_uses(["pair_run"])} <= {"pair_run", "pair_quantize_input"}
    assert code.float_uses(["pair_run"])
    assert code.float_uses(["pair_layer0"]) == []
