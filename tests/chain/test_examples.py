"""Both examples to their end: their figures, their page, and their models' bytes on every other core."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import projgen
from projgen.harness.disassembly import disassemble
from projgen.quant.model import QuantizedModel
from tests.chain.example_runs import EXAMPLES, FORMS, TESTED, Run, example_module, run_once
from tests.chain.support import CORES, build, compare

pytestmark = [pytest.mark.qemu, pytest.mark.slow]
TARGETS = ("cortex-m4", "cortex-m55")
POINT = 0.01 + 1e-9


@pytest.fixture(scope="module")
def vowels(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_once("japanese_vowels", tmp_path_factory)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_once("digits", tmp_path_factory)


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> Run:
    made: Run = request.getfixturevalue("vowels" if request.param == "japanese_vowels" else "digits")
    return made


def test_vowels_reach_their_figures(vowels: Run) -> None:
    base, projected = vowels.row("float"), vowels.row("projected float")
    assert base.accuracy >= 0.90
    assert base.learnables == 4 * 100 * (12 + 100 + 1) + 9 * 101
    assert projected.learnables == 7641
    assert round(100 * (1 - projected.learnables / base.learnables), 1) == 83.4
    for target in TARGETS:
        assert abs(vowels.row("int8", target).accuracy - base.accuracy) <= POINT
        assert abs(vowels.row("projected int8", target).accuracy - projected.accuracy) <= POINT
    assert len(vowels.levels) >= 4
    assert vowels.levels[83.4] == (projected.learnables, projected.accuracy)
    assert "byte for byte on 370 test utterances" in vowels.printed


def test_digits_reach_their_figures(digits: Run) -> None:
    base = digits.row("float")
    assert base.accuracy >= 0.97
    projected = digits.row("projected int8", "cortex-m4")
    (tuned,) = (accuracy for learnables, accuracy in digits.levels.values() if learnables == projected.learnables)
    for target in TARGETS:
        assert abs(digits.row("int8", target).accuracy - base.accuracy) <= POINT
        assert abs(digits.row("projected int8", target).accuracy - tuned) <= POINT
    assert projected.learnables <= 0.3 * base.learnables
    assert "byte for byte on 500 test images" in digits.printed


def test_the_report_is_light_and_self_contained(example: Run) -> None:
    page = example.report
    assert 10_000 < len(page.encode()) < 1_000_000
    assert not re.search(r"<(script|link|iframe|img)\b|@import|url\((?!#)", page)
    assert not re.search(r'(src|href)="(?!#)', page), "nothing is loaded from elsewhere"
    assert all(page.count(word) for word in ("<svg", "int8", *TARGETS))


def test_every_target_has_the_same_model(example: Run) -> None:
    for form in FORMS:
        first, second = (example.model(form, target).digest() for target in TARGETS)
        assert first == second


def test_the_onnx_file_is_the_same_model(vowels: Run) -> None:
    """Quantised on the same data, with its factors intact, in another process than the one that wrote it."""
    loaded = projgen.load_onnx(vowels.folder / "projected.onnx")
    again = projgen.quantize(loaded, calibration_of_vowels())
    meant = vowels.model("projected_int8")
    assert ranks(again) == ranks(meant) == {"lstm": (8, 7)}
    for (x,) in vowels.part("projected_int8").vectors:
        assert (again.run_int(x[None]) == meant.run_int(x[None])).all()


def calibration_of_vowels() -> list[Any]:
    train, _ = example_module("datasets").japanese_vowels()
    return list(example_module("training").batches_of_equal_length(train.x))


def ranks(q: QuantizedModel) -> dict[str, tuple[int, int]]:
    """Input and recurrent rank of each LSTM."""
    return {
        n.op: (q.graph.data(n, "q_in").shape[0], q.graph.data(n, "q_out").shape[0])
        for n in q.graph.nodes
        if n.op == "lstm"
    }


BUILDS: list[tuple[str, dict[str, Any]]] = [
    *((core, {"optimise": flag}) for core in CORES for flag in ("-O0", "-O2")),
    *(("cortex-m4", {"optimise": flag}) for flag in ("-Os", "-O3")),
    ("cortex-a53", {}),
    ("cortex-a7", {}),
    *(("host", {"optimise": flag}) for flag in ("-O0", "-Os", "-O2", "-O3")),
    *(("host", {"optimise": "-O1", "sanitize": True, "compiler": compiler}) for compiler in ("gcc", "clang")),
]


@pytest.mark.parametrize(
    ("target", "options"), BUILDS, ids=[f"{t} {' '.join(map(str, o.values()))}" for t, o in BUILDS]
)
def test_both_examples_everywhere(
    target: str, options: dict[str, Any], vowels: Run, digits: Run, tmp_path: Path
) -> None:
    """Equal bytes on test inputs, and nothing of floating point below run, reset and step."""
    parts = [run.part(form) for run in (vowels, digits) for form in FORMS]
    image = build(parts, target, tmp_path, **options)
    assert compare(image, parts).runs >= 4 * TESTED
    if target != "host":
        code = disassemble(image.elf, image.target)
        names = [name for model in image.models for name in model.run_functions]
        assert len(names) == 2 * 3 + 2 and all(code.functions.named(name) for name in names)
        assert code.float_uses(names) == []
        helpers = [f"{model.name}_quantize_input" for model in image.models]
        assert not set(helpers) & {f.base_name for f in code.reachable(names)}
