"""Finding and running compilers and emulators: what is missing is said with the command that installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from projgen.errors import ToolMissingError
from projgen.targets import Target

# Debian packages that hold each program.
PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "gcc": ("gcc", "libc6-dev"),
    "clang": ("clang", "libclang-rt-14-dev"),
    "arm-none-eabi-gcc": ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi"),
    "arm-none-eabi-objdump": ("binutils-arm-none-eabi",),
    "arm-linux-gnueabihf-gcc": ("gcc-arm-linux-gnueabihf",),
    "arm-linux-gnueabihf-objdump": ("binutils-arm-linux-gnueabihf",),
    "aarch64-linux-gnu-gcc": ("gcc-aarch64-linux-gnu",),
    "aarch64-linux-gnu-objdump": ("binutils-aarch64-linux-gnu",),
    "objdump": ("binutils",),
    "qemu-system-arm": ("qemu-system-arm",),
    "qemu-arm": ("qemu-user",),
    "qemu-aarch64": ("qemu-user",),
    "qemu-x86_64": ("qemu-user",),
}


class HarnessError(RuntimeError):
    """Emitted code, or the harness, did something it must never do (a fault of projgen: exit 1)."""


def install_command(programs: Sequence[str]) -> str:
    """The one command that installs these programs on Debian."""
    packages = sorted({package for program in programs for package in PACKAGES.get(program, (program,))})
    return "sudo apt-get install -y " + " ".join(packages)


def find_tool(program: str, purpose: str) -> str:
    """Full path of a program on the PATH.

    Raises:
        ToolMissingError: it isn't there; the message has the command that installs it.
    """
    path = shutil.which(program)
    if path is None:
        raise ToolMissingError(
            f"{program} is missing: it is needed {purpose}",
            f"a {program} on the PATH, for example after: {install_command([program])}",
            "the PATH, or choose another target (projgen doctor lists what is missing)",
        )
    return path


def run_tool(command: Sequence[str], *, cwd: Path | None = None) -> str:
    """Run a build tool; its standard output.

    Raises:
        HarnessError: it failed; the message has the command and the first lines of its errors.
    """
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode != 0:
        lines = "\n".join((done.stderr or done.stdout).splitlines()[:40])
        raise HarnessError(f"{Path(command[0]).name} failed with {done.returncode}: {' '.join(command)}\n{lines}")
    return done.stdout


def first_line(command: Sequence[str]) -> str:
    """First line of what a program prints (its version)."""
    return (run_tool(command).splitlines() or [""])[0]


def gcc(target: Target) -> str:
    """The target's GCC, also used to assemble and link what clang compiles."""
    return find_tool(f"{target.compiler}gcc", f"to build for target {target.name}")


def binutil(target: Target, name: str) -> str:
    """A binary tool of the target, for example ``objdump``."""
    return find_tool(f"{target.compiler}{name}", f"to measure on target {target.name}")


def cache_dir() -> Path:
    """Folder for what is built once per machine: PROJGEN_CACHE, else the user's cache folder."""
    chosen = os.environ.get("PROJGEN_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "projgen"
