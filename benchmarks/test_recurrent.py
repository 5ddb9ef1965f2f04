"""Writes docs/benchmarks.md: what single layers cost, beside what the design asks for. ``make bench`` runs it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import projgen
from benchmarks.measuring import (
    GRU_DENSE,
    LENGTHS,
    LSTM_DENSE,
    LSTM_JOINT,
    LSTM_PROJECTED,
    TARGETS,
    Cost,
    costs,
    ratio,
)
from projgen.harness.measurement import Measurement
from projgen.ir.numerics import GruNumerics, LstmNumerics
from projgen.projection.layers import ProjectedLSTM
from projgen.quant.model import QuantizedModel

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
GOALS = {(LSTM_DENSE, "cortex-m4"): "1.1", (LSTM_DENSE, "cortex-m55"): "0.2"}
PEERS = {(LSTM_DENSE, "cortex-m4"): "3.08", (LSTM_DENSE, "cortex-m55"): "1.10"}

INTRODUCTION = """\
# Benchmarks

Written by `make bench`. Executed instructions of single layers, counted exactly on the emulated core. Runs of
T = {lengths} steps execute a + b T instructions, all five on one line; b is the step: the layer, the loop
and every call around it. Fully connected: one call of the run function, everything in it.

Compiled with `arm-none-eabi-gcc -O2`. k is the binary exponent between the scales of input and state weights; any but
0 keeps their products apart. A joint LSTM has one low-rank vector of input and state together, which all its gates
read. `goal` is what the design asks for, `CMSIS-NN` what its int8 LSTM of this size executes per multiply-accumulate,
`portable C` the same bytes from the C99 kernels (the mean step of {longest}, as its copies depend on alignment).
"""

# Whole networks: recurrent layer, steps, inputs, units, classes; most instructions asked for on M4 and M55.
NETWORKS = {
    "LSTM 28 -> 20, 28 steps, FC 10": (nn.LSTM, 28, 28, 20, 10, (128_000, 30_000)),
    "LSTM 12 -> 100, 20 steps, FC 9": (nn.LSTM, 20, 12, 100, 9, (900_000, 180_000)),
    "GRU 12 -> 64, 20 steps, FC 9": (nn.GRU, 20, 12, 64, 9, (310_000, 70_000)),
    "LSTM 12 -> 26, joint rank 14, 20 steps, FC 9": (ProjectedLSTM, 20, 12, 26, 9, (None, None)),
}

NETWORKS_TEXT = """
## Whole networks

A recurrent layer and a fully connected one behind its last step, everything in the run function; random weights, whose
scales the calibration data decide on as in any model. `code` is all flash but weights, tables of the activations
included; `arena` leaves the input out.
"""

pytestmark = pytest.mark.qemu


class Classifier(nn.Module):
    """Classes from the last step of a recurrent layer."""

    def __init__(self, rnn: nn.Module, units: int, classes: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.fc = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.rnn(x)[0][:, -1])
        return y


@cache
def network(title: str) -> tuple[QuantizedModel, int]:
    """The quantised network, and k of its recurrent layer."""
    kind, steps, inputs, units, classes, _ = NETWORKS[title]
    torch.manual_seed(0)
    options = {"input_rank": 14, "output_rank": 14, "joint": True} if kind is ProjectedLSTM else {}
    rnn = kind(inputs, units, batch_first=True, **options)
    q = projgen.quantize(Classifier(rnn, units, classes).eval(), torch.randn(16, steps, inputs))
    (n,) = (node.numerics for node in q.graph.nodes if isinstance(node.numerics, LstmNumerics | GruNumerics))
    return q, n.k


def network_rows(folder: Path) -> list[list[object]]:
    """Per network and target: instructions and sizes; every output is compared with the simulator's."""
    rows: list[list[object]] = []
    for place, (title, (_, steps, inputs, *_, goals)) in enumerate(NETWORKS.items()):
        q, k = network(title)
        x = np.random.default_rng(1).normal(size=(2, steps, inputs)).astype(np.float32)
        for target, goal in zip(TARGETS, goals, strict=True):
            artifact = projgen.compile(q, target=target, out=folder / f"{place}_{target}", name="net")
            artifact.verify(x)
            m: Measurement = artifact.measure(x)
            sizes = (m.weight_bytes, m.code_bytes, m.arena_bytes, m.stack_bytes)
            name = f"{title}, {target}, k = {k}"
            rows.append([name, f"{m.instructions or 0:,}", f"{goal:,}" if goal else "", *(f"{s:,}" for s in sizes)])
    return rows


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """A Markdown table: the first column to the left, numbers to the right."""
    titles = list(head)
    rule = ["---", *["---:"] * (len(titles) - 1)]
    return ["| " + " | ".join(map(str, row)) + " |" for row in (titles, rule, *rows)]


def layer_rows(target: str) -> list[list[object]]:
    fast, portable = costs(target), costs(target, "portable")
    return [
        [
            title,
            f"{c.macs:,}",
            f"{c.instructions:,}",
            f"{c.per_mac:.3f}",
            GOALS.get((title, target), ""),
            PEERS.get((title, target), ""),
            f"{portable[title].instructions:,}",
            f"{portable[title].instructions / c.instructions:.1f}",
        ]
        for title, c in fast.items()
    ]


def profile(c: Cost) -> list[str]:
    total = sum(n for _, n in c.symbols)
    rows = [[f"`{name}`", f"{n:,}", f"{100 * n / total:.1f}%"] for name, n in c.symbols]
    return ["", f"{c.title} on {c.target}:", "", *table(("function", "instructions", "share"), rows)]


def page(folder: Path) -> str:
    """The text of the page; the same on every machine with the same compiler and emulator."""
    lines = INTRODUCTION.format(lengths=", ".join(map(str, LENGTHS)), longest=LENGTHS[-1]).splitlines()
    head = ("layer", "MAC", "instructions", "per MAC", "goal", "CMSIS-NN", "portable C", "times slower")
    for target in TARGETS:
        lines += ["", f"## {target}", "", *table(head, layer_rows(target))]
        fast = costs(target)
        share = ratio(fast[LSTM_PROJECTED], fast[LSTM_DENSE])
        lines += ["", f"The projected LSTM step executes {share:.3f} of the dense one's instructions."]
    titles = ("network", "instructions", "goal", "weights B", "code B", "arena B", "stack B")
    lines += [*NETWORKS_TEXT.splitlines(), "", *table(titles, network_rows(folder))]
    lines += ["", "## Profile by function", "", f"A sequence of {LENGTHS[-1]} steps."]
    for target in TARGETS:
        for title in (LSTM_DENSE, LSTM_PROJECTED, LSTM_JOINT, GRU_DENSE):
            lines += profile(costs(target)[title])
    return "\n".join(lines) + "\n"


def test_the_page_is_written(tmp_path: Path) -> None:
    text = page(tmp_path)
    PAGE.write_text(text, encoding="utf-8")
    assert all(title in text for target in TARGETS for title in costs(target))
