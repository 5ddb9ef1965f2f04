"""Counts are exact, per layer, and refused when they can't be trusted."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.errors import InputError, ToolMissingError
from projgen.harness import counting
from projgen.harness.build import CALIBRATION_INSTRUCTIONS, build_image
from projgen.harness.counting import count_image
from projgen.harness.cycles import estimate_cycles
from projgen.harness.disassembly import disassemble
from projgen.harness.measurement import mean_shares
from projgen.harness.records import Record
from projgen.harness.run import run_image
from projgen.harness.toolchain import HarnessError
from projgen.targets import list_targets, load_target

from .conftest import Mutate

pytestmark = pytest.mark.qemu

X = np.arange(8, dtype=np.int8)
SEQUENCE = np.arange(40, dtype=np.int8).reshape(10, 4)
ALL = [target.name for target in list_targets()]

# A layer of a known number of instructions, long enough to cross a page, 2-byte ones at the page's end too.
NOPS = 6000
STRAIGHT = {
    "fully_connected(input, 8, pair_w0, 16, output);": (
        f'__asm__ volatile(".rept {NOPS}\\n nop\\n .endr\\n" ::: "memory");(void)input; (void)pair_w0; output[0] = 0;'
    ),
}


@pytest.mark.parametrize("target", ALL)
def test_layers_and_control_sum_to_the_total(target, pair, leak, tmp_path) -> None:
    image = build_image([pair, leak], load_target(target), tmp_path)
    records = [Record((X,)), Record((SEQUENCE,), model=1), Record((X,)), Record((SEQUENCE,), 1, "step")]
    counts = count_image(image, records)
    assert counts is not None
    assert counts.calibration == (CALIBRATION_INSTRUCTIONS, CALIBRATION_INSTRUCTIONS)
    for total, layers, control in zip(counts.totals, counts.layers, counts.control, strict=True):
        assert total == sum(layers) + control
        assert min(*layers, control) > 0
    assert sum(counts.totals) == sum(counts.symbols.values()) == sum(counts.addresses.values())
    assert counts.totals[0] == counts.totals[2]


@pytest.mark.parametrize("target", ALL)
def test_two_layers_that_share_a_kernel_count_in_the_ratio_of_their_work(target, pair, tmp_path) -> None:
    """1024 multiply-accumulates against 128; the kernel's own cost per output is part of the work."""
    image = build_image([pair], load_target(target), tmp_path, optimise="-O1")
    counts = count_image(image, [Record((X,))])
    assert counts is not None
    first, second = counts.layers[0]
    assert 5.5 < second / first <= 8
    inside = counts.symbols["fully_connected"]
    calls = counts.symbols["pair_layer0"] + counts.symbols["pair_layer1"]
    assert first + second == inside + calls
    assert calls < 40


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m0", "cortex-a7"])
def test_a_layer_of_known_length_across_pages(target, pair, mutate: Mutate, tmp_path) -> None:
    counted = []
    for nops in (NOPS, 2 * NOPS):
        changes = {old: new.replace(str(NOPS), str(nops)) for old, new in STRAIGHT.items()}
        folder = mutate(pair, changes, name=f"straight{nops}")
        image = build_image([folder], load_target(target), tmp_path / f"b{nops}")
        counts = count_image(image, [Record((X,))])
        assert counts is not None
        assert counts.layers[0][0] - nops in (3, 4, 5, 6)  # set output[0], return
        cycles = None
        if target != "cortex-a7":
            cycles = estimate_cycles(counts, disassemble(image.elf, image.target))
        counted.append((counts.layers[0][0], cycles))
    assert counted[1][0] - counted[0][0] == NOPS
    if target != "cortex-a7":
        assert counted[1][1] - counted[0][1] == NOPS  # one cycle each: the page's end is no taken branch


def test_sequences_are_affine_in_their_length(leak, tmp_path) -> None:
    image = build_image([leak], load_target("cortex-m4"), tmp_path)
    zeros = np.zeros((12, 4), np.int8)
    counts = count_image(image, [Record((zeros[:n],)) for n in (1, 2, 3, 12)])
    assert counts is not None
    one, two, three, twelve = counts.totals
    assert two - one == three - two == (twelve - one) / 11 > 0


def test_layers_of_two_models_with_functions_of_one_name(pair, mutate: Mutate, tmp_path) -> None:
    first = mutate(pair, {"pair_layer": "shared_layer"}, name="first")
    second = mutate(pair, {"pair_layer": "shared_layer", "16, output": "12, output"}, name="second")
    for path in sorted(second.iterdir()):
        path.write_text(path.read_text().replace("pair", "twin").replace("PAIR", "TWIN"))
        path.rename(second / path.name.replace("pair", "twin"))
    image = build_image([first, second], load_target("cortex-m4"), tmp_path / "b")
    counts = count_image(image, [Record((X,)), Record((X,), model=1)])
    assert counts is not None
    assert counts.layers[0][1] == pytest.approx(counts.layers[1][1], rel=0.05)
    assert counts.layers[1][0] < 0.8 * counts.layers[0][0]
    for i in (0, 1):
        assert counts.totals[i] == sum(counts.layers[i]) + counts.control[i]


