"""Weight streams of the recurrent blocks for cores with DSP instructions: packed pairs in reading order.

A pair of rows A, B is stored as halfwords 256 a + b; see ``runtime_c/src/pg_recurrent_dsp.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from projgen.kernels.layouts import cast

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]


def to_words(v: Ints) -> Words:
    """Integers modulo 2^32."""
    words: Words = (v & 0xFFFFFFFF).astype(np.uint32)
    return words


def to_integers(words: Words) -> Ints:
    """Words as signed integers."""
    return words.view(np.int32).astype(np.int64)


def pack_pairs(a: Ints, b: Ints) -> Words:
    """Halfwords 256 a + b of two columns in each word: (..., K) with even K -> (..., K/2)."""
    halves = (256 * a + b) & 0xFFFF
    return to_words(halves[..., 0::2] | halves[..., 1::2] << 16)


def unpack_pairs(words: Words) -> tuple[Ints, Ints]:
    """Inverse of ``pack_pairs``."""
    halves = np.stack([words & 0xFFFF, words >> 16], axis=-1).astype(np.uint16).view(np.int16).astype(np.int64)
    halves = halves.reshape(*words.shape[:-1], -1)
    b = ((halves & 0xFF) ^ 0x80) - 0x80
    return (halves - b) >> 8, b


def pack_starts(a: Ints, b: Ints) -> Words:
    """Start values 256 a + b, b of each pair: (..., P) twice -> (..., 2 P)."""
    both = np.stack([256 * a + b, b], axis=-1)
    return to_words(both.reshape(*a.shape[:-1], -1))


def unpack_starts(words: Words) -> tuple[Ints, Ints]:
    """Inverse of ``pack_starts``."""
    pairs = words.reshape(*words.shape[:-1], -1, 2)
    return to_integers(pairs[..., 0] - pairs[..., 1]) >> 8, to_integers(np.ascontiguousarray(pairs[..., 1]))


def interleave(words: Words) -> Words:
    """(blocks, pairs, words) in reading order: two words of each pair in turn, the odd last one singly."""
    blocks, pairs, count = words.shape
    even = count - count % 2
    quads = words[..., :even].reshape(blocks, pairs, even // 2, 2).transpose(0, 2, 1, 3).reshape(blocks, -1)
    return np.concatenate([quads, words[..., even:].reshape(blocks, -1)], axis=1)


def deinterleave(flat: Words, pairs: int) -> Words:
    """Inverse of ``interleave``."""
    blocks, total = flat.shape
    count = total // pairs
    even = count - count % 2
    quads = flat[:, : pairs * even].reshape(blocks, even // 2, pairs, 2).transpose(0, 2, 1, 3)
    half = flat[:, pairs * even :].reshape(blocks, pairs, count % 2)
    return np.concatenate([quads.reshape(blocks, pairs, even), half], axis=2)


def pack_wide(rows: Ints) -> Words:
    """int16 weights (blocks, rows, K), even K, as words of two columns, row by row inside each: (blocks, rows K/2)."""
    halves = rows & 0xFFFF
    words = to_words(halves[..., 0::2] | halves[..., 1::2] << 16)
    return words.transpose(0, 2, 1).reshape(len(rows), -1)


def unpack_wide(flat: Words, rows: int) -> Ints:
    """Inverse of ``pack_wide``."""
    words = flat.reshape(len(flat), -1, rows).transpose(0, 2, 1)
    halves = np.stack([words & 0xFFFF, words >> 16], axis=-1).astype(np.uint16).view(np.int16)
    return halves.reshape(*words.shape[:2], -1).astype(np.int64)


def widened(v: Array, shape: tuple[int, ...]) -> Ints:
    """``v`` as int64, filled up with zeros behind each axis."""
    out = np.zeros(shape, np.int64)
    out[tuple(slice(0, n) for n in v.shape)] = cast(v, "int64")
    return out


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of the gate matrices: those of w filled up to ``x_padded``, then those of r up to ``h_padded``; both
    even, or their sum where a block reads them as one row. ``wide``: int16 weights instead of packed pairs, shifted
    left by ``x_shift`` and ``h_shift``.
    """

    x_width: int
    h_width: int
    x_padded: int
    h_padded: int
    wide: bool
    x_shift: int = 0
    h_shift: int = 0

    def starts(self, a: Ints, b: Ints) -> Words:
        """Start values of row pairs: (blocks, P) twice -> (blocks, 2 P)."""
        return to_words(np.stack([a, b], axis=-1).reshape(len(a), -1)) if self.wide else pack_starts(a, b)

    def unpack_starts(self, words: Words) -> Ints:
        """(blocks, P, A and B)."""
        if self.wide:
            return to_integers(np.ascontiguousarray(words)).reshape(len(words), -1, 2)
        return np.stack(unpack_starts(words), axis=-1)

    def weights(self, rows: Ints) -> Words:
        """(blocks, pairs, A and B, K) in reading order."""
        if self.wide:
            return pack_wide(rows.reshape(len(rows), -1, rows.shape[-1]))
        return interleave(pack_pairs(rows[:, :, 0], rows[:, :, 1]))

    def unpack_weights(self, flat: Words, pairs: int) -> Ints:
        """Inverse of ``weights``."""
        if self.wide:
            rows = unpack_wide(flat, 2 * pairs)
            return rows.reshape(len(rows), pairs, 2, -1)
        return np.stack(unpack_pairs(deinterleave(flat, pairs)), axis=2)


