"""Target files: those that ship, a user's own, and what is wrong with a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from projgen.errors import InputError
from projgen.targets import CPU_ISA, list_targets, load_target, parse_bytes

NAMES = ["host", *(f"cortex-m{n}" for n in (0, 3, 4, 7, 33, 55)), "cortex-a7", "cortex-a53", "cortex-a76"]


def test_the_targets_that_ship() -> None:
    targets = list_targets()
    assert [target.name for target in targets] == NAMES
    assert all(target == load_target(target.name) for target in targets)
    assert all(target.isa <= CPU_ISA[target.cpu] for target in targets)
    assert load_target("cortex-m55").isa == {"dsp", "mve"}
    assert load_target("cortex-m4").board.machine == "mps2-an386"


@pytest.mark.parametrize("name", ["cortex-m5", "", "../targets/host", "host "])
def test_unknown_target(name) -> None:
    with pytest.raises(InputError, match=r"unknown target .* Allowed: cortex-a53, .*host, or a path.*--target"):
        load_target(name)


def test_a_users_own_target(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    path.write_text('base = "cortex-m33"\ndescription = "mine"\nflash = "96KiB"\nisa = []\n[board]\nstack = 4096\n')
    mine, base = load_target(str(path)), load_target("cortex-m33")
    assert (mine.name, mine.flash_bytes, mine.isa) == ("my-board", 96 * 1024, frozenset())
    assert (mine.board.stack_bytes, mine.board.machine) == (4096, base.board.machine)
    assert (mine.ram_bytes, mine.flags) == (base.ram_bytes, base.flags)
    above = tmp_path / "above.toml"
    above.write_text('base = "my-board.toml"\nname = "higher"\n')
    assert (load_target(above).name, load_target(above).flash_bytes) == ("higher", 96 * 1024)


BAD = {
    'base = "cortex-m4"\nisa = ["mve"]': r"cortex-m4 does not have mve\. Allowed: dsp\. Change it in: isa in",
    'base = "cortex-m0"\nisa = ["dsp"]': r"cortex-m0 does not have dsp\. Allowed: thumb1",
    'base = "cortex-m55"\nisa = ["mve"]': "mve without dsp",
    'base = "cortex-m4"\ncpu = "z80"': r"unknown cpu 'z80'\. Allowed: host, cortex-m0,",
    'base = "cortex-m4"\nflash = "much"': r"'much' is no size\. Allowed: .*KiB.* Change it in: flash in",
    'base = "cortex-m4"\nram = 0': "0 is no size",
    'base = "cortex-m4"\ncolour = "red"': r"unknown field colour\. Allowed: board, clang_target",
    'base = "cortex-m4"\nflags = "-O2"': "flags is '-O2'. Allowed: a list of texts",
    'base = "cortex-m4"\n[board]\nkind = "moon"': r"unknown board kind 'moon'\. Allowed: native, user, system",
    'base = "cortex-m4"\n[board]\nstartup = "x"': r"unknown startup 'x'\. Allowed: cortex-m, linux",
    'base = "cortex-m4"\n[board]\nflash = 3': "flash is 3",
    'base = "cortex-m4"\n[board]\ncolour = 3': "unknown field colour",
    'base = "none"': "unknown base target 'none'. Allowed: cortex-a53",
    "base = 3": "base = 3",
    'base = "bad.toml"': "based on itself",
    'name = "x y"': "target name 'x y'",
    'name = "x"\ncpu = "host"\ndescription = "d"': r"needs a \[board\] table",
    'name = "x"\n': "cpu is missing",
    "name = ": "is no TOML",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_with_a_target_file(text, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text + "\n")
    with pytest.raises(InputError, match=BAD[text]):
        load_target(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml does not exist"):
        load_target(str(tmp_path / "none.toml"))


def test_sizes() -> None:
    assert parse_bytes("64KiB", "x") == 65536
    assert parse_bytes(" 1.5 MiB", "x") == 1536 * 1024
    assert parse_bytes("512", "x") == parse_bytes("512B", "x") == parse_bytes(512, "x") == 512
    for bad in ("", "-1", "64kb?", "0.3", 0, -5, True, None, 1.5, "1TiB"):
        with pytest.raises(InputError, match=r"is no size\. .* Change it in: budget"):
            parse_bytes(bad, "budget")
