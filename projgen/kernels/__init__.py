"""The kernels: per operator family, how C realises it on which target."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from projgen.kernels.record import KernelDef

_FAMILIES = (
    "linear",
    "conv",
    "conv_residual",
    "conv_transpose",
    "elementwise",
    "pool",
    "softmax",
    "attention",
    "layer_norm",
    "shape",
    "recurrent",
    "neon",
    "conv_dsp",
    "conv_dsp_depthwise",
    "conv_dsp_direct",
    "conv_dsp_depthwise_rows",
    "conv_dsp_winograd",
    "elementwise_dsp",
    "pool_dsp",
    "conv_thumb1",
    "depthwise_thumb1",
    "conv_thumb2",
    "linear_thumb2",
    "depthwise_thumb2",
    "conv_mve",
    "conv_mve_depthwise",
    "elementwise_mve",
    "pool_mve",
)


@cache
def registry() -> tuple[KernelDef, ...]:
    """Every kernel; each family module lists its records in ``KERNELS``."""
    return tuple(k for family in _FAMILIES for k in import_module(f"projgen.kernels.{family}").KERNELS)
