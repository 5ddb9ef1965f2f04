"""compile with a compression goal measures what int8 loses, tells it, and refuses a level beyond the limit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.quant.test_loss import Offset


@pytest.fixture(scope="module")
def cliff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cliff.onnx, data.npz and labels.npy."""
    folder = tmp_path_factory.mktemp("cliff")
    x = torch.randn(300, 12, generator=torch.Generator().manual_seed(3))
    torch.onnx.export(Offset(40.0).eval(), (x[:2],), folder / "cliff.onnx", dynamo=True, verbose=False)
    np.savez(folder / "data.npz", x=x.numpy())
    with torch.no_grad():
        np.save(folder / "labels.npy", Offset(40.0)(x).argmax(1).numpy())
    return folder


def manifest(folder: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((folder / "model.json").read_text())  # type: ignore[no-any-return]


def test_a_level_that_works_is_told(projgen, small: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    args = ["compile", small / "net.onnx", "--data", small / "data.npz", "-t", "host", "-o", tmp_path / "out"]
    result = projgen(*args, "--ranks", "*=3")
    assert result.code == 0, result.err
    assert "of the class decisions on 64 calibration inputs (expected to cost up to 0.0" in result.out
    assert "; limit 2% and 0.5 points" in result.out
    assert manifest(tmp_path / "out")["int8_loss"]["measure"] == "decisions"
    assert projgen(*args).code == 0
    assert manifest(tmp_path / "out")["int8_loss"] is None


def test_a_level_off_the_cliff_is_refused(projgen, cliff: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    args = ["compile", cliff / "cliff.onnx", "--data", cliff / "data.npz", "-t", "host", "-o", tmp_path / "out"]
    goal = ["--ranks", "first=8"]
    result = projgen(*args, *goal)
    assert result.code == 2
    assert "projgen: int8 changes" in result.err and "Allowed: up to 2% and 0.5 points." in result.err
    assert "--learnables-reduction" in result.err and "--int8-limit" in result.err
    assert not (tmp_path / "out").exists()
    result = projgen(*args, *goal, "--labels", cliff / "labels.npy")
    assert result.code == 2 and "int8 lowers the accuracy by" in result.err and "up to 0.5 points" in result.err
    result = projgen(*args, *goal, "--int8-limit", "1")
    assert result.code == 0, result.err
    assert manifest(tmp_path / "out")["int8_loss"]["value"] > 0.1
    result = projgen(*args, "--int8-limit", "0.02")  # without compression it is measured where a limit is given
    assert result.code == 2
    result = projgen(*args, "--int8-limit", "-1")
    assert result.code == 2 and "a number from 0 on" in result.err
