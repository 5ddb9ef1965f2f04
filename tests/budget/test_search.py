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
from tests.budget.test_restore import Recurrent


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


def beats() -> tuple[nn.Module, torch.Tensor]:
    """A network of three strided convolutions and two fully connected layers, on sums of a few slow waves."""
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv1d(1, 8, 7, stride=2, padding=3), nn.ReLU(), nn.Conv1d(8, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv1d(16, 32, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool1d(5), nn.Flatten(), nn.Linear(64, 32),
        nn.ReLU(), nn.Linear(32, 2),
    ).eval()  # fmt: skip
    time = torch.arange(80) / 80
    waves = torch.stack([torch.sin(2 * torch.pi * k * time + k) for k in range(1, 7)])
    return model, (torch.randn(200, 6) @ waves)[:, None]


@pytest.mark.parametrize(
    ("target", "limit", "prune"),
    [("cortex-m4", "instructions", False), ("cortex-m55", "instructions", False), ("cortex-m55", "flash", "auto")],
)
def test_no_layer_is_slower_or_larger_than_dense(target: str, limit: str, prune: bool | str) -> None:
    model, x = beats()
    machine = load_target(target)
    dense = predict(model, machine, x.numpy())
    allowed = {"instructions": 0.8 * dense.instructions, "flash": dense.flash - 0.4 * dense.weight_bytes}[limit]
    budget = Budget(machine, **{limit: allowed})
    small, info = projgen.compress(model, x, budget=budget, prune=prune, verbosity="off")
    found = predict(projgen.unpack_projected_layers(small), machine, x.numpy(), equalise=True)
    assert found.cost(limit) <= allowed
    assert info.layer_names or prune
    for name in (d.name for d in info.layers):
        before, after = ([c for c in f.layers if c.belongs(name)] for f in (dense, found))
        assert sum(c.instructions for c in after) <= sum(c.instructions for c in before), name
        assert sum(c.weight_bytes for c in after) <= sum(c.weight_bytes for c in before), name


def test_units_are_those_of_whole_blocks() -> None:
    model, x = beats()
    dense = predict(model, load_target("cortex-m55"), x.numpy())
    budget = Budget("cortex-m55", instructions=0.5 * dense.instructions)
    assert budget.block == 8 and Budget("cortex-m4", flash=1).block == 4 and Budget("cortex-m3", flash=1).block == 1
    _, info = projgen.compress(model, x, budget=budget, prune=True, verbosity="off")
    assert all(d.units[1] % 8 == 0 or d.units[1] < 8 for d in info.layers[:-1])
    assert any(d.units[1] < d.units[0] for d in info.layers)


def test_ram_is_kept_too() -> None:
    model, x = beats()
    machine = load_target("cortex-m55")
    dense = predict(model, machine, x.numpy())
    small, info = projgen.compress(model, x, budget=Budget(machine, ram=int(0.75 * dense.ram)), verbosity="off")
    found = predict(projgen.unpack_projected_layers(small), machine, x.numpy(), equalise=True)
    assert found.ram <= 0.75 * dense.ram < dense.ram
    assert info.learnables_reduction > 0.0


def test_a_recurrent_network_and_its_reader() -> None:
    """Whatever of the projector they share, the two together are neither slower nor larger than dense."""
    torch.manual_seed(6)
    model = Recurrent(nn.LSTM).eval()
    x = torch.randn(64, 3) @ torch.randn(3, 6)
    x = x[:, None] * torch.linspace(1.0, 0.2, 9)[:, None]
    machine = load_target("cortex-m55")
    dense = predict(model, machine, x.numpy())
    budget = Budget(machine, instructions=0.75 * dense.instructions, flash=dense.flash - 0.3 * dense.weight_bytes)
    small, info = projgen.compress(model, x, budget=budget, verbosity="off")
    found = predict(projgen.unpack_projected_layers(small), machine, x.numpy(), equalise=True)
    assert found.fits(budget.limits)
    assert found.instructions <= dense.instructions and found.weight_bytes <= dense.weight_bytes
    assert info.learnables_reduction > 0.2 and info.output_error < 0.1
