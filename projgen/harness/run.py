"""Running images: natively, under user-mode emulation, or on an emulated board."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from projgen.errors import ToolMissingError
from projgen.harness.build import Image
from projgen.harness.elf import read_functions
from projgen.harness.records import IntArray, Record, Result, decode, encode
from projgen.harness.toolchain import HarnessError, find_tool
from projgen.targets import Target

DEFAULT_TIMEOUT = 600.0


def emulator_command(target: Target, elf: Path, plugin: str | None = None) -> list[str]:
    """The command that runs an image, under a counting plugin if one is given.

    Raises:
        ToolMissingError: the emulator isn't installed.
    """
    board = target.board
    emulator = board.emulator
    if board.kind == "native":
        if plugin is None:
            return [str(elf)]
        emulator = f"qemu-{platform.machine()}"
    command = [find_tool(emulator, f"to run images of target {target.name}")]
    if board.kind == "system":
        command += ["-M", board.machine, "-display", "none", "-monitor", "none", "-serial", "none"]
        command += ["-semihosting-config", "enable=on,target=native"]
    if board.cpu:
        command += ["-cpu", board.cpu]
    command += board.arguments
    if plugin is not None:
        command += ["-plugin", plugin]
    return [*command, "-kernel", str(elf)] if board.kind == "system" else [*command, str(elf)]


def run_image(image: Image, records: Sequence[Record], *, timeout: float = DEFAULT_TIMEOUT) -> list[IntArray]:
    """Run records; one array each: (size,), or (steps, size) of a sequence with an output per step.

    The outputs of a model with several are one flat array, in the graph's order; ``execute`` keeps them
    apart.
    """
    results = execute(image, records, timeout=timeout)
    return [
        result.outputs[0] if len(result.outputs) == 1 else np.concatenate([x.ravel() for x in result.outputs])
        for result in results
    ]


def execute(
    image: Image, records: Sequence[Record], *, paint: bool = False, timeout: float = DEFAULT_TIMEOUT
) -> list[Result]:
    """Run records; outputs and, with ``paint``, the deepest stack of each.

    Raises:
        ToolMissingError: no emulator.
        InputError: a record its model can't take.
        HarnessError: the image failed: an error code, a broken guard, a fault of the core, a time-out.
    """
    with tempfile.TemporaryDirectory(prefix="projgen-run-") as folder:
        command = emulator_command(image.target, image.elf)
        data = run_command(image, records, command, Path(folder), paint=paint, timeout=timeout)
    return decode(image.models, records, data, paint=paint)


def run_command(
    image: Image, records: Sequence[Record], command: Sequence[str], folder: Path, *, paint: bool, timeout: float
) -> bytes:
    """Run a command in a folder with the records' vectors; what it left in ``results.bin``."""
    (folder / "vectors.bin").write_bytes(encode(image.models, records, paint=paint))
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{image.elf} did not end within {timeout:g} s") from error
    text = (done.stdout + done.stderr).decode(errors="replace").strip()
    if "plugin" in text and done.returncode != 0:
        raise ToolMissingError(
            f"the emulator can't load the counting plugin: {text.splitlines()[0]}",
            "QEMU 7.2 to 9 with plugins enabled",
            "the installed QEMU",
        )
    if done.returncode != 0:
        lines = "\n".join(text.splitlines()[:30]) + _fault_place(image, text)
        raise HarnessError(f"{image.elf} ended with {done.returncode} on target {image.target.name}: {lines}")
    results = folder / "results.bin"
    return results.read_bytes() if results.is_file() else b""


def _fault_place(image: Image, text: str) -> str:
    """The function that holds the address at which a core took a fault."""
    match = re.search(r"took a fault at 0x([0-9a-f]+)", text)
    function = read_functions(image.elf).at(int(match[1], 16)) if match else None
    return f" (in {function.name})" if function else ""
