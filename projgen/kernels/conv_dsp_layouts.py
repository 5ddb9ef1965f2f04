"""Streams of convolution constants in the order that the kernels for DSP cores read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]


def words(halves: Ints) -> Ints:
    """Pairs of halfwords along the last axis as words."""
    return (halves[..., 0::2] & 0xFFFF) | (halves[..., 1::2] & 0xFFFF) << 16


def halves(packed: Array) -> Ints:
    """Words as pairs of signed halfwords along the last axis."""
    wide = packed.astype(np.int64)
    both = np.stack([wide & 0xFFFF, wide >> 16 & 0xFFFF], axis=-1).astype(np.uint16).view(np.int16).astype(np.int64)
    return both.reshape(*packed.shape[:-1], -1)


def as_words(stream: list[Ints]) -> Array:
    """The concatenated stream modulo 2^32."""
    return (np.concatenate([s.reshape(-1) for s in stream]) & 0xFFFFFFFF).astype(np.uint32)


def signed(packed: Array) -> Ints:
    """Words as signed numbers."""
    return np.ascontiguousarray(packed).view(np.int32).astype(np.int64)


@dataclass(frozen=True, slots=True)
class MatrixStream:
    """Convolution w (O, KH, KW, C) or matrix w (O, K), b, m for blocks of two outputs, group by group.

    Per two outputs of a group: packed, 256 bA + bB and bB, then per quad of inputs two words of halfwords
    256 wA + wB, ``order`` inside the quad; else bA and bB, then per quad the four weights of A and of B, ``order``
    being that of their bytes; then mA and mB. A missing partner is 0. With a ``residual`` its factors fA and fB stand
    before the multipliers.
    """

    shape: tuple[int, ...]
    groups: int
    packed: bool
    order: tuple[int, int, int, int]
    residual: bool = False

    @property
    def inputs(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def quads(self) -> int:
        return -(-self.inputs // 4)

    @property
    def group_words(self) -> int:
        """Words of one group's stream."""
        return -(-(self.shape[0] // self.groups) // 2) * self._pair_words

    @property
    def _pair_words(self) -> int:
        return 2 * self.quads + (6 if self.residual else 4)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w = np.asarray(constants["w"]).astype(np.int64)
        size = self.shape[0] // self.groups
        pad = size % 2
        w = np.pad(w.reshape(self.groups, size, -1), ((0, 0), (0, pad), (0, 4 * self.quads - self.inputs)))
        w = w.reshape(-1, 2, self.quads, 4)[..., self.order]
        b, m, *f = (
            np.pad(np.asarray(constants[role]).astype(np.int64).reshape(self.groups, size), ((0, 0), (0, pad))).reshape(
                -1, 2
            )
            for role in ("b", "m", *(["f"] if self.residual else []))
        )
        if self.packed:
            start = np.stack([256 * b[:, 0] + b[:, 1], b[:, 1]], axis=1)
            body = words(256 * w[:, 0] + w[:, 1])
        else:
            start = b
            body = ((w & 0xFF) << np.array([0, 8, 16, 24])).sum(axis=3).transpose(0, 2, 1)
        stream = np.concatenate([start, body.reshape(len(w), -1), *f, m], axis=1)
        return as_words([stream])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        size = self.shape[0] // self.groups
        inverse = np.argsort(self.order)
        rows = table.astype(np.uint32).reshape(-1, self._pair_words)
        start, m = signed(rows[:, :2]), signed(rows[:, -2:])
        body = rows[:, 2 : 2 + 2 * self.quads].reshape(-1, self.quads, 2)
        if self.packed:
            first = np.ascontiguousarray(rows[:, 0] - rows[:, 1]).view(np.int32) >> 8
            b = np.stack([first, start[:, 1]], axis=1)
            both = halves(body)
            low = (both & 0xFF).astype(np.uint8).view(np.int8).astype(np.int64)
            w = np.stack([(both - low) >> 8, low], axis=1)
        else:
            b = start
            w = (body[..., None] >> np.array([0, 8, 16, 24], np.uint32) & 0xFF).astype(np.uint8).view(np.int8)
            w = w.transpose(0, 2, 1, 3).astype(np.int64)
        w = w[..., inverse].reshape(self.groups, -1, 4 * self.quads)[:, :size, : self.inputs]
        words32 = {"b": b, "m": m, **({"f": signed(rows[:, -4:-2])} if self.residual else {})}
        per_output = {role: v.reshape(self.groups, -1)[:, :size].reshape(-1) for role, v in words32.items()}
        return {"w": w.reshape(self.shape).astype(np.int8)} | {r: v.astype(np.int32) for r, v in per_output.items()}
