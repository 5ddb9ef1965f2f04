"""Streams of convolution constants in the order that the kernels for MVE cores read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def words(values: Array) -> Array:
    """Bytes or int32 along the last axis as little-endian words."""
    return np.ascontiguousarray(values).view("<u4").astype(np.uint32)


@dataclass(frozen=True, slots=True)
class TapStream:
    """Convolution w (O, KH, KW, C), b, m as words, two outputs at a time, group by group, for vectors of ``lanes``.

    Per two outputs: per line, vector of inputs and tap in the order ``taps`` the ``lanes`` weights of either; then
    bA, mA / 2, bB, mB / 2. Inputs beyond C weigh 0. The last pair of an odd number of outputs repeats one of the pair
    before it, or holds the only output twice. ``flat``: the whole window is one line and one tap. ``residual``: the
    factors f of a residual, fA and fB, follow.
    """

    shape: tuple[int, int, int, int]
    groups: int
    taps: tuple[int, ...]
    lanes: int
    flat: bool = False
    residual: bool = False

    @property
    def _viewed(self) -> tuple[int, int, int, int]:
        o, kh, kw, c = self.shape
        return (o, 1, 1, kh * kw * c) if self.flat else self.shape

    @property
    def vectors(self) -> int:
        return -(-self._viewed[3] // self.lanes)

    @property
    def group_words(self) -> int:
        """Words of one group's stream."""
        _, kh, kw, _ = self._viewed
        return len(self._pairs()) * (kh * kw * self.vectors * self.lanes // 2 + self._ends)

    @property
    def _ends(self) -> int:
        """Words of a pair after its weights."""
        return 6 if self.residual else 4

    def _pairs(self) -> list[tuple[int, int]]:
        size = self.shape[0] // self.groups
        pairs = [(n, n + 1) for n in range(0, size - 1, 2)]
        if size % 2:
            pairs.append((size - 2, size - 1) if size > 1 else (0, 0))
        return pairs

    def pack(self, constants: Mapping[str, Array]) -> Array:
        _, kh, kw, c = self._viewed
        width = self.vectors * self.lanes
        pairs = np.array(self._pairs())
        w = np.zeros((self.groups, self.shape[0] // self.groups, kh, kw, width), np.int8)
        w[..., :c] = np.asarray(constants["w"]).reshape(*w.shape[:4], c)
        taps = w[:, pairs][..., list(self.taps), :].reshape(self.groups, len(pairs), 2, kh, kw, self.vectors, -1)
        body = words(taps.transpose(0, 1, 3, 5, 4, 2, 6)).reshape(self.groups, len(pairs), -1)
        roles = ("b", "m", "f") if self.residual else ("b", "m")
        b, m, *f = (np.asarray(constants[r]).astype(np.int32).reshape(self.groups, -1)[:, pairs] for r in roles)
        ends = np.stack([b, m >> 1], axis=-1).reshape(self.groups, len(pairs), 4)
        return np.concatenate([body, *(e.view(np.uint32) for e in (ends, *f))], axis=-1).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        _, kh, kw, c = self._viewed
        pairs = self._pairs()
        size = self.shape[0] // self.groups
        rows = table.astype(np.uint32).reshape(self.groups, len(pairs), -1)
        numbers = np.ascontiguousarray(rows[..., -self._ends :]).view(np.int32)
        ends = numbers[..., :4].reshape(self.groups, len(pairs), 2, 2)
        body = np.ascontiguousarray(rows[..., : -self._ends]).astype("<u4").view(np.int8)
        body = body.reshape(self.groups, len(pairs), kh, self.vectors, kw, 2, self.lanes).transpose(0, 1, 5, 2, 4, 3, 6)
        body = body.reshape(self.groups, len(pairs), 2, kh, kw, -1)[..., np.argsort(self.taps), :c]
        w = np.zeros((self.groups, size, kh, kw, c), np.int8)
        b, m, f = (np.zeros((self.groups, size), np.int32) for _ in range(3))
        for i, pair in enumerate(pairs):
            for side, n in enumerate(pair):
                w[:, n], b[:, n], m[:, n] = body[:, i, side], ends[:, i, side, 0], 2 * ends[:, i, side, 1]
                if self.residual:
                    f[:, n] = numbers[:, i, 4 + side]
        factors = {"f": f.reshape(-1)} if self.residual else {}
        return {"w": w.reshape(self.shape), "b": b.reshape(-1), "m": m.reshape(-1), **factors}


@dataclass(frozen=True, slots=True)
class PatchStream:
    """Depthwise w (O, KH, KW, 1), b, m as words, channel by channel: 4 x 4 bytes of weights, b, m / 2.

    The four words of weights are positions, their bytes columns: (ky, kx), or ``across`` (kx, ky).
    """

    shape: tuple[int, int, int, int]
    across: bool

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w = np.asarray(constants["w"]).astype(np.int8)[..., 0]
        w = w.transpose(0, 2, 1) if self.across else w
        body = words(np.pad(w, ((0, 0), (0, 4 - w.shape[1]), (0, 4 - w.shape[2]))))[..., 0]
        b, m = (np.asarray(constants[role]).astype(np.int32) for role in ("b", "m"))
        return np.concatenate([body, np.stack([b, m >> 1], axis=1).view(np.uint32)], axis=1).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        o, kh, kw, _ = self.shape
        rows = table.astype(np.uint32).reshape(o, 6)
        w = np.ascontiguousarray(rows[:, :4]).astype("<u4").view(np.int8).reshape(o, 4, 4)
        w = np.ascontiguousarray((w.transpose(0, 2, 1) if self.across else w)[:, :kh, :kw])
        ends = np.ascontiguousarray(rows[:, 4:]).view(np.int32)
        return {"w": w.reshape(self.shape), "b": ends[:, 0].copy(), "m": 2 * ends[:, 1]}


@dataclass(frozen=True, slots=True)
class LaneStream:
    """Depthwise w (O, KH, KW, 1), b, m as words, four outputs at a time.

    Per four outputs: their b; where outputs are more than ``channels``, the bytes from a pixel to their channels of
    ``itemsize``, 16 bits each; per tap their weights; their m / 2. Outputs beyond O hold 0.
    """

    shape: tuple[int, int, int, int]
    channels: int
    itemsize: int

    def pack(self, constants: Mapping[str, Array]) -> Array:
        o, kh, kw, _ = self.shape
        quads = -(-o // 4)
        w = np.zeros((4 * quads, kh * kw), np.int8)
        w[:o] = np.asarray(constants["w"]).reshape(o, -1)
        b, m = (np.zeros(4 * quads, np.int32) for _ in range(2))
        b[:o], m[:o] = constants["b"], np.asarray(constants["m"]) >> 1
        parts = [words(b.reshape(quads, 4)), words(w.reshape(quads, 4, -1).transpose(0, 2, 1))[..., 0]]
        if o != self.channels:
            places = np.zeros(4 * quads, np.uint16)
            places[:o] = np.arange(o) // (o // self.channels) * self.itemsize
            parts.insert(1, words(places.reshape(quads, 4)))
        return np.concatenate([*parts, words(m.reshape(quads, 4))], axis=1).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        o, kh, kw, _ = self.shape
        rows = table.astype(np.uint32).reshape(-(-o // 4), -1)
        body = np.ascontiguousarray(rows[:, -4 - kh * kw : -4]).astype("<u4").view(np.int8)
        w = body.reshape(-1, kh * kw, 4).transpose(0, 2, 1).reshape(-1, kh * kw)[:o]
        b, m = (np.ascontiguousarray(part).view(np.int32).reshape(-1)[:o] for part in (rows[:, :4], rows[:, -4:]))
        return {"w": np.ascontiguousarray(w).reshape(self.shape), "b": b, "m": 2 * m}
