"""Faults planted in the C, and in the order of packed tables: the samples must find each."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from projgen import resources
from projgen.kernels.packed import NATURAL, WIDENED, PairStream
from tests.kernels import draws
from tests.kernels.rig import Case, Library, cases, samples

# (file, what stands there, what the fault makes of it)
FAULTS = (
    ("include/projgen_runtime.h", "((int64_t)1 << 31)", "((int64_t)1 << 30)"),
    ("include/projgen_runtime.h", "(int32_t)((uint32_t)acc << shift)", "(acc + 0 * shift)"),
    ("include/projgen_runtime.h", "value > high ? high : value", "value > high ? high - 1 : value"),
    ("include/projgen_runtime.h", "value < low ? low : value", "value < low ? low + 1 : value"),
    ("include/projgen_runtime.h", "+ out->zero_point", "+ out->zero_point + 1"),
    ("src/pg_matrix.h", "acc3 += v * *w3++", "acc3 += v * *w2"),
    ("src/pg_matrix.h", "for (; n < outputs; ++n)", "for (; n < outputs - 1; ++n)"),
    ("src/pg_window.h", "pg_fill(patch, g->zero_point, count, wide)", "pg_fill(patch, 0, count, wide)"),
    ("src/pg_window.h", "pg_fill(patch, g->zero_point, g->kernel_w", "pg_fill(patch, 0, g->kernel_w"),
    ("src/pg_window.h", "ix += g->dilation_w", "ix += g->dilation_h"),
    ("src/pg_window.h", "oy * g->stride_h - g->pad_top", "oy * g->stride_h - g->pad_left"),
    ("src/pg_conv2d.h", "group * inputs, inputs", "0 * group, inputs"),
    ("src/pg_conv2d_residual.h", "p->factors[n] * *residual++", "p->factors[0] * *residual++"),
    ("src/pg_conv2d_residual.h", "p->factors[n] * *residual++", "p->factors[n] * *residual"),
    ("src/pg_conv2d_residual.h", "a.bias += outputs", "a.bias += 0"),
    ("src/pg_conv_transpose2d.h", "pg_fill(patch, g->zero_point", "pg_fill(patch, 0"),
    ("src/pg_conv_transpose2d.h", "iy -= p->pixel_step_h", "iy -= 1"),
    ("src/pg_conv_transpose2d.h", "kx += p->tap_step_w", "kx += p->tap_step_h"),
    ("src/pg_conv_transpose2d.h", "p->bias + phase * g->out_c", "p->bias"),
    ("src/pg_depthwise.h", "ix + reach_w < g->in_w", "ix + reach_w <= g->in_w"),
    ("src/pg_depthwise.h", "row_step = g->dilation_h * g->in_w", "row_step = g->dilation_w * g->in_w"),
    ("src/pg_pointwise.h", "ox * p->column_step", "ox * p->in_c"),
    ("src/pg_lut.h", "p->table + 128", "p->table + 127"),
    ("src/pg_softmax.h", "512u * p->table[max - x[i]] + sum", "512u * p->table[max - x[i]]"),
    ("src/pg_softmax.h", "share < 255u ? share : 255u", "share"),
    ("src/pg_attention.h", "q[d] - zero;", "q[d];"),
    ("src/pg_attention.h", "(q[d] - zero) * k[d]", "q[d] * k[d]"),
    ("src/pg_attention.h", "if (shift > 30)", "if (shift > 29)"),
    ("src/pg_attention.h", "product + ((int32_t)1 << (shift - 1))", "product"),
    ("src/pg_attention.h", "15 + drop + (n >> 10)", "15 + (n >> 10)"),
    ("src/pg_attention.h", "acc3 += x * k3[d]", "acc3 += x * k2[d]"),
    ("src/pg_attention.h", "p->value_zero * sum", "0 * sum"),
    ("src/pg_attention.h", "i < 2; ++i", "i < 1; ++i"),
    ("src/pg_attention.h", "v + h * width", "v"),
    ("src/pg_attention.h", "k + h * depth, heads * depth, depth", "k + h * depth, depth, depth"),
    ("src/pg_layer_norm.h", "<< 31)", "<< 30)"),
    ("src/pg_layer_norm.h", "(uint32_t)1 << 15", "(uint32_t)1 << 14"),
    ("src/pg_layer_norm.h", "(high << 14)", "(high << 13)"),
    ("src/pg_layer_norm.h", "(uint64_t)spread << 8", "(uint64_t)spread << 7"),
    ("src/pg_layer_norm.h", "reciprocal >>= -up", "reciprocal >>= 0"),
    ("src/pg_layer_norm.h", "features * x[i] - sum", "features * x[i]"),
    ("src/pg_add.h", "b[at] - zero_b", "b[at] - zero_a"),
    ("src/pg_add.h", "at += b_step", "at += 1"),
    ("src/pg_mul.h", "j * p->b_strides[1]", "j * p->b_strides[0]"),
    ("src/pg_max_pool2d.h", "b > a ? b : a", "b < a ? b : a"),
    ("src/pg_pool2d.h", "start > 0 ? start : 0", "start > 0 ? start : -start"),
    ("src/pg_avg_pool2d.h", "taps - p->first_count : 0", "g->kernel_h * g->kernel_w - p->first_count : 0"),
    ("src/pg_avg_pool2d.h", "-taps * p->zero_point", "-g->kernel_h * g->kernel_w * p->zero_point"),
    ("src/pg_mean_time.h", "+ steps / 2", "+ 0"),
    ("src/pg_mean_time.h", "if (rest < 0)", "if (rest < -steps)"),
    ("src/pg_pad.h", "pg_fill(y, p->value, after, wide)", "pg_fill(y, 0, after, wide)"),
    ("src/pg_slice.h", "at += p->step", "at += p->run"),
    ("src/pg_transpose.h", "j * p->strides[1]", "j * p->strides[2]"),
    ("src/pg_concat.h", "to += block", "to += run"),
)


@pytest.fixture(scope="module")
def every_case() -> list[Case]:
    return cases([*samples(), *draws.extra()])


@pytest.mark.parametrize(("file", "good", "bad"), FAULTS, ids=[f"{f.split('/')[1]}: {b}" for f, _, b in FAULTS])
def test_a_fault_in_the_c_is_found(
    file: str, good: str, bad: str, every_case: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "runtime_c"
    shutil.copytree(resources.runtime_c(), copy, ignore=shutil.ignore_patterns("boards", "plugin"))
    text = (copy / file).read_text()
    assert text.count(good) >= 1, f"{file} has no {good!r}"
    (copy / file).write_text(text.replace(good, bad))
    monkeypatch.setattr(resources, "runtime_c", lambda: copy)
    touched = [c for c in every_case if file.startswith("include") or _includes(copy, c, Path(file).name)]
    library = Library(touched, tmp_path, ("gcc", "-O1", "-Wno-error"))
    with pytest.raises(AssertionError):
        library.check(rows=False)


def _includes(runtime: Path, case: Case, file: str) -> bool:
    return any(file == s or f'"{file}"' in (runtime / "src" / s).read_text() for s in case.choice.sources)


def test_a_wrong_packing_order_is_found(tmp_path: Path) -> None:
    swapped = []
    for case in cases(samples(), "cortex-m4", "linear_dsp"):
        [table] = case.choice.tables
        layout = table.layout
        assert isinstance(layout, PairStream)
        other = replace(layout, order=NATURAL if layout.order == WIDENED else WIDENED)
        constants = {role: case.graph.data(case.node, role) for role in table.roles}
        wrong = replace(table, layout=other, data=other.pack(constants))
        assert wrong.data.shape == table.data.shape
        if not np.array_equal(wrong.data, table.data):
            swapped.append(replace(case, choice=replace(case.choice, tables=(wrong,))))
    assert len(swapped) > 10
    for i, case in enumerate(swapped):
        folder = tmp_path / str(i)
        folder.mkdir()
        if i < 3:
            with pytest.raises(AssertionError):
                Library([case], folder).check()
