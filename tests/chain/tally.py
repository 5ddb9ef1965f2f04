"""Adds up what the matrix compared, prints it, and fails a run of the whole matrix that compared too little.

Loaded as a plugin, because workers of a parallel run report only through the tests' properties.
"""

from __future__ import annotations

import pytest

PROPERTY = "compared"  # (samples, runs, bytes) of one build of the matrix
BUILDS = 32  # builds (target x flags) of the whole matrix
LEAST = 6690  # samples x builds that a run of the whole matrix must compare

_builds: dict[str, tuple[int, int, int]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        for name, value in report.user_properties:
            if name == PROPERTY:
                samples, runs, size = (int(v) for v in value)  # type: ignore[attr-defined]
                _builds[report.nodeid] = (samples, runs, size)


def total() -> int:
    """Samples x builds compared so far."""
    return sum(samples for samples, _, _ in _builds.values())


def is_short() -> bool:
    """Whether all builds ran and compared fewer samples than committed."""
    return len(_builds) >= BUILDS and total() < LEAST


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_short() and not hasattr(session.config, "workerinput"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _builds:
        return
    _, runs, size = (sum(column) for column in zip(*_builds.values(), strict=True))
    text = f"matrix: {total()} samples x targets x flags in {len(_builds)} builds, {runs} runs, {size} bytes equal"
    terminalreporter.write_line(text)
    if is_short():
        terminalreporter.write_line(f"matrix: fewer than the committed {LEAST}; see tests/chain/tally.py", red=True)
