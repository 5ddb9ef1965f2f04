"""Writes docs/predictions.md: predicted beside counted instructions of drawn layers. ``make bench`` runs it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from benchmarks.test_recurrent import table
from tests.kernels.predicted import SMALL, Prediction, drawn, predictions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "predictions.md"
TARGETS = ("cortex-m3", "cortex-m4", "cortex-m55")
SEEDS: Final = (2001, 2002, 2003)

INTRODUCTION = f"""\
# Predicted instructions

Written by `make bench`. Each kernel predicts what it executes before any compiler runs: its assembly is counted line by
line, the C around it by a fit. The choice of kernels, `Budget` and the comparison of a projected layer with the dense
one rest on that. Here are layers whose sizes are drawn, none of them used in a fit ({len(SEEDS)} draws of every
family), as a compilation for speed realises them, against exact counts on the emulated core (`arm-none-eabi-gcc -O2`).
Layers of less than {SMALL} instructions are left out, and those that run as portable C (poolings, sums and products of
maps on Cortex-M3).
"""

pytestmark = pytest.mark.qemu


def test_page() -> None:
    lines = [INTRODUCTION]
    for target in TARGETS:
        found = [p for seed in SEEDS for p in predictions(target, list(drawn(seed)))]
        by_kernel: dict[str, list[Prediction]] = defaultdict(list)
        for p in found:
            if p.counted >= SMALL and "portable" not in p.kernel:
                by_kernel[p.kernel].append(p)
        rows = []
        for kernel, layers in sorted(by_kernel.items()):
            errors = [100 * p.error for p in layers]
            mean, largest = sum(errors) / len(errors), max(errors, key=abs)
            counted = [round(p.counted) for p in layers]
            rows.append(
                (
                    f"`{kernel}`",
                    len(layers),
                    f"{min(counted):,} - {max(counted):,}",
                    f"{mean:+.1f}%",
                    f"{largest:+.1f}%",
                )
            )
        errors = [abs(p.error) for layers in by_kernel.values() for p in layers]
        within = sum(e <= 0.05 for e in errors)
        lines += [
            f"## {target}\n",
            *table(("kernel", "layers", "counted", "mean error", "largest error"), rows),
            f"\n{within} of {len(errors)} layers within 5%, mean of the absolute errors "
            f"{100 * sum(errors) / len(errors):.1f}%.\n",
        ]
        assert within >= 0.95 * len(errors)
    PAGE.write_text("\n".join(lines), encoding="utf-8")
