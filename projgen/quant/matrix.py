"""The integer rule of every matrix (linear and convolution rows), and the proof that its accumulator can't overflow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from projgen.errors import UnsupportedError
from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import MatrixNumerics
from projgen.ir.types import DType, TensorType
from projgen.quant.fixed import ACCUMULATOR_LIMIT, ROUND, Floats, Ints, multipliers, nearest


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Integer rows: w (N, ...) in [-127, 127], b (N,) with the zero points folded in, m (N,), one pre-shift.

    ``f`` (N,) is the factor of a residual, 0 without one.
    """

    w: npt.NDArray[np.int8]
    b: npt.NDArray[np.int32]
    m: npt.NDArray[np.int32]
    shift: int
    f: npt.NDArray[np.int32]


def quantise_rows(
    name: str,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None,
    x: TensorType,
    y: TensorType,
    residual: TensorType | None = None,
) -> Rows:
    """Quantise real rows W (N, ...) and biases (N,) between an input of type ``x`` and an output of type ``y``.

    The accumulator's scale is A[n] = max(max|W[n]| s_x / 127, |B[n]| 2^-29, s_y 2^-12): the floors keep biases of
    rows with almost no weights inside int32 and M above 2^20. With a residual, A[n] is raised to the next s_r / f[n],
    f[n] an integer: the residual enters the sum without any rounding.
    """
    weights = np.asarray(w, np.float64)
    rows = len(weights)
    bias = np.zeros(rows) if b is None else np.asarray(b, np.float64)
    if x.quant is None or y.quant is None:
        raise ValueError(f"{name}: the types of a matrix's operands carry no scale")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise UnsupportedError(f"{name}: a weight or bias is NaN or infinite", "finite parameters", "the model")
    s_x, s_y = x.quant.scale, y.quant.scale
    flat = weights.reshape(rows, -1)
    scale = accumulator_scale(flat, bias, s_x, s_y)
    factor, zero = np.zeros(rows), 0
    if residual is not None and residual.quant is not None:
        factor, zero = np.floor(residual.quant.scale / scale), residual.quant.zero_point
        if (factor < 1).any():
            raise UnsupportedError(
                f"{name}: the residual's scale is finer than the sum's", "a coarser one", "the model"
            )
        scale = residual.quant.scale / factor
    integer = np.clip(nearest(flat * s_x / scale[:, None]), -127, 127)
    folded = nearest(bias / scale) - x.quant.zero_point * integer.sum(axis=1) - zero * factor.astype(np.int64)
    m, shift = multipliers(scale / s_y, name)
    if (np.abs(folded) >= ACCUMULATOR_LIMIT).any() or (factor >= ACCUMULATOR_LIMIT).any():
        row = int(np.abs(folded).argmax())
        raise UnsupportedError(f"{name}: the bias of output {row} leaves int32", "smaller weights", "the model")
    w8, f = integer.reshape(weights.shape).astype(np.int8), factor.astype(np.int32)
    return Rows(w8, folded.astype(np.int32), m.astype(np.int32), shift, f)


def accumulator_scale(w: Floats, b: Floats, s_x: float, s_y: float) -> Floats:
    """A (N,) of rows w (N, K) and biases b (N,): the smallest scale at which weights, biases and multipliers fit."""
    peak = np.abs(w).max(axis=1, initial=0.0)
    return np.asarray(np.maximum(np.maximum(peak * s_x / 127.0, np.abs(b) * 2.0**-29), s_y * 2.0**-12))


def accumulator_bounds(w: npt.ArrayLike, b: npt.ArrayLike, peak: int, shift: int) -> Ints:
    """Largest |acc << p| of each row over all inputs of magnitude up to ``peak``: 2^p (sum|w| peak + |b|)."""
    flat = np.abs(np.asarray(w, np.int64)).reshape(len(np.asarray(w)), -1)
    return np.asarray((flat.sum(axis=1) * peak + np.abs(np.asarray(b, np.int64))) << shift, np.int64)


def prove_rows(
    name: str, w: npt.ArrayLike, b: npt.ArrayLike, peak: int, shift: int, f: npt.ArrayLike | None = None
) -> None:
    """Refuse, by name, rows whose accumulator could leave int32 for some input of magnitude up to ``peak``.

    ``f`` (N,) are the factors of an int8 residual.
    """
    bounds = accumulator_bounds(w, b, peak, shift)
    if f is not None:
        bounds = bounds + ((128 * np.abs(np.asarray(f, np.int64))) << shift)
    row = int(bounds.argmax()) if len(bounds) else 0
    if len(bounds) and bounds[row] >= ACCUMULATOR_LIMIT:
        raise UnsupportedError(
            f"{name}: the int32 accumulator of output {row} could reach {int(bounds[row])}",
            f"at most {ACCUMULATOR_LIMIT - 1} for every input, proven from the weights",
            "the model: fewer inputs to this layer, or smaller weights",
        )


def peak_of(graph: Graph, value: str) -> int:
    """The largest magnitude provable for an activation: of its type, or for int16 from the rows that produce it."""
    t = graph.type(value)
    if t.dtype is DType.INT8:
        return 128
    whole = -t.dtype.low
    node = graph.producer(value)
    if node is None or not isinstance(node.numerics, MatrixNumerics):
        return whole
    requant = node.numerics.requant
    inner = accumulator_bounds(
        graph.data(node, "w"), graph.data(node, "b"), peak_of(graph, node.inputs["x"]), requant.shift
    )
    reach = (inner * graph.data(node, "m").astype(np.int64) + ROUND) >> 32
    return min(whole, int(reach.max(initial=0)) + abs(requant.zero_point))


def prove_matrix(graph: Graph, node: Node) -> None:
    """The overflow proof of a quantised linear or convolution node."""
    if not isinstance(node.numerics, MatrixNumerics):
        raise ValueError(f"node {node.name!r} has no matrix numerics")
    m = graph.data(node, "m")
    if (m % 4 != 0).any() or (m < 0).any():
        raise ValueError(f"node {node.name!r} has multipliers that are negative or no multiples of 4")
    peak = peak_of(graph, node.inputs["x"])
    factors = graph.data(node, "f") if "f" in node.inputs else None
    prove_rows(node.name, graph.data(node, "w"), graph.data(node, "b"), peak, node.numerics.requant.shift, factors)
