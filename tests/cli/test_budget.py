"""``--budget`` of compress and compile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Result


def test_compress(projgen: Callable[..., Result], small: Path, tmp_path: Path) -> None:
    common = ("compress", small / "net.onnx", "--data", small / "data.npz", "-o", tmp_path / "x.onnx")
    done = projgen(*common, "--budget", "flash=64KiB,ram=16KiB")
    assert done.code == 0, done.err
    assert "On cortex-m4: " in done.out
    assert (tmp_path / "x.onnx").is_file()
    refused = projgen(*common, "--budget", "flash=100", "--target", "cortex-m55")
    assert refused.code == 3
    assert "fits flash 100 on cortex-m55: the smallest that is reachable needs flash" in refused.err
    wrong = projgen(*common, "--budget", "flash=much")
    assert wrong.code == 2
    assert "budget flash 'much' is not understood" in wrong.err
    both = projgen(*common, "--budget", "flash=9KiB", "--ranks", "node_linear=2")
    assert both.code == 2
    assert "given together" in both.err


def test_target_and_budget_agree(projgen: Callable[..., Result], small: Path, tmp_path: Path) -> None:
    common = ("compress", small / "net.onnx", "--data", small / "data.npz", "-o", tmp_path / "x.onnx")
    alone = projgen(*common, "--ranks", "node_linear=2", "--target", "cortex-m7")
    assert alone.code == 2 and "--target without a budget" in alone.err
    for command in (common, ("compile", *common[1:-1], tmp_path / "out")):
        two = projgen(*command, "--budget", "flash=64KiB,target=cortex-m7", "--target", "cortex-m4")
        assert two.code == 2 and "--target cortex-m4 and a budget for cortex-m7" in " ".join(two.err.split())
    assert not list(tmp_path.iterdir())
