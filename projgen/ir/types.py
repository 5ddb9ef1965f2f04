"""Tensor types of the IR.

Axis 0 of every PyTorch activation, the batch, is stripped: types describe one sample. Maps are channels-last
from the import on: an image is (H, W, C), a sequence (T, F), a vector (F,). A time axis of any length is the
symbol ``TIME``; it can only be axis 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import numpy as np

Dim = int | Literal["T"]
TIME: Final = "T"
ADDED: Final = {"added": True}  # metadata of a record's field that came after the file format: absent at its default


class DType(StrEnum):
    """Element types; the value is NumPy's name."""

    FLOAT32 = "float32"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"

    @property
    def bits(self) -> int:
        return {"float32": 32, "int8": 8, "int16": 16, "int32": 32}[self.value]

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def low(self) -> int:
        """Smallest integer of the type."""
        return int(np.iinfo(self.value).min)

    @property
    def high(self) -> int:
        """Largest integer of the type."""
        return int(np.iinfo(self.value).max)


@dataclass(frozen=True, slots=True)
class Quant:
    """Affine map of an activation: real = scale * (q - zero_point)."""

    scale: float
    zero_point: int = 0


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape (no batch axis), element type and, in the quantised stage, the affine map."""

    shape: tuple[Dim, ...]
    dtype: DType = DType.FLOAT32
    quant: Quant | None = None

    @property
    def has_time(self) -> bool:
        return bool(self.shape) and self.shape[0] == TIME

    @property
    def step_shape(self) -> tuple[int, ...]:
        """Shape of one time step (the whole shape where there is no time axis)."""
        return static(self.shape[1:] if self.has_time else self.shape)

    @property
    def elements(self) -> int:
        """Elements of one time step, or of the whole tensor where there is no time axis."""
        return math.prod(self.step_shape)

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.bytes

    def with_shape(self, shape: tuple[Dim, ...]) -> TensorType:
        return TensorType(shape, self.dtype, self.quant)

    def __str__(self) -> str:
        dims = "x".join(str(d) for d in self.shape) or "scalar"
        quant = f" s={self.quant.scale:.6g} z={self.quant.zero_point}" if self.quant else ""
        return f"{self.dtype.value}[{dims}]{quant}"


def static(shape: tuple[Dim, ...]) -> tuple[int, ...]:
    """The shape as plain integers; a ``TypeError`` if the time symbol is in it."""
    dims = tuple(d for d in shape if isinstance(d, int))
    if len(dims) != len(shape):
        raise TypeError(f"shape {shape} has a symbolic time axis")
    return dims
