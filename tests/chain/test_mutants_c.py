"""Faults planted in the templates and in the packing: the comparison with the simulator must find each.

The runtime's own sources have theirs in ``tests/kernels``; here are the assembly blocks, seen only on the emulated
cores, and the functions emitted around the kernels.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from projgen import ops, resources
from projgen.harness.toolchain import HarnessError
from projgen.kernels import render
from projgen.kernels.conv_dsp_layouts import MatrixStream
from projgen.kernels.conv_thumb1 import PixelStream
from projgen.kernels.conv_thumb2_layouts import PixelPairStream
from projgen.kernels.depthwise_thumb1 import ColumnTaps
from projgen.kernels.depthwise_thumb2 import WordTaps
from projgen.kernels.layouts import Plain, TapMajor
from projgen.kernels.linear_thumb2 import OutputPairStream
from projgen.kernels.packed import PairStream, VectorStream
from projgen.kernels.recurrent_mve_layouts import FactorWeights, GateTable, GateWeights, PairedGates
from projgen.kernels.recurrent_streams import FactorStream, GruStream, JointFactorStream, LstmStream
from projgen.kernels.recurrent_thumb2 import SumStream
from projgen.schedule.verify import ScheduleError
from tests.chain.nets import nets
from tests.chain.support import Part, build, compare, merge_all

M4, M55 = "cortex-m4", "cortex-m55"
DSP, MVE = "kernels/_recurrent_dsp.j2", "kernels/_recurrent_mve.j2"
LSTM4, LSTM55 = "kernels/lstm_dsp.h.j2", "kernels/lstm_mve.h.j2"
GRU4, GRU55 = "kernels/gru_dsp.h.j2", "kernels/gru_mve.h.j2"
FACTOR4, FACTOR55 = "kernels/recurrent_dsp_factor.h.j2", "kernels/recurrent_mve_factor.h.j2"
ROWS = "kernels/linear_dsp_rows.h.j2"
MATRIX, MEAN = "kernels/conv_dsp_matrix.h.j2", "kernels/avg_pool_dsp_map.h.j2"
DENSE = "kernels/linear_mve.h.j2"
AFFINE, BINARY = "kernels/affine_dsp.h.j2", "kernels/binary_mve.h.j2"

# (what, target, operator whose samples look, template, what stands there, what the fault makes of it)
BLOCKS = (
    ("rounding of tanh", M4, "lstm", LSTM4, "movw r8, #0x4000", "movw r8, #0"),
    ("rounding of the logistic function", M4, "lstm", LSTM4, "movw r9, #0xc000", "movw r9, #0xffff"),
    ("rounding of the cell", M4, "lstm", LSTM4, "0x4000 + 2 ** (29 - fraction)", "0x4000"),
    (
        "gate order: multipliers of f and g",
        M4,
        "lstm",
        LSTM4,
        '("r3", "r9"), ("r4", "r10")',
        '("r3", "r10"), ("r4", "r9")',
    ),
    ("gate order: i for f", M4, "lstm", LSTM4, "smlabt r6, r6, r3, r8", "smlabt r6, r6, r2, r8"),
    ("clamp of the cell", M4, "lstm", LSTM4, "ssat r6, #16, r6", "ssat r6, #15, r6"),
    ("clamp of the output", M4, "lstm", LSTM4, "ssat r6, #8, r6, asr #23", "ssat r6, #7, r6, asr #23"),
    ("shift of the update", M4, "lstm", LSTM4, "asr #{{ 30 - fraction }}", "asr #{{ 31 - fraction }}"),
    ("fraction of the table's argument", M4, "lstm", DSP, "#23, #8", "#22, #8"),
    ("packed pairs kept together", M4, "lstm", DSP, '"sub %s, %s, %s" % (a, a, b)', '"sub %s, %s, #0" % (a, a)'),
    ("shift of the accumulator", M4, "lstm", DSP, "(a, a, 8 - shift)", "(a, a, 9 - shift)"),
    ("rounding of a factor", M4, "lstm", FACTOR4, "smmulr %s", "smmul %s"),
    ("rows of int16 weights of a factor", M4, "lstm", FACTOR4, 'row("r3", v, "r9")', 'row("r3", v, "r8")'),
    ("shift of x", M4, "lstm", LSTM4, "and not joint else x_shift", "or 1 else x_shift"),
    ("three last values of x", M4, "lstm", DSP, "ldrsb r12, [r0, #2]", "ldrsb r12, [r0, #1]"),
    ("last unit of an odd number", M4, "gru", GRU4, 'line("strbne r5, [r0], #1")', 'line("addne r0, r0, #1")'),
    ("joint: place of the hidden state", M4, "lstm", LSTM4, "hidden = wide + {{ x_width }}", "hidden = wide + 2"),
    ("gate order: z for r", M4, "gru", GRU4, "smulwt r6, r6, r2", "smulwt r6, r6, r3"),
    ("reset product doubled", M4, "gru", GRU4, "add r6, r2, r6, lsl #1", "add r6, r2, r6"),
    ("rounding of the state", M4, "gru", GRU4, "mla r4, r5, r4, r10", "mul r4, r5, r4"),
    ("rounding of the output", M4, "gru", GRU4, "qadd16 r3, r2, r3", "mov r3, r2"),
    ("rounding", M4, "linear", ROWS, "smmlar {{ acc }}", "smmla {{ acc }}"),
    ("zero point", M4, "linear", ROWS, "{{ m }}, {{ zero_point }}", "{{ m }}, {{ m }}"),
    ("upper clamp", M4, "linear", ROWS, "movgt {{ acc }}, {{ high }}", "movgt {{ acc }}, {{ low }}"),
    ("shift of the accumulator", M4, "linear", ROWS, "(acc, acc, shift) if shift", "(acc, acc, shift + 1) if shift"),
    (
        "order of outputs",
        M4,
        "linear",
        ROWS,
        "{{ store }} r4, [r12, #{{ 2 * size }}]",
        "{{ store }} r5, [r12, #{{ 2 * size }}]",
    ),
    ("mean: a turn too few", M4, "avg_pool2d", MEAN, "#{{ turns }}", "#{{ turns - 1 }}"),
    ("mean: channels of the first word", M4, "avg_pool2d", MEAN, "sxtah r4, r8, r4", "sxtah r4, r8, r5"),
    ("quads skipped in the loop", M4, "conv2d", MATRIX, "and r4, r4, #7", "and r4, r4, #3"),
    ("joint: shift of a product", M55, "lstm", FACTOR55, "eight(parts, 0, shift_first, 2)", "eight(parts, 0, 0, 2)"),
    ("rounding of the cell", M55, "lstm", LSTM55, "vrshr.s16 q4, q4", "vshr.s16 q4, q4"),
    ("shift of the output", M55, "lstm", LSTM55, "vqrshrnb.s16 q4, q4, #8", "vqrshrnb.s16 q4, q4, #7"),
    ("gate order: i for f", M55, "lstm", LSTM55, "vqrdmulh.s16 q0, q0, q5", "vqrdmulh.s16 q0, q0, q4"),
    ("logistic of the output gate", M55, "lstm", LSTM55, "vhadd.s16 q3, q3, q7", "vrhadd.s16 q3, q3, q7"),
    ("clamp of the cell", M55, "lstm", LSTM55, "vqadd.s16 q0, q0, q4", "vadd.i16 q0, q0, q4"),
    ("units beyond the layer", M55, "lstm", LSTM55, "vctp.16 {{ left }}", "vctp.16 r9"),
    ("two gates of the last units", M55, "lstm", LSTM55, "vldrh.u16 q5, [r0, #8]", "vldrh.u16 q5, [r0, #10]"),
    ("place of the new hidden state", M55, "lstm", LSTM55, "#{{ whole + 8 * paired }}", "#{{ whole }}"),
    ("rounding of the gates", M55, "lstm", MVE, "vrmulh.s32 q1, q1, q2", "vmulh.s32 q1, q1, q2"),
    ("interpolation of the table", M55, "lstm", MVE, "vrmulh.u16 q2, q2, q0", "vmulh.u16 q2, q2, q0"),
    (
        "shift of the accumulator",
        M55,
        "lstm",
        MVE,
        'vshl.i32 q1, q1, #%d" % shift)',
        'vshl.i32 q1, q1, #%d" % (shift + 1))',
    ),
    ("reset product floored", M55, "gru", GRU55, "vmulh.s32 q0, q5, q0", "vrmulh.s32 q0, q5, q0"),
    ("rounding of the state", M55, "gru", GRU55, "vrshrnb.i32 q2", "vshrnb.i32 q2"),
    ("gate order: n for h", M55, "gru", GRU55, "vmullt.s16 q0, q6, q3", "vmullt.s16 q0, q6, q5"),
    ("rounding", M55, "linear", DENSE, "vrmulh.s32 q0, q0, q2", "vmulh.s32 q0, q0, q2"),
    ("zero point", M55, "linear", DENSE, "vqadd.s16 q0, q0", "vqsub.s16 q0, q0"),
    ("lower clamp", M55, "linear", DENSE, "vmax.s16 q0, q0, q1", "vmax.s16 q0, q0, q0"),
    ("factor of the second channel", M4, "mul", AFFINE, "smlabb r8, r4, r12, r8", "smlabb r8, r4, r11, r8"),
    ("channels left over", M4, "mul", AFFINE, "smlabb r7, r7, r9, r8", "smlabb r7, r7, r8, r9"),
    ("one number for every row", M4, "add", AFFINE, "ldrsb r7, [r1], #1", "ldrsb r7, [r1]"),
    ("start of a pixel", M4, "add", AFFINE, "mla r4, r7, r9, r4", "mov r4, r4"),
    ("the first channel again", M4, "add", AFFINE, "ldr r1, [sp, #16]", "mov r1, r1"),
    ("zero point of a gate", M55, "mul", BINARY, "add r3, r3, r5", "mov r3, r3"),
    ("the next pixel", M55, "add", BINARY, "sub r0, r0, r12", "mov r0, r0"),
    ("row of copies", M55, "mul", BINARY, "1: mov r1, r11", "1: mov r11, r1"),
    (
        "inputs beyond the matrix",
        M55,
        "linear",
        DENSE,
        "{{ 1 + loop.index0 % 3 }}, [r1]",
        "{{ 1 + loop.index0 % 2 }}, [r1]",
    ),
)

PROGRAM = "model.c.j2"
# (what, net, template, good, bad)
AROUND = (
    ("a step too few", "lstm_last", PROGRAM, "left = steps;;", "left = steps > 1 ? steps - 1 : 1;;"),
    (
        "the first step again and again",
        "lstm_every",
        PROGRAM,
        "{{ sign }}= {{ p.macro }}_IN",
        "{{ sign }}= 0 * {{ p.macro }}_IN",
    ),
    (
        "all outputs at the first step",
        "lstm_every",
        PROGRAM,
        "{{ sign }}= {{ p.macro }}_OUT",
        "{{ sign }}= 0 * {{ p.macro }}_OUT",
    ),
    ("forwards instead of backwards", "backwards", PROGRAM, '"-" if p.is_backward', '"+" if p.is_backward'),
    ("one start for two layers", "stacked", PROGRAM, '" + " ~ r.offset if r.offset', '" + 0" if r.offset'),
    ("steps counted double", "gru_mean", PROGRAM, "++steps;", "steps += 2;"),
    ("rows over each other", "gru_rows", PROGRAM, '" + t * " ~ l.row_out', '" + 0 * " ~ l.row_out'),
    ("rows read from the first", "lstm_rows", PROGRAM, "t * {{ l.row_in }}", "0 * {{ l.row_in }}"),
    (
        "scratch over the map",
        "residual",
        "_macros.j2",
        'base{{ " + " ~ a.offset if a.offset }}',
        "base",
    ),
    ("padding value of a ring", "streamed", "_rows.j2", "{{ p.value }}, {{ p.count }}, {{", "0, {{ p.count }}, {{"),
    ("pad rows at the bottom", "streamed", "_rows.j2", "r >= 0 && r < {{ r.height }}", "r >= 0 && r <= {{ r.height }}"),
    ("one row over all", "streamed", "_rows.j2", '" + " ~ row) ~ " * "', '" + 0") ~ " * "'),
    ("a row read before it is made", "streamed", "_rows.j2", "f.span - f.pad_top)", "f.span - f.pad_top - 1)"),
)


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Changes a template in a copy of them all, from which everything is then emitted."""

    def change(template: str, good: str, bad: str) -> None:
        copy = tmp_path / "templates"
        shutil.copytree(resources.templates(), copy)
        text = (copy / template).read_text()
        assert good in text, f"{template} has no {good!r}"
        (copy / template).write_text(text.replace(good, bad))
        monkeypatch.setattr(resources, "templates", lambda: copy)
        forget()

    yield change
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Templates are read anew."""
    render.environment.cache_clear()
    render.render_block.cache_clear()


@cache
def parts_of(op: str) -> tuple[Part, ...]:
    return tuple(merge_all(ops.get(op).samples()))


def survives(parts: tuple[Part, ...], target: str, folder: Path, **options: Any) -> bool:
    """Whether the C still gives the simulator's bytes, inside its buffers."""
    image = build(parts, target, folder, **options)
    try:
        compare(image, parts)
    except AssertionError as error:
        assert re.search(rf"on {target} -O\d \(", str(error)), "the comparison names sample and target"
        return False
    except HarnessError:  # bytes beside a buffer were written, or the core took a fault
        return False
    return True


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "op", "template", "good", "bad"),
    [row[1:] for row in BLOCKS],
    ids=[f"{target} {op}: {what}" for what, target, op, *_ in BLOCKS],
)
def test_a_fault_in_a_block_is_found(
    target: str, op: str, template: str, good: str, bad: str, plant: Callable[[str, str, str], None], tmp_path: Path
) -> None:
    plant(template, good, bad)
    assert not survives(parts_of(op), target, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "template", "good", "bad"), [row[1:] for row in AROUND], ids=[f"{net}: {what}" for what, net, *_ in AROUND]
)
def test_a_fault_around_the_kernels_is_found(
    net: str, template: str, good: str, bad: str, plant: Callable[[str, str, str], None], tmp_path: Path
) -> None:
    favour = "ram" if net == "streamed" else "speed"
    parts = (nets()[net],)
    assert survives(parts, "host", tmp_path / "right", favour=favour)
    plant(template, good, bad)
    assert not survives(parts, "host", tmp_path / "wrong", favour=favour)


