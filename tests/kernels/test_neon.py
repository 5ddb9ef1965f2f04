"""The kernels for NEON on the A cores: drawn layers byte for byte, planted faults found, far fewer instructions."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from projgen import resources
from projgen.harness.counting import count_image
from projgen.harness.records import Record
from projgen.harness.toolchain import HarnessError
from projgen.ir.attrs import Conv2d
from projgen.ops import conv
from projgen.ops.record import Sample
from tests.kernels import draws, recurrent_cases
from tests.kernels.bench_samples import bench
from tests.kernels.images import Merged, build, compare, merge, merged
from tests.kernels.rig import samples

pytestmark = pytest.mark.qemu

CORES = ("cortex-a7", "cortex-a76")


@cache
def layers() -> tuple[Merged, ...]:
    """Drawn layers of every kind whose sums NEON takes, and the samples: odd sizes, int16 operands, saturation."""
    drawn = [
        *draws.collect(draws.linears(), 16),
        *draws.collect(draws.convs(), 16),
        *draws.collect(draws.depthwise(), 10),
        *(draws.low_rank(rank) for rank in (3, 8, 19)),
    ]
    return tuple(merged([*samples(), *_forwards(), *drawn]))


def _forwards() -> list[Sample]:
    return [s for s in recurrent_cases.samples() if not s.graph.nodes[0].attrs.reverse]  # type: ignore[union-attr]


@pytest.mark.parametrize("target", CORES)
def test_drawn_layers(target: str, tmp_path: Path) -> None:
    models = layers()
    assert compare(models, build(models, target, "fast", tmp_path)) >= 500


FAULTS = (
    ("cortex-a53", "vget_high_s8(w), vget_high_s8(x)", "vget_high_s8(w), vget_low_s8(x)"),
    ("cortex-a76", "return vdotq_s32(acc, w, x)", "return vdotq_s32(vdotq_s32(acc, w, w), w, x)"),
    ("cortex-a53", "vrshrn_n_s64(high, 32)", "vshrn_n_s64(high, 32)"),
    ("cortex-a7", "w[k], w1[k], w2[k], w3[k]", "w[k], w1[k], w3[k], w2[k]"),
    ("cortex-a53", "*high = vaddw_s16(*high, vget_high", "*high = vaddw_s16(*high, vget_low"),
    ("cortex-a53", "w += 2 * channels;", "w += 2 * channels - 1;"),
    ("cortex-a53", "vld1_s8(lanes + count)", "vld1_s8(lanes + count - 1)"),
    ("cortex-a7", "w += kernel_w * channels;", "w += kernel_w * channels + 1;"),
    ("cortex-a76", "vmovn_s32(low), vmovn_s32(high)", "vmovn_s32(high), vmovn_s32(low)"),
)


@pytest.mark.parametrize(("target", "good", "bad"), FAULTS, ids=[b for _, _, b in FAULTS])
def test_a_fault_is_found(target: str, good: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "runtime_c"
    shutil.copytree(resources.runtime_c(), copy)
    file = copy / "src" / "pg_neon.h"
    assert file.read_text().count(good) >= 1
    file.write_text(file.read_text().replace(good, bad))
    monkeypatch.setattr(resources, "runtime_c", lambda: copy)
    models = merged(s for s in samples() if s.graph.nodes[0].op in ("linear", "conv2d") and not s.graph.has_time)
    image = build(models, target, "fast", tmp_path / "build")
    with pytest.raises((AssertionError, HarnessError)):
        compare(models, image)


SAME = Conv2d(padding=(1, 1, 1, 1))
LAYERS = (
    *(s for s in bench() if s.name == "fc_128x128"),
    conv.sample("stem", (12, 12, 3), 8, (3, 3), SAME),
    conv.sample("odd depthwise", (10, 10, 27), 27, (3, 3), replace(SAME, groups=27)),
    conv.sample("odd pointwise", (10, 10, 27), 29, (1, 1), Conv2d()),
)


@pytest.mark.parametrize(
    ("target", "times"),
    [
        ("cortex-a7", (5.0, 1.6, 2.7, 2.4)),
        ("cortex-a53", (6.0, 1.9, 2.8, 3.3)),
        ("cortex-a76", (9.0, 1.9, 2.8, 3.4)),
    ],
)
def test_fewer_instructions_than_the_portable_c(target: str, times: tuple[float, ...], tmp_path: Path) -> None:
    models = [merge([s], f"m{i}") for i, s in enumerate(LAYERS)]
    records = [Record(m.inputs(0), model=i) for i, m in enumerate(models)]
    found = []
    for kernels in ("portable", "fast"):
        counts = count_image(build(models, target, kernels, tmp_path / kernels), records)
        assert counts is not None
        found.append(counts.totals)
    for made, least, portable, fast in zip(LAYERS, times, *found, strict=True):
        print(f"{made.name} on {target}: {portable} portable, {fast} NEON, {portable / fast:.2f} times fewer")
        assert portable >= least * fast, (made.name, portable / fast)
