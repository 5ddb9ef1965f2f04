"""Every sample and drawn fully connected layers on the emulated targets, through generated code: byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from projgen import driver
from projgen.harness.counting import count_image
from projgen.harness.records import Record
from projgen.harness.toolchain import HarnessError
from projgen.ir.types import DType
from projgen.kernels.record import Block
from projgen.kernels.render import render_block
from projgen.ops import linear
from projgen.ops.record import Sample
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.targets import load_target
from tests.kernels import draws
from tests.kernels.bench_samples import bench
from tests.kernels.images import Merged, build, compare, merge, merged
from tests.kernels.rig import samples

pytestmark = pytest.mark.qemu

COMPARED = 480  # outputs of the samples alone; drawn ones come on top
Options = dict[str, Any]


def slow(target: str, kernels: str, options: Options) -> Any:
    return pytest.param(target, kernels, options, marks=pytest.mark.slow)


RUNS = (
    ("cortex-m0", "fast", {}),
    ("cortex-m4", "fast", {}),
    ("cortex-m55", "fast", {}),
    ("host", "fast", {"sanitize": True, "optimise": "-O1"}),
    slow("host", "fast", {"sanitize": True, "optimise": "-O1", "compiler": "clang"}),
    slow("cortex-m3", "fast", {}),
    slow("cortex-m7", "fast", {}),
    slow("cortex-m33", "fast", {}),
    slow("cortex-a7", "fast", {}),
    slow("cortex-a53", "fast", {}),
    slow("cortex-m4", "portable", {}),
    slow("cortex-m4", "fast", {"optimise": "-O0"}),
    slow("cortex-m4", "fast", {"optimise": "-O3"}),
    slow("cortex-m4", "fast", {"compiler": "clang", "optimise": "-Os"}),
    slow("cortex-m55", "fast", {"compiler": "clang"}),
    slow("cortex-m55", "fast", {"lto": True}),
)


@cache
def drawn() -> tuple[Merged, ...]:
    """Samples, drawn layers, and low-rank pairs, whose second layer reads an int16 operand."""
    pairs = [*(draws.low_rank(r) for r in (3, 4, 8)), *(draws.low_rank(r, fine=True) for r in (4, 7))]
    return tuple(merged([*samples(), *draws.extra(), *draws.collect(draws.linears(), 40), *pairs, *wide_linears()]))


@pytest.mark.parametrize(("target", "kernels", "options"), RUNS, ids=str)
def test_samples(target: str, kernels: str, options: Options, tmp_path: Path) -> None:
    models = drawn()
    image = build(models, target, kernels, tmp_path, **options)
    compared = compare(models, image)
    print(f"{len(models)} models, {compared} outputs on {target} {kernels} {options}")
    assert compared >= COMPARED + 40


def wide_linears() -> list[Sample]:
    """Of int16 operands whose sums are too large for packed pairs."""
    return [linear.sample(f"wide_{n}", k, n, x=DType.INT16) for k, n in ((9, 30), (70, 7), (36, 5))]


def fast_linears() -> list[Sample]:
    return [*(s for s in samples() if s.graph.nodes[0].op == "linear" and not s.graph.has_time), *wide_linears()]


# What stands in the emitted assembly, and the fault that takes its place.
ASSEMBLY_FAULTS = (
    ("cortex-m4", "asr r2, r2, #8", "asr r2, r2, #7"),
    ("cortex-m4", "ssat r3, #8, r3", "ssat r3, #7, r3"),
    ("cortex-m4", "smmlar r5, r5, r11, r6", "smmla r5, r5, r11, r6"),
    ("cortex-m4", "sxtb16 r10, r10", "uxtb16 r10, r10"),
    ("cortex-m4", "cmp r4, r8", "cmp r4, r9"),
    ("cortex-m4", "sxtb16 r11, r9, ror #8", "sxtb16 r11, r9"),
    ("cortex-m4", "sxtb16 r10, r9, ror #8", "sxtb16 r10, r8, ror #8"),
    ("cortex-m55", "vrmulh.s32 q1, q1, q3", "vmulh.s32 q1, q1, q3"),
    ("cortex-m55", "vmov q1[2], q1[0], r2, r10", "vmov q1[2], q1[0], r10, r2"),
    ("cortex-m55", "vqadd.s16 q0, q0, r11", "vqsub.s16 q0, q0, r11"),
    ("cortex-m55", "vmax.s16 q0, q0, q1", "vmin.s16 q0, q0, q1"),
    ("cortex-m55", "vctp.16 r9", "vctp.16 r7"),
)


@pytest.mark.parametrize(("target", "good", "bad"), ASSEMBLY_FAULTS, ids=[b for _, _, b in ASSEMBLY_FAULTS])
def test_a_fault_in_the_assembly_is_found(
    target: str, good: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "render_block", planted(good, bad))
    models = merged(fast_linears())
    image = build(models, target, "fast", tmp_path)
    with pytest.raises((AssertionError, HarnessError)):
        compare(models, image)


def planted(good: str, bad: str) -> Callable[[Block], str]:
    return lambda block: render_block(block).replace(good, bad)


def layer_counts(model: Merged, target: str, kernels: str, folder: Path) -> dict[str, tuple[int, float, str]]:
    """(instructions, predicted, kernel) of each layer."""
    machine, options = load_target(target), CompileOptions.checked("m0", "c", kernels, "speed")
    image = build([model], target, kernels, folder)
    counts = count_image(image, [Record(model.inputs(0))])
    assert counts is not None
    planned = schedule(model.graph, machine, options)
    predicted = {c.node.name: (c.choice.instructions, c.choice.kernel) for s in planned.segments for c in s.calls}
    names = [layer.name for layer in image.models[0].layers]
    return {n: (c, *predicted[n]) for n, c in zip(names, counts.layers[0], strict=True) if n in predicted}


@pytest.mark.parametrize(("target", "bound"), [("cortex-m4", 0.953), ("cortex-m7", 0.953), ("cortex-m55", 0.153)])
def test_fully_connected_instructions_per_product(target: str, bound: float, tmp_path: Path) -> None:
    model = merge([s for s in bench() if s.name == "fc_128x128"], "m0")
    [(count, predicted, kernel)] = layer_counts(model, target, "fast", tmp_path).values()
    print(f"{target}: {kernel} {count} instructions, {count / 16384:.4f} per product")
    assert count / 16384 <= bound
    assert abs(predicted - count) < 0.02 * count


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4"])
def test_predictions_of_portable_kernels(target: str, tmp_path: Path) -> None:
    for i, model in enumerate(merged(bench())):
        for name, (count, predicted, kernel) in layer_counts(model, target, "portable", tmp_path / str(i)).items():
            assert 0.55 < predicted / count < 1.5, f"{name} {kernel}: {predicted:.0f} predicted, {count} counted"
