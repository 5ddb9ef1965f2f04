"""The commands end to end on a small model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest


def test_help_answers_quickly_and_without_heavy_imports() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); from projgen.cli import run; code = run(['--help']);"
        "heavy = {'torch', 'onnx', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules);"
        "print(time.perf_counter() - t, file=sys.stderr); sys.exit(code or bool(heavy))"
    )
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        best = min(best, time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    for command in ("analyze", "compress", "compile", "run", "bench", "explore", "report", "targets", "doctor"):
        assert command in done.stdout


def test_targets_lists_all(projgen) -> None:
    result = projgen("targets")
    assert result.code == 0
    for name in ("host", "cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-a53"):
        assert name in result.out


def test_doctor_says_all_is_here(projgen) -> None:
    result = projgen("doctor")
    assert result.code == 0
    assert "arm-none-eabi-gcc" in result.out


def test_analyze_names_every_layer(projgen, small: Path) -> None:
    result = projgen("analyze", small / "net.onnx", "--data", small / "data.npz")
    assert result.code == 0, result.err


def test_compress_then_compile_run_bench_report(projgen, small: Path, tmp_path: Path) -> None:
    compressed = tmp_path / "small.onnx"
    result = projgen(
        "compress", small / "net.onnx", "--data", small / "data.npz", "--learnables-reduction", "0.3", "-o", compressed
    )
    assert result.code == 0, result.err
    folder = tmp_path / "out"
    result = projgen("compile", compressed, "--data", small / "data.npz", "-t", "host", "-o", folder, "--name", "kws")
    assert result.code == 0, result.err
    expected = {"kws.h", "kws.c", "kws_weights.h", "kws_kernels.h", "CMakeLists.txt", "kws.json", "kws.qmodel"}
    expected |= {"kws_test_vectors.h", "main.c"}
    assert expected == {p.name for p in folder.iterdir()}
    result = projgen("run", folder, "--inputs", small / "data.npz", "-o", tmp_path / "y.npz")
    assert result.code == 0, result.err
    assert "64 inferences on host, every byte the simulator's" in result.out
    with np.load(tmp_path / "y.npz", allow_pickle=False) as archive:
        (y,) = archive.values()
    labels = np.load(small / "labels.npy")
    agreement = float(np.mean(y.argmax(1) == labels))
    figures = tmp_path / "figures.json"
    result = projgen(
        "bench", folder, "--inputs", small / "data.npz", "--labels", small / "labels.npy", "--json", figures
    )
    assert result.code == 0, result.err
    (measurement,) = json.loads(figures.read_text())
    assert measurement["accuracy"] == pytest.approx(agreement)
    result = projgen("report", folder)
    assert result.code == 0, result.err
    page = (folder / "report.html").read_text()
    assert "kws" in page and "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.qemu
def test_a_folder_compiled_for_one_target_runs_on_another(projgen, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert projgen("compile", small / "net.onnx", "--data", small / "data.npz", "-t", "host", "-o", folder).code == 0
    outputs = []
    for target in ("host", "cortex-m0", "cortex-m55"):
        result = projgen(
            "run", folder, "--inputs", small / "data.npz", "-o", tmp_path / f"{target}.npz", "--target", target
        )
        assert result.code == 0, result.err
        with np.load(tmp_path / f"{target}.npz", allow_pickle=False) as archive:
            outputs.append(next(iter(archive.values())))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_pt2_compiles_to_the_same_bytes_as_the_onnx_file(projgen, small: Path, tmp_path: Path) -> None:
    for ending in ("onnx", "pt2"):
        file = tmp_path / f"small.{ending}"
        args = ["--data", small / "data.npz", "--ranks", "*=3", "-o", file]
        assert projgen("compress", small / "net.onnx", *args).code == 0
        result = projgen("compile", file, "--data", small / "data.npz", "-t", "host", "-o", tmp_path / ending)
        assert result.code == 0, result.err
    hashes = [json.loads((tmp_path / e / "model.json").read_text())["hash"] for e in ("onnx", "pt2")]
    assert hashes[0] == hashes[1]


@pytest.mark.qemu
def test_bench_puts_two_builds_side_by_side(projgen, small: Path, tmp_path: Path) -> None:
    for name, kernels in (("fast", "fast"), ("plain", "portable")):
        compiling = ("compile", small / "net.onnx", "--data", small / "data.npz", "-t", "cortex-m4", "--name", name)
        assert projgen(*compiling, "--kernels", kernels, "-o", tmp_path / name).code == 0
    figures = tmp_path / "figures.json"
    result = projgen("bench", tmp_path / "fast", "--compare", tmp_path / "plain", "--json", figures)
    assert result.code == 0, result.err
    ours, other = json.loads(figures.read_text())
    assert (ours["model"], other["model"], ours["target"], other["target"]) == (
        "fast",
        "plain",
        "cortex-m4",
        "cortex-m4",
    )
    assert ours["instructions"] < other["instructions"] and ours["macs"] == other["macs"]
    assert f"{ours['instructions'] / other['instructions']:.3f}" in result.out
    for layer in (*ours["layers"], *other["layers"]):
        assert f"{layer['instructions']:,d}" in result.out


def test_two_builds_of_one_name_are_told_apart_by_their_folders() -> None:
    from projgen.cli.app import headings

    one, two = Path("a"), Path("b")
    assert headings(one, two, "kws", "kws") == ("a", "b")
    assert headings(one, two, "kws", "dense") == ("kws", "dense")


def test_bench_against_a_folder_that_is_none(projgen, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert projgen("compile", small / "net.onnx", "--data", small / "data.npz", "-t", "host", "-o", folder).code == 0
    result = projgen("bench", folder, "--compare", tmp_path / "nowhere")
    assert result.code == 2
    assert "nowhere" in result.err


def test_dump_ir_shows_the_factors_of_a_projected_model(projgen, small: Path, tmp_path: Path) -> None:
    args = ["--data", small / "data.npz", "-t", "host", "--ranks", "*=2", "-o", tmp_path / "out"]
    result = projgen("compile", small / "net.onnx", *args, "--dump-ir", tmp_path / "ir")
    assert result.code == 0, result.err
    names = sorted(p.name for p in (tmp_path / "ir").iterdir())
    assert names[0] == "00-import.txt" and names[-1].endswith("-schedule.txt")
    quantised = next(n for n in names if n.endswith("-quantise.txt"))
    assert ": int16[2]" in (tmp_path / "ir" / quantised).read_text()
    result = projgen("compile", small / "net.onnx", *args, "--dump-ir", tmp_path / "out" / "ir")
    assert result.code == 2 and "--dump-ir" in result.err
