"""Fixed-point arithmetic of the quantised meaning: rounding, saturation, multipliers and the one requantisation.

docs/quantisation.md states each rule; every core computes exactly these integers.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from projgen.errors import UnsupportedError
from projgen.ir.types import DType, Quant

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ACCUMULATOR_LIMIT = 2**31
ROUND = 2**31
MAX_SHIFT = 24
LOW_RANK_PEAK = 2**12 - 1


def nearest(x: npt.ArrayLike) -> Ints:
    """Round to the nearest integer, halves away from zero."""
    value = np.asarray(x, np.float64)
    whole = np.trunc(value)
    return np.asarray(whole + np.sign(value) * (np.abs(value - whole) >= 0.5), np.int64)


def saturate(v: npt.ArrayLike, bits: int) -> Ints:
    """Clamp to the range of a signed integer of ``bits`` bits."""
    return np.clip(np.asarray(v, np.int64), -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def rounding_shift(v: npt.ArrayLike, shift: int) -> Ints:
    """(v + 2^(shift-1)) >> shift, and v itself for a shift of 0."""
    value = np.asarray(v, np.int64)
    return value if shift == 0 else (value + (1 << (shift - 1))) >> shift


def requantise(acc: npt.ArrayLike, multiplier: npt.ArrayLike, shift: int) -> Ints:
    """RQ(acc, M, p) = ((acc << p) M + 2^31) >> 32, with a 64-bit product; acc << p lies in int32."""
    return ((np.asarray(acc, np.int64) << shift) * np.asarray(multiplier, np.int64) + ROUND) >> 32


def multipliers(scales: npt.ArrayLike, what: str) -> tuple[Ints, int]:
    """The multipliers M = 4 round(scale 2^(30-p)) and their shared pre-shift p, the smallest with every M < 2^31.

    Args:
        scales: positive real factors of one matrix, any shape.
        what: name for the error message when a factor is too large for any pre-shift.
    """
    exact = np.asarray(scales, np.float64)
    if not (np.isfinite(exact).all() and (exact >= 0).all()):
        raise UnsupportedError(
            f"{what}: a requantisation scale is negative or not finite", "finite scales", "the model"
        )
    for shift in range(MAX_SHIFT + 1):
        m = 4 * nearest(exact * 2.0 ** (30 - shift)) if exact.max(initial=0.0) < 2.0**shift else None
        if m is not None and (m < ACCUMULATOR_LIMIT).all():
            return m, shift
    raise UnsupportedError(
        f"{what}: the output's scale is {exact.max():.3g} times finer than the accumulator's",
        f"a ratio below 2^{MAX_SHIFT - 1}",
        "the calibration data, which must drive this layer's output away from 0",
    )


def real_scale(multiplier: npt.ArrayLike, shift: int) -> Floats:
    """The real factor that (M, p) stands for: M 2^(p-32)."""
    return np.asarray(multiplier, np.float64) * 2.0 ** (shift - 32)


def affine(minimum: float, maximum: float) -> Quant:
    """The int8 map of a calibrated range, widened to hold 0: scale = range / 255 as a float32, 0 exact."""
    low, high = min(minimum, 0.0), max(maximum, 0.0)
    scale = as_float32((high - low) / 255.0)
    if scale == 0.0:
        return Quant(1.0, 0)
    return Quant(scale, int(saturate(nearest(-128.0 - low / scale), 8)))


def power_of_two(peak: float, limit: int = LOW_RANK_PEAK) -> int:
    """The exponent e of the smallest scale 2^e for which ``peak`` stays within ``limit`` steps."""
    if peak == 0.0:
        return -12
    exponent = int(np.ceil(np.log2(peak / limit)))
    while Fraction(peak) > limit * Fraction(2) ** exponent:
        exponent += 1
    while Fraction(peak) <= limit * Fraction(2) ** (exponent - 1):
        exponent -= 1
    return exponent


def as_float32(value: float) -> float:
    """The value rounded to float32: scales are stored so that C's ``float`` holds them exactly."""
    return float(np.float32(value))


def to_integers(x: npt.ArrayLike, quant: Quant, dtype: DType) -> Ints:
    """Constants to integers: nearest(x / scale) + zero point, saturated; computed in float64."""
    return saturate(nearest(np.asarray(x, np.float64) / quant.scale) + quant.zero_point, dtype.bits)


def to_reals(q: npt.ArrayLike, quant: Quant) -> Floats:
    """The reals that integers stand for, in float64."""
    return (np.asarray(q, np.float64) - quant.zero_point) * quant.scale
