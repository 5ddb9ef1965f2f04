"""The phases of a transposed convolution, and the orders of constants that follow from them.

An output pixel's phase is its row and column, counted with the padding, modulo the strides. Pixels of a phase see the
same taps of the kernel, each at a fixed distance: a phase is an ordinary convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from projgen.ir.attrs import ConvTranspose2d
from projgen.kernels.layouts import cast
from projgen.kernels.record import Layout

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Phases:
    """The phases of a transposed convolution with weights ``shape`` (O, KH, KW, C/groups)."""

    shape: tuple[int, int, int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, attrs: ConvTranspose2d, shape: tuple[int, int, int, int]) -> Phases:
        return cls(shape, attrs.stride, attrs.dilation)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(row, column) of each phase, in the order of all tables."""
        return list(product(range(self.stride[0]), range(self.stride[1])))

    def taps(self, axis: int, phase: int) -> list[int]:
        """Kernel positions along an axis (0 rows, 1 columns) that meet pixels at outputs of a phase, ascending."""
        step, stride = self.dilation[axis], self.stride[axis]
        return [k for k in range(self.shape[1 + axis]) if k * step % stride == phase]

    def first_tap(self, axis: int, phase: int) -> int:
        """The first of the taps; the kernel's size where there is none."""
        return next(iter(self.taps(axis, phase)), self.shape[1 + axis])

    def tap_step(self, axis: int) -> int:
        """Distance of two taps of a phase."""
        return self.stride[axis] // math.gcd(self.stride[axis], self.dilation[axis])

    def pixel_step(self, axis: int) -> int:
        """Distance of the pixels that two such taps meet."""
        return self.dilation[axis] // math.gcd(self.stride[axis], self.dilation[axis])

    def part(self, w: Array, phase: tuple[int, int]) -> Array:
        """The weights of a phase, (O, its rows, its columns, C/groups)."""
        rows, columns = (self.taps(axis, phase[axis]) for axis in (0, 1))
        return w[:, rows][:, :, columns]

    def starts(self) -> tuple[int, ...]:
        """Where the weights of each phase start in ``PhaseWeights``."""
        sizes = [self.shape[0] * self.shape[3] * math.prod(len(self.taps(a, p[a])) for a in (0, 1)) for p in self.pairs]
        return tuple(int(v) for v in np.cumsum([0, *sizes[:-1]]))

    def unseen(self, w: Array, zero_point: int) -> tuple[tuple[int, ...], ...]:
        """Per phase and output: the zero point times the weights that the phase does not see.

        The bias counts every tap as if it saw the zero point where it meets no pixel.
        """
        whole = w.reshape(len(w), -1).astype(np.int64).sum(axis=1)
        parts = [self.part(w, p).reshape(len(w), -1).astype(np.int64).sum(axis=1) for p in self.pairs]
        return tuple(tuple(int(v) for v in zero_point * (whole - part)) for part in parts)


@dataclass(frozen=True, slots=True)
class PhaseWeights:
    """Weights phase by phase, each (O, its taps, C/groups)."""

    phases: Phases

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w = cast(constants["w"], "int8")
        return np.concatenate([self.phases.part(w, p).reshape(-1) for p in self.phases.pairs])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        w = np.empty(self.phases.shape, table.dtype)
        for start, phase in zip(self.phases.starts(), self.phases.pairs, strict=True):
            rows, columns = (self.phases.taps(axis, phase[axis]) for axis in (0, 1))
            shape = (w.shape[0], len(rows), len(columns), w.shape[3])
            part = table[start : start + math.prod(shape)].reshape(shape)
            w[:, np.array(rows, int)[:, None], np.array(columns, int)] = part
        return {"w": w}


@dataclass(frozen=True, slots=True)
class PhaseBias:
    """Biases phase by phase, [phases][O]: ``unseen`` is what each adds to the operator's."""

    unseen: tuple[tuple[int, ...], ...]

    def pack(self, constants: Mapping[str, Array]) -> Array:
        return cast(constants["b"].astype(np.int64) + np.array(self.unseen), "int32").reshape(-1)

    def unpack(self, table: Array) -> Mapping[str, Array]:
        unseen = np.array(self.unseen)
        return {"b": same((table.reshape(unseen.shape) - unseen).astype(np.int32))}


