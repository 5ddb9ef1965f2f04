"""Writes docs/projected.md: what projection saves on Cortex-M4 and M55, on real data. ``make bench`` runs it.

Data sets that are not shipped come from the folder that PROJGEN_DATA names. The dense networks are those of
``python -m benchmarks.projection``, trained if build/projection does not hold their weights yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import projgen
from benchmarks.projection.data import Data, Split
from benchmarks.projection.nets import accuracy, trained
from benchmarks.projection.rows import ROWS, Row
from benchmarks.projection.store import Store
from benchmarks.test_recurrent import table
from projgen.harness.measurement import LayerMeasurement, Measurement
from projgen.pca.counting import count_learnables
from projgen.quant.model import QuantizedModel

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "projected.md"
TARGETS = ("cortex-m4", "cortex-m55")
SEED = 0
STEPS = 20  # of the sequences whose instructions are counted, where a set's lengths differ
RECORDS = 2  # inputs whose instructions are counted
PEER = {"cortex-m4": 2_730_000, "cortex-m55": 962_000}  # CMSIS-NN's int8 LSTM 12 -> 100, 20 steps, and FC 9
LEVELS = {"jv": (0.834, 0.90, 0.95), "fsdd": (0.80,), "heartbeats": (0.80, 0.90), "mnist": (0.80, 0.90)}
CLAIM = ("jv", 0.95)
INSTRUCTIONS, FLASH, POINTS = 0.10, 0.15, 1.0  # what the claim asks for, at most

INTRODUCTION = """\
# Projected networks on their targets

Written by `make bench`, with `PROJGEN_DATA` naming the folder of the data sets. Each network is trained, compressed
(`compress(…, learnables_reduction_goal=…)`) and distilled without labels, seed {seed}; then both are quantised to int8
and compiled for speed with `arm-none-eabi-gcc -O2`. One run gave all figures.

