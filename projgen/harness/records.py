"""Records: one call of one model each, and the files that carry them to the driver and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from projgen.errors import FitError, InputError
from projgen.harness.manifest import ModelFolder
from projgen.harness.toolchain import HarnessError

Mode = Literal["run", "step"]
IntArray = NDArray[np.integer[Any]]

_MAGIC: Final = 0x31564750
_PAINT: Final = 1
_MODES: Final = {"run": 0, "step": 1}
_IN_ARENA: Final = 2
_RECORD: Final = struct.Struct("<5I")
_RESULT: Final = struct.Struct("<iIII")
_FAULTS: Final = {
    1: "bytes beside the arena were written",
    2: "bytes beside the state were written",
    4: "bytes beside the output were written",
    8: "bytes beside the input were written",
    16: "the input, outside the arena, was written",
    64: "the stack grew over its limit",
    128: "the record does not match the model",
}
FAULT_MEMORY: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One inference.

    Attributes:
        inputs: one integer array per input of the model, (size,) or any shape of as many elements; in a
            sequence model (steps, size) where it runs over time.
        model: place of the model in the image.
        mode: ``run``, or ``step``: reset, then step by step, the arena spoilt between the steps.
        input_in_arena: the input lies inside the arena, at its offset there.
        misalign: bytes by which inputs and outputs lie off a 64-byte boundary.
    """

    inputs: tuple[IntArray, ...]
    model: int = 0
    mode: Mode = "run"
    input_in_arena: bool = False
    misalign: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Outputs, one per output of the model, (size,) or (steps, size); and the deepest stack, in bytes.

    ``stack_bytes`` is None unless the stack was painted.
    """

    outputs: tuple[IntArray, ...]
    stack_bytes: int | None


def encode(models: Sequence[ModelFolder], records: Sequence[Record], *, paint: bool) -> bytes:
    """Contents of ``vectors.bin``.

    Raises:
        InputError: a record that its model can't take.
    """
    parts = [struct.pack("<3I", _MAGIC, _PAINT if paint else 0, len(records))]
    for place, record in enumerate(records):
        model = _model_of(models, record, place)
        steps = _check(model, record, place)
        payload = b"".join(
            np.ascontiguousarray(x, dtype=tensor.dtype).tobytes()
            for tensor, x in zip(model.inputs, record.inputs, strict=True)
        )
        mode = _IN_ARENA if record.input_in_arena else _MODES[record.mode]
        parts.append(_RECORD.pack(record.model, mode, steps, record.misalign, len(payload)))
        parts.append(payload)
    return b"".join(parts)


def decode(models: Sequence[ModelFolder], records: Sequence[Record], data: bytes, *, paint: bool) -> list[Result]:
    """Results from the contents of ``results.bin``.

    Raises:
        HarnessError: a model returned an error code or wrote where it must not, or the file is too short.
    """
    results = []
    offset = 0
    for place, record in enumerate(records):
        model = models[record.model]
        if len(data) < offset + _RESULT.size:
            raise HarnessError(f"the image stopped before record {place} of model {model.name}")
        code, faults, stack, size = _RESULT.unpack_from(data, offset)
        offset += _RESULT.size
        _check_result(model, place, code, faults)
        steps = model.steps(record.inputs) if model.per_step_output else 1
        outputs = []
        for tensor in model.outputs:
            count = steps * tensor.size
            values = np.frombuffer(data, dtype=tensor.dtype, count=count, offset=offset).copy()
            offset += values.nbytes
            outputs.append(values.reshape(steps, tensor.size) if model.per_step_output else values)
        if size != sum(values.nbytes for values in outputs):
            raise HarnessError(f"record {place} of model {model.name} gave {size} bytes of output")
        results.append(Result(tuple(outputs), stack if paint else None))
    return results


def _model_of(models: Sequence[ModelFolder], record: Record, place: int) -> ModelFolder:
    if not 0 <= record.model < len(models):
        raise InputError(f"record {place} names model {record.model}", f"0 to {len(models) - 1}", "the record's model")
    return models[record.model]


def _check(model: ModelFolder, record: Record, place: int) -> int:
    """The record's number of steps."""
    where = f"record {place} of model {model.name}"
    if len(record.inputs) != len(model.inputs):
        raise InputError(f"{len(record.inputs)} inputs given", f"{len(model.inputs)} inputs", where)
    if record.mode not in _MODES or (record.mode == "step" and not model.step):
        raise InputError(f"mode {record.mode!r}", "run, step" if model.step else "run", where)
    if record.input_in_arena and not model.input_in_arena:
        raise InputError("the input can't lie in the arena", "one input, no time axis", where)
    steps = 1
    for tensor, values in zip(model.inputs, record.inputs, strict=True):
        array = np.asarray(values)
        if array.dtype.kind not in "iu" or not np.can_cast(array.dtype, tensor.dtype, casting="safe"):
            raise InputError(f"input {tensor.name} has type {array.dtype}", str(tensor.dtype), where)
        if tensor.over_time:
            steps = len(array) if place_of_steps(array, tensor.size) else 0
            if steps < 1 or len(array) != model.steps(record.inputs):
                raise InputError(f"input {tensor.name} has shape {array.shape}", f"(steps, {tensor.size})", where)
        elif array.size != tensor.size:
            raise InputError(f"input {tensor.name} has {array.size} elements", f"{tensor.size} elements", where)
    return steps


def place_of_steps(array: IntArray, size: int) -> bool:
    """Whether an array is (steps, ...) with ``size`` elements in each step."""
    return array.ndim >= 1 and len(array) >= 1 and array.size == len(array) * size


def _check_result(model: ModelFolder, place: int, code: int, faults: int) -> None:
    where = f"record {place} of model {model.name}"
    if faults & FAULT_MEMORY:
        raise FitError(
            f"the buffers of {where} don't fit into the board's memory",
            "fewer steps, or a board with more RAM",
            "the record, or the target",
        )
    found = [text for bit, text in _FAULTS.items() if faults & bit]
    if found:
        raise HarnessError(f"{where}: {'; '.join(found)}")
    if code != 0:
        raise HarnessError(f"{where}: the model returned {code}")
