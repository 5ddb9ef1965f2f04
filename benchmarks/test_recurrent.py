"""Writes docs/benchmarks.md: what single layers cost, beside what the design asks for. ``make bench`` runs it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

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

pytestmark = pytest.mark.qemu


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


def page() -> str:
    """The text of the page; the same on every machine with the same compiler and emulator."""
    lines = INTRODUCTION.format(lengths=", ".join(map(str, LENGTHS)), longest=LENGTHS[-1]).splitlines()
    head = ("layer", "MAC", "instructions", "per MAC", "goal", "CMSIS-NN", "portable C", "times slower")
    for target in TARGETS:
        lines += ["", f"## {target}", "", *table(head, layer_rows(target))]
        fast = costs(target)
        share = ratio(fast[LSTM_PROJECTED], fast[LSTM_DENSE])
        lines += ["", f"The projected LSTM step executes {share:.3f} of the dense one's instructions."]
    lines += ["", "## Profile by function", "", f"A sequence of {LENGTHS[-1]} steps."]
    for target in TARGETS:
        for title in (LSTM_DENSE, LSTM_PROJECTED, LSTM_JOINT, GRU_DENSE):
            lines += profile(costs(target)[title])
    return "\n".join(lines) + "\n"


def test_the_page_is_written() -> None:
    text = page()
    PAGE.write_text(text, encoding="utf-8")
    assert all(title in text for target in TARGETS for title in costs(target))
