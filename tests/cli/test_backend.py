"""The back end options of the command line."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest


@pytest.fixture
def library() -> Path:
    """The CMSIS-NN inside a development dependency."""
    files = metadata.files("bakenn") or []
    header = next(f for f in files if f.as_posix().endswith("cmsis_nn/Include/arm_nnfunctions.h"))
    return Path(str(header.locate())).parent.parent


def test_cmsis_nn_through_compile_run_bench(projgen, small: Path, library: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("CMSIS_NN_ROOT", raising=False)
    folder, named = tmp_path / "out", ("--cmsis-nn", library.parent)
    data = small / "data.npz"
    compiling = ("compile", small / "net.onnx", "--data", data, "-t", "host", "-o", folder, "--backend", "cmsis-nn")
    result = projgen(*compiling)
    assert result.code == 2
    assert result.err.count("\n") <= 6
    assert "needs CMSIS-NN, and no folder is named" in " ".join(result.err.split())
    assert not folder.exists()
    result = projgen(*compiling, *named)
    assert result.code == 0, result.err
    manifest = json.loads((folder / "model.json").read_text())
    assert manifest["options"]["backend"] == "cmsis-nn"
    assert any(row["kernel"].endswith("cmsis_nn") for row in manifest["layers"])
    texts = b"".join(p.read_bytes() for p in folder.iterdir())
    assert str(library.parent.parent).encode() not in texts
    result = projgen("run", folder, "--inputs", data, "-o", tmp_path / "y.npz")
    assert result.code == 2
    result = projgen("run", folder, "--inputs", data, "-o", tmp_path / "y.npz", *named)
    assert result.code == 0, result.err
    monkeypatch.setenv("CMSIS_NN_ROOT", str(library))
    result = projgen("bench", folder, "--inputs", data)
    assert result.code == 0, result.err
    assert "cmsis_nn" in result.out


def test_unknown_back_ends_are_refused(projgen, small: Path, tmp_path: Path) -> None:
    result = projgen(
        "compile",
        small / "net.onnx",
        "--data",
        small / "data.npz",
        "-t",
        "host",
        "-o",
        tmp_path / "o",
        "--backend",
        "x",
    )
    assert result.code == 2
    assert "cmsis-nn" in result.err
