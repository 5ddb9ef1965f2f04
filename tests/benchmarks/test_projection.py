"""The benchmark of projection's accuracy: verdicts, the page, finished cells on disk, and one small row for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.projection import __main__ as command
from benchmarks.projection import data, nets
from benchmarks.projection.cells import Cell, Int8, finished, measure
from benchmarks.projection.page import page
from benchmarks.projection.rows import BOTH, OURS, ROWS, Level, Lost, PcaRanks, Reached, Reduction, Row
from benchmarks.projection.store import Store
from benchmarks.projection.verdicts import Spread, verdicts
from projgen.errors import InputError

SMALL = replace(nets.DIGITS_MLP, epochs=4, rate=1e-2)


def cell(closed: float, distilled: float | None = None, int8: float = 0.0) -> Cell:
    return Cell(
        0.9, 1000, 100, closed, distilled, Int8(int8, 500), None if distilled is None else Int8(int8, 500),
        ("a warning",), {"gather": 1.0, "compress": 2.0},
    )  # fmt: skip


def both(found: Cell) -> dict[int, Cell]:
    return {0: found, 1: found}


def row(*levels: Level) -> Row:
    return Row("small", "Small", SMALL, levels, steps=20)


def test_a_limit_holds_when_the_mean_less_one_standard_error_does() -> None:
    rows = [row(Level("90%", Reduction(0.9), Lost(1.0)))]
    ours = {0: cell(0.89), 1: cell(0.87)}  # 1 and 3 points lost: 2 ± 1.41, standard error 1
    cells = {("small", "90%", "output"): ours, ("small", "90%", "pca"): both(cell(0.5))}
    points, int8 = verdicts(rows, cells)
    assert points.holds and points.measured == "2.00 ± 1.41" and points.baseline == "40.00 ± 0.00"
    assert int8.holds and int8.stage == "closed, int8"
    (points, _) = verdicts([row(Level("90%", Reduction(0.9), Lost(0.99)))], cells)
    assert not points.holds
    bad = {**cells, ("small", "90%", "output"): both(cell(0.89, int8=0.6))}
    assert [v.holds for v in verdicts(rows, bad)] == [True, False]


def test_accuracies_are_given_one_standard_error_too_and_a_curve_must_lie_above_the_baseline() -> None:
    rows = [row(Level("a", Reduction(0.9), Reached(0.89)), Level("b", Reduction(0.9), distil=BOTH, beyond_pca=True))]
    cells = {
        ("small", "a", "output"): {0: cell(0.89), 1: cell(0.87)},
        ("small", "a", "pca"): both(cell(0.1)),
        ("small", "b", "output"): both(cell(0.80, 0.85)),
        ("small", "b", "pca"): both(cell(0.70, 0.86)),
    }
    held = {(v.level.name, v.stage): v.holds for v in verdicts(rows, cells)}
    assert held["a", "closed"] and held["b", "closed"] and not held["b", "distilled"]


def test_the_page_names_every_seed_the_limits_and_the_warnings() -> None:
    rows = [row(Level("90%", Reduction(0.9), Lost(1.0)))]
    cells = {("small", "90%", m): {0: cell(0.89), 3: cell(0.85)} for m in ("output", "pca")}
    text = page(rows, cells, "make it")
    assert "Written by `make it`" in text and "Seeds 0, 3: dense" in text
    assert "| Small | 90% | closed | ≤ 1.0 | 3.00 ± 2.83 | 3.00 ± 2.83 | yes |" in text
    assert "1.00 5.00" in text and "- 90% `pca`, 90% `output`: a warning" in text and "1,000 learnables" in text


def test_one_value_has_no_deviation() -> None:
    assert Spread((3.0,)).text() == "3.00" and Spread((3.0,)).error == 0.0


def test_a_row_is_measured_and_its_finished_cells_are_read_again(tmp_path: Path) -> None:
    levels = (
        Level("rank 8", PcaRanks({"0": 8, "2": 8}), Reached(0.5)),
        Level("50%", Reduction(0.5), Lost(5.0), Lost(5.0), distil=OURS),
    )
    store, lines = Store(tmp_path), list[str]()
    found = measure([row(*levels)], [0], store, lines.append)
    ours, pca = found["small", "rank 8", "output"][0], found["small", "rank 8", "pca"][0]
    assert ours.learnables <= pca.learnables < ours.dense_learnables == 8970
    assert ours.closed > pca.closed and ours.dense > 0.8
    assert ours.int8_closed is not None and abs(ours.int8_closed.lost) < 2 and pca.int8_closed is None
    half = found["small", "50%", "output"][0]
    assert half.distilled is not None and half.learnables <= 4485 and {"gather", "distill"} <= set(half.seconds)
    assert len(lines) == 4 and lines[0].startswith("small rank 8 seed 0 pca: 2,826 learnables")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert len(times) == 5
    assert measure([row(*levels)], [0], store, lines.append) == found
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert finished([row(*levels)], [0, 1], store) == found
    assert finished([row(*levels, Level("60%", Reduction(0.6)))], [0], store) == {}
    measure([row(levels[0])], [0], Store(tmp_path, fresh=True), lines.append)
    changed = [path for path in times if path.stat().st_mtime_ns != times[path]]
    assert len(changed) == 2 and all(path.suffix == ".json" for path in changed)


def test_another_recipe_is_another_cell() -> None:
    level = Level("50%", Reduction(0.5))
    base = row(level)
    assert base.recipe(level, "pca", 0) == row(level).recipe(level, "pca", 0)
    for other in (replace(base, net=replace(SMALL, rate=2e-2)), replace(base, steps=21)):
        changed = replace(level, distil=BOTH)
        assert base.recipe(changed, "pca", 0) != other.recipe(changed, "pca", 0)


def test_the_rows_ask_for_what_they_can_measure() -> None:
    assert len({r.name for r in ROWS}) == len(ROWS)
    for r in ROWS:
        assert len({level.name for level in r.levels}) == len(r.levels)
        for level in r.levels:
            assert level.distil or level.distilled is None
            assert level.closed or level.distilled or level.beyond_pca


def test_missing_data_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROJGEN_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"no data set 'fsdd'.*PROJGEN_DATA"):
        data.folder("fsdd")


def test_an_unknown_row_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["projection", "--rows", "jv,nothing"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2 and "not one of jv, digits-mlp" in capsys.readouterr().err
