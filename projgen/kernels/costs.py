"""Predicted instructions of the portable C loops, counted in gcc 12.2 -O2 code; other compilers come close."""

from __future__ import annotations

from projgen.targets import Target

# Armv6-M has no long multiply and no multiply-accumulate, so its loops cost more.
_SMALL = frozenset({"cortex-m0", "cortex-m0plus"})


def is_small(target: Target) -> bool:
    """Whether the target is an Armv6-M core."""
    return target.cpu in _SMALL


def matrix(target: Target, macs: int, outputs: int) -> float:
    """Dot products of contiguous vectors, four outputs at a time, and their requantisation."""
    per_mac, per_output = (5.0, 54.0) if target.cpu in _SMALL else (2.75, 24.0)
    return per_mac * macs + per_output * outputs


def loop(target: Target, elements: float, per_element: float) -> float:
    """An element-wise loop that costs ``per_element`` on a Cortex-M4."""
    return (1.6 if target.cpu in _SMALL else 1.0) * per_element * elements


def requantised_loop(target: Target, elements: int, per_element: float) -> float:
    """An element-wise loop with one requantisation an element besides ``per_element``."""
    return loop(target, elements, per_element) + (47.0 if target.cpu in _SMALL else 18.0) * elements
