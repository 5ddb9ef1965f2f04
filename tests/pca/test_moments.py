"""Streaming moments against float64, at any block structure."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.pca.moments import Moments, spectrum


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 3000), width=st.integers(1, 7), parts=st.integers(1, 5), mean=st.floats(-100, 100),
    seed=st.integers(0, 2**31 - 1),
)  # fmt: skip
def test_float64_rows_give_exact_moments(rows: int, width: int, parts: int, mean: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(mean, 1.0, (rows, width))
    moments = Moments(width)
    for part in np.array_split(x, parts):
        moments.update(torch.from_numpy(part))
    summary = moments.finish()
    assert summary.rows == rows
    np.testing.assert_allclose(summary.mean, x.mean(0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(summary.covariance, np.cov(x.T, bias=True).reshape(width, width), atol=1e-9)
    np.testing.assert_allclose(summary.second, x.T @ x / rows, rtol=1e-10, atol=1e-9)


def test_float32_covariance_is_within_1e_7_of_float64_despite_a_large_mean() -> None:
    x = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, 64) + 50.0
    moments = Moments(64)
    for part in x.split(777):
        moments.update(part)
    exact = np.cov(x.double().numpy().T, bias=True)
    assert np.abs(moments.finish().covariance - exact).max() <= 1e-7 * np.abs(exact).max()


def test_float32_keeps_the_small_eigenvalues_that_plain_sums_lose() -> None:
    x = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(1)) * torch.logspace(0, -4, 8) + 10.0
    moments = Moments(8)
    moments.update(x)
    exact = np.linalg.eigvalsh(np.cov(x.double().numpy().T, bias=True))
    plain = (x.T @ x).numpy().astype(np.float64) / len(x) - np.outer(x.mean(0).numpy(), x.mean(0).numpy())
    error = np.abs(np.linalg.eigvalsh(moments.finish().covariance) / exact - 1).max()
    assert error < 1e-3 < np.abs(np.linalg.eigvalsh(plain) / exact - 1).max()


def test_through_a_matrix_and_parts() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(50, 5)), rng.normal(size=(3, 5)), rng.normal(size=3)
    moments = Moments(5)
    moments.update(torch.from_numpy(x))
    y = x @ w.T + b
    out = moments.finish().through(w, b)
    np.testing.assert_allclose(out.second, y.T @ y / 50, atol=1e-12)
    np.testing.assert_allclose(moments.finish().part(1, 3).mean, x[:, 1:3].mean(0), atol=1e-12)


def test_spectrum_is_descending_and_reconstructs() -> None:
    x = np.random.default_rng(0).normal(size=(30, 6))
    second = x.T @ x / 30
    values, vectors = spectrum(second)
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose((vectors * values) @ vectors.T, second, atol=1e-12)
    np.testing.assert_allclose(values, np.linalg.svd(x, compute_uv=False) ** 2 / 30, rtol=1e-10)
    assert (vectors[np.abs(vectors).argmax(0), np.arange(6)] > 0).all()


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Moments(3).finish()


_PEAK = """
import resource, sys
import torch
from torch import nn
from projgen.pca.neuron_pca import NeuronPCA
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))
def batches(rows):
    for start in range(0, rows, 1000):
        yield torch.randn(1000, 32)
NeuronPCA(model, batches(2000), verbosity="off")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
NeuronPCA(model, batches(int(sys.argv[1])), verbosity="off")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_peak_memory_does_not_depend_on_the_number_of_rows() -> None:
    grown = []
    for rows in (10_000, 1_000_000):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(rows)], check=True, capture_output=True, text=True, timeout=300
        )
        grown.append(int(done.stdout))
    # A million rows of 32 float32 are 125,000 KiB; what remains is the allocator's noise.
    assert grown[1] - grown[0] < 8_000, grown
