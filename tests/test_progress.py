"""What each verbosity prints, that bars appear on a terminal only, and where the time goes."""

from __future__ import annotations

import sys

import pytest
from rich.table import Table

from projgen import progress
from projgen.errors import InputError
from projgen.progress import Clock, Reporter


@pytest.mark.parametrize(("level", "shown"), [("off", 0), ("summary", 1), ("steps", 2), ("iterations", 3)])
def test_levels_nest(level: str, shown: int, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(level)
    reporter.summary("the result")
    reporter.step("a step")
    reporter.iteration("an iteration")
    assert capsys.readouterr().out.splitlines() == ["the result", "a step", "an iteration"][:shown]


def test_text_is_printed_as_it_is_and_tables_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    text = "layer [0] of 'x' " + "long " * 60
    Reporter("summary").summary(text)
    assert capsys.readouterr().out == text + "\n"
    table = Table("layer")
    table.add_row("fc")
    Reporter("summary").summary(table)
    assert "fc" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("level", ["off", "summary"])
def test_bars_need_a_terminal_and_pass_the_items_on(
    terminal: bool, level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert list(Reporter(level).track(iter([1, 2, 3]), "working", 3)) == [1, 2, 3]
    written = capsys.readouterr()
    assert written.out == "" and (written.err != "") is (terminal and level != "off")


def test_unknown_levels_are_refused() -> None:
    with pytest.raises(InputError, match=r"verbosity 'loud'\. Allowed: off, summary, steps, iterations"):
        Reporter("loud")


def test_a_stage_inside_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 4.0, 6.0, 10.0, 20.0])
    monkeypatch.setattr(progress, "now", lambda: next(ticks))
    clock = Clock()
    with clock.stage("selection"), clock.stage("refit"):  # 0 .. 1 and 4 .. 6; 1 .. 4
        pass
    with pytest.raises(ValueError, match="inside"), clock.stage("refit"):  # 10 .. 20
        raise ValueError("inside")
    assert clock.seconds == {"selection": 3.0, "refit": 13.0}
    assert str(clock) == "refit 13.0 s, selection 3.0 s"
    clock.add({"moments": 2.0, "refit": 1.0})
    assert clock.seconds == {"selection": 3.0, "refit": 14.0, "moments": 2.0}
