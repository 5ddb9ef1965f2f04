"""Orders of constant tables: each packs canonical constants into the emitted integers and back, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.kernels.record import Layout, Table

Array = npt.NDArray[Any]


def cast(values: Array, dtype: str) -> Array:
    """``values`` as ``dtype``; a ``ValueError`` where one does not fit (a fault of the quantiser)."""
    result = np.asarray(values).astype(dtype)
    if not np.array_equal(result, values):
        raise ValueError(f"values in {int(np.min(values))}..{int(np.max(values))} do not fit {dtype}")
    return result


@dataclass(frozen=True, slots=True)
class Plain:
    """One constant in row-major order."""

    role: str
    shape: tuple[int, ...]
    dtype: str

    def pack(self, constants: Mapping[str, Array]) -> Array:
        return cast(constants[self.role], self.dtype).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        return {self.role: table.reshape(self.shape)}


@dataclass(frozen=True, slots=True)
class TapMajor:
    """Depthwise weights (O, KH, KW, 1) as [KH][KW][O]: neighbouring outputs lie side by side."""

    role: str
    shape: tuple[int, int, int, int]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        return cast(constants[self.role], "int8").reshape(self.shape[:3]).transpose(1, 2, 0).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        o, kh, kw, _ = self.shape
        return {self.role: np.ascontiguousarray(table.reshape(kh, kw, o).transpose(2, 0, 1)).reshape(self.shape)}


@dataclass(frozen=True, slots=True)
class Computed:
    """Numbers of the node's numerics, not among its constants."""

    values: tuple[int, ...]
    dtype: str

    def pack(self, constants: Mapping[str, Array]) -> Array:
        if constants:
            raise ValueError(f"{', '.join(constants)} have no place in a computed table")
        return cast(np.asarray(self.values), self.dtype)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        if not np.array_equal(table, self.values):
            raise ValueError("the table does not hold the computed values")
        return {}


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements from one index to the next along each axis of a row-major array."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def padded(values: tuple[int, ...], rank: int, fill: int) -> tuple[int, ...]:
    """``values`` with ``fill`` in front, up to ``rank`` of them."""
    return (fill,) * (rank - len(values)) + values


def table(name: str, layout: Layout, constants: Mapping[str, Array], comment: str = "") -> Table:
    """The emitted table of ``constants`` under ``layout``."""
    return Table(name, tuple(constants), layout, layout.pack(constants), comment)


def plain(graph: Graph, node: Node, role: str, name: str, dtype: str, comment: str = "") -> Table:
    """A node's constant as it is."""
    data = graph.data(node, role)
    return table(name, Plain(role, data.shape, dtype), {role: data}, comment)
