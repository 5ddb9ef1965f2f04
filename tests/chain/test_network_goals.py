"""What the public MLPerf Tiny networks, whole, may execute and hold: no change makes them slower or larger unseen."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from benchmarks.test_networks import NETWORKS, measured, quantised
from projgen.quant.model import QuantizedModel

IC, KWS, VWW, AD = (entry[0] for entry in NETWORKS.values())
LIMITS = {  # network, target, build: instructions an inference, arena without the input and code in bytes
    (IC, "cortex-m3", "speed"): (23_000_000, None, None),
    (IC, "cortex-m4", "speed"): (6_100_000, 31_000, 14_000),
    (IC, "cortex-m4", "flash"): (11_100_000, 24_000, 8_000),
    (IC, "cortex-m55", "speed"): (1_600_000, 24_000, 9_216),
    (KWS, "cortex-m3", "speed"): (5_800_000, None, None),
    (KWS, "cortex-m4", "speed"): (2_500_000, 9_900, 6_144),
    (KWS, "cortex-m55", "speed"): (570_000, 12_000, 6_144),
    (VWW, "cortex-m3", "speed"): (17_600_000, None, None),
    (VWW, "cortex-m4", "speed"): (4_600_000, 39_000, 12_000),
    (VWW, "cortex-m55", "speed"): (1_200_000, 39_000, 11_500),
    (AD, "cortex-m3", "speed"): (526_000, None, None),
    (AD, "cortex-m4", "speed"): (250_000, 1_500, 3_000),
    (AD, "cortex-m55", "speed"): (40_000, 1_500, 3_072),
}


@cache
def _quantised(file: str) -> QuantizedModel:
    return quantised(file)


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize(("file", "target", "build"), LIMITS)
def test_mlperf_tiny_networks_keep_their_limits(file: str, target: str, build: str, tmp_path: Path) -> None:
    if "PROJGEN_DATA" not in os.environ:
        pytest.skip("PROJGEN_DATA is not set")
    m = measured(_quantised(file), target, build, tmp_path)
    instructions, arena, code = LIMITS[file, target, build]
    assert 0 < (m.instructions or 0) <= instructions
    assert arena is None or m.arena_bytes <= arena
    assert code is None or m.code_bytes <= code


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize("target", ["cortex-m3", "cortex-m4", "cortex-m55"])
def test_flash_is_saved_where_it_is_favoured(target: str, tmp_path: Path) -> None:
    """Also where less RAM is on offer for little beside code."""
    if "PROJGEN_DATA" not in os.environ:
        pytest.skip("PROJGEN_DATA is not set")
    fast, small = (measured(_quantised(KWS), target, build, tmp_path) for build in ("speed", "flash"))
    assert small.weight_bytes + small.code_bytes < fast.weight_bytes + fast.code_bytes
