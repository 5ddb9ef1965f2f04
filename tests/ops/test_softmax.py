"""The integer softmax: error at most .505 of its unit, in every corner."""

from __future__ import annotations

import numpy as np
import pytest

from projgen.ops import softmax
from projgen.ops.common import int8_type
from projgen.ops.softmax import MAX_CLASSES, exponentials


def error(x: np.ndarray, scale: float) -> float:
    sample = softmax._sample("softmax", int8_type(x.shape[1:], scale, 0))
    (node,) = sample.graph.nodes
    args = {"x": x.astype(np.int8), "table": exponentials(scale)}
    return float(np.abs(softmax.integer(node, args) - softmax.oracle(sample.graph, node, args)).max())


@pytest.mark.parametrize("scale", [1e-4, 0.003, 0.01, 0.03, 0.1, 0.4, 2.0])
def test_two_classes_exhaustively(scale: float) -> None:
    x = np.stack(np.meshgrid(np.arange(-128, 128), [-128, -5, 0, 77, 127]), -1).reshape(-1, 2)
    assert error(x, scale) <= 0.505


@pytest.mark.parametrize("n", [3, 10, 100, 1000, MAX_CLASSES])
@pytest.mark.parametrize("scale", [1e-3, 0.02, 0.15, 1.0])
def test_many_classes(n: int, scale: float) -> None:
    rng = np.random.default_rng(n)
    x = rng.integers(-128, 128, (max(2, 4000 // n), n))
    x[0] = 127
    x[1, 1:] = -128
    x[1, 0] = 127
    assert error(x, scale) <= 0.505


def test_unsigned_32_bits_suffice() -> None:
    table = exponentials(1e-6).astype(np.uint64)
    assert table[0] == 65535
    total = int(table[0]) * MAX_CLASSES
    assert 2 * total < 2**32
    assert 512 * int(table[0]) + total < 2**32
