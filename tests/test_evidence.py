"""docs/evidence.md names files and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py(?:::\w+)?)`", PAGE)))


def _problem(name: str) -> str:
    path, _, test = name.partition("::")
    if not (ROOT / path).is_file():
        return "no such file"
    text = (ROOT / path).read_text(encoding="utf-8")
    return "" if re.search(rf"^def {test or 'test_'}", text, re.MULTILINE) else "no such test"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_exists(name: str) -> None:
    assert not _problem(name)


def test_names_that_are_gone_would_be_found() -> None:
    assert _problem("tests/test_nothing.py") == "no such file"
    assert _problem("tests/test_evidence.py::test_gone") == "no such test"


def test_pages_and_targets_exist() -> None:
    for page in re.findall(r"\]\((\S+?)\)", PAGE):
        assert (ROOT / "docs" / page).is_file(), page
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w-]+)`", PAGE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
