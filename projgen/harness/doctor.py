"""What is installed here, what is missing, and the one command that installs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

from projgen.harness.toolchain import install_command
from projgen.targets import list_targets

# Programs no target's file names, and what they are for.
_OTHERS: Final = (
    ("gcc", "builds for target host, and the counting plugin"),
    ("clang", "a second compiler for every target"),
    ("qemu-x86_64", "counts instructions on target host"),
)


@dataclass(frozen=True, slots=True)
class ToolStatus:
    """One tool.

    Attributes:
        tool: the program.
        version: what it says of itself; None when it is missing.
        targets: the targets that need it to build or run.
        purpose: what it does.
        install: the command that installs it.
    """

    tool: str
    version: str | None
    targets: tuple[str, ...]
    purpose: str
    install: str

    @property
    def found(self) -> bool:
        return self.version is not None


def check() -> tuple[ToolStatus, ...]:
    """Every tool that some target needs, with the version found."""
    wanted: dict[str, tuple[list[str], str]] = {tool: ([], purpose) for tool, purpose in _OTHERS}
    for target in list_targets():
        needed = [(f"{target.compiler}gcc", "compiles, assembles and links")]
        if target.board.emulator:
            needed.append((target.board.emulator, "runs the images and counts instructions"))
        for tool, purpose in needed:
            wanted.setdefault(tool, ([], purpose))[0].append(target.name)
    return tuple(
        ToolStatus(tool, _version(tool), tuple(targets), purpose, install_command([tool]))
        for tool, (targets, purpose) in wanted.items()
    )


def install_missing(statuses: tuple[ToolStatus, ...]) -> str | None:
    """The one command that installs all that is missing; None when nothing is."""
    missing = [status.tool for status in statuses if not status.found]
    return install_command(missing) if missing else None


def _version(tool: str) -> str | None:
    path = shutil.which(tool)
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, errors="replace")
    line = (done.stdout or done.stderr).splitlines()[:1]
    match = re.search(r"\d+(\.\d+)+", line[0]) if line else None
    return match[0] if match else "unknown"
