"""Two-factor and separable convolutions: against brute-force optima, in every geometry, and the way to C."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn

import projgen
from projgen.pca.convolution import rows_of
from projgen.pca.counting import count_learnables
from projgen.pca.discover import choose_layers, owned_copy
from projgen.pca.neuron_pca import NeuronPCA
from projgen.projection.conv_form import (
    ConvProblem,
    conv_factors,
    conv_problems,
    dense_of,
    error_of,
    least_squares,
    output_errors,
    solve,
    start_projector,
)
from projgen.projection.factors import dense_weights
from projgen.projection.predict import Predictor, separable_ranks
from projgen.projection.ranks import Choice, output_cost
from projgen.projection.search import realise

FORMS = ("1x1 then kxk", "kxk then 1x1", "kx1 then 1xk")


def problem_of(seed: int, white: bool) -> tuple[ConvProblem, int]:
    """A small random regression over 3 outputs, 2 channels and 3 x 2 positions; ``white``: patches without pattern."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 12)) @ (np.eye(12) if white else rng.normal(size=(12, 12)))
    second = np.eye(12) if white else x.T @ x / len(x)
    half = rng.normal(size=(3, 5))
    values, vectors = np.linalg.eigh(half @ half.T)
    root, inverse = (vectors * values**0.5) @ vectors.T, (vectors * values**-0.5) @ vectors.T
    weight = rng.normal(size=(3, 2, 6))
    flat = weight.reshape(3, -1)
    total = float(np.trace(root @ flat @ second @ flat.T @ root))
    return ConvProblem(weight, second, root, inverse, second @ flat.T, total), 2


def formed(problem: ConvProblem, columns: int, form: str, rank: int) -> tuple[ConvProblem, int | None, int | None]:
    if form == FORMS[1]:
        return problem, None, rank
    return (problem.by_columns(columns) if form == FORMS[2] else problem), rank, None


def matricised(problem: ConvProblem, r_in: int | None) -> np.ndarray:
    """L W as the matrix whose rank the form limits."""
    rows, columns, taps = problem.sizes
    weighted = (problem.root @ problem.weight.reshape(rows, -1)).reshape(rows, columns, taps)
    return weighted.reshape(rows, -1) if r_in is None else weighted.transpose(1, 0, 2).reshape(columns, -1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), form=st.sampled_from(FORMS), rank=st.integers(1, 2))
def test_patches_without_pattern_leave_the_leading_singular_vectors(seed: int, form: str, rank: int) -> None:
    """With S = I the optimum of every form is known: what the singular values beyond the rank add up to."""
    problem, r_in, r_out = formed(*problem_of(seed, True), form, rank)
    values = np.linalg.svd(matricised(problem, r_in), compute_uv=False)
    found = error_of(problem, *solve(problem, r_in, r_out))
    assert found == pytest.approx(float((values[rank:] ** 2).sum()), rel=1e-8, abs=1e-9)
    start = least_squares(problem, start_projector(problem)) if r_in else None
    table = output_errors(problem, start, r_in)
    assert table[-1 if r_out is None else r_out] == pytest.approx(found, rel=1e-8, abs=1e-8 * problem.total)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), form=st.sampled_from(FORMS), rank=st.integers(1, 2))
def test_no_descent_from_random_starts_ends_far_below(seed: int, form: str, rank: int) -> None:
    problem, r_in, r_out = formed(*problem_of(seed, False), form, rank)
    rows, columns, taps = problem.sizes
    found = error_of(problem, *solve(problem, r_in, r_out, sweeps=60))
    shapes = [(rank, columns, taps), (rows, rank)] if r_in is None else [(rows, rank, taps), (columns, rank)]
    split = int(np.prod(shapes[0]))
    weight, root, second = (torch.from_numpy(v) for v in (problem.weight, problem.root, problem.second))

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.from_numpy(flat).requires_grad_(True)
        core, other = point[:split].reshape(shapes[0]), point[split:].reshape(shapes[1])
        product = torch.einsum("or,rct->oct", other, core) if r_in is None else torch.einsum("ort,cr->oct", core, other)
        gap = root @ (weight - product).reshape(rows, -1)
        loss = (gap @ second * gap).sum()
        loss.backward()
        assert point.grad is not None
        return float(loss.detach()), point.grad.numpy()

    rng = np.random.default_rng(seed)
    size = split + int(np.prod(shapes[1]))
    best = min(minimize(objective, rng.normal(size=size), jac=True).fun for _ in range(4))
    assert found <= best + (0.02 if form == FORMS[2] else 1e-6) * problem.total


def test_a_separable_kernel_is_found_exactly() -> None:
    rng = np.random.default_rng(5)
    problem, columns = problem_of(5, False)
    rows, kernel = rng.normal(size=(2, 2, 3)), rng.normal(size=(3, 2, 2))  # (r, c, ky), (o, r, kx)
    weight = np.einsum("orx,rcy->ocyx", kernel, rows).reshape(3, 2, 6)
    exact = replace(problem, weight=weight, cross=problem.second @ weight.reshape(3, -1).T)
    core, q, u = solve(exact.by_columns(columns), 2, None)
    np.testing.assert_allclose(dense_of(core, q, u).reshape(weight.shape), weight, atol=1e-6)
    plain = solve(exact, 1, None)
    assert np.abs(dense_of(*plain) - weight).max() > 0.1


