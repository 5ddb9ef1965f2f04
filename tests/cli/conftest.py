"""A small model and its data, as files, for the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn


class Result:
    """What a command left: exit code and texts."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


@pytest.fixture
def projgen(capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run one command in this process: ``projgen("compile", ...) -> Result``."""
    from projgen.cli import run

    def call(*argv: object) -> Result:
        capfd.readouterr()
        code = run([str(a) for a in argv])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


def projgen_process(*argv: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> Result:
    """Run one command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "projgen", *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=cwd,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.onnx (Linear 12 -> 16 -> 4), data.npz and labels.npy."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    torch.onnx.export(model, (torch.zeros(2, 12),), folder / "net.onnx", dynamo=True)
    x = np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32)
    np.savez(folder / "data.npz", x=x)
    with torch.no_grad():
        np.save(folder / "labels.npy", model(torch.from_numpy(x)).argmax(1).numpy())
    return folder