# (layout, operator, target): the packing of each, all numbers one place further.
LAYOUTS: tuple[tuple[type[Any], str, str], ...] = (
    (PairStream, "linear", M4),
    (VectorStream, "linear", M55),
    (LstmStream, "lstm", M4),
    (GruStream, "gru", M4),
    (FactorStream, "lstm", M4),
    (JointFactorStream, "lstm", M4),
    (GateWeights, "lstm", M55),
    (PairedGates, "lstm", M55),
    (GateTable, "gru", M55),
    (FactorWeights, "gru", M55),
    (MatrixStream, "conv2d", M4),
    (PixelStream, "conv2d", "cortex-m0"),
    (ColumnTaps, "conv2d", "cortex-m0"),
    (PixelPairStream, "conv2d", "cortex-m3"),
    (OutputPairStream, "linear", "cortex-m3"),
    (SumStream, "lstm", "cortex-m3"),
    (SumStream, "gru", "cortex-m3"),
    (WordTaps, "conv2d", "cortex-m3"),
    (TapMajor, "conv2d", "cortex-m3"),
    (Plain, "conv2d", "cortex-m3"),
)
IDS = [f"{layout.__name__} of {op} on {target}" for layout, op, target in LAYOUTS]


@pytest.mark.parametrize(("layout", "op", "target"), LAYOUTS, ids=IDS)
def test_a_packing_that_loses_its_inverse_is_refused(
    layout: type[Any], op: str, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pack = layout.pack
    monkeypatch.setattr(layout, "pack", lambda self, constants: np.roll(pack(self, constants), 1))
    with pytest.raises(ScheduleError, match=r"table .* of .*"):
        build(parts_of(op), target, tmp_path)


def test_a_table_of_other_constants_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pack = PairStream.pack
    monkeypatch.setattr(PairStream, "pack", lambda self, c: pack(self, {**c, "b": c["b"] + 1}))
    with pytest.raises(ScheduleError, match=r"table .* holds another 'b'"):
        build(parts_of("linear"), M4, tmp_path)


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize(("layout", "op", "target"), LAYOUTS, ids=IDS)
def test_a_packing_in_another_order_is_found(
    layout: type[Any], op: str, target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With its inverse changed alike, only the C's bytes can tell."""
    pack, unpack = layout.pack, layout.unpack
    monkeypatch.setattr(layout, "pack", lambda self, constants: np.roll(pack(self, constants), 1))
    monkeypatch.setattr(layout, "unpack", lambda self, table: unpack(self, np.roll(table, -1)))
    assert not survives(parts_of(op), target, tmp_path)


def test_every_block_of_the_templates_has_a_fault() -> None:
    """Recurrent, fully connected and element-wise blocks; convolutions are in ``tests/kernels``."""
    faulty = {template for _, _, _, template, *_ in BLOCKS}
    assert faulty >= {DSP, MVE, LSTM4, LSTM55, GRU4, GRU55, FACTOR4, FACTOR55, ROWS, DENSE, AFFINE, BINARY}
