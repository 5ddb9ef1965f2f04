"""One cell of the table: a network at one level by one method, before and after distillation, and in int8."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import projgen
from benchmarks.projection.data import Data
from benchmarks.projection.nets import accuracy, trained
from benchmarks.projection.rows import Level, PcaRanks, PcaVariance, Reduction, Row
from benchmarks.projection.store import Store
from projgen.pca.counting import count_learnables

METHODS = ("pca", "output")
PARTS = ("gather", "compress", "distill")
REFUSED = 0.5  # points that int8 may lose


@dataclass(frozen=True, slots=True)
class Int8:
    """A network in int8: points below the float one on the same observations, or why it was refused."""

    lost: float
    observations: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What was measured.

    Attributes:
        dense: accuracy of the network before compression. learnables: kept. closed, distilled: accuracies; None if
            not distilled. int8: of the last of the two; "output" only. messages: warnings of the compression.
        seconds: of CPU time, per part.
    """

    dense: float
    dense_learnables: int
    learnables: int
    closed: float
    distilled: float | None
    int8_closed: Int8 | None
    int8_distilled: Int8 | None
    messages: tuple[str, ...]
    seconds: dict[str, float]


class Bench:
    """One row's network trained with one seed, its statistics gathered when the first cell needs them."""

    def __init__(self, row: Row, seed: int, store: Store) -> None:
        self._row, self._seed, self._store = row, seed, store
        self._data: Data | None = None
        self._ready: tuple[nn.Module, projgen.NeuronPCA, float] | None = None
        self._gathering = 0.0

    def cell(self, level: Level, method: str) -> Cell:
        """The cell, from disk if it was measured before."""
        found = self.finished(level, method)
        if found is None:
            found = self._measure(level, method)
            self._store.keep_cell(self._row.recipe(level, method, self._seed), asdict(found))
        return found

    def finished(self, level: Level, method: str) -> Cell | None:
        """The cell if it was measured before."""
        found = self._store.cell(self._row.recipe(level, method, self._seed))
        if found is None:
            return None
        int8 = {key: None if found[key] is None else Int8(**found[key]) for key in ("int8_closed", "int8_distilled")}
        return Cell(**{**found, **int8, "messages": tuple(found["messages"])})

    def _prepared(self) -> tuple[Data, nn.Module, projgen.NeuronPCA, float]:
        if self._data is None:
            self._data = self._row.net.load()
        if self._ready is None:
            model = trained(self._row.net, self._data.train, self._seed, self._store)
            start = time.process_time()
            pca = projgen.NeuronPCA(model, self._calibration(self._data), verbosity="off")
            self._gathering = time.process_time() - start
            self._ready = model, pca, accuracy(model, self._data.test)
        return self._data, *self._ready

    def _measure(self, level: Level, method: str) -> Cell:
        data, dense, pca, reached = self._prepared()
        batches = self._calibration(data)
        options = self._options(level, method)
        seconds = {"gather": self._gathering}
        given = {} if method == "pca" else {"data": batches}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = time.process_time()
            small, _ = projgen.compress(dense, pca, method=method, verbosity="off", **given, **options)
            seconds["compress"] = time.process_time() - start
            tuned = None
            if method in level.distil:
                start = time.process_time()
                tuned = projgen.distill(
                    small, dense, batches, steps=self._row.steps, batch_size=self._row.batch, seed=self._seed,
                    verbosity="off",
                )  # fmt: skip
                seconds["distill"] = time.process_time() - start
        quantised = self._int8 if method == "output" else _nothing
        return Cell(
            reached, count_learnables(dense), count_learnables(small), accuracy(small, data.test),
            None if tuned is None else accuracy(tuned, data.test),
            quantised(small, data), None if tuned is None else quantised(tuned, data),
            tuple(sorted({str(w.message).splitlines()[0] for w in caught if issubclass(w.category, UserWarning)})),
            {key: round(value, 1) for key, value in seconds.items()},
        )  # fmt: skip

    def _calibration(self, data: Data) -> list[Tensor]:
        return data.train.batches(self._row.net.calibration)

    def _options(self, level: Level, method: str) -> dict[str, Any]:
        """The goal for ``compress``: "pca" takes it as it is, "output" gets the size that "pca" came to."""
        if isinstance(level.size, Reduction):
            return {"learnables_reduction_goal": level.size.share}
        pca_options: dict[str, Any] = (
            {"ranks": level.size.ranks}
            if isinstance(level.size, PcaRanks)
            else {"explained_variance_goal": level.size.share}
        )
        if method == "pca":
            return pca_options
        assert isinstance(level.size, PcaRanks | PcaVariance)
        _, dense, pca, _ = self._prepared()
        small, _ = projgen.compress(dense, pca, method="pca", verbosity="off", **pca_options)
        return {"learnables_reduction_goal": 1 - count_learnables(small) / count_learnables(dense)}

    def _int8(self, model: nn.Module, data: Data) -> Int8:
        plain = projgen.unpack_projected_layers(model).eval()
        q = projgen.quantize(plain, self._calibration(data))
        few = data.test.some(self._row.int8_tests)
        right = {"float": 0, "int8": 0}
        for x, y in zip(few.x, few.labels, strict=True):
            with torch.no_grad():
                right["float"] += int((plain(x).argmax(-1) == y).sum())
            right["int8"] += int((np.asarray(q(x.numpy())).argmax(-1) == y.numpy()).sum())
        return Int8(100 * (right["float"] - right["int8"]) / few.count, few.count)


def _nothing(model: nn.Module, data: Data) -> None:
    del model, data


Progress = Callable[[str], None]


Cells = dict[tuple[str, str, str], dict[int, Cell]]


def measure(rows: Sequence[Row], seeds: Sequence[int], store: Store, progress: Progress) -> Cells:
    """All cells by (row, level, method), then by seed."""
    found: Cells = {}
    for row in rows:
        for seed in seeds:
            bench = Bench(row, seed, store)
            for level in row.levels:
                for method in METHODS:
                    cell = bench.cell(level, method)
                    found.setdefault((row.name, level.name, method), {})[seed] = cell
                    progress(_line(row, level, method, seed, cell))
    return found


def finished(rows: Sequence[Row], seeds: Sequence[int], store: Store) -> Cells:
    """The cells on disk, of the seeds for which a row has them all; a row without such a seed is left out."""
    found: Cells = {}
    for row in rows:
        for seed in seeds:
            bench = Bench(row, seed, store)
            keys = [(level, method) for level in row.levels for method in METHODS]
            cells = [bench.finished(level, method) for level, method in keys]
            for (level, method), cell in zip(keys, cells, strict=True):
                if cell is not None and None not in cells:
                    found.setdefault((row.name, level.name, method), {})[seed] = cell
    return found


def _line(row: Row, level: Level, method: str, seed: int, cell: Cell) -> str:
    text = f"{row.name} {level.name} seed {seed} {method}: {cell.learnables:,} learnables, dense {cell.dense:.4f}, "
    text += f"lost {100 * (cell.dense - cell.closed):.2f}"
    if cell.distilled is not None:
        text += f", distilled {100 * (cell.dense - cell.distilled):.2f}"
    for name, int8 in (("int8", cell.int8_closed), ("distilled int8", cell.int8_distilled)):
        if int8 is not None:
            text += f", {name} {int8.lost:+.2f}"
    return text + "; " + ", ".join(f"{key} {cell.seconds[key]:.1f} s" for key in PARTS if key in cell.seconds)
