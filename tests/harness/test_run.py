"""Images give the right bytes on every target, and say so when a model misbehaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from projgen.errors import FitError, InputError
from projgen.harness.build import build_image
from projgen.harness.counting import count_image
from projgen.harness.records import Record
from projgen.harness.run import execute, run_image
from projgen.harness.toolchain import HarnessError
from projgen.targets import list_targets, load_target

from .conftest import FIXTURES, Mutate, leak_reference, pair_reference, pair_weights

RANDOM = np.random.default_rng(3)
INPUTS = [RANDOM.integers(-128, 128, 8).astype(np.int8) for _ in range(20)]
INPUTS += [np.full(8, -128, np.int8), np.full(8, 127, np.int8)]
SEQUENCE = RANDOM.integers(-128, 128, (17, 4)).astype(np.int8)
ALL = [target.name for target in list_targets()]


def check_all(image) -> None:
    """Run: plain, off alignment, with the input inside the arena; sequences in one go and step by step."""
    records = [Record((x,), misalign=i % 5) for i, x in enumerate(INPUTS)]
    records += [Record((x,), input_in_arena=True) for x in INPUTS]
    records += [Record((SEQUENCE[:n],), model=1, mode=m) for n in (1, 2, 17) for m in ("run", "step")]
    outputs = run_image(image, records)
    for record, output in zip(records, outputs, strict=True):
        wanted = (leak_reference if record.model else pair_reference)(record.inputs[0])
        np.testing.assert_array_equal(output, wanted)


@pytest.mark.qemu
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("target", ALL)
def test_every_target_gives_the_right_bytes(target, compiler, pair, leak, tmp_path) -> None:
    check_all(build_image([pair, leak], load_target(target), tmp_path, compiler=compiler))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitizers_are_content_with_a_right_model(compiler, pair, leak, tmp_path) -> None:
    check_all(build_image([pair, leak], load_target("host"), tmp_path, compiler=compiler, sanitize=True))


@pytest.mark.qemu
@pytest.mark.parametrize("optimise", ["-O0", "-Os", "-O3"])
def test_optimisation_levels_and_lto(optimise, pair, leak, tmp_path) -> None:
    check_all(build_image([pair, leak], load_target("cortex-m4"), tmp_path / "plain", optimise=optimise))
    lto = build_image([pair, leak], load_target("cortex-m4"), tmp_path / "lto", optimise=optimise, lto=True)
    check_all(lto)


@pytest.mark.qemu
@pytest.mark.parametrize("target", ["host", "cortex-m0", "cortex-m55", "cortex-a53"])
def test_several_inputs_and_outputs_of_int16(target, tmp_path) -> None:
    a, b = np.array([32000, -5, -32768], np.int16), np.array([32000, 7, -1, 0, 1234], np.int16)
    image = build_image([FIXTURES / "join"], load_target(target), tmp_path)
    records = [Record((a, b)), Record((b[:3], b))]
    first, second = execute(image, records)
    assert [x.tolist() for x in first.outputs] == [[32767, 2, -32768], [1234]]
    assert [x.tolist() for x in second.outputs] == [[32767, 14, -2], [1234]]
    assert run_image(image, records)[0].tolist() == [32767, 2, -32768, 1234]
    counts = count_image(image, records)
    assert counts is not None
    assert counts.layers[0][0] > 3
    assert counts.layers[0][1] == 0  # emits no code
    with pytest.raises(InputError, match="one input, no time axis"):
        run_image(image, [Record((a, b), input_in_arena=True)])


GUARDS = {
    "bytes beside the output were written": ("pair", {"return 0;": "volatile int at = 64; output[at] = 1; return 0;"}),
    "bytes beside the arena were written": ("pair", {"return 0;": "((int8_t *)arena)[-1] = 1; return 0;"}),
    "the input, outside the arena, was written": (
        "pair",
        {"return 0;": "((int8_t *)(uintptr_t)input)[3] ^= 1; return 0;"},
    ),
    "bytes beside the input were written": (
        "pair",
        {"return 0;": "volatile int at = 8; ((int8_t *)(uintptr_t)input)[at] = 1; return 0;"},
    ),
    "bytes beside the state were written": (
        "leak",
        {"memcpy(output_t, arena, LEAK_OUTPUT_SIZE);": "((int8_t *)state)[16] = output_t[0] = 1;"},
    ),
    "the model returned -7": ("pair", {"return 0;": "return -7;"}),
}


@pytest.mark.qemu
@pytest.mark.parametrize("message", GUARDS)
@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_a_model_that_misbehaves_is_reported(target, message, mutate: Mutate, request, tmp_path) -> None:
    fixture, changes = GUARDS[message]
    folder = mutate(request.getfixturevalue(fixture), changes)
    image = build_image([folder], load_target(target), tmp_path / "build")
    record = Record((INPUTS[0],)) if fixture == "pair" else Record((SEQUENCE,), mode="step")
    with pytest.raises(HarnessError, match=f"record 0 of model {fixture}: .*{message}"):
        run_image(image, [record])


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitizers_see_a_read_beyond_the_input(compiler, pair, mutate: Mutate, tmp_path) -> None:
    folder = mutate(pair, {"pair_layer0(input, arena);": "pair_layer0(input + 1, arena);"})
    image = build_image([folder], load_target("host"), tmp_path / "b", compiler=compiler, sanitize=True)
    with pytest.raises(HarnessError, match="heap-buffer-overflow"):
        run_image(image, [Record((INPUTS[0],))])


def test_memory_that_was_never_written_does_not_look_like_zeros(pair, mutate: Mutate, tmp_path) -> None:
    folder = mutate(pair, {"pair_layer0(input, arena);": "if (input[0] == 99) { pair_layer0(input, arena); }"})
    image = build_image([folder], load_target("host"), tmp_path / "b")
    output = run_image(image, [Record((INPUTS[0],))])[0]
    hidden = np.full(16, 0xA5 - 256)
    wanted = np.clip((pair_weights()[1] @ hidden + np.arange(64)) >> 4, -128, 127)
    np.testing.assert_array_equal(output, wanted)


def test_state_that_hides_in_the_arena_is_found(leak, mutate: Mutate, tmp_path) -> None:
    folder = mutate(leak, {"leak_integrate(state, input_t, arena);": "leak_integrate(arena, input_t, output_t);"})
    image = build_image([folder], load_target("host"), tmp_path / "b")
    run, step = run_image(image, [Record((SEQUENCE,), mode=m) for m in ("run", "step")])
    assert not np.array_equal(run, step)


@pytest.mark.qemu
def test_a_stack_that_grows_too_far_ends_the_run(pair, mutate: Mutate, tmp_path) -> None:
    deep = "volatile int8_t deep[40000]; for (int i = 39999; i >= 0; i--) { deep[i] = 1; } return deep[9] - 1;"
    image = build_image([mutate(pair, {"return 0;": deep})], load_target("cortex-m4"), tmp_path / "b")
    with pytest.raises(HarnessError, match=r"ended with|stack"):
        run_image(image, [Record((INPUTS[0],))])


@pytest.mark.qemu
def test_a_fault_of_the_core_names_the_function(pair, mutate: Mutate, tmp_path) -> None:
    """A Cortex-M0 can't load a word that isn't aligned."""
    load = "if (*(const volatile int32_t *)(const void *)(input + 1) == 99) { return -9; } return 0;"
    image = build_image([mutate(pair, {"return 0;": load})], load_target("cortex-m0"), tmp_path / "b")
    with pytest.raises(HarnessError, match=r"ended with 99.*took a fault at 0x\w+ \(in pair_run\)"):
        run_image(image, [Record((INPUTS[0],))])


@pytest.mark.qemu
def test_a_run_that_never_ends_is_stopped(pair, mutate: Mutate, tmp_path) -> None:
    image = build_image(
        [mutate(pair, {"return 0;": "volatile int on = 1; while (on) { } return 0;"})],
        load_target("cortex-m3"),
        tmp_path / "b",
    )
    with pytest.raises(HarnessError, match="did not end within 1 s"):
        run_image(image, [Record((INPUTS[0],))], timeout=1)


@pytest.mark.qemu
@pytest.mark.parametrize("target", ALL)
def test_painting_measures_a_known_stack(target, pair, mutate: Mutate, tmp_path) -> None:
    """An array of 1000 more bytes, written, is 1000 more bytes of stack (within its alignment)."""
    depths = []
    for size in (1000, 2000):
        body = f"volatile int8_t deep[{size}]; for (int i = 0; i < {size}; i++) {{ deep[i] = 1; }} return deep[9] - 1;"
        folder = mutate(pair, {"return 0;": body}, name=f"deep{size}")
        image = build_image([folder], load_target(target), tmp_path / f"b{size}")
        depth = execute(image, [Record((INPUTS[0],))], paint=True)[0].stack_bytes
        assert depth is not None
        depths.append(depth)
    assert depths[0] >= 1000
    assert depths[1] - depths[0] == pytest.approx(1000, abs=16)


def test_records_that_do_not_match_are_refused(pair, leak, tmp_path) -> None:
    image = build_image([pair, leak], load_target("host"), tmp_path)
    bad = {
        "2 inputs given. Allowed: 1 inputs": Record((INPUTS[0], INPUTS[0])),
        "7 elements. Allowed: 8 elements": Record((INPUTS[0][:7],)),
        "has type float64. Allowed: int8": Record((np.zeros(8),)),  # type: ignore[arg-type]
        "has type int32. Allowed: int8": Record((np.zeros(8, np.int32),)),
        r"mode 'step'. Allowed: run": Record((INPUTS[0],), mode="step"),
        r"shape \(0, 4\). Allowed: \(steps, 4\)": Record((SEQUENCE[:0],), model=1),
        "can't lie in the arena": Record((SEQUENCE,), model=1, input_in_arena=True),
        "names model 2. Allowed: 0 to 1": Record((INPUTS[0],), model=2),
    }
    for message, record in bad.items():
        with pytest.raises(InputError, match=message):
            run_image(image, [record])


@pytest.mark.qemu
def test_a_sequence_larger_than_the_board_does_not_fit(leak, tmp_path) -> None:
    image = build_image([leak], load_target("cortex-m4"), tmp_path)
    long = np.zeros((1_000_000, 4), np.int8)
    with pytest.raises(FitError, match="don't fit into the board's memory"):
        run_image(image, [Record((long,))])
    assert len(run_image(image, [Record((long[:100_000],))])[0]) == 100_000


def test_the_folder_must_hold_one_manifest(tmp_path: Path, pair, mutate: Mutate) -> None:
    with pytest.raises(InputError, match="is no folder"):
        build_image([tmp_path / "absent"], load_target("host"), tmp_path)
    with pytest.raises(InputError, match="has no manifest"):
        build_image([Path(__file__).parent], load_target("host"), tmp_path)
    with pytest.raises(InputError, match=r"has schema 99\. Allowed: schema 1"):
        build_image([mutate(pair, {'"schema": 1': '"schema": 99'})], load_target("host"), tmp_path)