@pytest.mark.parametrize("r_out", [None, 4])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (5, 3), stride=(2, 1), padding=(2, 0), dilation=(1, 2), bias=False),
        nn.Conv2d(4, 12, (2, 3), padding="same", groups=2),
        nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"),
        nn.ConvTranspose2d(4, 6, (4, 3), stride=(2, 3), padding=(1, 0), output_padding=(0, 1)),
    ],
    ids=["plain", "geometry", "groups", "circular", "transposed"],
)
def test_the_layers_are_the_product_of_their_factors(layer: nn.Module, r_out: int | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(layer).double().eval()
    x = torch.randn(30, 4, 7, 7, dtype=torch.float64) + 0.4
    pca = NeuronPCA(net, x, verbosity="off")
    (found,) = choose_layers(net, None)
    stats, dense = pca.collected.layers["0"], dense_weights(net, found)
    choice = Choice(3, r_out, separable=True)
    factors = conv_factors(dense, stats, conv_problems(dense, stats), choice)
    work = Predictor(owned_copy(net), pca.collected.layers, [found])
    made = realise(work, owned_copy(net), [found], {"0": choice})
    first, core = made[0].network.input_projector, made[0].network.core
    assert (first.kernel_size[1], core.kernel_size[0]) == (1, 1)
    assert (first.kernel_size[0], core.kernel_size[1]) == layer.kernel_size
    assert count_learnables(made) == output_cost(found, choice)
    assert made[0].input_projector_size == 3 and made[0].output_projector_size == r_out
    groups, per_group = layer.groups, layer.out_channels // layer.groups
    oracle = nn.Sequential(layer).double()
    product = []
    for group in range(groups):
        q = factors.input_projector[group * 3 : (group + 1) * 3].T
        inner = per_group if r_out is None else r_out
        u = None if r_out is None else factors.output_projector[group * per_group : (group + 1) * per_group]
        product.append(dense_of(factors.core[group * inner : (group + 1) * inner], q, u))
    rows = torch.from_numpy(np.concatenate(product)).reshape(rows_of(layer).shape)
    expected = projgen.pca.convolution.in_own_order(layer, rows)
    with torch.no_grad():
        before = oracle[0].weight.clone()
        oracle[0].weight.copy_(expected)
        if layer.bias is not None:
            bias = oracle[0].bias.clone()
            oracle[0].bias.copy_(torch.from_numpy(factors.bias))
        torch.testing.assert_close(made(x), oracle(x), rtol=1e-9, atol=1e-9)
        oracle[0].weight.copy_(before)
        if layer.bias is not None:
            oracle[0].bias.copy_(bias)


def test_ranks_that_pay() -> None:
    (wide,) = choose_layers(nn.Conv2d(16, 16, 3), None)
    most = separable_ranks(wide)
    assert output_cost(wide, Choice(most, None, separable=True)) < output_cost(wide, Choice(None, None))
    assert output_cost(wide, Choice(most + 1, None, separable=True)) >= output_cost(wide, Choice(None, None))
    for flat in (nn.Conv1d(8, 8, 5), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, (1, 5)), nn.Conv2d(8, 8, (5, 1))):
        assert separable_ranks(choose_layers(flat, None)[0]) == 0


class Blurred(nn.Module):
    """Its first kernels are products of rows and columns, so the separable form loses next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(6, 16, 5, padding=2)
        self.fc = nn.Linear(16 * 16, 5)
        with torch.no_grad():
            rows, columns = torch.randn(5, 6, 5), torch.randn(16, 5, 5)
            self.conv.weight.copy_(torch.einsum("orx,rcy->ocyx", columns, rows) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.max_pool2d(torch.relu(self.conv(x)), 2).flatten(1))


def test_chosen_where_it_loses_least_and_the_way_to_c(tmp_path: Path) -> None:
    net = Blurred().eval()
    torch.manual_seed(4)
    x = torch.randn(150, 6, 8, 8)
    pca = projgen.NeuronPCA(net, x, verbosity="off")
    small, info = projgen.compress(
        net, pca, layer_names=["conv"], learnables_reduction_goal=0.45, prune=False, unpack=True, verbosity="off"
    )
    (layer,) = info.layers
    assert layer.separable
    assert layer.ranks[0] == 5
    assert count_learnables(small) == info.learnables_after
    with torch.no_grad():
        y = net(x)
        assert float((small(x) - y).pow(2).mean()) < 1e-6 * float(y.pow(2).mean())
    q = projgen.quantize(small, x)
    middle = q.graph.type(q.graph.nodes[0].output)
    assert middle.dtype.value == "int16"
    integers = np.random.default_rng(0).integers(-128, 128, (3, 6, 8, 8)).astype(np.int8)
    for target in ("host", "cortex-m4"):
        artifact = projgen.compile(q, target=target, out=tmp_path / target)
        artifact.build()
        assert np.array_equal(artifact.run_int(integers), q.run_int(integers))


def test_stored_moments_know_the_width_of_a_kernel(tmp_path: Path) -> None:
    net = Blurred().eval()
    pca = projgen.NeuronPCA(net, torch.randn(40, 6, 8, 8), verbosity="off")
    pca.save(tmp_path / "pca.npz")
    again = projgen.NeuronPCA.load(tmp_path / "pca.npz", net)
    assert again.collected.layers["conv"].layer == pca.collected.layers["conv"].layer
    assert again.collected.layers["conv"].layer.columns == 5
