"""Closed-form factorisations of one layer from its moments. All arithmetic is float64.

``pca_*`` replaces W x by W Q Q^T x with Q the leading eigenvectors of the uncentred E[x x^T] (the classic
projection). ``output_*`` minimises the output error instead: over all A B of rank r,

    tr G (M - A B) C (M - A B)^T

with C the covariance of what M multiplies and G the curvature of the network's outputs (or the identity), then
corrects the bias for the mean. docs/projection.md derives both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projgen.pca.collect import LayerStats
from projgen.pca.discover import Kind
from projgen.pca.moments import MomentSummary
from projgen.projection.factors import (
    Array,
    CellFactors,
    ConvFactors,
    DenseWeights,
    Factors,
    HiddenState,
    LinearFactors,
)
from projgen.projection.ranks import Choice

_RIDGE = 1e-4
_SHARED_RIDGE = 1e-3
_FLOOR = 1e-14


@dataclass(frozen=True, slots=True)
class Regression:
    """Reduced-rank regression of M: factors of every rank from one eigenproblem.

    ``tails[r]`` is the weighted error at rank r (r = 0 .. min(O, D)); ``factors(r)`` gives A (O, r), B (r, D).
    """

    left: Array
    right: Array
    tails: Array

    def factors(self, rank: int) -> tuple[Array, Array]:
        """The optimal A (O, r) and B (r, D)."""
        return self.left[:, :rank], self.right[:rank]


def regularised(curvature: Array | None, size: int, ridge: float = _RIDGE) -> Array:
    """G + ridge * lambda_max * I; the identity when there is no curvature or it is zero."""
    if curvature is None:
        return np.eye(size)
    top = float(np.linalg.eigvalsh(curvature)[-1])
    return np.eye(size) if top <= 0.0 else np.asarray(curvature + ridge * top * np.eye(size))


def weighted_regression(m: Array, covariance: Array, weight: Array) -> Regression:
    """All minimisers of tr G (M - AB) C (M - AB)^T over rank r, from the smaller of two eigenproblems.

    Args:
        m: (O, D). covariance: C (D, D), may be singular. weight: G (O, O), positive definite.
    """
    rows, columns = m.shape
    if rows <= columns:
        root, inverse = _roots(weight)
        weighted = root @ m
        values, vectors = _descending(weighted @ covariance @ weighted.T)
        return Regression(inverse @ vectors, vectors.T @ weighted, _tails(values, rows))
    root, _ = _roots(covariance)
    gram = m.T @ weight @ m
    values, vectors = _descending(root @ gram @ root)
    scale = np.sqrt(np.maximum(values, max(float(values[0]), _FLOOR) * 1e-14))
    t = root @ (vectors / scale)
    return Regression(m @ t, t.T @ gram, _tails(values, columns))


def _tails(values: Array, size: int) -> Array:
    tails = np.zeros(size + 1)
    tails[:size] = np.cumsum(values[::-1])[::-1][:size]
    return tails


def _descending(matrix: Array) -> tuple[Array, Array]:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.clip(values[::-1], 0.0, None), vectors[:, ::-1]


def _roots(matrix: Array) -> tuple[Array, Array]:
    """Symmetric square root and its (pseudo-)inverse."""
    values, vectors = _descending(matrix)
    root = np.sqrt(values)
    floor = root[0] * 1e-9 if root[0] > 0 else 1.0
    inverse = np.where(root > floor, 1.0 / np.maximum(root, floor), 0.0)
    return (vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T


def pca_factors(
    dense: DenseWeights, stats: LayerStats, vectors: tuple[Array, Array], r_in: int | None, r_out: int | None
) -> Factors:
    """W Q Q^T with the leading eigenvectors.

    Args:
        vectors: eigenvectors of what the layer reads and of what it emits (columns; groups stacked).
        r_in, r_out: ranks per group; None leaves that projector out.
    """
    layer = stats.layer
    q = None if r_in is None else vectors[0][:, :r_in]
    u = None if r_out is None else vectors[1][:, :r_out]
    if layer.kind is Kind.LINEAR:
        assert q is not None
        return LinearFactors(dense.weight @ q, q.T, dense.bias)
    if layer.hidden:
        assert dense.hidden is not None
        w = dense.weight if q is None else dense.weight @ q
        r = dense.hidden if u is None else dense.hidden @ u
        return CellFactors(w, q, r, u, dense.bias, dense.bias_hn)
    cores, projectors, biases = [], [], []
    for group in range(layer.groups):
        core = dense.weight[group]
        if q is not None:
            block = q[group * layer.inputs : (group + 1) * layer.inputs]
            core = (core.transpose(0, 2, 1) @ block).transpose(0, 2, 1)
            projectors.append(block.T)
        if u is not None:
            block = u[group * layer.outputs : (group + 1) * layer.outputs]
            core = (block.T @ core.reshape(len(core), -1)).reshape(-1, *core.shape[1:])
            if dense.bias is not None:
                biases.append(block.T @ dense.bias[group * layer.outputs : (group + 1) * layer.outputs])
        cores.append(core)
    core_bias = np.concatenate(biases) if biases else None
    return ConvFactors(
        np.concatenate(cores),
        np.concatenate(projectors) if projectors else None,
        u,
        core_bias,
        dense.bias if core_bias is None else None,
    )


def output_regressions(dense: DenseWeights, stats: LayerStats, *, fold: bool = True) -> tuple[Regression, ...]:
    """The regression of a Linear layer; of an RNN cell that of the input side and that of the hidden side.

    An LSTM has two more: the joint one of [W R], and with ``fold`` and a bias the folded one, of [W R b] on [x; h; 1].
    """
    layer = stats.layer
    c = _spread(stats.inputs[0], dense.bias)
    if not layer.hidden:
        return (weighted_regression(dense.weight, c, regularised(stats.curvature.get("z"), layer.outputs)),)
    assert dense.hidden is not None
    width = layer.inputs
    problems = [("x", dense.weight, c[:width, :width]), ("h", dense.hidden, c[width:, width:])]
    if layer.kind is Kind.LSTM:
        both = np.concatenate((dense.weight, dense.hidden), 1)
        problems.append(("z", both, c))
        if dense.bias is not None and fold:
            problems.append(("z", np.column_stack((both, dense.bias)), _with_one(stats.inputs[0])))
    curvature = stats.curvature
    return tuple(
        weighted_regression(m, part, regularised(curvature.get("z", curvature.get(key)), layer.outputs))
        for key, m, part in problems
    )


def shared_tails(dense: DenseWeights, stats: LayerStats, projector: Array) -> Array:
    """Weighted error of a Linear layer that sees its input x only through the first r rows of a projector.

    Args:
        projector: (R, D), the output projector of the RNN whose hidden state the layer reads.
    Returns:
        (R + 1): the error for r = 0 .. R, its best weights given.
    """
    root, _ = _roots(_steadied(_spread(stats.inputs[0], dense.bias)))
    weight, _ = _roots(regularised(stats.curvature.get("z"), stats.layer.outputs))
    basis, triangle = np.linalg.qr(root @ projector.T)  # nested: the first r columns span the first r rows
    new = np.abs(np.diagonal(triangle)) > 1e-9 * np.linalg.norm(triangle, axis=0)
    seen = np.square(weight @ dense.weight @ root @ basis).sum(0) * new
    whole = float(np.square(weight @ dense.weight @ root).sum())
    return np.asarray(np.maximum(0.0, whole - np.concatenate(([0.0], np.cumsum(seen)))))


def shared_factors(dense: DenseWeights, stats: LayerStats, projector: Array, source: HiddenState) -> LinearFactors:
    """A Linear layer behind a given projector B (r, D): A = W C B^T (B C B^T)^-1, the bias corrected for the mean."""
    mean, b = stats.inputs[0].mean, projector
    c = _steadied(_spread(stats.inputs[0], dense.bias))
    a = np.linalg.lstsq(b @ c @ b.T, b @ c @ dense.weight.T, rcond=None)[0].T
    bias = None if dense.bias is None else dense.bias + dense.weight @ mean - a @ (b @ mean)
    return LinearFactors(a, b, bias, source)


def _steadied(covariance: Array) -> Array:
    """With the ridge that keeps a layer behind a foreign projector from relying on directions hardly seen."""
    ridge = _SHARED_RIDGE * float(np.trace(covariance)) / len(covariance)
    return np.asarray(covariance + ridge * np.eye(len(covariance)))


def _with_one(moments: MomentSummary) -> Array:
    """Uncentred second moment of [v; 1]."""
    mean = moments.mean[:, None]
    return np.block([[moments.second, mean], [mean.T, np.ones((1, 1))]])


def _spread(moments: MomentSummary, bias: Array | None) -> Array:
    """Covariance where a bias can take the mean, else the uncentred second moment."""
    return moments.second if bias is None else moments.covariance


def output_factors(dense: DenseWeights, stats: LayerStats, solved: tuple[Regression, ...], choice: Choice) -> Factors:
    """Factors of a Linear layer or an RNN cell at given ranks, with the bias corrected for the mean."""
    layer, mean = stats.layer, stats.inputs[0].mean
    if not layer.hidden:
        assert choice.r_in is not None
        a, b = solved[0].factors(choice.r_in)
        bias = None if dense.bias is None else dense.bias + dense.weight @ mean - a @ (b @ mean)
        return LinearFactors(a, b, bias)
    assert dense.hidden is not None
    width = layer.inputs
    if choice.folded:
        assert choice.r_in is not None
        a, b = solved[3].factors(choice.r_in)
        return CellFactors(a, b[:, :width].T, a, b[:, width:-1].T, None, None, joint=True, projector_bias=b[:, -1])
    if choice.joint:
        assert choice.r_in is not None
        both = np.concatenate((dense.weight, dense.hidden), 1)
        a, q, lost = _side(both, mean, solved[2], choice.r_in)
        assert q is not None
        bias = None if dense.bias is None else dense.bias + lost
        return CellFactors(a, q[:width], a, q[width:], bias, None, joint=True)
    w, q, lost_x = _side(dense.weight, mean[:width], solved[0], choice.r_in)
    r, u, lost_h = _side(dense.hidden, mean[width:], solved[1], choice.r_out)
    if dense.bias is None:
        return CellFactors(w, q, r, u, None, None)
    if layer.kind is Kind.LSTM:
        return CellFactors(w, q, r, u, dense.bias + lost_x + lost_h, None)
    assert dense.bias_hn is not None
    gates = 2 * layer.hidden
    bias = dense.bias + lost_x
    bias[:gates] += lost_h[:gates]
    return CellFactors(w, q, r, u, bias, dense.bias_hn + lost_h[gates:])


def _side(m: Array, mean: Array, solved: Regression, rank: int | None) -> tuple[Array, Array | None, Array]:
    if rank is None:
        return m, None, np.zeros(m.shape[0])
    a, b = solved.factors(rank)
    return a, b.T, m @ mean - a @ (b @ mean)
