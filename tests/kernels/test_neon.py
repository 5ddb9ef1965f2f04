"""The kernels for NEON on the A cores: drawn layers byte for byte, planted faults found, far fewer instructions."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest

from projgen import resources
from projgen.harness.counting import count_image
from projgen.harness.records import Record
from projgen.harness.toolchain import HarnessError
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
    ("cortex-a53", "high = vaddw_s16(high, vget_high", "high = vaddw_s16(high, vget_low"),
    ("cortex-a53", "w += channels;", "w += channels - 1;"),
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


@pytest.mark.parametrize(("target", "times"), [("cortex-a7", 5.0), ("cortex-a53", 6.0), ("cortex-a76", 9.0)])
def test_fewer_instructions_than_the_portable_c(target: str, times: float, tmp_path: Path) -> None:
    model = merge([s for s in bench() if s.name == "fc_128x128"], "m0")
    found = []
    for kernels in ("portable", "fast"):
        counts = count_image(build([model], target, kernels, tmp_path / kernels), [Record(model.inputs(0))])
        assert counts is not None
        found.append(sum(counts.totals))
    print(f"{target}: {found[0]} portable, {found[1]} NEON, {found[0] / found[1]:.2f} times fewer")
    assert found[0] >= times * found[1]
