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
from torch import nn

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
SEEDS = range(5)  # of the claim
LONGER = 2000  # steps of distillation for the claim: the outputs on the calibration data still come nearer
STEPS = 20  # of the sequences whose instructions are counted, where a set's lengths differ
RECORDS = 2  # inputs whose instructions are counted
PEER = {"cortex-m4": 2_730_000, "cortex-m55": 962_000}  # CMSIS-NN's int8 LSTM 12 -> 100, 20 steps, and FC 9
INSTRUCTIONS, FLASH, POINTS = 0.10, 0.15, 1.0  # what is asked for of the dense form's, at most
FEWER = 40  # times fewer instructions than CMSIS-NN's dense LSTM

INTRODUCTION = """\
# Projected networks on their targets

Written by `make bench`, with `PROJGEN_DATA` naming the folder of the data sets. Each network is trained, compressed
to a share of its learnables (`learnables_reduction_goal`) or to what a target may execute and hold (`budget`), and
distilled without labels, seed {seed}; then both are quantised to int8 and compiled for speed with
`arm-none-eabi-gcc -O2`. A goal for learnables knows nothing of the target: a layer may become slower; within a budget
none does.

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
class Goal:
    """What a network is compressed to: ``share`` of its learnables fewer, or shares of the dense form's instructions
    and flash on a target (None: any flash)."""

    share: float | None = None
    target: str = ""
    instructions: float = INSTRUCTIONS
    flash: float | None = FLASH

    @property
    def text(self) -> str:
        """For titles."""
        if self.share is not None:
            return f"{100 * self.share:g}% fewer learnables"
        flash = "" if self.flash is None else f" and {self.flash:g} of the flash"
        return f"{self.instructions:g} of the instructions{flash} on {self.target}"


GOALS = {
    "jv": (Goal(0.834), Goal(0.90), Goal(0.95), *(Goal(target=t) for t in TARGETS)),
    "fsdd": (Goal(0.80),),
    "heartbeats": (Goal(0.80), Goal(0.90), *(Goal(None, t, 0.5, None) for t in TARGETS)),
    "mnist": (Goal(0.80), Goal(0.90)),
    "ds-cnn": (Goal(0.50), *(Goal(None, t, 0.75, None) for t in TARGETS)),
}


@dataclass(frozen=True, slots=True)
class Form:
    """One network, dense or projected: learnables, test accuracies, and what it costs on each target."""

    learnables: int
    float_accuracy: float
    int8_accuracy: float
    costs: dict[str, Measurement]


@dataclass(frozen=True, slots=True)
class Result:
    """A network at one goal beside its dense form; ``observations`` of the test set decide the accuracies."""

    row: Row
    goal: Goal
    observations: int
    dense: Form
    small: Form
    seed: int = SEED

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


def limits(goal: Goal, dense: Form) -> projgen.Budget:
    """Shares of the dense form's figures; those of the claim also of CMSIS-NN's instructions."""
    cost = dense.costs[goal.target]
    executed = goal.instructions * instructions(cost)
    if goal == Goal(target=goal.target):
        executed = min(executed, PEER[goal.target] / FEWER)
    held = None if goal.flash is None else goal.flash * flash(cost)
    return projgen.Budget(target=goal.target, instructions=executed, flash=held)


def claimed(row: Row, goal: Goal) -> bool:
    """Whether these are the claim's limits."""
    return row.name == "jv" and goal == Goal(target=goal.target)


def projected(
    dense: nn.Module, whole: Form, pca: projgen.NeuronPCA, row: Row, goal: Goal, data: Data, seed: int
) -> nn.Module:
    """Compressed to a goal, distilled, in ordinary layers."""
    batches = data.train.batches(row.net.calibration)
    if goal.share is not None:
        small, _ = projgen.compress(dense, pca, data=batches, learnables_reduction_goal=goal.share, verbosity="off")
    else:
        counted = sorted(batches, key=lambda x: abs(x.shape[1] - STEPS))  # a budget counts the first one's steps
        small, _ = projgen.compress(dense, pca, data=counted, budget=limits(goal, whole), verbosity="off")
    steps = LONGER if claimed(row, goal) else row.steps
    tuned = projgen.distill(small, dense, batches, steps=steps, batch_size=row.batch, seed=seed, verbosity="off")
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


def form(
    model: nn.Module, data: Data, few: Split, folder: Path, calibration: int | None, targets: Sequence[str] = TARGETS
) -> Form:
    """Quantise, compile for every target, compare, measure."""
    q = projgen.quantize(model, data.train.batches(calibration))
    inputs = counted_inputs(data.test)
    costs = {}
    for target in targets:
        artifact = projgen.compile(q, target=target, out=folder / target, name="net")
        artifact.verify(inputs)
        costs[target] = artifact.measure(inputs)
    return Form(count_learnables(model), accuracy(model, few), int8_accuracy(q, few), costs)


def results(row: Row, goals: Sequence[Goal], seed: int, folder: Path, *, both: bool = True) -> Iterator[Result]:
    """One network at some goals; measured on both targets, or on a goal's own."""
    data, calibration = row.net.load(), row.net.calibration
    few = data.test.some(row.int8_tests)
    dense = trained(row.net, data.train, seed, Store(ROOT / "build" / "projection"))
    whole = form(dense, data, few, folder / row.name / "dense", calibration)
    pca = projgen.NeuronPCA(dense, data.train.batches(calibration), verbosity="off")
    for place, goal in enumerate(goals):
        small = projected(dense, whole, pca, row, goal, data, seed)
        targets = TARGETS if both else (goal.target,)
        made = form(small, data, few, folder / row.name / f"{place}", calibration, targets)
        yield Result(row, goal, few.count, whole, made, seed)


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
        rows.append([name, *cells, "; ".join(filter(None, kernels))])
    return rows


