"""method="output": every closed form against a brute-force optimum, predicted losses, bias correction."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn

import projgen
from projgen.errors import InputError
from projgen.pca.counting import count_learnables
from projgen.pca.discover import Kind, Layer
from projgen.pca.neuron_pca import NeuronPCA
from projgen.projection.closed_form import regularised, weighted_regression
from projgen.projection.conv_form import (
    conv_problems,
    dense_of,
    error_of,
    least_squares,
    output_errors,
    solve,
    start_projector,
)
from projgen.projection.factors import dense_weights
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE, Choice, Options, knapsack, pareto


def psd(rng: np.random.Generator, size: int, rank: int | None = None) -> np.ndarray:
    x = rng.normal(size=(size, rank or size + 3))
    return x @ x.T / x.shape[1]


def weighted_error(m: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, g: np.ndarray) -> float:
    gap = m - a @ b
    return float(np.trace(g @ gap @ c @ gap.T))


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 2**31 - 1), data=st.data())
def test_weighted_regression_reaches_the_optimum(rows: int, columns: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    m, c, g = rng.normal(size=(rows, columns)), psd(rng, columns), regularised(psd(rng, rows), rows)
    rank = data.draw(st.integers(1, min(rows, columns)))
    solved = weighted_regression(m, c, g)
    a, b = solved.factors(rank)
    # Eckart-Young in the coordinates where G and C are the identity.
    whitened = np.linalg.cholesky(g).T @ m @ np.linalg.cholesky(c + 1e-14 * np.eye(columns))
    values = np.linalg.svd(whitened, compute_uv=False) ** 2
    optimum = values[rank:].sum()
    scale = values.sum()
    assert weighted_error(m, a, b, c, g) == pytest.approx(optimum, rel=1e-9, abs=1e-9 * scale)
    assert solved.tails[rank] == pytest.approx(optimum, rel=1e-9, abs=1e-9 * scale)
    if rank == min(rows, columns):
        np.testing.assert_allclose(a @ b, m, atol=1e-6 * np.abs(m).max())


def test_no_local_search_beats_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    m, c, g = rng.normal(size=(4, 5)), psd(rng, 5), psd(rng, 4)
    best = min(
        minimize(
            lambda v: weighted_error(m, v[:8].reshape(4, 2), v[8:].reshape(2, 5), c, g),
            rng.normal(size=18), method="BFGS", options={"gtol": 1e-10, "maxiter": 2000},
        ).fun
        for _ in range(5)
    )  # fmt: skip
    a, b = weighted_regression(m, c, g).factors(2)
    assert weighted_error(m, a, b, c, g) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(6, 4), (4, 6)])
def test_singular_covariances_give_finite_factors_of_zero_error(rows: int, columns: int) -> None:
    rng = np.random.default_rng(1)
    m, c = rng.normal(size=(rows, columns)), psd(rng, columns, rank=2)
    for g in (np.eye(rows), regularised(psd(rng, rows, rank=1), rows)):
        for rank in (2, 3):
            a, b = weighted_regression(m, c, g).factors(rank)
            assert np.isfinite(a).all() and np.isfinite(b).all()
            assert weighted_error(m, a, b, c, g) < 1e-10


def test_regularisation_keeps_the_curvature_invertible_and_without_one_it_is_the_identity() -> None:
    g = np.diag([4.0, 0.0])
    np.testing.assert_allclose(regularised(g, 2), np.diag([4.0004, 0.0004]))
    np.testing.assert_array_equal(regularised(None, 3), np.eye(3))
    np.testing.assert_array_equal(regularised(np.zeros((2, 2)), 2), np.eye(2))


class Whole(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if isinstance(y, Tensor) else y[0]


def test_the_bias_makes_the_mean_output_exact() -> None:
    torch.manual_seed(0)
    for layer, shape in (
        (nn.Linear(12, 10), (80, 12)),
        (nn.Conv2d(6, 8, 3, padding=1), (20, 6, 7, 7)),
        (nn.Conv2d(12, 16, 3, groups=2), (20, 12, 7, 7)),
    ):
        model = Whole(layer).double()
        x = torch.randn(shape, dtype=torch.float64) + 2
        ranks = {"layer": 2}
        projected, _ = projgen.compress(model, x, ranks=ranks, verbosity="off")
        axes = [0, *range(2, x.dim())]
        torch.testing.assert_close(projected(x).mean(axes), model(x).mean(axes), rtol=1e-8, atol=1e-8)


def test_without_bias_no_bias_appears_and_the_uncentred_error_is_minimal() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(12, 10, bias=False)).double()
    x = torch.randn(300, 12, dtype=torch.float64) + 2
    projected, _ = projgen.compress(model, NeuronPCA(model, x, verbosity="off"), ranks={"0": 2}, verbosity="off")
    assert projected[0].network.core.bias is None
    pca, _ = projgen.compress(model, x, ranks={"0": 2}, method="pca", verbosity="off")
    ours = (projected(x) - model(x)).var(0, correction=0).sum()
    theirs = (pca(x) - model(x)).var(0, correction=0).sum()
    assert ours < theirs


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(12, 10), nn.Conv1d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2)],
    ids=["linear", "conv1d", "conv2d"],
)
def test_output_error_is_below_that_of_pca_at_the_same_ranks(layer: nn.Module) -> None:
    torch.manual_seed(2)
    layer.reset_parameters()
    model = Whole(layer).double()
    shape = {nn.Linear: (400, 12), nn.Conv1d: (60, 6, 9), nn.Conv2d: (60, 6, 9, 9)}[type(layer)]
    mix = torch.randn(shape[1], shape[1], dtype=torch.float64)
    x = torch.einsum("nc...,cd->nd...", torch.randn(shape, dtype=torch.float64), mix) + 1

    def error(method: str) -> float:
        projected, _ = projgen.compress(model, x, ranks={"layer": 3}, method=method, verbosity="off")
        y, z = projected(x), model(x)
        return ((y - y.mean(1, keepdim=True)) - (z - z.mean(1, keepdim=True))).square().mean().item()

    assert error("output") < 0.99 * error("pca")


def conv_setup(seed: int) -> tuple[object, ...]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(5, 7, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(7 * 25, 4)).double()
    x = torch.randn(40, 5, 5, 5, dtype=torch.float64) + 0.5
    pca = NeuronPCA(model, x, verbosity="off")
    stats = pca.collected.layers["0"]
    (problem,) = conv_problems(dense_weights(model, stats.layer), stats)
    return model, pca, problem


@pytest.mark.parametrize("ranks", [(2, 3), (None, 3), (2, None), (4, 6), (1, 1)])
def test_conv_factors_are_a_stationary_point_no_perturbation_improves(ranks: tuple[int | None, int | None]) -> None:
    _, _, problem = conv_setup(3)
    core, q, u = solve(problem, *ranks, sweeps=200)
    best = error_of(problem, core, q, u)
    rng = np.random.default_rng(0)
    for scale in (1e-2, 1e-3):
        for _ in range(20):
            moved = [
                None if f is None else f + scale * np.abs(f).max() * rng.normal(size=f.shape) for f in (core, q, u)
            ]
            assert error_of(problem, *moved) > best * (1 - 1e-9)
    few = error_of(problem, *solve(problem, *ranks, sweeps=3))
    start = error_of(problem, *solve(problem, *ranks, sweeps=0))
    assert best <= few * (1 + 1e-9) <= start * (1 + 1e-8)


def test_conv_without_input_projector_reaches_the_regression_optimum() -> None:
    _, _, problem = conv_setup(4)
    flat = problem.weight.reshape(7, -1)
    solved = weighted_regression(flat, problem.second, problem.root @ problem.root)
    for rank in (1, 3, 6):
        core, q, u = solve(problem, None, rank)
        assert error_of(problem, core, q, u) == pytest.approx(solved.tails[rank], rel=1e-9)


def test_conv_error_table_is_the_error_of_its_factors() -> None:
    _, _, problem = conv_setup(5)
    for r_in in (1, 3, None):
        table = output_errors(problem, least_squares(problem, start_projector(problem)), r_in)
        assert table[0] == pytest.approx(problem.total)
        for r_out in (1, 4, 7):
            factors = solve(problem, r_in, r_out if r_out < 7 else None, sweeps=0)
            assert error_of(problem, *factors) == pytest.approx(table[r_out], rel=1e-8, abs=1e-10)


def test_conv_factors_of_full_rank_are_the_layer() -> None:
    _, _, problem = conv_setup(6)
    for ranks in ((5, 7), (None, 7), (5, None)):
        np.testing.assert_allclose(dense_of(*solve(problem, *ranks)), problem.weight, atol=1e-8)


def test_predicted_loss_is_the_second_order_output_error() -> None:
    """Small errors: the loss predicted from moments and curvature is the measured output error."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(8, 30), nn.Tanh(), nn.Linear(30, 4)).double()
    x = torch.randn(3000, 8, dtype=torch.float64)
    pca = NeuronPCA(model, x, verbosity="off")
    layers = [stats.layer for stats in pca.collected.layers.values()]
    work = Predictor(model, pca.collected.layers, layers)
    projected, _ = projgen.compress(model, pca, ranks={"2": 2}, verbosity="off")
    y, z = projected(x), model(x)
    measured = ((y - y.mean(1, keepdim=True)) - (z - z.mean(1, keepdim=True))).square().mean().item()
    predicted = work.loss({"0": DENSE, "2": Choice(2, None)})
    assert predicted == pytest.approx(measured, rel=0.01)


