"""Names and texts that are safe inside C."""

from __future__ import annotations

import re

import numpy as np

from projgen.ir.types import DType, TensorType

CTYPES = {DType.INT8: "int8_t", DType.INT16: "int16_t", DType.INT32: "int32_t"}


def identifier(text: str, limit: int = 40) -> str:
    """The text with everything but ASCII letters, digits and _ replaced; not empty, not starting with a digit."""
    clean = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_]", "_", text)).strip("_")[:limit].rstrip("_")
    return clean if clean and not clean[0].isdigit() else f"n{clean}"


def comment(text: str) -> str:
    """The text on one line, in printable ASCII, without what opens or closes a comment or joins lines."""
    flat = " ".join(text.split())
    ascii_only = "".join(c if " " <= c <= "~" else "?" for c in flat)
    return ascii_only.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/").replace("??", "? ?")


def float_literal(value: float) -> str:
    """The shortest decimal text that gives this float32, as a C constant without its suffix."""
    text = str(np.float32(value))
    return text if any(c in text for c in ".e") else f"{text}.0"


def describe(t: TensorType) -> str:
    """A type for a reader: element type, shape, scale and zero point."""
    shape = "".join(f"[{d}]" for d in t.shape) or "[1]"
    if t.quant is None:
        return f"{t.dtype.value}{shape}"
    return f"{t.dtype.value}{shape}, scale {float_literal(t.quant.scale)}, zero point {t.quant.zero_point}"
