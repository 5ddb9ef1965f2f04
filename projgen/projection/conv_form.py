"""Three-factor convolutions that minimise the output error: U (core) Q^T, by alternating least squares.

Per group, with W (O, C, K taps), S the second moment of the patches (centred where a bias can take the mean),
X = S W^T and L = G^1/2, the error of W~ = U core (Q x I_K)^T is tr L (W - W~) S (W - W~)^T L. For fixed Q the
best B = U core is a least-squares solution and the best U of rank r_out comes from one eigenproblem, for every
r_out at once; for fixed U and core the best Q solves linear equations in C*r_in unknowns.

The leading columns of the first Q nest, and with the channels before the kernel positions so do the normal
equations: the Cholesky factor for r_in columns is the leading block of that for all C. One factorisation per
group serves every rank.

The separable form, a convolution of the kernel's rows and then one of its columns, is the same problem with each
channel's rows counted as channels: W~ = U core Q^T, Q (C*rows, r_in), the core with the columns as its positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from projgen.pca.collect import LayerStats
from projgen.projection.closed_form import _descending, _roots, regularised
from projgen.projection.factors import Array, ConvFactors, DenseWeights
from projgen.projection.ranks import Choice

_MAX_UNKNOWNS = 1500
_SWEEPS = 3
_SEVERAL_STARTS = 400  # unknowns of Q up to which the sweeps begin in several places
_RANDOM_STARTS = 40
_RIDGES = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
_SINGULAR_RIDGES = _RIDGES[2:]


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One group's regression.

    ``weight`` (O, C, K), ``second`` S (C*K, C*K), ``root`` L = G^1/2 and its inverse (O, O), ``cross`` X
    (C*K, O); ``total`` = tr L W S W^T L is the error of leaving everything out; ``ridges``, relative to S's mean
    diagonal, to try where S is inverted.
    """

    weight: Array
    second: Array
    root: Array
    inverse: Array
    cross: Array
    total: float
    ridges: tuple[float, ...] = _RIDGES

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(O, C, K)."""
        rows, columns, taps = self.weight.shape
        return rows, columns, taps

    def by_columns(self, columns: int) -> ConvProblem:
        """The same problem over (O, C*rows, columns): what a separable pair of convolutions solves."""
        return replace(self, weight=self.weight.reshape(len(self.weight), -1, columns))


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
        total = float(np.sum((flat @ cross) * g))
        ridges = _RIDGES if patches.rows > len(second) else _SINGULAR_RIDGES
        problems.append(ConvProblem(weight, second, root, inverse, cross, total, ridges))
    return problems


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """The best B for the leading columns of an input projector, however many are taken.

    ``q`` (C, R); ``lower`` (R*K, R*K), the Cholesky factor of A = (Q x I)^T S (Q x I) with a ridge; ``solved`` =
    lower^-1 (Q x I)^T X, (R*K, O).
    """

    q: Array
    lower: Array
    solved: Array

    def explained(self, rank: int) -> Array:
        """B A B^T (O, O) with the first ``rank`` columns of Q."""
        leading = self.solved[: rank * self._taps]
        return np.asarray(leading.T @ leading)

    def b(self, rank: int) -> Array:
        """B (O, rank*K) with the first ``rank`` columns of Q."""
        size = rank * self._taps
        upper, solved = torch.from_numpy(self.lower[:size, :size]).T, torch.from_numpy(self.solved[:size])
        return np.asarray(torch.linalg.solve_triangular(upper, solved, upper=True).numpy().T)

    @property
    def _taps(self) -> int:
        return len(self.solved) // int(self.q.shape[1])


def start_projector(problem: ConvProblem) -> Array:
    """Orthonormal directions of the channels (C, C), the most important for the output first."""
    rows, columns, taps = problem.sizes
    blocks = problem.second.reshape(columns, taps, columns, taps)
    channels = np.einsum("atbt->ab", blocks) / taps
    stack = (problem.root @ problem.weight.reshape(rows, -1)).reshape(rows, columns, taps)
    by_channel = stack.transpose(1, 0, 2).reshape(columns, -1)
    gram = by_channel @ by_channel.T
    root, _ = _roots(channels)
    _, vectors = _descending(root @ gram @ root)
    # B of the reduced-rank regression spans gram @ root @ vectors; leading columns nest, so QR serves every rank.
    q, _ = np.linalg.qr(gram @ root @ vectors)
    return np.asarray(q)


def least_squares(problem: ConvProblem, q: Array) -> LeastSquares:
    """The least-squares solutions for fixed Q (C, R)."""
    rows, columns, taps = problem.sizes
    size = q.shape[1] * taps
    turn = torch.from_numpy(q).T
    second, cross = torch.from_numpy(problem.second), torch.from_numpy(problem.cross)
    half = (turn @ second.reshape(columns, -1)).reshape(size, -1).T  # S is symmetric: each side in turn
    a = (turn @ half.reshape(columns, -1)).reshape(size, size)
    x = (turn @ cross.reshape(columns, -1)).reshape(size, rows)
    lower = _cholesky(a, problem.ridges)
    return LeastSquares(q, lower.numpy(), torch.linalg.solve_triangular(lower, x, upper=False).numpy())


def _cholesky(a: Tensor, ridges: tuple[float, ...]) -> Tensor:
    """Lower factor of a positive semidefinite matrix with the first ridge that is more than its rounding errors."""
    mean = max(float(a.trace()) / len(a), 1e-200)
    lower, added = a, 0.0
    for ridge in ridges:
        a.diagonal().add_(ridge * mean - added)
        added = ridge * mean
        lower, failed = torch.linalg.cholesky_ex(a)
        if not failed:
            break
    return lower


def output_errors(problem: ConvProblem, start: LeastSquares | None, r_in: int | None) -> Array:
    """Error at every r_out = 0..O with the first r_in columns of a projector; the last is that of no output projector.

    ``start`` may be None with an ``r_in`` of None, which leaves the input projector out.
    """
    explained = _explained(problem, start, r_in)
    values = np.linalg.eigvalsh(problem.root @ explained @ problem.root)[::-1]
    return np.maximum(problem.total - np.concatenate(([0.0], np.cumsum(np.clip(values, 0.0, None)))), 0.0)


def _explained(problem: ConvProblem, start: LeastSquares | None, r_in: int | None) -> Array:
    if start is None or r_in is None:
        return np.asarray(problem.weight.reshape(problem.weight.shape[0], -1) @ problem.cross)
    return start.explained(r_in)


def solve(
    problem: ConvProblem,
    r_in: int | None,
    r_out: int | None,
    sweeps: int = _SWEEPS,
    start: LeastSquares | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """(core (r_out or O, r_in or C, K), Q (C, r_in) or None, U (O, r_out) or None) of least error found.

    ``start``: what ``least_squares`` found for ``start_projector``, where it is known already.
    """
    if r_in is None:
        core, u = _core(problem, None, None, r_out)
        return core, None, u
    fixed = start or least_squares(problem, start_projector(problem)[:, :r_in])
    unknowns = problem.sizes[1] * r_in
    first = _swept(problem, fixed, r_in, r_out, sweeps if unknowns <= _MAX_UNKNOWNS else 0)
    if not sweeps or unknowns > _SEVERAL_STARTS:
        return first
    others = (least_squares(problem, q) for q in _other_starts(problem, r_in))
    swept = [first, *(_swept(problem, other, r_in, r_out, sweeps) for other in others)]
    return min(swept, key=lambda factors: error_of(problem, *factors))


def _swept(
    problem: ConvProblem, fixed: LeastSquares, r_in: int, r_out: int | None, sweeps: int
) -> tuple[Array, Array, Array | None]:
    """The factors after some sweeps from a first Q."""
    core, u = _core(problem, fixed, r_in, r_out)
    q = fixed.q[:, :r_in]
    if not sweeps:
        return core, q, u
    _, columns, taps = problem.sizes
    by_taps = problem.second.reshape(columns, taps, columns, taps).transpose(0, 2, 1, 3).reshape(columns**2, taps**2)
    for _ in range(sweeps):
        q = _best_q(problem, by_taps, core, u, q)
        core, u = _core(problem, least_squares(problem, q), r_in, r_out)
    return core, q, u


def _other_starts(problem: ConvProblem, rank: int) -> Iterator[Array]:
    """Further Q to begin with: the sweeps end in the optimum nearest to where they begin.

    From the correlations of channels and weighted outputs, as they are and by the channels' own spread; and, where that
    costs nothing, at random.
    """
    _, columns, taps = problem.sizes
    by_channel = (problem.cross @ problem.root).reshape(columns, -1)
    yield _leading(by_channel, rank)
    blocks = problem.second.reshape(columns, taps, columns, taps)
    _, inverse = _roots(np.einsum("atbt->ab", blocks))
    yield np.linalg.qr(inverse @ _leading(inverse @ by_channel, rank))[0]
    if columns * rank <= _RANDOM_STARTS:
        rng = np.random.default_rng(0)
        for _ in range(4):
            yield np.linalg.qr(rng.normal(size=(columns, rank)))[0]


def _leading(matrix: Array, rank: int) -> Array:
    """The leading left singular vectors; orthonormal even where the matrix has fewer."""
    _, vectors = _descending(matrix @ matrix.T)
    return np.ascontiguousarray(vectors[:, :rank])


def _core(
    problem: ConvProblem, fixed: LeastSquares | None, r_in: int | None, r_out: int | None
) -> tuple[Array, Array | None]:
    rows, columns, taps = problem.sizes
    inner = columns if r_in is None else r_in
    b = problem.weight.reshape(rows, -1) if fixed is None or r_in is None else fixed.b(r_in)
    if r_out is None:
        return b.reshape(rows, inner, taps), None
    _, vectors = _descending(problem.root @ _explained(problem, fixed, r_in) @ problem.root)
    leading = vectors[:, :r_out]
    return (leading.T @ problem.root @ b).reshape(r_out, inner, taps), problem.inverse @ leading


def _best_q(problem: ConvProblem, by_taps: Array, core: Array, u: Array | None, q: Array) -> Array:
    """Least squares for Q given U and core, then orthonormalised (the core absorbs the rest).

    ``by_taps``: S as (C*C, K*K).
    """
    rows, columns, taps = problem.sizes
    rank = q.shape[1]
    d = np.einsum("op,pjt->ojt", problem.root if u is None else problem.root @ u, core, optimize=True)
    products = np.einsum("ojt,oku->tujk", d, d, optimize=True).reshape(taps**2, rank**2)
    normal = (by_taps @ products).reshape(columns, columns, rank, rank).transpose(0, 2, 1, 3)
    normal = normal.reshape(columns * rank, -1)
    weighted = np.einsum("op,ojt->tpj", problem.root, d, optimize=True).reshape(taps * rows, rank)
    right = problem.cross.reshape(columns, taps * rows) @ weighted
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
    out = core if q is None else np.einsum("pjt,cj->pct", core, q, optimize=True)
    return out if u is None else np.asarray(np.einsum("op,pct->oct", u, out, optimize=True))


def conv_factors(
    dense: DenseWeights,
    stats: LayerStats,
    problems: list[ConvProblem],
    choice: Choice,
    starts: Sequence[LeastSquares | None] = (),
) -> ConvFactors:
    """Factors of a whole convolution at given ranks per group, with the bias corrected for the mean patch.

    ``starts``: per group what ``least_squares`` found for ``start_projector``, where it is known already.
    """
    cores, projectors, outputs, lost = [], [], [], []
    known = starts or [None] * len(problems)
    for whole, patches, start in zip(problems, stats.patches, known, strict=True):
        problem = whole.by_columns(stats.layer.columns) if choice.separable else whole
        core, q, u = solve(problem, choice.r_in, choice.r_out, start=start)
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
        choice.separable,
    )
