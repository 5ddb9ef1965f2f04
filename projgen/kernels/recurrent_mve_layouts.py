"""Columns in vectors, and the weights and tables of the recurrent blocks for MVE: eight rows at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from projgen.kernels.layouts import cast

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]

_UNROLL: Final = 8  # vectors of columns in a loop's body, at most
_TWO_VECTORS: Final = [0, 2, 4, 6, 1, 3, 5, 7]  # order of eight rows in two vectors of accumulators


@dataclass(frozen=True, slots=True)
class Segment:
    """Columns of the gate matrices that one run of vectors multiplies.

    Attributes:
        place: of the operand, bytes into the state.
        lanes: 16 for int8 values, 8 for int16.
        vectors, loops: vectors unrolled, and how often.
        w_at, r_at: column at which those of w and r start; None where they take no part.
    """

    place: int
    lanes: int
    vectors: int
    loops: int
    w_at: int | None = None
    r_at: int | None = None

    @property
    def columns(self) -> int:
        return self.lanes * self.vectors * self.loops

    @property
    def end(self) -> int:
        """First byte of the state behind the operand."""
        return self.place + 16 * self.vectors * self.loops

    @property
    def instructions(self) -> int:
        """Of eight rows."""
        return self.loops * (17 * self.vectors + (2 if self.loops > 1 else 0)) + 2

    @property
    def parameters(self) -> tuple[int, int, int, int]:
        return (self.place, self.lanes, self.vectors, self.loops)


def run_of(columns: int, lanes: int, place: int = 0, *, w_at: int | None = None, r_at: int | None = None) -> Segment:
    """The cheapest segment of at least that many columns; a short one is unrolled whole."""
    vectors = -(-columns // lanes)
    if vectors <= _UNROLL:
        return Segment(place, lanes, vectors, 1, w_at, r_at)
    choices = [Segment(place, lanes, u, -(-vectors // u), w_at, r_at) for u in range(4, _UNROLL + 1)]
    return min(choices, key=lambda s: (s.instructions, s.vectors))


@dataclass(frozen=True, slots=True)
class Run:
    """Products of eight rows of one gate: its rows of w and r, the segments, a left shift after the first of them."""

    gate: int
    segments: tuple[Segment, ...]
    shift_first: int

    @property
    def instructions(self) -> int:
        shifting = (7 if len(self.segments) > 1 else 5) if self.shift_first else 0
        return sum(s.instructions for s in self.segments) + 5 + shifting


def eights(v: Array, shape: tuple[int, ...]) -> Ints:
    """Rows as int64, filled up with zeros."""
    out = np.zeros(shape, np.int64)
    out[tuple(slice(0, n) for n in v.shape)] = cast(v, "int64")
    return out


@dataclass(frozen=True, slots=True)
class GateWeights:
    """w and r as [eight units][run][segment][vector][unit][lane].

    ``roles``: the names of both; a joint layer's gates have only the first (``h_width`` 0), and its factor is a gate of
    its own whose units are the components of z.
    """

    gates: int
    units: int
    x_width: int
    h_width: int
    runs: tuple[Run, ...]
    roles: tuple[str, str] = ("w", "r")

    @property
    def blocks(self) -> int:
        return -(-self.units // 8)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        padded = 8 * self.blocks
        w, r = (np.zeros((self.gates, padded, width), np.int64) for width in (self.x_width, self.h_width))
        for role, rows in zip(self.roles, (w, r), strict=True):
            if role in constants:
                rows[:, : self.units] = constants[role].reshape(self.gates, self.units, -1)
        parts = []
        for run in self.runs:
            for s in run.segments:
                rows = np.zeros((padded, s.columns), np.int64)
                if s.w_at is not None:
                    rows[:, s.w_at : s.w_at + self.x_width] = w[run.gate]
                if s.r_at is not None:
                    rows[:, s.r_at : s.r_at + self.h_width] = r[run.gate]
                tiles = rows.reshape(self.blocks, 8, -1, s.lanes).transpose(0, 2, 1, 3)
                parts.append(tiles.reshape(self.blocks, -1))
        return np.concatenate(parts, axis=1).astype(np.int8).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        blocks = table.reshape(self.blocks, -1)
        w = np.zeros((self.gates, 8 * self.blocks, self.x_width), np.int8)
        r = np.zeros((self.gates, 8 * self.blocks, self.h_width), np.int8)
        at = 0
        for run in self.runs:
            for s in run.segments:
                tiles = blocks[:, at : at + 8 * s.columns].reshape(self.blocks, -1, 8, s.lanes)
                at += 8 * s.columns
                rows = tiles.transpose(0, 2, 1, 3).reshape(8 * self.blocks, s.columns)
                if s.w_at is not None:
                    w[run.gate] = rows[:, s.w_at : s.w_at + self.x_width]
                if s.r_at is not None:
                    r[run.gate] = rows[:, s.r_at : s.r_at + self.h_width]
        units = self.gates * self.units
        both = zip(self.roles, (w, r), strict=True)
        return {role: v[:, : self.units].reshape(units, -1) for role, v in both if v.size}


@dataclass(frozen=True, slots=True)
class GateTable:
    """Vectors of eight units as [eight units][row]: each row is (role, gate, in the order of two vectors)."""

    units: int
    rows: tuple[tuple[str, int, bool], ...]
    gates: Mapping[str, int]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        padded = -(-self.units // 8) * 8
        parts = []
        for role, gate, two_vectors in self.rows:
            part = eights(constants[role].reshape(-1, self.units)[gate], (padded,)).reshape(-1, 8)
            parts.append(part[:, _TWO_VECTORS] if two_vectors else part)
        return np.stack(parts, axis=1).astype(np.int32).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        blocks = table.reshape(-1, len(self.rows), 8)
        constants = {role: np.zeros((gates, self.units), np.int32) for role, gates in self.gates.items()}
        for place, (role, gate, two_vectors) in enumerate(self.rows):
            part = blocks[:, place]
            part = part[:, np.argsort(_TWO_VECTORS)] if two_vectors else part
            constants[role][gate] = part.reshape(-1)[: self.units]
        return {role: data.reshape(-1) for role, data in constants.items()}


@dataclass(frozen=True, slots=True)
class PairedGates:
    """Constants of an LSTM whose last one to four units share blocks of two gates: four rows of i and f, then g and o.

    ``whole`` is the layout of the units before them, all gates a block; ``pairs`` of two gates of eight units.
    """

    units: int
    whole: GateWeights | GateTable
    pairs: GateWeights | GateTable

    @property
    def _first(self) -> int:
        """Of the last units."""
        return self.units // 8 * 8

    def pack(self, constants: Mapping[str, Array]) -> Array:
        gates = {role: data.reshape(4, self.units, -1) for role, data in constants.items()}
        last = {role: np.zeros((4, 4, data.shape[2]), data.dtype) for role, data in gates.items()}
        for role, data in gates.items():
            last[role][:, : self.units - self._first] = data[:, self._first :]
        pairs = self.pairs.pack({role: data.reshape(16, -1) for role, data in last.items()})
        if not self._first:
            return pairs
        whole = {role: data[:, : self._first].reshape(4 * self._first, -1) for role, data in gates.items()}
        return np.concatenate([self.whole.pack(whole), pairs])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        split = table.size - table.size // (2 * (self.units // 8) + 1)
        whole = self.whole.unpack(table[:split]) if self._first else {}
        found = {}
        for role, data in self.pairs.unpack(table[split:]).items():
            parts = [data.reshape(4, 4, -1)[:, : self.units - self._first]]
            if role in whole:
                parts.insert(0, whole[role].reshape(4, self._first, -1))
            shape = (4 * self.units, *data.shape[1:])
            found[role] = np.concatenate(parts, axis=1).reshape(shape)
        return found


@dataclass(frozen=True, slots=True)
class FactorWeights:
    """A projector (rank, width) as [eight rows][vector][row][16]."""

    role: str
    rank: int
    width: int
    columns: int

    def pack(self, constants: Mapping[str, Array]) -> Array:
        blocks = -(-self.rank // 8)
        rows = eights(constants[self.role], (8 * blocks, self.columns))
        return rows.reshape(blocks, 8, -1, 16).transpose(0, 2, 1, 3).reshape(-1).astype(np.int8)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        tiles = table.reshape(-1, self.columns // 16, 8, 16).transpose(0, 2, 1, 3)
        rows = tiles.reshape(-1, self.columns)[: self.rank, : self.width]
        return {self.role: np.ascontiguousarray(rows)}


@dataclass(frozen=True, slots=True)
class FactorTable:
    """Starts and multipliers of a projector as [eight rows][8 starts][8 multipliers in the order of two vectors]."""

    b_role: str
    m_role: str
    rank: int

    def pack(self, constants: Mapping[str, Array]) -> Array:
        padded = -(-self.rank // 8) * 8
        b = eights(constants[self.b_role] if self.b_role else np.zeros(self.rank, np.int64), (padded,)).reshape(-1, 8)
        m = eights(constants[self.m_role], (padded,)).reshape(-1, 8)[:, _TWO_VECTORS]
        return np.concatenate([b, m], axis=1).astype(np.int32).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        blocks = table.reshape(-1, 16)
        m = blocks[:, 8:][:, np.argsort(_TWO_VECTORS)].reshape(-1)[: self.rank]
        return {self.m_role: m} | ({self.b_role: blocks[:, :8].reshape(-1)[: self.rank]} if self.b_role else {})
