"""Streams of transformed weights of the exact Winograd convolutions; each is reversible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from projgen.kernels.conv_dsp_layouts import Ints, as_words, halves, signed, words

Array = npt.NDArray[np.generic]
Quad = tuple[int, int, int, int]  # order of four channels in the operand

ORDER: Final = (1, 2, 0, 3)  # frequencies as they are processed
# G of F(2, 3), doubled so that it is integer; frequency 3 negated, as the blocks add it.
_FORWARD: Final = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, -2]])


def forward(g: Ints, axis: int) -> Ints:
    """Three taps along ``axis`` to four frequencies."""
    return np.moveaxis(np.tensordot(g, _FORWARD, axes=(axis, 1)), -1, axis)


def backward(u: Ints, axis: int) -> Ints:
    """Four frequencies along ``axis`` to three taps."""
    f = np.moveaxis(u, axis, 0)
    first, last = f[0] // 2, -f[3] // 2
    return np.moveaxis(np.stack([first, f[1] - first - last, last]), 0, axis)


def constants_of(constants: Mapping[str, Array]) -> tuple[Ints, Ints, Ints]:
    """w, b, m as int64."""
    w, b, m = (np.asarray(constants[role]).astype(np.int64) for role in ("w", "b", "m"))
    return w, b, m


def pairs_of(w: Ints, quads: int, order: Quad) -> Ints:
    """(O, ..., C) as (O / 2, ..., quads, 2 outputs, 4) with channels filled up and in the operand's order."""
    padded = np.pad(w, [(0, 0)] * (w.ndim - 1) + [(0, 4 * quads - w.shape[-1])])
    shaped = padded.reshape(len(w) // 2, 2, *w.shape[1:-1], quads, 4)[..., order]
    return np.moveaxis(shaped, 1, -2)


def from_pairs(p: Ints, channels: int, order: Quad) -> Ints:
    """Inverse of ``pairs_of``."""
    shaped = np.moveaxis(p, -2, 1)[..., np.argsort(order)]
    return shaped.reshape(2 * len(p), *shaped.shape[2:-2], -1)[..., :channels]


@dataclass(frozen=True, slots=True)
class Winograd2dStream:
    """w (O, 3, 3, C), b, m for F(2x2, 3x3), O even.

    Per two outputs: 4 b; U (i, j) as [quads][2 outputs][4] halfwords, i and j in ``ORDER``; m / 4 after each (i, j)
    with i and j among the last two of the order. With a ``residual`` 4 times its factors f stand before each m / 4.
    """

    shape: tuple[int, int, int, int]
    order: Quad
    residual: bool = False

    @property
    def quads(self) -> int:
        return -(-self.shape[3] // 4)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b, m = constants_of(constants)
        u = pairs_of(forward(forward(w, 1), 2)[:, ORDER][:, :, ORDER], self.quads, self.order)
        packed = words(u.reshape(len(u), 4, 4, -1))
        b, m = (4 * b).reshape(-1, 2), (m // 4).reshape(-1, 2)
        factors = [4 * np.asarray(constants["f"]).astype(np.int64).reshape(-1, 2)] if self.residual else []
        parts = [b]
        for i in range(4):
            for j in range(4):
                parts.append(packed[:, i, j])
                if i >= 2 and j >= 2:
                    parts += [*factors, m]
        return as_words([np.concatenate(parts, axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(self.shape[0] // 2, -1)
        size, at, ends = 4 * self.quads, 2, 4 if self.residual else 2
        parts: list[Array] = []
        end = rows[:, :ends]
        for i in range(4):
            for j in range(4):
                parts.append(rows[:, at : at + size])
                at += size
                if i >= 2 and j >= 2:
                    end = rows[:, at : at + ends]
                    at += ends
        u = halves(np.stack(parts, axis=1)).reshape(len(rows), 4, 4, self.quads, 2, 4)
        inverse = np.argsort(ORDER)
        natural = from_pairs(u, self.shape[3], self.order)[:, inverse][:, :, inverse]
        found: dict[str, Array] = {
            "w": backward(backward(natural, 2), 1).astype(np.int8),
            "b": (signed(rows[:, :2]) // 4).reshape(-1).astype(np.int32),
            "m": (signed(end[:, -2:]) * 4).reshape(-1).astype(np.int32),
        }
        if self.residual:
            found["f"] = (signed(end[:, :2]) // 4).reshape(-1).astype(np.int32)
        return found


@dataclass(frozen=True, slots=True)
class Winograd1dStream:
    """w (O, KH, 3, C), b, m for F(2, 3) along the rows, O even.

    Per two outputs: 2 b; U (1), U (2), U (0) as [KH][quads][2 outputs][4] halfwords; m / 2; -U (3); m / 2.
    """

    shape: tuple[int, int, int, int]
    order: Quad

    @property
    def quads(self) -> int:
        return -(-self.shape[3] // 4)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b, m = constants_of(constants)
        u = pairs_of(forward(w, 2)[:, :, ORDER].swapaxes(1, 2), self.quads, self.order)
        packed = words(u.reshape(len(u), 4, -1))
        half = (m // 2).reshape(-1, 2)
        parts = [(2 * b).reshape(-1, 2), packed[:, :3].reshape(len(u), -1), half, packed[:, 3], half]
        return as_words([np.concatenate(parts, axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(self.shape[0] // 2, -1)
        size = 4 * self.quads * self.shape[1]
        packed = np.concatenate([rows[:, 2 : 2 + 3 * size], rows[:, 4 + 3 * size : -2]], axis=1)
        u = halves(packed).reshape(len(rows), 4, self.shape[1], self.quads, 2, 4)
        natural = from_pairs(u, self.shape[3], self.order)[:, np.argsort(ORDER)].swapaxes(1, 2)
        return {
            "w": backward(natural, 2).astype(np.int8),
            "b": (signed(rows[:, :2]) // 2).reshape(-1).astype(np.int32),
            "m": (signed(rows[:, -2:]) * 2).reshape(-1).astype(np.int32),
        }


@dataclass(frozen=True, slots=True)
class Stride2Stream:
    """w (O, KH, 3, C), b, m for stride 2 along the rows, O even.

    Per two outputs: b; w0 + w2, w0, w1 as [KH][quads][2 outputs][4] halfwords; m; -w2; m.
    """

    shape: tuple[int, int, int, int]
    order: Quad

    @property
    def quads(self) -> int:
        return -(-self.shape[3] // 4)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b, m = constants_of(constants)
        first, middle, last = w[:, :, 0], w[:, :, 1], w[:, :, 2]
        u = pairs_of(np.stack([first + last, first, middle, -last], axis=1), self.quads, self.order)
        packed = words(u.reshape(len(u), 4, -1))
        both = m.reshape(-1, 2)
        parts = [b.reshape(-1, 2), packed[:, :3].reshape(len(u), -1), both, packed[:, 3], both]
        return as_words([np.concatenate(parts, axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(self.shape[0] // 2, -1)
        size = 4 * self.quads * self.shape[1]
        packed = np.concatenate([rows[:, 2 : 2 + 3 * size], rows[:, 4 + 3 * size : -2]], axis=1)
        u = halves(packed).reshape(len(rows), 4, self.shape[1], self.quads, 2, 4)
        u = from_pairs(u, self.shape[3], self.order)
        return {
            "w": np.stack([u[:, 1], u[:, 2], -u[:, 3]], axis=2).astype(np.int8),
            "b": signed(rows[:, :2]).reshape(-1).astype(np.int32),
            "m": signed(rows[:, -2:]).reshape(-1).astype(np.int32),
        }
