"""Streams of constants in the order that the blocks for Armv7-M cores without DSP instructions read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from projgen.kernels.conv_dsp_layouts import as_words, signed

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]

OFFSET = 128  # that the first value of a word is stored with
BOTH = (1 << 24) + 1  # a number as the first and the second value of a word


def byte_words(values: Ints) -> Ints:
    """Four bytes along the last axis as a word, the first lowest."""
    places = 1 << np.array([0, 8, 16, 24], np.int64)
    words: Ints = ((values.reshape(*values.shape[:-1], -1, 4) & 0xFF) * places).sum(axis=-1)
    return words


def bytes_of(words: Array) -> Ints:
    """The signed bytes of words along the last axis."""
    return np.ascontiguousarray(words).astype("<u4").view(np.int8).astype(np.int64)


@dataclass(frozen=True, slots=True)
class PixelPairStream:
    """Convolution w (O, KH, KW, C) or matrix w (O, K), b, m for pairs of pixels in a word, output by output.

    Per output the start value of both sums, b (2^24 + 1) - 128 sum(w), as low and high word; its weights, four a
    word; with a ``residual`` its factor f; m. ``shape`` is that of w.
    """

    shape: tuple[int, ...]
    residual: bool = False

    @property
    def inputs(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def quads(self) -> int:
        return -(-self.inputs // 4)

    @property
    def output_words(self) -> int:
        """Words of one output."""
        return 3 + self.quads + (1 if self.residual else 0)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w = np.asarray(constants["w"]).astype(np.int64).reshape(len(constants["w"]), -1)
        b, m, *f = (
            np.asarray(constants[role]).astype(np.int64) for role in ("b", "m", *(["f"] if self.residual else []))
        )
        start = b * BOTH - OFFSET * w.sum(axis=1)
        weights = byte_words(np.pad(w, ((0, 0), (0, 4 * self.quads - self.inputs))))
        halves = np.stack([start & 0xFFFFFFFF, start >> 32], axis=1)
        return as_words([np.concatenate([halves, weights, *(v[:, None] for v in (*f, m))], axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(-1, self.output_words)
        w = bytes_of(rows[:, 2 : 2 + self.quads])[:, : self.inputs]
        start = signed(rows[:, 1]) << 32 | rows[:, 0].astype(np.int64)
        constants = {"b": (start + OFFSET * w.sum(axis=1)) // BOTH, "m": signed(rows[:, -1])}
        if self.residual:
            constants["f"] = signed(rows[:, -2])
        return {"w": w.reshape(self.shape).astype(np.int8)} | {r: v.astype(np.int32) for r, v in constants.items()}
