"""Between floats and a model's integers: the two helpers of the emitted C, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from projgen.ir.types import TensorType

_LIMIT = np.float32(65536.0)  # beyond every integer of the types, and exact in int32 and float32


def quantise_input(x: npt.ArrayLike, t: TensorType) -> npt.NDArray[Any]:
    """Reals to the integers of an input type.

    r = x / scale in float32, kept within +-65536; the nearest integer of r, halves away from zero; the zero point
    added as an integer; saturated. No step can be contracted or reassociated, so any IEEE float gives these integers.

    Args:
        x: finite or infinite numbers, converted to float32; no NaN.
        t: a quantised type.
    """
    if t.quant is None:
        raise ValueError(f"type {t} is not quantised")
    with np.errstate(over="ignore"):
        ratio = np.clip(np.asarray(x, np.float32) / np.float32(t.quant.scale), -_LIMIT, _LIMIT)
    whole = np.trunc(ratio)
    away = (np.abs(ratio - whole) >= np.float32(0.5)) * np.sign(ratio)
    q = whole.astype(np.int64) + away.astype(np.int64) + t.quant.zero_point
    return np.asarray(np.clip(q, t.dtype.low, t.dtype.high), t.dtype.value)


def dequantise_output(q: npt.NDArray[Any], t: TensorType) -> npt.NDArray[np.float32]:
    """Integers of an output type to reals: (q - zero point) as float32, times the scale in float32."""
    if t.quant is None:
        raise ValueError(f"type {t} is not quantised")
    steps = (q.astype(np.int32) - t.quant.zero_point).astype(np.float32)
    return np.asarray(steps * np.float32(t.quant.scale), np.float32)
