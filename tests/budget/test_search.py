from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import projgen
from projgen.budget import Budget
from projgen.budget.predict import predict
from projgen.errors import FitError, InputError, InputTypeError
from projgen.targets import load_target


def net() -> tuple[nn.Module, torch.Tensor]:
    """A classifier of inputs that lie near a space of few dimensions."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 6)).eval()
    basis = torch.randn(5, 48, generator=generator)
    x = torch.randn(256, 5, generator=generator) @ basis + 0.05 * torch.randn(256, 48, generator=generator)
    return model, x


def test_a_model_that_fits_is_left_alone() -> None:
    model, x = net()
    found, info = projgen.compress(model, x, budget=Budget(flash="64KiB", ram="16KiB"), verbosity="off")
    assert info.layer_names == [] and info.learnables_reduction == 0.0
    assert torch.equal(found(x), model(x))


@pytest.mark.parametrize("limits", [{"flash": 5500}, {"instructions": 5000}])
def test_the_compiled_model_keeps_the_budget(limits: dict[str, Any], tmp_path: Path) -> None:
    model, x = net()
    before = predict(model, load_target("cortex-m4"), x.numpy())
    assert any(before.cost(name) > limit for name, limit in limits.items())
    found, info = projgen.compress(
        model, x, prune=False, budget=Budget("cortex-m4", **limits), verbosity="off", unpack=True
    )
    assert info.learnables_reduction > 0.0 and info.choice == "measured"
    q = projgen.quantize(found, x)
    manifest = projgen.compile(q, target="cortex-m4", out=tmp_path / "m").manifest
    assert manifest["weight_bytes"] < limits.get("flash", np.inf)
    assert manifest["predicted_instructions"] <= limits.get("instructions", np.inf)
    after = predict(found, load_target("cortex-m4"), x.numpy(), equalise=True)
    assert after.weight_bytes >= manifest["weight_bytes"] and after.arena_bytes >= manifest["arena_bytes"]
    assert after.fits({name: float(limit) for name, limit in limits.items()})


def test_an_impossible_budget_names_what_is_reachable() -> None:
    model, x = net()
    with pytest.raises(
        FitError, match=r"fits flash 300 on cortex-m4: the smallest that is reachable needs flash [1-9]"
    ) as e:
        projgen.compress(model, x, budget=Budget(flash=300), prune=False, verbosity="off")
    assert e.value.exit_code == 3


def test_the_smallest_within_an_accuracy_drop() -> None:
    model, x = net()
    wanted = model(x).argmax(1)

    def metric(candidate: nn.Module) -> float:
        return float((candidate(x).argmax(1) == wanted).float().mean())

    found, info = projgen.compress(
        model, x, budget=Budget(accuracy_drop=0.05, metric=metric), prune=False, verbosity="off"
    )
    assert metric(found) >= 0.95
    assert info.learnables_reduction > 0.3


def test_wrong_use() -> None:
    model, x = net()
    with pytest.raises(InputError, match="ranks and budget were given together"):
        projgen.compress(model, x, ranks={"0": 3}, budget=Budget(flash=5000))
    with pytest.raises(InputTypeError, match="budget of type str"):
        projgen.compress(model, x, budget="flash=3")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a budget with method 'pca'"):
        projgen.compress(model, x, budget=Budget(flash=5000), method="pca")
