"""What compress refuses, and how it says so; what it prints."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import projgen
from projgen.errors import InputError, InputTypeError, ProjgenError


@pytest.fixture(scope="module")
def setup() -> tuple[nn.Module, projgen.NeuronPCA]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    return model, projgen.NeuronPCA(model, torch.randn(100, 20), verbosity="off")


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"method": "svd"}, InputError, r"method 'svd'\. Allowed: 'output' or 'pca'\. Change it in: method"),
        (
            {"explained_variance_goal": 0.9, "ranks": {"0": 3}},
            InputError,
            r"explained_variance_goal and ranks were given together\. Allowed: at most one",
        ),
        ({"explained_variance_goal": 1.5}, InputError, r"explained_variance_goal=1\.5\. Allowed: a number from 0 to 1"),
        ({"learnables_reduction_goal": -0.1}, InputError, r"learnables_reduction_goal=-0\.1\. Allowed: a number"),
        ({"learnables_reduction_goal": float("nan")}, InputError, r"learnables_reduction_goal=nan"),
        ({"learnables_reduction_goal": "half"}, InputTypeError, r"learnables_reduction_goal='half'"),
        ({"ranks": [3]}, InputTypeError, r"ranks of type list\. Allowed: a dict"),
        (
            {"ranks": {"9": 3}},
            InputError,
            r"ranks for '9', which is none of the layers to project\. Allowed: one of 0, 2",
        ),
        ({"ranks": {"0": 31}}, InputError, r"rank 31 for layer '0'\. Allowed: 1 to 20"),
        ({"ranks": {"0": 0}}, InputError, r"rank 0 for layer '0'\. Allowed: 1 to 20"),
        ({"ranks": {"0": 2.5}}, InputTypeError, r"rank 2\.5 for layer '0'\. Allowed: whole numbers or None"),
        ({"ranks": {"0": (2, 3)}}, InputError, r"an output rank for the fully connected layer '0'"),
        ({"ranks": {"0": (1, 2, 3)}}, InputError, r"ranks \(1, 2, 3\) for layer '0'\. Allowed: r, \(r_in, r_out\)"),
        ({"verbosity": "loud"}, InputError, r"verbosity 'loud'\. Allowed: off, summary, steps, iterations"),
    ],
)
def test_bad_arguments(
    setup: tuple[nn.Module, projgen.NeuronPCA], options: dict[str, Any], kind: type[ProjgenError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        projgen.compress(*setup, **{"verbosity": "off", **options})


def test_a_device_that_does_not_exist(setup: tuple[nn.Module, projgen.NeuronPCA]) -> None:
    with pytest.raises(InputError, match=r"device 'tpu9'\. Allowed: a torch device, .*Change it in: device"):
        projgen.NeuronPCA(setup[0], torch.randn(20, 20), device="tpu9", verbosity="off")


def test_a_pt2_file_is_no_model_to_project() -> None:
    with pytest.raises(InputError, match=r"'net\.pt2': the layers .* are no modules any more.*an \.onnx file"):
        projgen.compress("net.pt2", torch.randn(20, 20))


def test_arguments_that_do_not_exist_are_a_type_error(setup: tuple[nn.Module, projgen.NeuronPCA]) -> None:
    with pytest.raises(TypeError, match="rank_goal"):
        projgen.compress(*setup, rank_goal=3)  # type: ignore[call-arg]


def test_ranks_that_cost_more_than_dense_stay_dense_with_a_warning(
    setup: tuple[nn.Module, projgen.NeuronPCA],
) -> None:
    for method in ("pca", "output"):
        with pytest.warns(UserWarning, match=r"ranks 13 of layer '0' would cost more learnables than the dense"):
            _, info = projgen.compress(*setup, ranks={"0": 13, "2": 3}, method=method, verbosity="off")
        assert info.layer_names == ["2"]


def test_fewer_observations_than_dimensions_are_warned_of(setup: tuple[nn.Module, projgen.NeuronPCA]) -> None:
    with pytest.warns(UserWarning, match="fewer observations than dimensions for 0, 2"):
        projgen.compress(setup[0], torch.randn(10, 20), ranks={"0": 3}, verbosity="off")


def test_no_ranks_leaves_a_layer_or_a_projector_out() -> None:
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), torch.randn(30, 8, 7, 7)
    projected, info = projgen.compress(model, x, ranks={"0": None, "2": (None, 3)}, verbosity="off")
    assert info.layer_names == ["2"] and info.layers[1].ranks == (None, 3)
    assert not hasattr(projected[2].network, "input_projector")


def test_the_summary_names_layers_that_lost_units(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight[8:], model[0].bias[8:] = model[0].weight[:8], model[0].bias[:8]
    _, info = projgen.compress(model, torch.randn(200, 6), learnables_reduction_goal=0.45, prune=True)
    before, after = info.layers[0].units
    assert after < before
    assert f'Units or channels left of 1 layers: "0" {before} -> {after}\n' in capsys.readouterr().out


def test_verbosity(setup: tuple[nn.Module, projgen.NeuronPCA], capsys: pytest.CaptureFixture[str]) -> None:
    def printed(level: str) -> str:
        projgen.compress(*setup, ranks={"0": 3}, verbosity=level)
        return capsys.readouterr().out

    off, summary, steps, iterations = (printed(v) for v in ("off", "summary", "steps", "iterations"))
    assert off == ""
    assert summary.endswith('Projection compressed 1 layers: "0"\n') and summary.count("\n") == 2
    assert "Choosing ranks of 2 layers" in steps and "630 -> 180" in steps
    assert "0: ranks (3, None), 630 -> 180 learnables" in iterations


def test_data_is_checked_too() -> None:
    model = nn.Sequential(nn.Linear(20, 30))
    bad = torch.randn(4, 20)
    bad[2, 3] = float("nan")
    for data, text in (
        ([torch.randn(4, 20), bad], "batch 1 holds NaN"),
        (torch.randn(1, 20), "the data holds 1 observation"),
        (torch.randn(4, 19), r"can't run on batch 0 of shape \(4, 19\) float32"),
        (7, "data of type int"),
    ):
        with pytest.raises(ProjgenError, match=text):
            projgen.compress(model, data, verbosity="off")
