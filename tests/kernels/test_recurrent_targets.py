"""LSTM and GRU through the whole chain on emulated cores: the simulator's bytes, whole and step by step, and costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from projgen.artifact import Artifact
from projgen.driver import compile as compile_model
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.interpreter import run_integer
from projgen.ops.record import Sample
from projgen.ops.recurrent_samples import Case, sample
from projgen.quant.model import QuantizedModel
from tests.kernels.images import Merged, build, merged
from tests.kernels.recurrent_cases import LARGE, samples

pytestmark = pytest.mark.qemu

ON = [
    ("cortex-m0", "portable", "-O2", "gcc"),
    ("cortex-m3", "fast", "-O2", "gcc"),
    ("cortex-m3", "fast", "-Os", "clang"),
    ("cortex-m4", "fast", "-O0", "gcc"),
    ("cortex-m4", "fast", "-O3", "gcc"),
    ("cortex-m4", "fast", "-Os", "clang"),
    ("cortex-m7", "fast", "-O2", "gcc"),
    ("cortex-m33", "fast", "-O2", "gcc"),
    ("cortex-m55", "fast", "-Os", "gcc"),
    ("cortex-m55", "fast", "-O2", "clang"),
    ("cortex-a53", "portable", "-O2", "gcc"),
    ("cortex-a7", "fast", "-O2", "gcc"),
    ("cortex-a76", "fast", "-O3", "gcc"),
]

DENSE = Case("dense", Lstm, 12, 100)
FACTORED = Case("factored", Lstm, 12, 100, ranks=(8, 7), spread=200.0)
JOINT = Case("joint", Lstm, 12, 26, ranks=(14, 14), spread=300.0, joint=True)
PAIRED = Case("paired", Lstm, 28, 20, k=2)
GATED = Case("gated", Gru, 12, 64, k=1)


def models() -> list[Merged]:
    """All samples; those that run backwards apart."""
    made = [*samples(), *map(sample, LARGE)]
    backwards = [s for s in made if s.graph.nodes[0].attrs.reverse]  # type: ignore[union-attr]
    return [*merged(s for s in made if s not in backwards), *merged(backwards)]


def is_backwards(model: Merged) -> bool:
    return bool(model.samples[0].graph.nodes[0].attrs.reverse)  # type: ignore[union-attr]


@pytest.mark.parametrize(("target", "kernels", "optimise", "compiler"), ON)
def test_bytes_of_every_sample(target: str, kernels: str, optimise: str, compiler: str, tmp_path: Path) -> None:
    made = models()
    image = build(made, target, kernels, tmp_path, optimise=optimise, compiler=compiler)
    records, wanted = [], []
    for place, model in enumerate(made):
        for batch in range(model.batches):
            inputs = model.inputs(batch)
            meant = run_integer(model.graph, [x[None] for x in inputs])
            for mode in ("run",) if is_backwards(model) else ("run", "step"):
                records.append(Record(inputs, model=place, mode=mode, misalign=batch % 4))  # type: ignore[arg-type]
                wanted.append(meant)
    compared = 0
    for record, result, outputs in zip(records, execute(image, records), wanted, strict=True):
        for port, actual, expected in zip(made[record.model].graph.outputs, result.outputs, outputs, strict=True):
            np.testing.assert_array_equal(actual.ravel(), expected.ravel(), err_msg=f"{port.value} {record.mode}")
            compared += 1
    assert compared >= 5 * (len(samples()) + len(LARGE))


def artifact(case: Case, target: str, folder: Path, kernels: str = "fast") -> Artifact:
    return compile_model(QuantizedModel(sample(case).graph), target=target, out=folder / case.name, kernels=kernels)


def step_cost(case: Case, target: str, folder: Path, kernels: str = "fast") -> float:
    """Instructions of one step, the run function's share included."""
    measured = artifact(case, target, folder / kernels, kernels).measure()
    assert measured.instructions is not None
    return measured.instructions / measured.steps


@pytest.mark.parametrize(("target", "dense", "gated"), [("cortex-m4", 1.02, 1.08), ("cortex-m55", 0.18, 0.24)])
def test_cost_of_a_step(target: str, dense: float, gated: float, tmp_path: Path) -> None:
    macs, gated_macs = 4 * 100 * 112, 3 * 64 * 76
    fast = step_cost(DENSE, target, tmp_path)
    assert fast / macs < dense
    assert step_cost(GATED, target, tmp_path) / gated_macs < gated
    assert step_cost(FACTORED, target, tmp_path) < {"cortex-m4": 0.26, "cortex-m55": 0.44}[target] * fast
    assert fast < 0.4 * step_cost(DENSE, target, tmp_path, "portable")


