"""What the harness needs to know of a generated model folder, from its manifest ``NAME.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from projgen.errors import InputError

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: its name, its number of elements (per step where it runs over time), its element type."""

    name: str
    size: int
    element: str = "int8"
    over_time: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type, little-endian."""
        return np.dtype("<i2" if self.element == "int16" else "i1")

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Layer:
    """A row of the manifest's table of layers; ``function`` is empty when a layer emits no code.

    ``macs`` are per call, as is ``reference``, the instructions of the best such kernels measured (None: none was);
    ``every_step``: called once per time step of a sequence.
    """

    index: int
    name: str
    op: str
    function: str
    kernel: str
    macs: int
    weight_bytes: int
    every_step: bool
    reference: int | None = None


@dataclass(frozen=True, slots=True)
class LibraryUse:
    """What a model calls CMSIS-NN for: its release, macros to compile it with, sources relative to its folder."""

    version: str
    defines: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A generated model: where its files are and how it is called.

    Attributes:
        sequence: it has a time axis (``NAME_run_sequence``), else ``NAME_run``.
        step: it has ``NAME_reset`` and ``NAME_step``.
        per_step_output: a sequence gives one output per step.
        element: ``int8`` or ``int16``: of the first input.
        arena_bytes: with the input outside the arena.
        arena_with_input_bytes: with it inside, at ``input_offset``.
        cmsis_nn: what it needs of CMSIS-NN; None where it calls nothing of it.
    """

    folder: Path
    name: str
    sequence: bool
    step: bool
    per_step_output: bool
    element: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weight_bytes: int
    arena_bytes: int
    arena_with_input_bytes: int
    input_offset: int
    state_bytes: int
    layers: tuple[Layer, ...]
    cmsis_nn: LibraryUse | None = None

    @property
    def source(self) -> Path:
        return self.folder / f"{self.name}.c"

    @property
    def input_in_arena(self) -> bool:
        """Whether the single input may lie inside the arena."""
        return not self.sequence and len(self.inputs) == 1 and self.arena_with_input_bytes > 0

    def steps(self, inputs: Sequence[Any]) -> int:
        """Steps of a record's inputs: the length of those that run over time; 1 without a time axis."""
        return next((len(x) for tensor, x in zip(self.inputs, inputs, strict=True) if tensor.over_time), 1)

    @property
    def run_functions(self) -> tuple[str, ...]:
        """The functions a caller uses, without the float helpers."""
        run = f"{self.name}_run_sequence" if self.sequence else f"{self.name}_run"
        return (run, f"{self.name}_reset", f"{self.name}_step") if self.step else (run,)


def read_model(folder: Path | str) -> ModelFolder:
    """Read the manifest of a folder that ``projgen compile`` wrote.

    Raises:
        InputError: no such folder, no manifest, or one of another schema.
    """
    folder = Path(folder)
    where = "the model folder"
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", "a folder written by projgen compile", where)
    found = [(path, data) for path in sorted(folder.glob("*.json")) if (data := _manifest(path)) is not None]
    if len(found) != 1:
        what = "no manifest" if not found else f"{len(found)} manifests"
        raise InputError(f"{folder} has {what}", "one NAME.json written by projgen compile", where)
    path, data = found[0]
    if data["schema"] != SCHEMA:
        raise InputError(
            f"{path} has schema {data['schema']}", f"schema {SCHEMA}", "the folder: compile the model again"
        )
    try:
        return _model(folder, data)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error!r}", "a manifest as written", where) from error


def _manifest(path: Path) -> Mapping[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}", "a JSON file", "the model folder") from error
    return data if isinstance(data, dict) and "schema" in data and "interface" in data else None


def _tensor(row: Mapping[str, Any], element: str, over_time: bool) -> Tensor:
    """A row of inputs or outputs; what it does not say is as in the interface."""
    own = str(row.get("element") or element)
    if own not in ("int8", "int16"):
        raise ValueError(f"a tensor of {own}")
    return Tensor(str(row["name"]), int(row["size"]), own, bool(row.get("over_time", over_time)))


def _model(folder: Path, data: Mapping[str, Any]) -> ModelFolder:
    interface = data["interface"]
    kind, element = interface["kind"], interface["element"]
    if kind not in ("run", "sequence") or element not in ("int8", "int16"):
        raise ValueError(f"interface {kind} of {element}")
    sequence = kind == "sequence"
    return ModelFolder(
        folder=folder.resolve(),
        name=str(data["name"]),
        sequence=sequence,
        step=sequence and bool(interface["step"]),
        per_step_output=sequence and bool(interface["per_step_output"]),
        element=element,
        inputs=tuple(_tensor(t, element, sequence) for t in data["inputs"]),
        outputs=tuple(_tensor(t, element, sequence and bool(interface["per_step_output"])) for t in data["outputs"]),
        weight_bytes=int(data["weight_bytes"]),
        arena_bytes=int(data["arena_bytes"]),
        arena_with_input_bytes=int(data.get("arena_with_input_bytes") or 0),
        input_offset=int(data.get("input_offset") or 0),
        state_bytes=int(data.get("state_bytes") or 0),
        layers=tuple(
            Layer(
                index=int(row["index"]),
                name=str(row["name"]),
                op=str(row["op"]),
                function=str(row.get("function") or ""),
                kernel=str(row.get("kernel") or ""),
                macs=int(row.get("macs") or 0),
                weight_bytes=int(row.get("weight_bytes") or 0),
                every_step=sequence and row.get("phase", "step") == "step",
                reference=None if row.get("reference_instructions") is None else int(row["reference_instructions"]),
            )
            for row in data["layers"]
        ),
        cmsis_nn=_library(data.get("cmsis_nn")),
    )


def _library(data: Mapping[str, Any] | None) -> LibraryUse | None:
    if not data:
        return None
    return LibraryUse(str(data["version"]), tuple(map(str, data["defines"])), tuple(map(str, data["sources"])))
