"""Emitted C as a shared library of this machine, called through its public functions."""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from projgen.codegen.output import write_folder
from projgen.driver import generate
from projgen.ir.graph import Array, Graph
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel
from projgen.targets import load_target

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")


def emit(graph: Graph, folder: Path, name: str = "net", target: str = "host", **options: Any) -> Path:
    """The folder of a compiled quantised graph."""
    made = CompileOptions.checked(name, "c", options.get("kernels", "fast"), options.get("optimise", "speed"))
    write_folder(generate(QuantizedModel(graph), load_target(target), made), folder)
    return folder


class Library:
    """The functions of one emitted model."""

    def __init__(self, folder: Path, compiler: str = "gcc", *flags: str) -> None:
        self.manifest = next(data for p in folder.glob("*.json") if "interface" in (data := json.loads(p.read_text())))
        self.name = self.manifest["name"]
        out = folder / f"{compiler}.so"
        source = str(folder / f"{self.name}.c")
        command = [compiler, *FLAGS, "-O1", "-shared", "-fPIC", *flags, source, "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr
        self._library = ctypes.CDLL(str(out))

    def __getitem__(self, function: str) -> Any:
        return getattr(self._library, f"{self.name}_{function}")

    def arena(self, extra: int = 0, fill: int = 0xA5, key: str = "arena_bytes") -> npt.NDArray[np.uint8]:
        """Aligned memory that starts ``extra`` bytes after a multiple of 64."""
        size = int(self.manifest[key])
        memory = np.full(size + 192, fill, np.uint8)
        start = -memory.ctypes.data % 64 + extra
        return memory[start : start + size]

    def outputs(self, steps: int = 1) -> list[Array]:
        rows = steps if self.manifest["interface"]["per_step_output"] else 1
        return [np.full(rows * o["size"], 99, o["element"]) for o in self.manifest["outputs"]]

    def run(self, inputs: tuple[Array, ...], steps: int = 1) -> list[Array]:
        """One inference of one sample in the IR's layout, flat outputs."""
        arena, outputs = self.arena(), self.outputs(steps)
        sequence = self.manifest["interface"]["kind"] == "sequence"
        given = [np.ascontiguousarray(x) for x in inputs]
        arguments = [pointer(x) for x in given]
        arguments += [ctypes.c_int32(steps)] if sequence else []
        arguments += [*(pointer(y) for y in outputs), pointer(arena)]
        assert self["run_sequence" if sequence else "run"](*arguments) == 0
        return outputs

    def step(self, inputs: tuple[Array, ...], steps: int) -> list[list[Array]]:
        """reset, then step by step with a spoilt arena; the outputs of every step."""
        state = self.arena(key="state_bytes", fill=0x5A)
        self["reset"](pointer(state))
        found = []
        for t in range(steps):
            arena, outputs = (
                self.arena(fill=t),
                [np.full(o["size"], 99, o["element"]) for o in self.manifest["outputs"]],
            )
            timed = [i["over_time"] for i in self.manifest["inputs"]]
            rows = [np.ascontiguousarray(x[t] if k else x) for x, k in zip(inputs, timed, strict=True)]
            assert self["step"](pointer(state), *map(pointer, rows), *map(pointer, outputs), pointer(arena)) == 0
            found.append(outputs)
        return found


def pointer(array: Array | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)
