"""Kernels of the poolings."""

from __future__ import annotations

from projgen.kernels.record import KernelDef

KERNELS: tuple[KernelDef, ...] = ()
