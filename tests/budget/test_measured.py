"""What a budget promised, counted on the emulated core: limits, predictions, and every byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import projgen
from projgen.budget import Budget
from projgen.budget.predict import predict
from projgen.options import CompileOptions
from projgen.schedule import schedule
from projgen.schedule.records import Kind
from projgen.targets import load_target
from tests.budget.test_search import beats

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_limits_hold_as_measured(target: str, tmp_path: Path) -> None:
    model, x = beats()
    machine = load_target(target)
    dense = predict(model, machine, x.numpy())
    limits = {"instructions": 0.8 * dense.instructions, "flash": dense.flash - 0.3 * dense.weight_bytes}
    small, _ = projgen.compress(model, x, budget=Budget(machine, **limits), unpack=True, prune=False, verbosity="off")
    q = projgen.quantize(small, x)
    artifact = projgen.compile(q, target=target, out=tmp_path / "small")
    inputs = [part.numpy() for part in torch.split(x[:4], 1)]
    artifact.verify(inputs)
    counted = artifact.measure(inputs)
    expected = predict(q, machine, x.numpy())
    assert counted.instructions is not None
    assert counted.instructions <= limits["instructions"]
    assert counted.instructions == pytest.approx(expected.instructions, rel=0.05)
    assert counted.weight_bytes == expected.weight_bytes and counted.flash_bytes <= 1.05 * limits["flash"]


def test_rows_of_few_pixels_are_predicted(tmp_path: Path) -> None:
    """A row of five pixels takes two blocks of four: row by row a pair of pointwise layers costs much more."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 20, 1, bias=False), nn.Conv2d(20, 40, 1), nn.ReLU()).eval()
    x = torch.randn(8, 32, 25, 5)
    q = projgen.quantize(model, x, equalise=False)
    machine = load_target("cortex-m55")
    planned = schedule(q.graph, machine, CompileOptions(optimise="ram"))
    assert [segment.kind for segment in planned.segments] == [Kind.ROWS]
    artifact = projgen.compile(q, target="cortex-m55", out=tmp_path / "rows", optimise="ram")
    inputs = [x[:1].numpy()]
    artifact.verify(inputs)
    counted, expected = artifact.measure(inputs), predict(q, machine, x.numpy(), optimise="ram")
    fast = predict(q, machine, x.numpy())
    assert counted.instructions == pytest.approx(expected.instructions, rel=0.03)
    assert expected.instructions > 1.4 * fast.instructions