@dataclass(frozen=True, slots=True)
class LstmStream:
    """Per unit: starts of the pairs (i, f), (g, o) | weights by columns | multipliers of i, f, g, o.

    A joint layer has no r: ``columns.h_width`` is 0.
    """

    units: int
    columns: Columns

    def pack(self, constants: Mapping[str, Array]) -> Array:
        u, c = self.units, self.columns
        w = widened(constants["w"].reshape(4, u, c.x_width), (4, u, c.x_padded)) << c.x_shift
        r = np.zeros((4, u, c.h_padded), np.int64)
        if c.h_width:
            r[..., : c.h_width] = constants["r"].reshape(4, u, c.h_width).astype(np.int64) << c.h_shift
        rows = np.concatenate([w, r], axis=2).transpose(1, 0, 2).reshape(u, 2, 2, -1)
        b = cast(constants["b"], "int64").reshape(4, u).T
        m = cast(constants["m"], "int64").reshape(4, u).T
        parts = [c.starts(b[:, 0::2], b[:, 1::2]), c.weights(rows), to_words(m)]
        return np.concatenate(parts, axis=1).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        u, c = self.units, self.columns
        blocks = table.astype(np.uint32).reshape(u, -1)
        b = c.unpack_starts(blocks[:, :4]).reshape(u, 4).T
        rows = c.unpack_weights(blocks[:, 4:-4], 2).reshape(u, 4, -1).transpose(1, 0, 2)
        m = to_integers(np.ascontiguousarray(blocks[:, -4:])).T
        h = rows[:, :, c.x_padded : c.x_padded + c.h_width]
        found: dict[str, Array] = {
            "w": (rows[:, :, : c.x_width] >> c.x_shift).reshape(4 * u, -1).astype(np.int8),
            "b": b.reshape(-1).astype(np.int32),
            "m": m.reshape(-1).astype(np.int32),
        }
        if c.h_width:
            found["r"] = (h >> c.h_shift).reshape(4 * u, -1).astype(np.int8)
        return found


