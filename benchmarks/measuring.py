"""Exact costs of single layers on emulated cores: instructions of a step as the slope of counts over the length.

Counted from the call of the run function to its return, at -O2 with gcc; every image first counts a loop of known
length. The layers' weights are random and fixed; instructions do not depend on them but through the packing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from projgen.errors import ProjgenError
from projgen.harness.build import Image
from projgen.harness.counting import Counts, count_image
from projgen.harness.records import Record
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph
from projgen.ops import get, linear
from projgen.ops.recurrent_samples import Case, sample
from tests.chain.support import build, draw, part

TARGETS: Final = ("cortex-m4", "cortex-m55")
LENGTHS: Final = (1, 2, 3, 7, 20)


@dataclass(frozen=True, slots=True)
class Workload:
    """A layer to measure: its title and its one-operator graph."""

    title: str
    graph: Graph

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a call, or of a step."""
        (node,) = self.graph.nodes
        types = {role: self.graph.values[name].type for role, name in node.inputs.items()}
        return get(node.op).cost(node.attrs, types, self.graph.type(node.output)).macs


LSTM_DENSE: Final = "LSTM 12 -> 100"
LSTM_SHIFTED: Final = "LSTM 12 -> 100, k = 2"
LSTM_PROJECTED: Final = "LSTM 12 -> 100, ranks 8 and 7"
LSTM_JOINT: Final = "LSTM 12 -> 26, joint rank 14"
GRU_DENSE: Final = "GRU 12 -> 64"
GRU_PROJECTED: Final = "GRU 12 -> 64, ranks 8 and 7"
LINEAR: Final = "fully connected 128 -> 128"


@cache
def workloads() -> tuple[Workload, ...]:
    """What is measured."""
    cases = (
        (LSTM_DENSE, Case("lstm_dense", Lstm, 12, 100)),
        (LSTM_SHIFTED, Case("lstm_shifted", Lstm, 12, 100, k=2)),
        (LSTM_PROJECTED, Case("lstm_projected", Lstm, 12, 100, ranks=(8, 7))),
        (LSTM_JOINT, Case("lstm_joint", Lstm, 12, 26, ranks=(14, 14), spread=300.0, joint=True)),
        (GRU_DENSE, Case("gru_dense", Gru, 12, 64)),
        (GRU_PROJECTED, Case("gru_projected", Gru, 12, 64, ranks=(8, 7))),
    )
    recurrent = [Workload(title, sample(case).graph) for title, case in cases]
    return (*recurrent, Workload(LINEAR, linear.sample("fc_128_128", 128, 128).graph))


@dataclass(frozen=True, slots=True)
class Cost:
    """Instructions of one call, or of one step; ``once``: what a sequence costs beside its steps."""

    title: str
    target: str
    kernels: str
    macs: int
    instructions: int
    once: int
    symbols: tuple[tuple[str, int], ...]  # function -> instructions of a call, or of a sequence of 20 steps

    @property
    def per_mac(self) -> float:
        return self.instructions / self.macs


def slope(lengths: Sequence[int], counts: Sequence[int]) -> tuple[int, int]:
    """(per step, once) of counts that lie exactly on a line; ``ValueError`` where one does not."""
    per_step, rest = divmod(counts[1] - counts[0], lengths[1] - lengths[0])
    once = counts[0] - per_step * lengths[0]
    if rest or any(n != once + per_step * t for t, n in zip(lengths, counts, strict=True)):
        raise ValueError(f"counts {list(counts)} of {list(lengths)} steps are not on a line")
    return per_step, once


def mean_slope(lengths: Sequence[int], counts: Sequence[int]) -> tuple[int, int]:
    """(per step, once) between the shortest and the longest run: memcpy in portable C looks at alignments."""
    per_step = round((counts[-1] - counts[0]) / (lengths[-1] - lengths[0]))
    return per_step, counts[0] - per_step * lengths[0]


@cache
def costs(target: str, kernels: str = "fast") -> dict[str, Cost]:
    """The cost of every workload on one target, by title."""
    todo = workloads()
    with tempfile.TemporaryDirectory(prefix="projgen-bench-") as folder:
        image = build([part(w.graph, ()) for w in todo], target, Path(folder), kernels=kernels)
        return {w.title: _cost(w, image, place, target, kernels) for place, w in enumerate(todo)}


def _cost(work: Workload, image: Image, place: int, target: str, kernels: str) -> Cost:
    if not work.graph.has_time:
        (vector,) = draw(work.graph, 3)[2:]
        counts = counted(image, [Record(vector, place)])
        return Cost(work.title, target, kernels, work.macs, counts.totals[0], 0, _symbols(counts))
    records = [Record(draw(work.graph, 3, steps)[2], place) for steps in LENGTHS]
    totals = counted(image, records).totals
    per_step, once = slope(LENGTHS, totals) if kernels == "fast" else mean_slope(LENGTHS, totals)
    longest = counted(image, records[-1:])
    return Cost(work.title, target, kernels, work.macs, per_step, once, _symbols(longest))


def counted(image: Image, records: Sequence[Record]) -> Counts:
    """Counts of records; where this machine has no emulator to count with, a ``ProjgenError``."""
    counts = count_image(image, records)
    if counts is None:
        raise ProjgenError("instructions can't be counted here", "an emulated target", "projgen doctor")
    return counts


def _symbols(counts: Counts) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.symbols.items(), key=lambda row: (-row[1], row[0])))


def ratio(a: Cost, b: Cost) -> float:
    """Instructions of ``a`` per instruction of ``b``."""
    return a.instructions / b.instructions
