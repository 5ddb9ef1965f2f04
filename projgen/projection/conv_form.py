"""Three-factor convolutions that minimise the output error: U (core) Q^T, by alternating least squares.

Per group, with W (O, C, K taps), S the second moment of the patches (centred where a bias can take the mean),
X = S W^T and L = G^1/2, the error of W~ = U core (Q x I_K)^T is tr L (W - W~) S (W - W~)^T L. For fixed Q the
best B = U core is a least-squares solution and the best U of rank r_out comes from one eigenproblem, for every
r_out at once; for fixed U and core the best Q solves linear equations in C*r_in unknowns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projgen.pca.collect import LayerStats
from projgen.projection.closed_form import _descending, _roots, regularised
from projgen.projection.factors import Array, ConvFactors, DenseWeights

_MAX_UNKNOWNS = 1500
_SWEEPS = 3


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One group's regression.

    ``weight`` (O, C, K), ``second`` S (C*K, C*K), ``root`` L = G^1/2 and its inverse (O, O), ``cross`` X
    (C*K, O); ``total`` = tr L W S W^T L is the error of leaving everything out.
    """

    weight: Array
    second: Array
    root: Array
    inverse: Array
    cross: Array
    total: float

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(O, C, K)."""
        rows, columns, taps = self.weight.shape
        return rows, columns, taps


def conv_problems(dense: DenseWeights, stats: LayerStats) -> list[ConvProblem]:
    """The regression problems of a convolution, one per group; needs the patch moments."""
    problems = []
    blocks = stats.curvature.get("z")
    for group, patches in enumerate(stats.patches):
        weight = dense.weight[group]
        second = patches.second if dense.bias is None else patches.covariance
        g = regularised(None if blocks is None else blocks[group], weight.shape[0])
        root, inverse = _roots(g)
        flat = weight.reshape(weight.shape[0], -1)
        cross = second @ flat.T
        problems.append(ConvProblem(weight, second, root, inverse, cross, float(np.trace(root @ flat @ cross @ root))))
    return problems


def start_projector(problem: ConvProblem) -> Array:
    """Orthonormal directions of the channels (C, C), the most important for the output first."""
    rows, columns, taps = problem.sizes
    blocks = problem.second.reshape(columns, taps, columns, taps)
    channels = np.einsum("atbt->ab", blocks) / taps
    stack = (problem.root @ problem.weight.reshape(rows, -1)).reshape(rows, columns, taps)
    gram = np.einsum("oct,odt->cd", stack, stack)
    root, _ = _roots(channels)
    _, vectors = _descending(root @ gram @ root)
    # B of the reduced-rank regression spans gram @ root @ vectors; leading columns nest, so QR serves every rank.
    q, _ = np.linalg.qr(gram @ root @ vectors)
    return np.asarray(q)


def _best_b(problem: ConvProblem, q: Array | None) -> tuple[Array, Array]:
    """(B (O, r*K), A = Kq^T S Kq) for fixed Q (C, r); Q of None is the identity."""
    rows, columns, taps = problem.sizes
    if q is None:
        return problem.weight.reshape(rows, -1), problem.second
    blocks = problem.second.reshape(columns, taps, columns, taps)
    reduced = np.einsum("ci,ctdu,dj->itju", q, blocks, q, optimize=True)
    size = q.shape[1] * taps
    a = reduced.reshape(size, size)
    x = np.einsum("ci,cto->ito", q, problem.cross.reshape(columns, taps, rows), optimize=True).reshape(size, rows)
    ridge = 1e-10 * max(float(np.trace(a)) / size, 1e-300)
    return np.linalg.solve(a + ridge * np.eye(size), x).T, a


def output_errors(problem: ConvProblem, q: Array | None) -> Array:
    """Error at every r_out = 0..O for a fixed input projector; the last entry is that of no output projector."""
    b, a = _best_b(problem, q)
    weighted = problem.root @ b
    values, _ = _descending(weighted @ a @ weighted.T)
    return np.maximum(problem.total - np.concatenate(([0.0], np.cumsum(values))), 0.0)


def solve(
    problem: ConvProblem, r_in: int | None, r_out: int | None, sweeps: int = _SWEEPS
) -> tuple[Array, Array | None, Array | None]:
    """(core (r_out or O, r_in or C, K), Q (C, r_in) or None, U (O, r_out) or None) of least error found."""
    q = None if r_in is None else start_projector(problem)[:, :r_in]
    if q is not None and q.size <= _MAX_UNKNOWNS:
        for _ in range(sweeps):
            core, u = _core(problem, q, r_out)
            q = _best_q(problem, core, u, q)
    core, u = _core(problem, q, r_out)
    return core, q, u


def _core(problem: ConvProblem, q: Array | None, r_out: int | None) -> tuple[Array, Array | None]:
    rows, columns, taps = problem.sizes
    b, a = _best_b(problem, q)
    inner = columns if q is None else q.shape[1]
    if r_out is None:
        return b.reshape(rows, inner, taps), None
    weighted = problem.root @ b
    _, vectors = _descending(weighted @ a @ weighted.T)
    leading = vectors[:, :r_out]
    return (leading.T @ weighted).reshape(r_out, inner, taps), problem.inverse @ leading


def _best_q(problem: ConvProblem, core: Array, u: Array | None, q: Array) -> Array:
    """Least squares for Q given U and core, then orthonormalised (the core absorbs the rest)."""
    rows, columns, taps = problem.sizes
    rank = q.shape[1]
    d = np.einsum("op,pjt->ojt", problem.root if u is None else problem.root @ u, core)
    blocks = problem.second.reshape(columns, taps, columns, taps)
    products = np.einsum("ojt,oku->jtku", d, d, optimize=True)
    normal = np.einsum("ctdu,jtku->cjdk", blocks, products, optimize=True).reshape(columns * rank, -1)
    right = np.einsum("ojt,op,ctp->cj", d, problem.root, problem.cross.reshape(columns, taps, rows), optimize=True)
    ridge = 1e-10 * max(float(np.trace(normal)) / len(normal), 1e-300)
    solved = np.linalg.solve(normal + ridge * np.eye(len(normal)), right.reshape(-1))
    orthonormal, _ = np.linalg.qr(solved.reshape(columns, rank))
    return np.asarray(orthonormal)


def error_of(problem: ConvProblem, core: Array, q: Array | None, u: Array | None) -> float:
    """tr L (W - W~) S (W - W~)^T L of given factors."""
    approx = dense_of(core, q, u)
    rows = problem.weight.shape[0]
    gap = problem.root @ (problem.weight - approx).reshape(rows, -1)
    return float(np.einsum("ij,jk,ik->", gap, problem.second, gap, optimize=True))


def dense_of(core: Array, q: Array | None, u: Array | None) -> Array:
    """W~ = U core Q^T per tap, (O, C, K)."""
    out = core if q is None else np.einsum("pjt,cj->pct", core, q)
    return out if u is None else np.asarray(np.einsum("op,pct->oct", u, out))


def conv_factors(
    dense: DenseWeights, stats: LayerStats, problems: list[ConvProblem], r_in: int | None, r_out: int | None
) -> ConvFactors:
    """Factors of a whole convolution at given ranks per group, with the bias corrected for the mean patch."""
    cores, projectors, outputs, lost = [], [], [], []
    for problem, patches in zip(problems, stats.patches, strict=True):
        core, q, u = solve(problem, r_in, r_out)
        cores.append(core)
        if q is not None:
            projectors.append(q.T)
        if u is not None:
            outputs.append(u)
        gap = problem.weight - dense_of(core, q, u)
        lost.append(gap.reshape(gap.shape[0], -1) @ patches.mean)
    bias = None if dense.bias is None else dense.bias + np.concatenate(lost)
    return ConvFactors(
        np.concatenate(cores),
        np.concatenate(projectors) if projectors else None,
        np.concatenate(outputs) if outputs else None,
        None,
        bias,
    )
