"""method="pca" against a NumPy oracle of W Q Q^T, and its goals."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import projgen
from projgen.pca.counting import count_learnables


def pick(y: object) -> Tensor:
    return y if isinstance(y, Tensor) else y[0]  # type: ignore[index]


def leading(rows: np.ndarray, rank: int) -> np.ndarray:
    """Q of the uncentred second moment, by SVD of the rows themselves."""
    return np.linalg.svd(rows, full_matrices=False)[2][:rank].T


def project(model: nn.Module, x: Tensor, ranks: object) -> tuple[nn.Module, Any]:
    return projgen.compress(model, x, method="pca", ranks={"*": ranks}, verbosity="off")


class Whole(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return pick(self.layer(x))


def test_linear_is_w_q_qt() -> None:
    torch.manual_seed(0)
    model = Whole(nn.Linear(12, 10)).double()
    x = torch.randn(40, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64) + 1
    projected, info = project(model, x, 3)
    q = leading(x.numpy(), 3)
    w, b = model.layer.weight.detach().numpy(), model.layer.bias.detach().numpy()
    np.testing.assert_allclose(projected(x).detach().numpy(), x.numpy() @ q @ q.T @ w.T + b, atol=1e-10)
    layer = projected.layer
    assert (layer.input_size, layer.output_size, layer.input_projector_size, layer.output_projector_size) == (
        12, 10, 3, None,
    )  # fmt: skip
    assert layer.original_class == "torch.nn.modules.linear.Linear"
    assert info.learnables_reduction == pytest.approx(1 - (3 * 22 + 10) / 130)


@pytest.mark.parametrize(
    ("conv", "ranks"),
    [
        (nn.Conv2d(6, 8, 3), (2, 3)),
        (nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(2, 1)), (2, 3)),
        (nn.Conv2d(12, 16, 3, groups=2, padding=1), (2, 3)),
        (nn.Conv2d(6, 8, 3, padding="same", bias=False), (None, 3)),
        (nn.Conv2d(6, 8, 3, padding=1, padding_mode="circular"), (2, None)),
        (nn.Conv2d(16, 12, 1), (3, 2)),
        (nn.Conv1d(6, 8, 5, stride=2, padding=4, dilation=2), (2, 3)),
        (nn.Conv1d(12, 8, 5, stride=3, groups=2), (2, 2)),
    ],
    ids=["plain", "geometry", "groups", "same-out", "circular-in", "pointwise", "1d", "1d-groups"],
)
def test_conv_is_q_and_u_around_w(conv: nn.Conv1d | nn.Conv2d, ranks: tuple[int | None, int | None]) -> None:
    torch.manual_seed(1)
    model = Whole(copy.deepcopy(conv)).double()
    conv = model.layer
    x = torch.randn(5, conv.in_channels, *((11,) * len(conv.kernel_size)), dtype=torch.float64) + 0.5
    y = conv(x).detach()
    groups, size_in, size_out = conv.groups, conv.in_channels // conv.groups, conv.out_channels // conv.groups
    weight, bias = conv.weight.detach().clone(), None if conv.bias is None else conv.bias.detach().clone()
    for g in range(groups):
        ins, outs = slice(g * size_in, (g + 1) * size_in), slice(g * size_out, (g + 1) * size_out)
        if ranks[0] is not None:
            q = leading(x[:, ins].movedim(1, -1).reshape(-1, size_in).numpy(), ranks[0])
            weight[outs] = torch.einsum("oc...,cd->od...", weight[outs], torch.from_numpy(q @ q.T))
        if ranks[1] is not None:
            u = leading(y[:, outs].movedim(1, -1).reshape(-1, size_out).numpy(), ranks[1])
            weight[outs] = torch.einsum("po,oc...->pc...", torch.from_numpy(u @ u.T), weight[outs])
            if bias is not None:
                bias[outs] = torch.from_numpy(u @ u.T) @ bias[outs]
    oracle = copy.deepcopy(conv)
    oracle.weight.data.copy_(weight)
    if bias is not None:
        oracle.bias.data.copy_(bias)
    projected, info = project(model, x, ranks)
    assert info.layer_names == ["layer"]
    torch.testing.assert_close(projected(x), oracle(x), rtol=1e-9, atol=1e-9)
    got = projected.layer
    assert (got.input_projector_size, got.output_projector_size) == ranks
    assert sum(p.numel() for p in got.parameters()) == info.layers[0].learnables_after
    assert got.network.core.stride == conv.stride and got.network.core.dilation == conv.dilation


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_is_w_q_qt_on_x_and_on_the_hidden_state_fed_back(kind: type[nn.LSTM | nn.GRU]) -> None:
    torch.manual_seed(2)
    model = Whole(kind(6, 10, batch_first=True)).double()
    rnn = model.layer
    x = torch.randn(7, 9, 6, dtype=torch.float64) + 0.3
    hidden = rnn(x)[0].detach()
    previous = torch.cat((torch.zeros(7, 1, 10, dtype=torch.float64), hidden[:, :-1]), 1)
    q, u = leading(x.reshape(-1, 6).numpy(), 2), leading(previous.reshape(-1, 10).numpy(), 3)
    oracle = copy.deepcopy(rnn)
    oracle.weight_ih_l0.data @= torch.from_numpy(q @ q.T)
    oracle.weight_hh_l0.data @= torch.from_numpy(u @ u.T)
    projected, _ = project(model, x, (2, 3))
    torch.testing.assert_close(projected(x), oracle(x)[0], rtol=1e-9, atol=1e-9)
    assert (projected.layer.input_size, projected.layer.output_size) == (6, 10)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_stacked_and_bidirectional_cells_have_their_own_names_and_ranks(kind: type[nn.LSTM | nn.GRU]) -> None:
    torch.manual_seed(3)
    model = Whole(kind(6, 10, num_layers=2, bidirectional=True, batch_first=True))
    x = torch.randn(7, 9, 6)
    ranks = {"layer.l0": (2, 3), "layer.l0_reverse": (None, 4), "layer.l1_reverse": 5}
    projected, info = projgen.compress(model, x, method="pca", ranks=ranks, verbosity="off")
    assert info.layer_names == list(ranks)
    layer = projected.layer
    assert layer.input_size == (6, 6, 20, 20) and layer.output_size == (10,) * 4
    assert layer.input_projector_size == (2, None, None, 5)
    assert layer.output_projector_size == (3, 4, None, 5)
    assert sum(p.numel() for p in layer.parameters()) == info.learnables_after
    assert layer.learnables_reduction == pytest.approx(info.learnables_reduction)
    # A cell left alone keeps its weights exactly.
    w, r = layer.network.cell_dense(2)
    assert torch.equal(w, model.layer.weight_ih_l1) and torch.equal(r, model.layer.weight_hh_l1)


class Vowels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 100, batch_first=True)
        self.fc = nn.Linear(100, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


def test_sizes_and_counts_of_the_documented_example(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(4)
    model = Vowels()
    assert count_learnables(model) == 46_109
    x = torch.randn(64, 10, 12)
    for method in ("pca", "output"):
        projected, info = projgen.compress(model, x, ranks={"lstm": (8, 7), "fc": 4}, method=method)
        assert info.layers[0].learnables_before == 45_200 and info.layers[0].learnables_after == 7_196
        assert f"{projected.lstm.learnables_reduction:.4f}" == "0.8408"
        assert info.learnables_after == count_learnables(projected) == 7_196 + 445
        assert f"{info.learnables_reduction:.1%}" == "83.4%"
        assert capsys.readouterr().out == (
            'Compressed network has 83.4% fewer learnable parameters.\nProjection compressed 2 layers: "lstm", "fc"\n'
        )


@pytest.fixture(scope="module")
def example() -> tuple[nn.Module, projgen.NeuronPCA]:
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5),
    )  # fmt: skip
    return model, projgen.NeuronPCA(model, torch.randn(96, 3, 8, 8), verbosity="off")


@pytest.mark.parametrize("goal", [0.5, 0.8, 0.95, 0.999])
def test_explained_variance_goal_takes_the_smallest_ranks_that_reach_it(
    example: tuple[nn.Module, projgen.NeuronPCA], goal: float
) -> None:
    model, pca = example
    _, info = projgen.compress(model, pca, explained_variance_goal=goal, method="pca", verbosity="off")
    for layer in info.layers:
        if not layer.projected:
            continue
        assert layer.explained_variance >= goal - 1e-9
        for rank, values in zip(
            layer.ranks, (pca.input_eigenvalues[layer.name], pca.output_eigenvalues[layer.name]), strict=True
        ):
            if rank is not None and rank > 1:
                assert values[: rank - 1].sum() < goal * values.sum()
        assert layer.learnables_after < layer.learnables_before
    assert info.explained_variance >= goal - 1e-9


def test_reduction_goal_is_reached_by_the_least_loss_of_variance(
    example: tuple[nn.Module, projgen.NeuronPCA],
) -> None:
    model, pca = example
    low, high = pca.learnables_reduction_range
    assert low == 0.0
    previous = 1.1
    for goal in np.linspace(0.2, high - 0.01, 6):
        projected, info = projgen.compress(
            model, pca, learnables_reduction_goal=float(goal), method="pca", verbosity="off"
        )
        assert goal <= info.learnables_reduction == pytest.approx(1 - count_learnables(projected) / pca.learnables)
        assert info.explained_variance <= previous + 1e-9
        previous = info.explained_variance


def test_reduction_goal_beyond_the_range_is_clipped_with_a_warning(
    example: tuple[nn.Module, projgen.NeuronPCA],
) -> None:
    model, pca = example
    high = pca.learnables_reduction_range[1]
    with pytest.warns(UserWarning, match=rf"learnables_reduction_goal=1 is more than the possible {high:.4f}"):
        _, info = projgen.compress(model, pca, learnables_reduction_goal=1, method="pca", verbosity="off")
    assert info.learnables_reduction == pytest.approx(high)
    assert info.explained_variance >= pca.explained_variance_range[0] - 1e-9


def test_more_is_removed_where_it_costs_no_variance() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40)).double()
    x = torch.randn(100, 4, dtype=torch.float64) @ torch.randn(4, 40, dtype=torch.float64)
    model[0].bias.data.zero_()
    _, info = projgen.compress(model, x, learnables_reduction_goal=0.2, method="pca", verbosity="off")
    assert [layer.ranks for layer in info.layers] == [(4, None), (4, None)]
    assert info.explained_variance == pytest.approx(1.0)
    assert info.learnables_reduction == pytest.approx(1 - 2 * (4 * 80 + 40) / (2 * 1640))


def test_the_default_goal_is_95_percent_of_the_variance(example: tuple[nn.Module, projgen.NeuronPCA]) -> None:
    model, pca = example
    _, default = projgen.compress(model, pca, method="pca", verbosity="off")
    _, given = projgen.compress(model, pca, explained_variance_goal=0.95, method="pca", verbosity="off")
    assert default == given


def test_full_ranks_leave_the_layers_dense_and_exact(example: tuple[nn.Module, projgen.NeuronPCA]) -> None:
    model, pca = example
    for method in ("pca", "output"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            projected, info = projgen.compress(
                model, pca, ranks={"0": (3, 16), "6": 64, "8": (32, None)}, method=method, verbosity="off"
            )
        assert info.layer_names == [] and info.learnables_reduction == 0.0 and info.explained_variance == 1.0
        x = torch.randn(2, 3, 8, 8)
        assert torch.equal(projected(x), model(x))


def test_the_model_is_never_modified_and_modes_and_devices_are_kept(
    example: tuple[nn.Module, projgen.NeuronPCA],
) -> None:
    model, _ = example
    before = copy.deepcopy(model.state_dict())
    text = repr(model)
    model.train()
    projected, _ = projgen.compress(model, torch.randn(40, 3, 8, 8), explained_variance_goal=0.6, verbosity="off")
    assert model.training and projected.training and repr(model) == text
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in projected.parameters())
    model.eval()
    projected, _ = projgen.compress(model, torch.randn(40, 3, 8, 8), explained_variance_goal=0.6, verbosity="off")
    assert not any(m.training for m in projected.modules())


def test_the_input_specification_is_remembered() -> None:
    model = Vowels()
    projected, _ = projgen.compress(model, torch.randn(64, 10, 12), ranks={"lstm": 7}, verbosity="off")
    (spec,) = projected._projgen_inputs
    assert (spec.name, spec.shape, spec.dtype) == ("x", (None, 12), torch.float32)
    assert not hasattr(model, "_projgen_inputs")
    unpacked, _ = projgen.compress(projected.train(False), torch.randn(64, 10, 12), ranks={"fc": 4}, unpack=True)
    assert unpacked._projgen_inputs == (spec,)


def test_a_layer_used_in_two_places_is_replaced_in_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(10, 10)
            self.b = self.a

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.a(x)))

    projected, info = projgen.compress(Twice(), torch.randn(50, 10), ranks={"a": 2}, method="pca", verbosity="off")
    assert projected.a is projected.b and isinstance(projected.a, projgen.ProjectedLayer)
    assert info.learnables_after == count_learnables(projected) == 50
