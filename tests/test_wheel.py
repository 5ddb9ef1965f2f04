"""The wheel carries templates, runtime and targets, and compiles a model outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_installed_wheel_compiles_a_model_from_another_folder(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    # Its dependencies come from the environment that runs the tests (a plain path line: no editable install follows).
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    work = tmp_path / "work"
    work.mkdir()
    torch.onnx.export(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), (torch.zeros(2, 6),), work / "net.onnx", dynamo=True
    )
    np.savez(work / "data.npz", x=np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    where = subprocess.run(
        [python, "-c", "import projgen.resources as r; print(r.root())"],
        cwd=work,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert where.startswith(str(tmp_path / "venv"))
    command = [python, "-m", "projgen", "compile", "net.onnx", "--data", "data.npz", "--target", "host", "-o", "out"]
    subprocess.run(command, cwd=work, env=environment, check=True, capture_output=True)
    manifest = json.loads((work / "out" / "model.json").read_text())
    assert manifest["learnables"] == 6 * 5 + 5 + 5 * 3 + 3
    command = [python, "-m", "projgen", "run", "out", "--inputs", "data.npz", "-o", "y.npz"]
    subprocess.run(command, cwd=work, env=environment, check=True, capture_output=True)
    with np.load(work / "y.npz", allow_pickle=False) as outputs:
        assert next(iter(outputs.values())).shape == (16, 3)
