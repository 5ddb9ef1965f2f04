"""Comparing a float graph with the module it came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from projgen.ir.graph import Graph, Port
from projgen.ir.interpreter import run_float

TOLERANCE = 1e-5


def to_ir(x: Tensor, port: Port) -> np.ndarray:
    """A torch array (batch first) in a port's axis order."""
    return np.ascontiguousarray(x.numpy().transpose(0, *(axis + 1 for axis in port.perm)))


def relative_error(graph: Graph, module: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Largest difference between graph and module, over the largest magnitude of that output."""
    with torch.no_grad():
        expected = module(*inputs)
    expected = (expected,) if isinstance(expected, Tensor) else tuple(expected)
    found = run_float(graph, [to_ir(x, port) for x, port in zip(inputs, graph.inputs, strict=True)])
    assert len(found) == len(expected)
    worst = 0.0
    for want, got, port in zip(expected, found, graph.outputs, strict=True):
        wanted = to_ir(want, port)
        assert got.shape == wanted.shape
        worst = max(worst, float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-6)))
    return worst


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]