Instructions of an inference are counted exactly on the emulated core ({steps} steps where lengths differ), and every
output that is counted is compared with the simulator's. Accuracies are those of the same test observations: of the
float network, and of the simulator, which gives the bytes of the C. `flash` is weights and code, tables of the
activations included; `arena` leaves the input out and holds the recurrent state; ratios are projected to dense.
"""

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        not (Path(os.environ.get("PROJGEN_DATA", "")) / "fsdd").is_dir(), reason="needs PROJGEN_DATA with the data sets"
    ),
]


@dataclass(frozen=True, slots=True)
class Form:
    """One network, dense or projected: learnables, test accuracies, and what it costs on each target."""

    learnables: int
    float_accuracy: float
    int8_accuracy: float
    costs: dict[str, Measurement]


@dataclass(frozen=True, slots=True)
class Result:
    """A network at one level beside its dense form; ``observations`` of the test set decide the accuracies."""

    row: Row
    share: float
    observations: int
    dense: Form
    small: Form

    def ratio(self, target: str, size: Callable[[Measurement], int]) -> float:
        """A figure of the projected network to that of the dense one."""
        return size(self.small.costs[target]) / size(self.dense.costs[target])

    @property
    def lost(self) -> float:
        """Points of accuracy, int8 projected below int8 dense."""
        return 100 * (self.dense.int8_accuracy - self.small.int8_accuracy)


def instructions(m: Measurement) -> int:
    """Executed per inference."""
    assert m.instructions is not None
    return m.instructions


def flash(m: Measurement) -> int:
    """Bytes of weights and code."""
    return m.flash_bytes


def projected(dense: nn.Module, pca: projgen.NeuronPCA, row: Row, share: float, batches: list[Tensor]) -> nn.Module:
    """Compressed to at most 1 - ``share`` of the learnables, distilled, in ordinary layers."""
    small, _ = projgen.compress(dense, pca, data=batches, learnables_reduction_goal=share, verbosity="off")
    tuned = projgen.distill(
        small, dense, batches, steps=row.steps, batch_size=row.batch, seed=SEED, verbosity="off"
    )  # fmt: skip
    plain: nn.Module = projgen.unpack_projected_layers(tuned).eval()
    return plain


def int8_accuracy(q: QuantizedModel, split: Split) -> float:
    """Share of observations that the simulator classifies as labelled."""
    right = 0
    for x, y in zip(split.x, split.labels, strict=True):
        right += int((np.asarray(q(x.numpy())).argmax(-1) == y.numpy()).sum())
    return right / split.count


def counted_inputs(split: Split) -> list[npt.NDArray[np.float32]]:
    """The first observations of the length that is counted."""
    group = next(x for x in split.x if len(split.x) == 1 or x.shape[1] == STEPS)
    return [x[None].numpy() for x in group[:RECORDS]]


def form(model: nn.Module, data: Data, few: Split, folder: Path) -> Form:
    """Quantise, compile for every target, compare, measure."""
    q = projgen.quantize(model, data.train.batches())
    inputs = counted_inputs(data.test)
    costs = {}
    for target in TARGETS:
        artifact = projgen.compile(q, target=target, out=folder / target, name="net")
        artifact.verify(inputs)
        costs[target] = artifact.measure(inputs)
    return Form(count_learnables(model), accuracy(model, few), int8_accuracy(q, few), costs)


def results(row: Row, folder: Path) -> Iterator[Result]:
    """All levels of one network."""
    data = row.net.load()
    few = data.test.some(row.int8_tests)
    dense = trained(row.net, data.train, SEED, Store(ROOT / "build" / "projection"))
    whole = form(dense, data, few, folder / row.name / "dense")
    batches = data.train.batches()
    pca = projgen.NeuronPCA(dense, batches, verbosity="off")
    for share in LEVELS[row.name]:
        small = form(projected(dense, pca, row, share, batches), data, few, folder / row.name / f"{share}")
        yield Result(row, share, few.count, whole, small)


def summary(result: Result) -> list[list[object]]:
    """Per target three lines: dense, projected, their ratio."""
    rows: list[list[object]] = []
    for target in TARGETS:
        for name, f in (("dense", result.dense), ("projected", result.small)):
            m = f.costs[target]
            sizes = (instructions(m), m.weight_bytes, m.code_bytes, m.flash_bytes, m.arena_bytes, m.state_bytes)
            shares = (f"{100 * f.float_accuracy:.2f}", f"{100 * f.int8_accuracy:.2f}")
            rows.append([f"{target}, {name}", *(f"{size:,}" for size in sizes), *shares])
        a, b = result.dense.costs[target], result.small.costs[target]
        ratios = [
            _ratio(y, x)
            for x, y in (
                (instructions(a), instructions(b)),
                (a.weight_bytes, b.weight_bytes),
                (a.code_bytes, b.code_bytes),
                (a.flash_bytes, b.flash_bytes),
                (a.arena_bytes, b.arena_bytes),
                (a.state_bytes, b.state_bytes),
            )
        ]
        lost = [
            f"{100 * (y - x):+.2f}"
            for x, y in (
                (result.dense.float_accuracy, result.small.float_accuracy),
                (result.dense.int8_accuracy, result.small.int8_accuracy),
            )
        ]
        rows.append([f"{target}, ratio", *ratios, *lost])
    return rows


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else ""


def by_layer(result: Result) -> list[list[object]]:
    """Instructions of each dense layer, and of the layers that took its place, per target."""
    names = [layer.name for layer in result.dense.costs[TARGETS[0]].layers]
    rows: list[list[object]] = []
    for name in names:
        cells: list[object] = []
        kernels: list[str] = []
        for target in TARGETS:
            whole = sum(layer.instructions or 0 for layer in _within(result.dense.costs[target].layers, name))
            parts = _within(result.small.costs[target].layers, name)
            spent = sum(layer.instructions or 0 for layer in parts)
            cells += [f"{whole:,}", f"{spent:,}", _ratio(spent, whole)]
            kernels.append(", ".join(layer.kernel for layer in parts))
        rows.append([name, *cells, "; ".join(kernels)])
    return rows


def _within(layers: Sequence[LayerMeasurement], name: str) -> list[LayerMeasurement]:
    """The layer of this name, or those that projection put in its place."""
    return [layer for layer in layers if layer.name == name or layer.name.startswith(f"{name}.")]


def claim(result: Result) -> list[str]:
    """What the smallest LSTM costs beside its dense form and beside CMSIS-NN's dense one, in words."""
    lines = [f"## {result.row.net.text}, {result.share:.0%} fewer learnables, {STEPS} steps", ""]
    for target in TARGETS:
        whole, small, peer = result.dense.costs[target], result.small.costs[target], PEER[target]
        lines.append(
            f"- {target}: {instructions(small):,} instructions, {result.ratio(target, instructions):.3f} of its own "
            f"dense int8 form ({instructions(whole):,}) and {peer / instructions(small):.0f} times fewer than "
            f"CMSIS-NN's dense LSTM with FC 9 ({peer:,}); {flash(small):,} bytes of flash, "
            f"{result.ratio(target, flash):.3f} of {flash(whole):,}."
        )
    asked = f"at most {INSTRUCTIONS} of the instructions, {FLASH} of the flash, {POINTS:.0f} point"
    lines += [f"- {result.lost:.2f} points lost, int8 to int8. Asked for: {asked}.", ""]
    lines.append("CMSIS-NN's figures were measured earlier on the same emulated cores with the same compiler.")
    return lines


def test_page(tmp_path: Path) -> None:
    torch.set_num_threads(1)  # the same weights on any number of cores
    rows = [row for row in ROWS if row.name in LEVELS]
    found = [result for row in rows for result in results(row, tmp_path)]
    (aim,) = (r for r in found if (r.row.name, r.share) == CLAIM)
    lines = [INTRODUCTION.format(seed=SEED, steps=STEPS), *claim(aim)]
    head = ("", "instructions", "weights B", "code B", "flash B", "arena B", "state B", "float %", "int8 %")
    layers = ("layer", *(f"{t} {what}" for t in ("M4", "M55") for what in ("dense", "projected", "ratio")), "kernels")
    for r in found:
        lines += [
            "",
            f"## {r.row.title}, {100 * r.share:g}% fewer learnables",
            "",
            f"{r.row.net.text}: {r.dense.learnables:,} learnables, projected {r.small.learnables:,}; "
            f"{r.observations:,} test observations.",
            "",
            *table(head, summary(r)),
            "",
            *table(layers, by_layer(r)),
        ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert aim.ratio("cortex-m4", instructions) <= INSTRUCTIONS
    assert all(aim.ratio(target, flash) <= FLASH for target in TARGETS)
    assert aim.lost <= POINTS
