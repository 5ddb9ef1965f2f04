"""Faults planted in the C of LSTM and GRU and in their packing: the samples must find each."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from projgen import resources
from projgen.kernels.recurrent_mve_layouts import GateTable, PairedGates
from projgen.kernels.recurrent_streams import LstmStream
from tests.kernels.recurrent_cases import TARGETS, cases, samples
from tests.kernels.rig import Case, Library

# (form, file, what stands there, what the fault makes of it)
FAULTS = (
    ("portable", "pg_activation.h", "(v & 255) + 128) >> 8)", "(v & 255)) >> 8)"),
    ("portable", "pg_activation.h", "+ 32767) >> 1", "+ 32768) >> 1"),
    ("portable", "pg_activation.h", "(a * b + (1 << 14)) >> 15", "(a * b) >> 15"),
    ("portable", "pg_recurrent.h", "(value + ((1 << bits) >> 1)) >> bits", "value >> bits"),
    ("portable", "pg_recurrent.h", "f->bias != NULL ? f->bias[j] : 0", "0"),
    ("portable", "pg_recurrent.h", "z += input->rank;", "z += recurrent->rank;"),
    ("portable", "pg_recurrent.h", "width, v.x_wide), g->input_shift)", "width, v.x_wide), g->recurrent_shift)"),
    ("portable", "pg_lstm.h", "units + j));", "2 * units + j));"),
    ("portable", "pg_lstm.h", "pg_gate(&p->factor, from, j)", "pg_gate(&p->factor, from, 0)"),
    ("portable", "pg_lstm.h", "15 - fraction", "14 - fraction"),
    ("portable", "pg_lstm.h", "pg_shift_left(cell, 12 - fraction)", "cell"),
    ("portable", "pg_lstm.h", "memcpy(state, cells, 2 * units)", "memcpy(state, cells, units)"),
    ("portable", "pg_lstm.h", "memcpy(hidden, y, (size_t)p->units)", "memcpy(hidden, y, (size_t)p->units - 1)"),
    ("portable", "pg_gru.h", "+ p->candidate_bias[j]", "+ 0"),
    ("portable", "pg_gru.h", "* reset) >> 16)", "* reset + 32768) >> 16)"),
    ("portable", "pg_gru.h", "g->bias[row] + 2 * gated", "g->bias[row] + gated"),
    ("portable", "pg_gru.h", "+ (1 << 14)) >> 15", "+ (1 << 15)) >> 15"),
    ("thumb2", "pg_recurrent_thumb2.h", "to[i] * (1 << shift)", "to[i]"),
    ("thumb2", "pg_recurrent_thumb2.h", "return sum * (1 << shift)", "return sum"),
    ("thumb2", "pg_lstm_thumb2.h", "15 - fraction", "14 - fraction"),
    ("thumb2", "pg_lstm_thumb2.h", "rank > 0 ? rank : p->inputs", "p->inputs"),
    ("thumb2", "pg_gru_thumb2.h", "from_x[row] + 2 * gated", "from_x[row] + gated"),
    ("thumb2", "pg_gru_thumb2.h", "(int64_t)from_h[row] * reset", "(int64_t)from_h[at] * reset"),
    ("dsp", "pg_recurrent_dsp.h", "#define PG_LOGISTIC_BIAS 0x3fffc000", "#define PG_LOGISTIC_BIAS 0x3fffffff"),
    ("dsp", "pg_recurrent_dsp.h", "x[i] * (1 << shift)", "x[i]"),
    ("dsp", "pg_lstm_dsp.h", "0x404000) >> 23", "0x400000) >> 23"),
    ("dsp", "pg_lstm_dsp.h", "(1 << (29 - s.fraction))", "(1 << (28 - s.fraction))"),
    ("dsp", "pg_gru_dsp.h", "narrow * (1 << s.hidden_shift)", "narrow"),
    ("dsp", "pg_gru_dsp.h", "starts[5] = m[1]", "starts[5] = m[0]"),
    ("mve", "pg_recurrent_mve.h", "j % 2 * 4 + j / 2", "j"),
    ("mve", "pg_lstm_mve.h", "(1 << (14 - fraction))", "0"),
    ("mve", "pg_gru_mve.h", "from_x[j] + 2 * gated", "from_x[j] + gated"),
    ("mve", "pg_gru_mve.h", "(hidden + 128) >> 8", "(hidden + 127) >> 8"),
)


@pytest.fixture(scope="module")
def every_case() -> dict[str, list[Case]]:
    return {form: cases(samples(), form) for form in TARGETS}


@pytest.mark.parametrize(("form", "file", "good", "bad"), FAULTS, ids=[f"{f}: {b}" for _, f, _, b in FAULTS])
def test_a_fault_in_the_c_is_found(
    form: str,
    file: str,
    good: str,
    bad: str,
    every_case: dict[str, list[Case]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = tmp_path / "runtime_c"
    shutil.copytree(resources.runtime_c(), copy, ignore=shutil.ignore_patterns("boards", "plugin"))
    text = (copy / "src" / file).read_text()
    assert good in text
    (copy / "src" / file).write_text(text.replace(good, bad))
    monkeypatch.setattr(resources, "runtime_c", lambda: copy)
    touched = [c for c in every_case[form] if any(file == s for s in c.choice.sources)]
    library = Library(touched, tmp_path, ("gcc", "-O1", "-Wno-error"))
    with pytest.raises(AssertionError):
        library.check()


@pytest.mark.parametrize("form", ["dsp", "mve"])
def test_swapped_gates_in_the_packing_are_found(form: str, tmp_path: Path) -> None:
    made = [s for s in samples() if s.name == "lstm_7_9_k-3"]
    [case] = cases(made, form)
    tables = []
    for table in case.choice.tables:
        constants = dict(table.layout.unpack(table.data))
        if isinstance(table.layout, LstmStream | GateTable | PairedGates) and "b" in constants:
            b = constants["b"].reshape(4, -1)
            constants["b"] = b[[1, 0, 2, 3]].reshape(-1)
        tables.append(replace(table, data=table.layout.pack(constants)))
    assert any(not np.array_equal(t.data, o.data) for t, o in zip(tables, case.choice.tables, strict=True))
    wrong = replace(case, choice=replace(case.choice, tables=tuple(tables)))
    with pytest.raises(AssertionError):
        Library([wrong], tmp_path).check()


def test_all_forms_are_covered() -> None:
    assert {form for form, *_ in FAULTS} == set(TARGETS)
