"""LSTM and GRU kernels alone, on this machine: portable C, and the plain C beside the DSP and MVE assembly."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from projgen import resources
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph
from projgen.kernels import recurrent_dsp
from projgen.kernels.packed import LIMIT
from projgen.kernels.record import KernelChoice
from projgen.kernels.recurrent import KERNELS
from projgen.kernels.render import render_block
from projgen.ops.record import Sample
from projgen.ops.recurrent_integer import TANH_TABLE
from projgen.ops.recurrent_samples import Case, sample
from projgen.targets import load_target
from tests.kernels.draws import collect
from tests.kernels.recurrent_cases import LARGE, TARGETS, cases, layers, samples
from tests.kernels.rig import TRAPS, Library


def choose(made: Sample, name: str) -> KernelChoice | None:
    kernel = next(k for k in KERNELS if k.name == name)
    return kernel.apply(made.graph, made.graph.nodes[0], load_target(TARGETS[name.split("_")[1]]))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("form", TARGETS)
def test_every_sample(form: str, compiler: str, tmp_path: Path) -> None:
    made = [*samples(), *map(sample, LARGE)]
    library = Library(cases(made, form), tmp_path, (compiler, "-O1", *TRAPS[compiler]))
    assert len(library.cases) >= len(made) - 2
    library.check()


@pytest.mark.parametrize("form", TARGETS)
def test_drawn_layers(form: str, tmp_path: Path) -> None:
    drawn = collect(layers(), 60)
    library = Library(cases(drawn, form), tmp_path, ("gcc", "-O1", *TRAPS["gcc"]))
    assert len(library.cases) >= 55
    library.check()


@pytest.mark.parametrize("form", TARGETS)
def test_tables_hold_exactly_the_constants(form: str) -> None:
    for case in cases([*samples(), *map(sample, LARGE), *collect(layers(), 40)], form):
        held = set()
        for table in case.choice.tables:
            constants = table.layout.unpack(table.data)
            assert set(constants) == set(table.roles)
            for role, values in constants.items():
                given = case.graph.data(case.node, role)
                assert values.dtype == given.dtype
                np.testing.assert_array_equal(values, given, err_msg=f"{case.label}: {role}")
            held |= set(table.roles)
            np.testing.assert_array_equal(table.layout.pack(constants), table.data)
        assert held == set(case.node.inputs) - {"x"}


def numbers(file: str, name: str) -> list[int]:
    text = (resources.runtime_c() / "src" / file).read_text()
    found = re.search(rf"{name}\[\d+\] = {{(.*?)}};", text, re.DOTALL)
    assert found
    return [int(v, 0) for v in found[1].split(",")]


def test_tables_in_c() -> None:
    rise = np.diff(TANH_TABLE)
    assert numbers("pg_activation.h", "pg_tanh_points") == TANH_TABLE.tolist()
    words = (-TANH_TABLE[:-1] & 0xFFFF) | rise << 16
    assert numbers("pg_recurrent_dsp.h", "pg_tanh_words") == words.tolist()
    turned = [*TANH_TABLE[128:-1], *TANH_TABLE[:128], *rise[128:], *rise[:128]]
    assert numbers("pg_recurrent_mve.h", "pg_tanh_gather") == turned


def test_activation_from_saturated_index_is_exact() -> None:
    """What the DSP blocks compute for any SMMULR result is the specified act of its saturated value."""
    v = np.concatenate([np.arange(-(2**17), 2**17), [-(2**31), 2**31 - 1, 2**20 + 77]])
    i, f = np.clip(v >> 8, -128, 127) + 128, v & 255
    saturated = np.clip(v, -32768, 32767)
    base, rise = TANH_TABLE[(saturated >> 8) + 128], np.diff(TANH_TABLE)[(saturated >> 8) + 128]
    act = base + ((rise * (saturated & 255) + 128) >> 8)
    wide = TANH_TABLE[i] * 32768 + np.diff(TANH_TABLE)[i] * (f << 7)
    assert np.abs(wide + 0x3FFFC000).max() < 2**31
    np.testing.assert_array_equal((wide + 0x4000) >> 15, act)
    np.testing.assert_array_equal((wide + 0x3FFFC000) >> 16, (act + 32767) >> 1)


def one_row_at(excess: int) -> Sample:
    """A layer whose largest gate row reaches the limit of packed pairs less one, plus ``excess``."""
    made = sample(Case("bound", Lstm, 250, 200, zero_point=0, steps=2))
    node, graph = made.graph.nodes[0], made.graph
    w, r, b = (np.array(graph.data(node, role)) for role in ("w", "r", "b"))
    w[5], r[5] = 127, -127
    b[5] = LIMIT - 1 - 450 * 127 * 128 + excess
    changed = [replace(graph.values[role], data=data) for role, data in (("w", w), ("r", r), ("b", b))]
    x = np.stack([np.full((2, 250), 127), np.full((2, 250), -128)]).astype(np.int8)
    return Sample("bound", graph.with_(values=changed), (x,))


def is_wide(choice: KernelChoice) -> int:
    return int(dict(choice.blocks[-1].parameters)["wide"])


def test_packed_pairs_are_used_up_to_their_bound_and_int16_weights_beyond(tmp_path: Path) -> None:
    inside, beyond = choose(one_row_at(0), "lstm_dsp"), choose(one_row_at(1), "lstm_dsp")
    assert inside is not None
    assert beyond is not None
    assert (is_wide(inside), is_wide(beyond)) == (0, 1)
    Library(cases([one_row_at(0)], "dsp"), tmp_path).check()


def test_a_shifted_low_rank_side_takes_int16_weights() -> None:
    made = sample(Case("mixed", Gru, 8, 8, k=2, ranks=(2, None), spread=20.0))
    choice = choose(made, "gru_dsp")
    assert choice is not None
    assert is_wide(choice) == 1


def test_a_factor_that_could_leave_the_bound_is_left_to_portable_c() -> None:
    made = sample(Case("long", Lstm, 520, 3, ranks=(2, 1)))
    q = np.full((2, 520), 127, np.int8)
    graph: Graph = made.graph.with_(values=[replace(made.graph.values["q_in"], data=q)])
    assert recurrent_dsp.lstm(graph, graph.nodes[0], load_target("cortex-m4")) is None
    assert choose(made, "lstm_dsp") is not None


def test_layers_too_large_for_a_block() -> None:
    large = sample(Case("large", Gru, 2, 2050, steps=1))
    assert choose(large, "gru_dsp") is None
    assert choose(sample(Case("long", Lstm, 4096, 1, steps=1)), "lstm_mve") is None


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_predictions_rank_the_forms(cell: str) -> None:
    kind = Lstm if cell == "lstm" else Gru
    dense, factored = sample(Case("dense", kind, 12, 64)), sample(Case("factored", kind, 12, 64, ranks=(8, 7)))
    predicted = {name: choose(dense, f"{cell}_{name}") for name in TARGETS}
    portable, thumb2, dsp, mve = (predicted[name].instructions for name in TARGETS)  # type: ignore[union-attr]
    assert mve < dsp / 4 < thumb2 / 4.8 < portable / 8
    for name in ("thumb2", "dsp", "mve"):
        low = choose(factored, f"{cell}_{name}")
        assert low is not None
        assert low.instructions < 0.65 * predicted[name].instructions  # type: ignore[union-attr]


def test_equal_shapes_share_a_block_and_others_do_not() -> None:
    blocks = [
        choose(sample(Case(name, Lstm, 20, h, zero_point=z)), "lstm_dsp")
        for name, h, z in (("a", 5, 0), ("b", 5, 9), ("c", 6, 0))
    ]
    names = [c.function for c in blocks if c is not None]
    assert names[0] == names[1] != names[2]


def test_emitted_blocks_read_well() -> None:
    made = [c for form in ("thumb2", "dsp", "mve") for c in cases([*samples(), *map(sample, LARGE)], form)]
    every = (b for c in made for b in c.choice.blocks)
    blocks = {b.function: b for b in every if b.template != "recurrent_thumb2.h.j2"}  # which calls others
    assert len(blocks) > 40
    for function, block in blocks.items():
        text = render_block(block)
        guard = f"{function.upper()}_H"
        assert text.startswith(f"#ifndef {guard}\n#define {guard}\n\n/* ")
        assert text.endswith(f"\n#endif /* {guard} */\n")
        assert "#else\nPG_KERNEL" in text
        assert max(map(len, text.split("\n"))) <= 120
        assert "Frame: " in text
        for statement in re.findall(r"__asm volatile\((.*?)\);", text, flags=re.DOTALL):
            assert len("".join(re.findall(r'"(.*?)"', statement)).replace("\\n", "\n")) <= 4095
        for line in text.split("\n"):
            assert len(re.findall(r"[;{}]", re.sub(r'".*?"|/\*.*?\*/', "", line))) <= 3 or "for (" in line, line
