"""Sizes, stack, cycles and accuracy of a model; the measurement's JSON; what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from projgen.errors import FitError, InputError
from projgen.harness.build import build_image
from projgen.harness.elf import section_sizes
from projgen.harness.measurement import Measurement, measure
from projgen.harness.records import Record
from projgen.targets import list_targets, load_target

from .conftest import Mutate, pair_reference

pytestmark = pytest.mark.qemu

RANDOM = np.random.default_rng(5)
INPUTS = [RANDOM.integers(-128, 128, 8).astype(np.int8) for _ in range(3)]
M_CLASS = [target.name for target in list_targets() if target.board.kind == "system"]


@pytest.mark.parametrize("target", [target.name for target in list_targets()])
def test_measurement_of_every_target(target, pair, tmp_path) -> None:
    measured = measure(pair, load_target(target), INPUTS, out_dir=tmp_path)
    assert measured.weight_bytes == 128 + 1024
    assert 60 < measured.code_bytes < 600
    assert measured.instructions == sum(layer.instructions or 0 for layer in measured.layers)
    assert [layer.name for layer in measured.layers] == ["first", "second", "(control)"]
    assert measured.calibration is not None
    assert measured.calibration[0] == measured.calibration[1]
    assert measured.macs == 1152
    assert 8 <= measured.stack_bytes < 200
    assert (measured.arena_bytes, measured.arena_with_input_bytes, measured.state_bytes) == (16, 32, 0)
    assert (measured.estimated_cycles is not None) == (target in M_CLASS)
    assert Measurement.from_json(measured.to_json()) == measured


@pytest.mark.parametrize("target", M_CLASS)
def test_flash_is_the_difference_of_the_images(target, pair, tmp_path) -> None:
    measured = measure(pair, load_target(target), INPUTS[:1], out_dir=tmp_path)
    with_model, without = (section_sizes(tmp_path / "size" / f"size_{w}.elf") for w in ("with", "without"))
    assert measured.flash_bytes == with_model.flash - without.flash
    assert measured.flash_bytes == measured.code_bytes + measured.weight_bytes
    assert with_model.bss == without.bss


def test_float_helpers_do_not_count_as_code(pair, mutate: Mutate, tmp_path) -> None:
    more = mutate(pair, {"const float scaled = x[i] * 10.0F;": "const float scaled = x[i] * 10.0F / (x[0] + 3.0F);"})
    sizes = [measure(folder, load_target("cortex-m0"), INPUTS[:1]).code_bytes for folder in (pair, more)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("target", M_CLASS)
def test_painted_stack_is_within_the_static_bound(target, pair, leak, tmp_path) -> None:
    sequence = np.ones((5, 4), np.int8)
    for folder, record in ((pair, Record((INPUTS[0],))), (leak, Record((sequence,)))):
        measured = measure(folder, load_target(target), [record])
        assert measured.stack_bound_bytes is not None
        assert 0 < measured.stack_bytes <= measured.stack_bound_bytes <= measured.stack_bytes + 32


def test_recursion_has_no_static_bound(pair, mutate: Mutate) -> None:
    again = "int code = input[0] == 99 ? pair_run(input, output, arena) : 0; pair_layer1(arena, output); return code;"
    recursive = {"return 0;": again}
    measured = measure(mutate(pair, recursive), load_target("cortex-m4"), INPUTS[:1])
    assert measured.stack_bound_bytes is None
    assert measured.stack_bytes > 0


def test_cycles_of_a_known_function(pair, mutate: Mutate) -> None:
    """Hand-counted on the Cortex-M4: 10 turns of MUL, SUBS and a taken branch are 4 cycles each."""

    def cycles(turns: int) -> int:
        loop = (
            f'uint32_t n = {turns}; uint32_t x = 3; __asm__ volatile("1: mul %1, %1, %1\\n subs %0, %0, #1\\n'
            ' bne 1b" : "+r"(n), "+r"(x) : : "cc"); return 0;'
        )
        folder = mutate(pair, {"return 0;": loop}, name=f"turns{turns}")
        measured = measure(folder, load_target("cortex-m4"), INPUTS[:1])
        assert measured.estimated_cycles is not None
        return measured.estimated_cycles

    assert cycles(30) - cycles(20) == 10 * (1 + 1 + 1 + 2)


def test_accuracy_from_labels(pair) -> None:
    labels = [int(pair_reference(x).argmax()) for x in INPUTS]
    target = load_target("host")
    assert measure(pair, target, INPUTS, labels).accuracy == 1.0
    wrong = [labels[0], (labels[1] + 1) % 64, labels[2]]
    assert measure(pair, target, INPUTS, wrong).accuracy == pytest.approx(2 / 3)
    with pytest.raises(InputError, match=r"2 labels for 3 inputs\. Allowed: one label per input"):
        measure(pair, target, INPUTS, labels[:2])


def test_where_it_was_measured_is_recorded(pair) -> None:
    m4 = measure(pair, load_target("cortex-m4"), INPUTS[:1])
    assert (m4.machine, m4.cpu, m4.elf_attributes["cpu_name"]) == ("mps2-an386", "cortex-m4", "7E-M")
    assert "gcc" in m4.compiler
    a53 = measure(pair, load_target("cortex-a53"), INPUTS[:1])
    assert (a53.machine, a53.cpu, a53.elf_attributes["machine"]) == ("user mode", "cortex-a53", "AARCH64")


def test_text_that_is_no_measurement(pair) -> None:
    for text, message in (("{}", "no measurement"), ("[]", "no measurement"), ('{"schema": 7}', "schema")):
        with pytest.raises(InputError, match=message):
            Measurement.from_json(text)


@pytest.mark.parametrize(("field", "size"), [("flash", "1KiB"), ("ram", "10")])
def test_a_model_larger_than_its_target(field, size, pair, tmp_path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(f'base = "cortex-m4"\n{field} = "{size}"\n')
    kind = "flash" if field == "flash" else "RAM"
    with pytest.raises(FitError, match=rf"model pair needs 1\d+ bytes of {kind}, target tiny has 10") as caught:
        build_image([pair], load_target(str(path)), tmp_path / "b")
    assert caught.value.exit_code == 3


def test_an_image_larger_than_its_board(pair, tmp_path) -> None:
    path = tmp_path / "small.toml"
    path.write_text('base = "cortex-m4"\n[board]\nflash = { origin = 0, size = "2KiB" }\n')
    with pytest.raises(FitError, match=r"overflows FLASH of 2048 bytes by \d+ bytes on board mps2-an386") as caught:
        build_image([pair], load_target(str(path)), tmp_path / "b")
    assert caught.value.exit_code == 3