def _within(layers: Sequence[LayerMeasurement], name: str) -> list[LayerMeasurement]:
    """The layer of this name, or those that projection put in its place."""
    return [layer for layer in layers if layer.name == name or layer.name.startswith(f"{name}.")]


def claims(found: Sequence[Result], again: Sequence[Result]) -> list[str]:
    """What the smallest LSTMs cost beside their dense form and beside CMSIS-NN's dense one.

    Args:
        found: of one seed. again: within the claim's limits, of the other seeds.
    """
    head = ("compressed to, measured on", "fewer learnables", "instructions", "of dense", "CMSIS-NN", "times fewer",
            "flash B", "of dense", "points lost")  # fmt: skip
    rows: list[list[object]] = []
    for r in found:
        for target in TARGETS if r.goal.share is not None else (r.goal.target,):
            rows.append(_claim(r, target, f"{r.goal.text if r.goal.share is not None else 'the limits'}, {target}"))
    for target in TARGETS:
        every = within_limits([*found, *again], target)
        rows += [_claim(r, target, f"the limits, {target}, seed {r.seed}") for r in every if r.seed != SEED]
    means = [
        f"{target}: {mean:.2f} ± {deviation:.2f}"
        for target in TARGETS
        for mean, deviation in [spread(within_limits([*found, *again], target))]
    ]
    return [
        f"## {found[0].row.net.text}, {STEPS} steps, beside its dense form and CMSIS-NN's",
        "",
        f"Asked for: at most {INSTRUCTIONS} of the instructions and {FLASH} of the flash of the dense int8 form, at "
        f"most {POINTS:.0f} point lost (int8 to int8), about {FEWER} times fewer instructions than CMSIS-NN's dense "
        f"LSTM with its fully connected layer. These are `the limits` that a `Budget` was given, distilled for "
        f"{LONGER:,} steps. CMSIS-NN's figures were measured earlier on the same emulated cores with the same "
        "compiler.",
        "",
        *table(head, rows),
        "",
        f"Points lost within the limits, mean and standard deviation over these seeds, each against the dense "
        f"network of its own seed: {'; '.join(means)}.",
    ]


def _claim(r: Result, target: str, text: str) -> list[object]:
    small = r.small.costs[target]
    return [
        text, f"{100 * (1 - r.small.learnables / r.dense.learnables):.1f}%", f"{instructions(small):,}",
        f"{r.ratio(target, instructions):.3f}", f"{PEER[target]:,}", f"{PEER[target] / instructions(small):.1f}",
        f"{flash(small):,}", f"{r.ratio(target, flash):.3f}", f"{r.lost:.2f}",
    ]  # fmt: skip


def within_limits(found: Sequence[Result], target: str) -> list[Result]:
    """The results within the claim's limits on a target."""
    return [r for r in found if claimed(r.row, r.goal) and r.goal.target == target]


def spread(found: Sequence[Result]) -> tuple[float, float]:
    """Mean and standard deviation of the points lost."""
    lost = np.array([r.lost for r in found])
    return float(lost.mean()), float(lost.std(ddof=1))


def test_page(tmp_path: Path) -> None:
    torch.set_num_threads(1)  # the same weights on any number of cores
    rows = {row.name: row for row in ROWS if row.name in GOALS}
    found = [r for row in rows.values() for r in results(row, GOALS[row.name], SEED, tmp_path)]
    smallest = [r for r in found if r.row.name == "jv" and r.goal in GOALS["jv"][2:]]
    limited = [goal for goal in GOALS["jv"] if claimed(rows["jv"], goal)]
    others = [s for s in SEEDS if s != SEED]
    again = [r for s in others for r in results(rows["jv"], limited, s, tmp_path / f"{s}", both=False)]
    write(found, claims(smallest, again))
    for r in (*smallest, *again):
        assert r.small.learnables <= 0.05 * r.dense.learnables or r.seed != SEED  # no limit of a budget
        for target in (r.goal.target,) if r.goal.target else ("cortex-m4",):
            assert r.ratio(target, instructions) <= INSTRUCTIONS
            assert r.ratio(target, flash) <= FLASH
            assert r.lost <= POINTS or r.seed != SEED
    for target in TARGETS:
        lost = within_limits([*smallest, *again], target)
        mean, deviation = spread(lost)
        assert mean - deviation / len(lost) ** 0.5 <= POINTS
    for r in found:  # a budget makes no network slower or larger
        if r.goal.target:
            assert r.ratio(r.goal.target, instructions) <= 1.01 * r.goal.instructions  # predicted, then counted
            assert r.ratio(r.goal.target, flash) <= (r.goal.flash or 1.0)


def write(found: Sequence[Result], first: Sequence[str]) -> None:
    """The page: the claim's tables, then a section of each result."""
    lines = [INTRODUCTION.format(seed=SEED, steps=STEPS), *first]
    head = ("", "instructions", "weights B", "code B", "flash B", "arena B", "state B", "float %", "int8 %")
    layers = ("layer", *(f"{t} {what}" for t in ("M4", "M55") for what in ("dense", "projected", "ratio")), "kernels")
    for r in found:
        lines += [
            "",
            f"## {r.row.title}, {r.goal.text}",
            "",
            f"{r.row.net.text}: {r.dense.learnables:,} learnables, projected {r.small.learnables:,}; "
            f"{r.observations:,} test observations.",
            "",
            *table(head, summary(r)),
            "",
            *table(layers, by_layer(r)),
        ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