def same(rows: Array) -> Array:
    """The row that all are; a ``ValueError`` where they differ."""
    if not (rows == rows[0]).all():
        raise ValueError("the phases hold different constants")
    return np.ascontiguousarray(rows[0])


@dataclass(frozen=True, slots=True)
class Stacked:
    """The phases as one convolution with rows [phase][output], and where each tap of the kernel stands in it.

    Attributes:
        phases: what is stacked. unseen: as ``PhaseBias``.
        size: (rows, columns) of the convolution's kernel, the reach of the widest phase.
        inner: the layout of the convolution.
    """

    phases: Phases
    unseen: tuple[tuple[int, ...], ...]
    size: tuple[int, int]
    inner: Layout

    def pack(self, constants: Mapping[str, Array]) -> Array:
        return self.inner.pack(stack(self.phases, self.unseen, self.size, constants))

    def unpack(self, table: Array) -> Mapping[str, Array]:
        count, outputs = len(self.phases.pairs), self.phases.shape[0]
        found: dict[str, Array] = {}
        for role, data in self.inner.unpack(table).items():
            rows = data.reshape(count, outputs, *data.shape[1:])
            if role == "w":
                found["w"] = _unstacked(self.phases, self.size, rows)
            else:
                found[role] = same((rows - np.array(self.unseen) if role == "b" else rows).astype(data.dtype))
        return found


def stack(
    phases: Phases, unseen: tuple[tuple[int, ...], ...], size: tuple[int, int], constants: Mapping[str, Array]
) -> dict[str, Array]:
    """The constants of the convolution that computes all phases, from those of the transposed one."""
    made: dict[str, Array] = {}
    for role, data in constants.items():
        if role == "w":
            w = np.zeros((len(phases.pairs), len(data), *size, data.shape[3]), data.dtype)
            for index, phase in enumerate(phases.pairs):
                rows, columns = (_places(phases, axis, phase[axis], size[axis]) for axis in (0, 1))
                w[index][:, rows[:, None], columns] = phases.part(data, phase)
            made["w"] = w.reshape(-1, *w.shape[2:])
        elif role == "b":
            made["b"] = (data.astype(np.int64) + np.array(unseen)).astype(np.int32).reshape(-1)
        else:
            made[role] = np.tile(data, len(phases.pairs))
    return made


def reach(phases: Phases, axis: int) -> int:
    """Pixels from the first to the last that some phase sees along an axis, at least 1."""
    if phases.stride[axis] == 1:
        return phases.shape[1 + axis]  # the convolution keeps the dilation
    return max(_distance(phases, axis, k) for k in range(phases.shape[1 + axis])) + 1


def _distance(phases: Phases, axis: int, tap: int) -> int:
    """How many pixels before the output's own the tap meets."""
    return tap if phases.stride[axis] == 1 else tap * phases.dilation[axis] // phases.stride[axis]


def _places(phases: Phases, axis: int, phase: int, size: int) -> Array:
    """Positions in the stacked kernel of the taps of a phase: the convolution reads forwards."""
    return np.array([size - 1 - _distance(phases, axis, k) for k in phases.taps(axis, phase)], int)


def _unstacked(phases: Phases, size: tuple[int, int], rows: Array) -> Array:
    w = np.empty(phases.shape, rows.dtype)
    left = rows.copy()
    for index, phase in enumerate(phases.pairs):
        at = [_places(phases, axis, phase[axis], size[axis]) for axis in (0, 1)]
        taps = [np.array(phases.taps(axis, phase[axis]), int) for axis in (0, 1)]
        w[:, taps[0][:, None], taps[1]] = rows[index][:, at[0][:, None], at[1]]
        left[index][:, at[0][:, None], at[1]] = 0
    if left.any():
        raise ValueError("the stacked kernel has weights where no tap stands")
    return w