@pytest.mark.parametrize("options", [{"lto": True}, {"compiler": "clang"}, {"optimise": "-O0"}])
def test_other_builds_count_too(options, pair, tmp_path) -> None:
    counts = count_image(build_image([pair], load_target("cortex-m4"), tmp_path, **options), [Record((X,))])
    assert counts is not None
    assert counts.layers[0][1] > 5 * counts.layers[0][0] > 0


def test_a_count_that_is_off_is_refused(pair, tmp_path, monkeypatch) -> None:
    image = build_image([pair], load_target("cortex-m4"), tmp_path)
    monkeypatch.setattr(counting, "CALIBRATION_INSTRUCTIONS", CALIBRATION_INSTRUCTIONS + 1)
    with pytest.raises(HarnessError, match="1200002 instructions counted as 1200001"):
        count_image(image, [Record((X,))])


def test_counts_that_disagree_are_refused(pair, tmp_path) -> None:
    image = build_image([pair], load_target("cortex-m4"), tmp_path)
    with pytest.raises(HarnessError, match="1200011 instructions by the running counter, 1200010 by blocks"):
        counting._check_exact([[1200001], [10]], {0: 1200010}, image)


def test_a_layer_without_a_function_is_refused(pair, mutate: Mutate, tmp_path) -> None:
    folder = mutate(pair, {'"function": "pair_layer1"': '"function": "pair_layer9"'})
    image = build_image([folder], load_target("cortex-m4"), tmp_path / "b")
    with pytest.raises(HarnessError, match=r"layer second of model pair .* no function pair_layer9"):
        count_image(image, [Record((X,))])


def test_a_vector_access_the_core_does_not_allow_is_refused(pair, mutate: Mutate, tmp_path) -> None:
    """QEMU lets a Cortex-M55 load a vector of words from any address; the core does not."""
    load = '__asm__ volatile("vldrw.32 q0, [%0]" : : "r"(input + AT) : "memory"); return 0;'
    target = load_target("cortex-m55")
    for at in (0, 1, 4):
        folder = mutate(pair, {"return 0;": load.replace("AT", str(at))}, name=f"at{at}")
        image = build_image([folder], target, tmp_path / f"b{at}")
        assert len(run_image(image, [Record((X,))])) == 1
        if at == 1:
            with pytest.raises(HarnessError, match=r"4 bytes at 0x3\w+ by the instruction at 0x\w+ in pair_run"):
                count_image(image, [Record((X,))])
            assert count_image(image, [Record((X,))], check_alignment=False) is not None
        else:
            assert count_image(image, [Record((X,))]) is not None


def test_sanitized_images_are_not_counted(pair, tmp_path) -> None:
    image = build_image([pair], load_target("host"), tmp_path, sanitize=True)
    with pytest.raises(InputError, match="has sanitizers"):
        count_image(image, [Record((X,))])


def test_host_counts_are_not_available_without_its_emulator(pair, tmp_path, monkeypatch) -> None:
    image = build_image([pair], load_target("host"), tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_image(image, [Record((X,))]) is None


def test_a_too_new_emulator_is_named(tmp_path) -> None:
    fake = tmp_path / "qemu-new"
    fake.write_text("#!/bin/sh\necho 'QEMU emulator version 10.0.2 (Debian)'\n")
    fake.chmod(0o755)
    with pytest.raises(ToolMissingError, match=r"qemu-new is too new .*10\.0\.2.*Allowed: QEMU 7\.2 to 9"):
        counting._check_version(str(fake))


def test_the_plugin_is_built_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PROJGEN_CACHE", str(tmp_path / "cache"))
    built = counting.build_plugin()
    written = built.stat().st_mtime_ns
    assert built.parent == tmp_path / "cache"
    assert counting.build_plugin() == built
    assert built.stat().st_mtime_ns == written
    shutil.rmtree(built.parent)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=30), st.integers(1, 400))
@settings(deadline=None)
def test_shares_sum_to_the_mean(sums, number) -> None:
    shares = mean_shares(sums, number)
    assert sum(shares) == round(sum(sums) / number) or abs(sum(shares) - sum(sums) / number) < 1
    assert all(abs(share - value / number) < 1 + 1e-3 for share, value in zip(shares, sums, strict=True))