@dataclass(frozen=True, slots=True)
class GruStream:
    """Per two units u, v: starts of (ru, zu), (rv, zv), (nu, nv) | weights of w by columns | starts of the recurrent
    (nu, nv) | weights of r by columns | multipliers ru zu rv zv nu nv.

    An odd number of units is filled up with a unit of zeros.
    """

    units: int
    columns: Columns

    def _blocks(self, rows: Ints) -> Ints:
        """(3, units, ...) as (blocks, pair, A and B, ...)."""
        even = widened(rows, (3, self.units + self.units % 2, *rows.shape[2:]))
        r, z, n = even.reshape(3, -1, 2, *rows.shape[2:])
        pairs = [np.stack([r[:, 0], z[:, 0]], 1), np.stack([r[:, 1], z[:, 1]], 1), n]
        return np.stack(pairs, axis=1)

    def _rows(self, blocks: Ints) -> Ints:
        """Inverse of ``_blocks``."""
        r = np.stack([blocks[:, 0, 0], blocks[:, 1, 0]], 1)
        z = np.stack([blocks[:, 0, 1], blocks[:, 1, 1]], 1)
        rows = np.stack([r, z, blocks[:, 2]])
        return rows.reshape(3, -1, *blocks.shape[3:])[:, : self.units]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        u, c = self.units, self.columns
        w = self._blocks(widened(constants["w"].reshape(3, u, c.x_width), (3, u, c.x_padded)) << c.x_shift)
        r = self._blocks(widened(constants["r"].reshape(3, u, c.h_width), (3, u, c.h_padded)) << c.h_shift)
        b, m = (self._blocks(cast(constants[role], "int64").reshape(3, u)) for role in ("b", "m"))
        hidden = widened(constants["b_hn"], (u + u % 2,)).reshape(-1, 2)
        parts = [
            c.starts(b[..., 0], b[..., 1]),
            c.weights(w),
            c.starts(hidden[:, :1], hidden[:, 1:]),
            c.weights(r),
            to_words(m.reshape(len(m), 6)),
        ]
        return np.concatenate(parts, axis=1).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        u, c = self.units, self.columns
        blocks = table.astype(np.uint32).reshape(-(-u // 2), -1)
        per_column = 3 if c.wide else 1.5
        widths = (6, int(per_column * c.x_padded), 2, int(per_column * c.h_padded))
        starts, x_words, hidden, h_words, m = np.split(blocks, np.cumsum(widths), axis=1)
        w = self._rows(c.unpack_weights(x_words, 3))
        r = self._rows(c.unpack_weights(h_words, 3))
        multipliers = self._rows(to_integers(np.ascontiguousarray(m)).reshape(-1, 3, 2))
        return {
            "w": (w[:, :, : c.x_width] >> c.x_shift).reshape(3 * u, -1).astype(np.int8),
            "r": (r[:, :, : c.h_width] >> c.h_shift).reshape(3 * u, -1).astype(np.int8),
            "b": self._rows(c.unpack_starts(starts)).reshape(-1).astype(np.int32),
            "b_hn": c.unpack_starts(hidden).reshape(-1)[:u].astype(np.int32),
            "m": multipliers.reshape(-1).astype(np.int32),
        }


@dataclass(frozen=True, slots=True)
class FactorStream:
    """A projector q (rank, width) with b and m, by blocks of four rows and at last two.

    ``roles`` names q, b and m; b may be "" for none. Rows are filled up to an even number, columns to ``padded``.
    ``wide``: int16 weights instead of packed pairs.
    """

    roles: tuple[str, str, str]
    rank: int
    width: int
    padded: int
    wide: bool = False

    @property
    def _columns(self) -> Columns:
        return Columns(self.width, 0, self.padded, 0, self.wide)

    def _blocks(self) -> list[tuple[int, int]]:
        """(first row, pairs)."""
        rows = self.rank + self.rank % 2
        return [(row, 2 if row + 4 <= rows else 1) for row in range(0, rows, 4)]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        q_role, b_role, m_role = self.roles
        even = self.rank + self.rank % 2
        q = widened(constants[q_role], (even, self.padded))
        b = widened(constants[b_role] if b_role else np.zeros(self.rank, np.int64), (even,))
        m = widened(constants[m_role], (even,))
        parts = []
        for row, pairs in self._blocks():
            part = slice(row, row + 2 * pairs)
            starts = self._columns.starts(b[part][0::2][None], b[part][1::2][None])[0]
            weights = self._columns.weights(q[part].reshape(1, pairs, 2, -1))[0]
            parts += [starts, weights, to_words(m[part])]
        return np.concatenate(parts)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        words = table.astype(np.uint32)
        q, b, m = [], [], []
        at = 0
        for _, pairs in self._blocks():
            end = at + pairs * (4 + self.padded // (1 if self.wide else 2))
            block = words[at:end]
            at = end
            b.append(self._columns.unpack_starts(block[None, : 2 * pairs]).reshape(-1))
            weights = self._columns.unpack_weights(block[None, 2 * pairs : -2 * pairs], pairs)
            q.append(weights.reshape(2 * pairs, self.padded))
            m.append(to_integers(block[-2 * pairs :]))
        q_role, b_role, m_role = self.roles
        constants: dict[str, Array] = {
            q_role: np.concatenate(q)[: self.rank, : self.width].astype(np.int8),
            m_role: np.concatenate(m)[: self.rank].astype(np.int32),
        }
        if b_role:
            constants[b_role] = np.concatenate(b)[: self.rank].astype(np.int32)
        return constants


@dataclass(frozen=True, slots=True)
class JointFactorStream:
    """The projector of a joint layer: the columns of q_in filled up to ``x_padded``, then those of q_out."""

    rows: FactorStream
    x_width: int
    x_padded: int

    def pack(self, constants: Mapping[str, Array]) -> Array:
        q = widened(constants["q_in"], (self.rows.rank, self.rows.width))
        q[:, self.x_padded :] = constants["q_out"]
        return self.rows.pack({"q": q, "b_in": constants["b_in"], "m_in": constants["m_in"]})

    def unpack(self, table: Array) -> Mapping[str, Array]:
        found = dict(self.rows.unpack(table))
        q = found.pop("q")
        return {"q_in": q[:, : self.x_width], "q_out": q[:, self.x_padded :], **found}
