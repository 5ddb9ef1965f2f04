"""Streams of constants in the order that the fully connected kernels for DSP and MVE cores read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Words = npt.NDArray[np.uint32]

LIMIT: Final = 1 << 23  # of |accumulator| of a pair's first output: 256 a + b is separated exactly below it
WIDENED: Final = (0, 2, 1, 3)  # order of four int8 values after SXTB16, halfword by halfword
NATURAL: Final = (0, 1, 2, 3)


def largest_accumulator(w: Array, b: Array, peak: int) -> int:
    """The largest |w x + b| that any row can reach with |x| <= peak."""
    return int((np.abs(w.astype(np.int64)).sum(axis=1) * peak + np.abs(b.astype(np.int64))).max())


@dataclass(frozen=True, slots=True)
class PairStream:
    """Fully connected w (N, K), b, m as one stream of words, in the order the kernel reads them.

    Per four outputs: 256 b0 + b1, b1, 256 b2 + b3, b3; per four inputs two words of each pair; m0..m3. The last one
    to three outputs follow as pairs: 256 b0 + b1, b1; per four inputs two words; m0, m1; a missing partner is 0.
    ``order`` is the order of the operand inside a quad of inputs.
    """

    outputs: int
    inputs: int
    order: tuple[int, int, int, int]

    @property
    def quads(self) -> int:
        return -(-self.inputs // 4)

    def _blocks(self) -> list[tuple[int, int]]:
        """(first output, pairs) of each block of the stream."""
        full = self.outputs // 4 * 4
        return [(n, 2) for n in range(0, full, 4)] + [(n, 1) for n in range(full, self.outputs, 2)]

    def _words(self, pairs: int) -> int:
        return 2 * pairs * (self.quads + 2)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b, m = (np.asarray(constants[role]).astype(np.int64) for role in ("w", "b", "m"))
        blocks = self._blocks()
        rows = blocks[-1][0] + 2 * blocks[-1][1]
        weights = np.zeros((rows, 4 * self.quads), np.int64)
        weights[: self.outputs, : self.inputs] = w
        weights = weights.reshape(rows, self.quads, 4)[..., self.order]
        bias, multipliers = (np.pad(v, (0, rows - self.outputs)) for v in (b, m))
        stream = []
        for first, pairs in blocks:
            part = slice(first, first + 2 * pairs)
            halves = 256 * weights[part][0::2] + weights[part][1::2]
            words = (halves[..., 0::2] & 0xFFFF) | (halves[..., 1::2] & 0xFFFF) << 16
            start = np.stack([256 * bias[part][0::2] + bias[part][1::2], bias[part][1::2]], axis=1)
            stream += [start.ravel(), words.transpose(1, 0, 2).ravel(), multipliers[part]]
        return (np.concatenate(stream) & 0xFFFFFFFF).astype(np.uint32)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        words = table.astype(np.uint32)
        inverse = np.argsort(self.order)
        w, b, m = [], [], []
        at = 0
        for _, pairs in self._blocks():
            block = words[at : at + self._words(pairs)]
            at += self._words(pairs)
            start = block[: 2 * pairs].reshape(pairs, 2)
            second = start[:, 1].view(np.int32)
            first = (start[:, 0] - start[:, 1]).view(np.int32) >> 8
            b.append(np.stack([first, second], axis=1).ravel())
            body = block[2 * pairs : -2 * pairs].reshape(self.quads, pairs, 2)
            halves = np.stack([body & 0xFFFF, body >> 16], axis=-1).astype(np.uint16).view(np.int16)
            low = (halves & 0xFF).astype(np.uint8).view(np.int8).astype(np.int32)
            high = (halves.astype(np.int32) - low) >> 8
            both = np.stack([high, low]).reshape(2, self.quads, pairs, 4)[..., inverse]
            w.append(both.transpose(2, 0, 1, 3).reshape(2 * pairs, 4 * self.quads))
            m.append(block[-2 * pairs :].view(np.int32))
        return {
            "w": np.concatenate(w)[: self.outputs, : self.inputs].astype(np.int8),
            "b": np.concatenate(b)[: self.outputs],
            "m": np.concatenate(m)[: self.outputs],
        }


@dataclass(frozen=True, slots=True)
class VectorStream:
    """Fully connected w (N, K), b, m as words, eight outputs at a time, for vectors of ``lanes`` inputs.

    Per eight outputs: b0..b7; per vector of inputs eight rows of ``lanes`` weights; m of rows 0, 2, 4, 6, 1, 3, 5, 7.
    Rows and inputs beyond the matrix hold 0.
    """

    outputs: int
    inputs: int
    lanes: int

    @property
    def chunks(self) -> int:
        return -(-self.inputs // self.lanes)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        blocks, width = -(-self.outputs // 8), self.chunks * self.lanes
        weights = np.zeros((8 * blocks, width), np.int8)
        weights[: self.outputs, : self.inputs] = constants["w"]
        b, m = (np.zeros(8 * blocks, np.int32) for _ in range(2))
        b[: self.outputs], m[: self.outputs] = constants["b"], constants["m"]
        rows = weights.reshape(blocks, 8, self.chunks, self.lanes).transpose(0, 2, 1, 3)
        words = np.ascontiguousarray(rows).reshape(blocks, -1).view("<u4").astype(np.uint32)
        pairs = m.reshape(blocks, 4, 2).transpose(0, 2, 1).reshape(blocks, 8)
        return np.concatenate([b.reshape(blocks, 8).view(np.uint32), words, pairs.view(np.uint32)], axis=1).reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        blocks = table.astype(np.uint32).reshape(-(-self.outputs // 8), -1)
        rows = np.ascontiguousarray(blocks[:, 8:-8]).astype("<u4").view(np.int8)
        w = rows.reshape(len(blocks), self.chunks, 8, self.lanes).transpose(0, 2, 1, 3).reshape(8 * len(blocks), -1)
        m = blocks[:, -8:].reshape(-1, 2, 4).transpose(0, 2, 1).reshape(-1)
        return {
            "w": np.ascontiguousarray(w[: self.outputs, : self.inputs]),
            "b": blocks[:, :8].reshape(-1).view(np.int32)[: self.outputs],
            "m": np.ascontiguousarray(m).view(np.int32)[: self.outputs],
        }
