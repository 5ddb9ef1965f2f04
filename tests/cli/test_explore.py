"""``projgen explore``: what it writes and prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_explore_writes_models_table_and_plot_and_resumes(projgen, small: Path, tmp_path: Path) -> None:
    args = ["explore", small / "net.onnx", "--data", small / "data.npz", "--labels", small / "labels.npy"]
    args += ["--closed-form", "--parallel", "threading", "-o", tmp_path / "out"]
    result = projgen(*args, "--levels", "0.5,0.3", "--method", "output", "--method", "pca", "--format", "pt2")
    assert result.code == 0, result.err
    for name in ("dense", "output-0.3", "output-0.5", "pca-0.3", "pca-0.5"):
        assert name in result.out
    whole = json.loads((tmp_path / "out" / "explore.json").read_text())
    assert whole["results"][0]["accuracy"] == 1.0
    assert (tmp_path / "out" / "output-0.5.pt2").is_file() and (tmp_path / "out" / "pareto.svg").is_file()
    result = projgen(*args, "--levels", "0.3,0.4", "--format", "pt2")
    assert result.code == 0, result.err
    assert "Taken over, finished before: dense, output-0.3" in result.out
    result = projgen(
        "compile", tmp_path / "out" / "output-0.5.pt2", "--data", small / "data.npz", "-t", "host", "-o", tmp_path / "c"
    )
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--levels", "half"], "levels 'half'"),
        (["--levels", "0.5,1.5"], "level 1.5"),
        (["--levels", "0.5", "--labels", "none.npy"], "none.npy' was not found"),
        (["--levels", "0.5", "--jobs", "0"], "jobs=0"),
        (["--levels", "0.5", "--method", "best"], "--method"),
    ],
)
def test_wrong_use_exits_2_and_writes_nothing(
    projgen, small: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "out"
    result = projgen("explore", small / "net.onnx", "--data", small / "data.npz", *options, "-o", out)
    assert result.code == 2 and "Traceback" not in result.err
    assert message in result.err
    assert not out.exists()
