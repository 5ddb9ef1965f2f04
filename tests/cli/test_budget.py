"""``--budget`` of compress and compile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from projgen import compress, save
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


def test_a_layer_that_its_factors_make_slower_is_named(projgen: Callable[..., Result], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)).eval()
    x = torch.randn(16, 16, 8, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    for name, ranks in (("slow", {"0": (13, 13)}), ("fast", {"0": (4, 4)})):
        small, _ = compress(model, x, ranks=ranks, verbosity="off", unpack=True)
        save(small, tmp_path / f"{name}.onnx")
        done = projgen(
            "compile", tmp_path / f"{name}.onnx", "--data", tmp_path / "x.npy", "--target", "cortex-m4", "-o",
            tmp_path / name,
        )  # fmt: skip
        assert done.code == 0, done.err
        said = "slower projected than dense on cortex-m4: " in done.out
        assert said is (name == "slow")
        assert not said or "instructions, predicted); a goal for learnables knows no target, --budget does" in done.out