@pytest.mark.parametrize("target", ["cortex-m3", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("case", [DENSE, FACTORED, JOINT, PAIRED, GATED], ids=lambda c: c.name)
def test_predicted_instructions(case: Case, target: str, tmp_path: Path) -> None:
    folder = artifact(case, target, tmp_path)
    (layer, *_) = folder.measure().layers
    measured = (layer.instructions or 0) / folder.measure().steps
    assert abs(folder.manifest["layers"][0]["predicted_instructions"] / measured - 1) < 0.05


def test_cost_of_a_step_without_dsp_instructions(tmp_path: Path) -> None:
    fast = step_cost(DENSE, "cortex-m3", tmp_path)
    assert fast / (4 * 100 * 112) < 1.75
    assert fast < 0.35 * step_cost(DENSE, "cortex-m3", tmp_path, "portable")
    assert step_cost(FACTORED, "cortex-m3", tmp_path) < 0.5 * step_cost(FACTORED, "cortex-m3", tmp_path, "portable")
    assert step_cost(GATED, "cortex-m3", tmp_path) < 0.45 * step_cost(GATED, "cortex-m3", tmp_path, "portable")


def test_last_units_share_blocks_of_two_gates(tmp_path: Path) -> None:
    """The last 4 of 20 units take two blocks of eight rows, not four, in instructions and in flash."""
    assert step_cost(PAIRED, "cortex-m55", tmp_path) < 1100
    layer = artifact(PAIRED, "cortex-m55", tmp_path / "sizes").manifest["layers"][0]
    assert layer["weight_bytes"] == 10 * (8 * 64 + 64)


@pytest.mark.parametrize(("target", "most"), [("cortex-m4", 3300), ("cortex-m55", 1100)])
def test_a_joint_layer_costs_less_than_its_two_factors(target: str, most: int, tmp_path: Path) -> None:
    """One z instead of two, one first factor in the stream."""
    apart = replace(JOINT, name="apart", joint=False)
    assert step_cost(JOINT, target, tmp_path) < min(most, 0.75 * step_cost(apart, target, tmp_path))
    one, two = (artifact(c, target, tmp_path / "sizes").manifest["layers"][0] for c in (JOINT, apart))
    assert one["weight_bytes"] < 0.67 * two["weight_bytes"]
    assert (one["ranks"], two["ranks"]) == ([14], [14, 14])


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("case", [DENSE, FACTORED, JOINT, GATED], ids=lambda c: c.name)
def test_instructions_are_affine_in_the_length(case: Case, target: str, tmp_path: Path) -> None:
    folder = artifact(replace(case, name="net"), target, tmp_path)
    counts = []
    for steps in (3, 5, 9):
        x = np.random.default_rng(steps).normal(size=(1, steps, case.inputs)).astype(np.float32)
        counts.append(folder.measure(x).instructions)
    three, five, nine = (int(c) for c in counts if c is not None)
    assert (five - three) * 2 == nine - five


@pytest.mark.parametrize(
    ("case", "target", "kernel"),
    [
        (DENSE, "cortex-m4", "lstm_dsp"),
        (GATED, "cortex-m33", "gru_dsp"),
        (FACTORED, "cortex-m55", "lstm_mve"),
        (GATED, "cortex-m55", "gru_mve"),
        (JOINT, "cortex-m7", "lstm_dsp"),
        (JOINT, "cortex-m55", "lstm_mve"),
        (JOINT, "cortex-m0", "lstm_portable"),
        (DENSE, "cortex-m3", "lstm_thumb2"),
        (GATED, "cortex-m3", "gru_thumb2"),
        (JOINT, "cortex-m3", "lstm_thumb2"),
    ],
)
def test_kernel_chosen(case: Case, target: str, kernel: str, tmp_path: Path) -> None:
    made: Sample = sample(case)
    folder = compile_model(QuantizedModel(made.graph), target=target, out=tmp_path / "out")
    assert [layer["kernel"] for layer in folder.manifest["layers"]] == [kernel]
