"""A skipped test fails the run unless ``tests/allowed_skips.txt`` names it, with a reason."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
_skipped: dict[str, str] = {}


def allowed_patterns() -> list[str]:
    """Node-id patterns of the committed list; a line is ``PATTERN: reason``."""
    lines = (line.strip() for line in ALLOWED.read_text().splitlines())
    return [line.split(": ", 1)[0] for line in lines if line and not line.startswith("#")]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[report.nodeid] = reason


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped[report.nodeid] = str(report.longrepr)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return
    patterns = allowed_patterns()
    refused = {k: v for k, v in _skipped.items() if not any(fnmatch(k, p) for p in patterns)}
    if refused:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        for node, reason in refused.items():
            message = f"not allowed to skip: {node} ({reason}); see tests/allowed_skips.txt"
            if reporter is not None:
                reporter.write_line(message, red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