def totals(options: list[Options], picks: Sequence[int]) -> tuple[int, float]:
    chosen = list(zip(options, picks, strict=True))
    return sum(int(o.cost[i]) for o, i in chosen), sum(float(o.error[i]) for o, i in chosen)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31 - 1), layers=st.integers(1, 4), share=st.floats(0.05, 1.0))
def test_knapsack_equals_exhaustive_search(seed: int, layers: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    options = []
    for index in range(layers):
        cost, error = np.append(rng.integers(1, 50, 6), 60), np.append(rng.random(6), 0.0)
        choices = [*(Choice(rank, None) for rank in range(1, 7)), DENSE]
        options.append(pareto(Layer(str(index), str(index), Kind.LINEAR), cost, error, choices))
    cheapest = sum(int(o.cost[0]) for o in options)
    budget = int(cheapest + share * (60 * layers - cheapest))
    chosen = knapsack(options, budget)
    combos = itertools.product(*(range(len(o.cost)) for o in options))
    sums = [totals(options, combo) for combo in combos]
    cost, error = totals(options, [o.choices.index(chosen[o.layer.name]) for o in options])
    assert cost <= budget
    assert error == pytest.approx(min(e for c, e in sums if c <= budget))


def test_a_thinned_knapsack_keeps_to_the_budget_and_near_the_optimum() -> None:
    rng = np.random.default_rng(0)
    options = []
    for index in range(8):
        costs, errors = np.sort(rng.integers(1, 10**6, 60)), np.sort(rng.random(60))[::-1]
        choices = [Choice(rank, None) for rank in range(1, 61)]
        options.append(pareto(Layer(str(index), str(index), Kind.LINEAR), costs, errors, choices))
    loss = {}
    for limit in (500, 20_000):
        chosen = knapsack(options, 2_000_000, limit)
        cost, loss[limit] = totals(options, [o.choices.index(chosen[o.layer.name]) for o in options])
        assert cost <= 2_000_000
    assert loss[500] <= 1.05 * loss[20_000]


def test_reduction_goal_is_kept_and_shared_by_predicted_loss() -> None:
    torch.manual_seed(8)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(24 * 36, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip
    pca = NeuronPCA(model, torch.randn(900, 3, 6, 6), verbosity="off")
    previous = 1.0
    for goal in (0.3, 0.6, 0.9):
        projected, info = projgen.compress(model, pca, learnables_reduction_goal=goal, verbosity="off")
        assert info.learnables_reduction >= goal
        assert info.learnables_reduction < goal + 0.02
        assert info.explained_variance <= previous
        assert projected(torch.randn(2, 3, 6, 6)).shape == (2, 5)
        previous = info.explained_variance
    with pytest.warns(UserWarning, match=r"is more than the possible 0\.9"):
        projgen.compress(model, pca, learnables_reduction_goal=1.0, verbosity="off")


def test_explained_variance_goal_bounds_each_layers_weighted_error() -> None:
    torch.manual_seed(9)
    model = Whole(nn.LSTM(6, 20, batch_first=True))
    x = torch.randn(60, 12, 6)
    for goal in (0.6, 0.9, 0.99):
        _, info = projgen.compress(model, x, explained_variance_goal=goal, verbosity="off")
        assert all(layer.explained_variance >= goal - 1e-9 for layer in info.layers)
        (layer,) = info.layers
        assert goal > 0.95 or layer.projected


def steps_setup() -> tuple[nn.Module, list[Tensor]]:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.LSTM(6, 24, batch_first=True), nn.Linear(24, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.rnn(x)[0][:, -1])

    torch.manual_seed(10)
    model = Steps()
    for parameter in model.rnn.parameters():
        parameter.data *= 2
    return model, [torch.randn(30, n, 6) @ torch.randn(6, 6) for n in (6, 8, 9)]


def test_the_joint_form_is_chosen_where_it_predicts_less_loss_and_counts_its_shared_factor_once() -> None:
    model, data = steps_setup()
    pca = NeuronPCA(model, data, verbosity="off")
    projected, info = projgen.compress(model, pca, learnables_reduction_goal=0.6, verbosity="off")
    (layer,) = [d for d in info.layers if d.joint]
    rank = layer.ranks[0]
    assert layer.learnables_after == rank * (96 + 6 + 24) + 96
    assert projected.rnn.network.weight_hh is projected.rnn.network.weight_ih
    assert info.learnables_after == count_learnables(projected)


def test_measured_choice_is_at_least_as_good_as_the_prediction() -> None:
    model, data = steps_setup()
    pca = NeuronPCA(model, data, verbosity="off")
    for goal in (0.6, 0.85):
        predicted, info = projgen.compress(model, pca, learnables_reduction_goal=goal, verbosity="off")
        assert (info.choice, info.output_error) == ("predicted", None)
        _, direct = projgen.compress(model, data, learnables_reduction_goal=goal, verbosity="off")
        _, again = projgen.compress(model, pca, data=data, learnables_reduction_goal=goal, verbosity="off")
        assert direct == again and direct.choice == "measured"
        assert direct.learnables_reduction >= goal

        assert direct.output_error <= divergence(model, predicted, data) * (1 + 1e-6)


def divergence(model: nn.Module, network: nn.Module, data: list[Tensor]) -> float:
    """Mean KL divergence of class scores, and mean square error of the centred scores over their variance."""
    with torch.no_grad():
        y, z = torch.cat([model(x) for x in data]), torch.cat([network(x) for x in data])
    p, q = torch.log_softmax(y, -1), torch.log_softmax(z, -1)
    centred, other = y - y.mean(-1, keepdim=True), z - z.mean(-1, keepdim=True)
    square = (centred - other).square().mean() / centred.var(correction=0)
    return float((p.exp() * (p - q)).sum(-1).mean() + square)


def test_the_measured_error_of_scores_is_their_divergence_and_their_square_error() -> None:
    model, data = steps_setup()
    network, info = projgen.compress(model, data, ranks={"rnn": (3, 6)}, verbosity="off")
    assert info.output_error == pytest.approx(divergence(model, network, data), rel=1e-5)


def test_one_shot_data_is_refused_where_choices_are_measured_and_enough_elsewhere() -> None:
    model, data = steps_setup()
    with pytest.raises(InputError, match="the choice by measured output error needs several passes"):
        projgen.compress(model, iter(data), learnables_reduction_goal=0.5, verbosity="off")
    for options in ({"ranks": {"rnn": 4}}, {"method": "pca"}):
        _, info = projgen.compress(model, iter(data), verbosity="off", **options)
        assert info.output_error is None
    with pytest.raises(InputError, match=r"data was given twice\. Allowed: data= only beside a NeuronPCA"):
        projgen.compress(model, data, data=data, verbosity="off")


@pytest.mark.parametrize("options", [{"ranks": {"rnn": (3, 6)}}, {"explained_variance_goal": 0.7}])
def test_data_adds_the_refit_to_given_ranks_and_goals_for_variance(options: dict[str, object]) -> None:
    model, data = steps_setup()
    pca = NeuronPCA(model, data, verbosity="off")
    closed, info = projgen.compress(model, pca, verbosity="off", **options)
    _, refit = projgen.compress(model, pca, data=data, verbosity="off", **options)
    assert (info.refit, refit.refit) == (False, True)
    assert info.output_error is None and refit.output_error is not None
    assert [d.ranks for d in info.layers] == [d.ranks for d in refit.layers]
    assert refit.output_error < divergence(model, closed, data)


def test_info_says_where_the_time_went(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 4))
    x = torch.randn(200, 12)
    pca = NeuronPCA(model, x, verbosity="off")
    assert set(pca.seconds) == {"forward passes", "moments", "curvature", "spectra"}
    _, closed = projgen.compress(model, pca, learnables_reduction_goal=0.5, verbosity="off")
    assert {"selection", "ranks", "factors"} <= set(closed.seconds)
    assert "refit" not in closed.seconds and "moments" not in closed.seconds
    _, measured = projgen.compress(model, x, learnables_reduction_goal=0.5, verbosity="steps")
    assert {*pca.seconds, "selection", "ranks", "factors", "refit", "measuring"} == set(measured.seconds)
    assert all(value > 0 for value in measured.seconds.values())
    assert f"Time: {max(measured.seconds, key=measured.seconds.__getitem__)} " in capsys.readouterr().out


def test_a_wide_convolution_takes_ranks_beyond_its_grid() -> None:
    torch.manual_seed(9)
    model = nn.Sequential(nn.Conv1d(200, 200, 9, padding=4), nn.Flatten(), nn.Linear(200 * 16, 3))
    pca = NeuronPCA(model, torch.randn(120, 200, 16), layer_names="0", verbosity="off")
    layers = [stats.layer for stats in pca.collected.layers.values()]
    work = Predictor(model, pca.collected.layers, layers)
    (problem,) = conv_problems(dense_weights(model, layers[0]), pca.collected.layers["0"])
    whole = least_squares(problem, start_projector(problem))
    for r_in, r_out in ((30, None), (160, 180), (175, None)):
        expected = output_errors(problem, whole, r_in)[-1 if r_out is None else r_out] / problem.total
        assert 1 - work.explained(layers[0], Choice(r_in, r_out)) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    projected, info = projgen.compress(model, pca, ranks={"0": (160, 180)}, verbosity="off")
    assert info.layers[0].ranks == (160, 180) and projected[0].network is not None
