"""Of the kernels only what the model reaches: on small texts, and asked of compilers."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from projgen.codegen.reach import identifiers, reached
from projgen.ir.graph import Graph
from tests.codegen.native import emit
from tests.schedule.nets import depthwise_pointwise, recurrent, residual

RUNTIME = """/* What the kernels share. */
#ifndef SHARED_H
#define SHARED_H

#include <stdint.h>

/* Checked by the compiler. */
typedef char pg_assert_shift[(-5 >> 1) == -3 ? 1 : -1];

#if defined(__GNUC__)
#define PG_INLINE static inline
#define PG_NAKED static __attribute__((naked))
#else
#define PG_INLINE static
#endif

typedef struct {
    int32_t low;
} pg_limits;

/* Two forms of a block. */
typedef void pg_first(const int8_t *x,
                      int32_t count);
typedef void pg_second(int32_t count);

/* Twice {x}. */
PG_INLINE int32_t pg_twice(int32_t x) {
    return 2 * x; /* never pg_lonely(x) */
}

static const int16_t pg_table[2] = {
    1,
    2,
};

#if USE_ASSEMBLY
PG_NAKED void pg_block(int32_t x) {
    __asm volatile("push {r4, lr}\\n"
                   "bl pg_called\\n");
}
#else
PG_INLINE void pg_block(int32_t x) {
    (void)pg_twice(x);
}
#endif

PG_INLINE void pg_called(void) {
}

PG_INLINE void pg_lonely(pg_limits *p) {
    p->low = pg_table[0];
}

#endif /* SHARED_H */
"""


def rest(*roots: str) -> str:
    """What is left of RUNTIME."""
    ((left,),) = (dict(part).values() for part in reached([(("shared.h", RUNTIME),)], roots))
    return left


def test_what_is_reached_stays_as_it_was() -> None:
    everything = ["PG_INLINE", "PG_NAKED", "pg_first", "pg_second", "pg_block", "pg_lonely"]
    assert rest(*everything) == RUNTIME


def test_a_function_brings_what_it_uses_in_any_branch() -> None:
    left = rest("pg_block")
    for kept in ("pg_twice(int32_t x) {", "PG_NAKED void pg_block", "#if USE_ASSEMBLY", "void pg_called", "naked"):
        assert kept in left
    for gone in ("pg_table", "void pg_lonely", "pg_limits", "pg_first", "Two forms"):
        assert gone not in left
    assert "pg_assert_shift" in left and "#include <stdint.h>" in left


def test_comments_are_no_uses_and_stay_with_what_they_describe() -> None:
    left = rest("pg_second")
    assert "/* Two forms of a block. */\ntypedef void pg_second(int32_t count);\n" in left
    assert "pg_first" not in left and "Twice" not in left
    assert "pg_lonely" not in identifiers("a /* pg_lonely\n */ b") and identifiers('"bl pg_x"') >= {"pg_x"}


def test_a_source_of_which_nothing_is_left_goes() -> None:
    part = (("a.h", "#ifndef A_H\n#define A_H\n\n/* A. */\nstatic void a(void) {\n}\n\n#endif\n"), ("b.h", "int b;\n"))
    assert reached([part], []) == [(part[1],)]


def test_text_that_closes_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2 of a kernel's text closes nothing: #endif"):
        reached([(("a.h", "int a;\n#endif\n"),)], [])


COMPILERS = (
    ["gcc"],
    ["arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb"],
    ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"],
    ["arm-none-eabi-gcc", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
)
MODELS = {
    "depthwise": depthwise_pointwise(9, 7, 8, 8),
    "residual": residual(),
    "lstm": recurrent("lstm", "lstm_3_5_k2"),
}


def unused(folder: Path, compiler: list[str]) -> set[str]:
    """Functions that a compiler finds unused once they no longer say that they may be."""
    kernels = folder / "net_kernels.h"
    said = re.compile(r"__attribute__\(\(unused\)\)|, unused(?=\)\))|inline __attribute__\(\(always_inline, unused\)\)")
    kernels.write_text(said.sub("", kernels.read_text()))
    command = [*compiler, "-std=c99", "-Wunused-function", "-S", "-o", "/dev/null", str(folder / "net.c")]
    plain = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)
    return set(re.findall(r"'(\w+)' defined but not used", done.stderr))


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("model", MODELS)
def test_compilers_find_no_function_unused(model: str, target: str, tmp_path: Path) -> None:
    graph: Graph = MODELS[model]
    emit(graph, tmp_path, target=target)
    found = [unused(tmp_path, compiler) for compiler in COMPILERS]
    assert not set.intersection(*found)  # a form of a core uses what another's does not


def test_compilers_would_find_one(tmp_path: Path) -> None:
    emit(MODELS["depthwise"], tmp_path)
    with (tmp_path / "net.c").open("a") as file:
        file.write("PG_KERNEL void pg_never(void) {\n}\nPG_INLINE void pg_neither(void) {\n}\n")
    assert {"pg_never", "pg_neither"} <= unused(tmp_path, ["gcc"])
