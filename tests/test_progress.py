"""What each verbosity prints, and that bars appear on a terminal only."""

from __future__ import annotations

import sys

import pytest
from rich.table import Table

from projgen.errors import InputError
from projgen.progress import Reporter


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
