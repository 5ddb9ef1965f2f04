"""Every C file of the runtime and every emitted block: warning-free, formatted, free of what the contract forbids."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from projgen import resources
from projgen.kernels.record import Block
from projgen.kernels.render import render_block
from tests.kernels.rig import WARNINGS, cases, samples

SOURCES = sorted(p for p in (resources.runtime_c() / "src").glob("pg_*.h"))
ALONE = [p for p in SOURCES if not p.name.startswith("pg_cmsis_nn")]  # test_cmsis_nn.py compiles those
HEADER = resources.runtime_c() / "include" / "projgen_runtime.h"
FORBIDDEN = re.compile(r"\b(malloc|free|printf|float|double|assert|abort|exit)\b")


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_each_source_compiles_alone_without_warnings(compiler: str, tmp_path: Path) -> None:
    for source in ALONE:
        unit = tmp_path / f"{source.stem}.c"
        unit.write_text(f'#include "{source.name}"\n#include "{source.name}"\n')
        includes = [f"-I{HEADER.parent}", f"-I{source.parent}"]
        command = [compiler, "-std=c99", "-O1", *WARNINGS, "-Wcast-qual", *includes, "-c", str(unit), "-o", "/dev/null"]
        subprocess.run(command, check=True)


def test_sources_are_formatted() -> None:
    files = [str(p) for p in (HEADER, *SOURCES)]
    subprocess.run(["clang-format", "--dry-run", "-Werror", "--style=file", *files], check=True)


@pytest.mark.parametrize("path", [HEADER, *SOURCES], ids=lambda p: p.name)
def test_sources_say_what_they_are_and_use_nothing_forbidden(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("/* SPDX-License-Identifier: MIT-0\n")
    guard = f"{path.stem.upper()}_H"
    assert f"#ifndef {guard}\n#define {guard}\n" in text
    assert not FORBIDDEN.search(_without_comments(text))


def blocks() -> list[Block]:
    made = [c for t in ("host", "cortex-m4", "cortex-m55") for c in cases(samples(), t)]
    return list(dict.fromkeys(b for c in made for b in c.choice.blocks))


def test_emitted_blocks_are_guarded_and_short_of_c99_limits() -> None:
    made = blocks()
    assert len(made) > 25
    for block in made:
        text = render_block(block)
        guard = f"{block.function.upper()}_H"
        assert text.startswith(f"#ifndef {guard}\n#define {guard}\n"), block.function
        assert text.endswith(f"#endif /* {guard} */\n"), block.function
        assert not FORBIDDEN.search(_without_comments(text))
        for statement in re.findall(r"__asm volatile\((.*?)\);", text, flags=re.S):
            literal = "".join(re.findall(r'"(.*?)"', statement, flags=re.S))
            assert len(literal.replace("\\n", "\n")) < 4095, block.function
        if "__asm" in text:
            assert "#else\nPG_KERNEL" in text, f"{block.function} has no plain C beside its assembly"
