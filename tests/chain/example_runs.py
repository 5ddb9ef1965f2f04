"""Runs each example once a test session, whichever worker comes first, and reads what it left."""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from projgen.quant.model import QuantizedModel
from tests.chain.support import Part, Vector, part

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {"japanese_vowels": "vowels", "digits": "digits"}  # script -> name of its models
FORMS = ("int8", "projected_int8")
TESTED = 24  # inputs of each test set that the other cores run


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the example's table."""

    model: str
    target: str
    accuracy: float
    learnables: int


class _Tables(HTMLParser):
    """The texts of every table's cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 (the base class's signature)
        self._in_cell = tag in ("td", "th")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[-1][-1][-1] += data.strip()


@dataclass(frozen=True, slots=True)
class Run:
    """An example's folder, what it printed, and the tables of its report."""

    script: str
    folder: Path
    printed: str

    @property
    def report(self) -> str:
        return (self.folder / "report.html").read_text(encoding="utf-8")

    def _table(self, title: str) -> list[list[str]]:
        reader = _Tables()
        reader.feed(self.report)
        return next(rows[1:] for rows in reader.tables if rows[0][0] == title)

    @property
    def rows(self) -> list[Row]:
        """The table of deployed models."""
        return [Row(r[0], r[1], float(r[2]), int(r[3].replace(",", ""))) for r in self._table("model")]

    def row(self, model: str, target: str = "-") -> Row:
        return next(r for r in self.rows if (r.model, r.target) == (model, target))

    @property
    def levels(self) -> dict[float, tuple[int, float]]:
        """Share of learnables saved -> (learnables left, accuracy after fine-tuning, in float)."""
        rows = self._table("fewer learnables")
        return {float(r[0].rstrip("%")): (int(r[1].replace(",", "")), float(r[3])) for r in rows}

    def model(self, form: str, target: str = "cortex-m4") -> QuantizedModel:
        name = EXAMPLES[self.script]
        return QuantizedModel.load(self.folder / f"{form}_{target}" / f"{name}.qmodel")

    def part(self, form: str) -> Part:
        """The quantised model on some of its test inputs."""
        q = self.model(form)
        return part(q.graph, _test_inputs(self.script, q), f"{self.script} {form}")


def example_module(name: str) -> ModuleType:
    """A module of the examples' folder."""
    folder = str(ROOT / "examples")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def _test_inputs(script: str, q: QuantizedModel) -> list[Vector]:
    datasets = example_module("datasets")
    if script == "digits":
        chosen = list(datasets.digits()[0][-TESTED:])
    else:
        test = datasets.japanese_vowels()[1].x
        chosen = [test[i] for i in range(0, len(test), len(test) // TESTED)][:TESTED]
    (port,) = q.graph.inputs
    return [(np.asarray(port.to_ir(np.asarray(q.quantize_input(x[None]))))[0],) for x in chosen]


def run_once(script: str, factory: pytest.TempPathFactory) -> Run:
    """The finished example; it runs where no worker of this test run has run it yet."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, log = shared / f"example_{script}", shared / f"example_{script}.txt"
    with (shared / f"example_{script}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            command = [sys.executable, str(ROOT / "examples" / f"{script}.py"), "--out", str(folder)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
            done = subprocess.run(command, env=environment, cwd=shared, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            log.write_text(done.stdout, encoding="utf-8")
    return Run(script, folder, log.read_text(encoding="utf-8"))
