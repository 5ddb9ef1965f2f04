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


_HALVES: Final = (0, 2, 1, 3)  # bytes of a word as SXTB16 takes them: of the word, of the word rotated; its own inverse

Wide = npt.NDArray[np.int64]


def _pairs(weights: Wide, bias: Wide) -> tuple[Wide, Wide]:
    """(starts, words [quads][pairs][2]) of rows (2 pairs, quads, 4) whose weights lie as 256 a + b in halfwords."""
    halves = 256 * weights[0::2] + weights[1::2]
    words = (halves[..., 0::2] & 0xFFFF) | (halves[..., 1::2] & 0xFFFF) << 16
    start = np.stack([256 * bias[0::2] + bias[1::2], bias[1::2]], axis=1)
    return start.ravel(), words.transpose(1, 0, 2)


def _singles(weights: Wide, bias: Wide) -> tuple[Wide, Wide]:
    """(starts, words [quads][rows]) of rows (rows, quads, 4) whose weights lie as bytes of their own words."""
    places = 1 << np.array([0, 8, 16, 24], np.int64)
    words = ((weights[..., _HALVES] & 0xFF) * places).sum(axis=-1)
    return bias, words.transpose(1, 0)


@dataclass(frozen=True, slots=True)
class PairStream:
    """Fully connected w (N, K), b, m as one stream of words, in the order the kernel reads them.

    Per four outputs: 256 b0 + b1, b1, 256 b2 + b3, b3; per four inputs two words of each pair; m0..m3. The last one
    to three outputs follow as pairs: 256 b0 + b1, b1; per four inputs two words; m0, m1; a missing partner is 0.
    ``order`` is the order of the operand inside a quad of inputs.

    Not ``packed``: starts are b0, b1, ...; a quad's words hold four weights of one output each, ordered so that SXTB16
    of the word, and of the word rotated by a byte, give them in ``order``.
    """

    outputs: int
    inputs: int
    order: tuple[int, int, int, int]
    packed: bool = True

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
            start, words = (_pairs if self.packed else _singles)(weights[part], bias[part])
            stream += [start, words.ravel(), multipliers[part]]
        return (np.concatenate(stream) & 0xFFFFFFFF).astype(np.uint32)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        words = table.astype(np.uint32)
        inverse = np.argsort(self.order)
        w, b, m = [], [], []
        at = 0
        for _, pairs in self._blocks():
            block = words[at : at + self._words(pairs)]
            at += self._words(pairs)
            m.append(block[-2 * pairs :].view(np.int32))
            if not self.packed:
                b.append(block[: 2 * pairs].view(np.int32))
                bytes_ = block[2 * pairs : -2 * pairs].astype("<u4").view(np.int8).reshape(self.quads, 2 * pairs, 4)
                halves = bytes_[..., _HALVES][..., inverse]
                w.append(halves.transpose(1, 0, 2).reshape(2 * pairs, 4 * self.quads).astype(np.int32))
                continue
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
