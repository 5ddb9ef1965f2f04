"""What an ONNX value can be while a graph is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch

from projgen.importers.onnx.sizes import Size, Symbolic
from projgen.importers.onnx.views import View

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


FLOATS = {ir.DataType.FLOAT: torch.float32, ir.DataType.DOUBLE: torch.float64, ir.DataType.FLOAT16: torch.float16}


def tensor(array: Array) -> torch.Tensor:
    """A torch copy of an array."""
    return torch.from_numpy(np.array(array, order="C"))


@dataclass(frozen=True, slots=True)
class Factors:
    """A matrix kept as ``left @ right``: left (rows, r), right (r, columns)."""

    left: Array
    right: Array


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A tensor known while reading.

    Attributes:
        array: its elements.
        factors: for a matrix, or a stack of matrices, the product that each one is (None: none known).
        name: the initialiser it comes from, if it is one.
    """

    array: Array
    factors: tuple[Factors | None, ...] = ()
    name: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """An integer tensor that speaks of axis lengths, some of them open: an array of ``Size`` objects."""

    array: np.ndarray[tuple[int, ...], np.dtype[np.object_]]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


@dataclass(frozen=True, slots=True, eq=False)
class Filled:
    """One number in every element of a shape that may be open, such as a zero initial state."""

    value: np.generic
    shape: tuple[Size, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """A tensor computed at run time.

    Attributes:
        view: where its elements are. dtype: element type. name: of the node that reshaped it last.
    """

    view: View
    dtype: torch.dtype
    name: str = ""

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.view.shape

    @property
    def rank(self) -> int:
        return len(self.view.groups)


Value: TypeAlias = "Const | Shape | Filled | Activation"


def integers(value: Value | None) -> list[Size] | None:
    """The elements of an integer constant or shape vector, flattened; None if it is neither."""
    if isinstance(value, Shape):
        return list(value.array.reshape(-1))
    if isinstance(value, Const) and value.array.dtype.kind in "iu":
        return [int(item) for item in value.array.reshape(-1)]
    return None


def from_objects(array: np.ndarray[tuple[int, ...], np.dtype[np.object_]]) -> Value:
    """A ``Shape``, or an int64 ``Const`` if no element is open."""
    if any(isinstance(item, Symbolic) for item in array.reshape(-1)):
        return Shape(array)
    return Const(array.astype(np.int64))
