"""Finds the sums that a convolution can make in its own accumulator, and folds them into it.

conv2d -> add -> activation rounds the branch to int8 before the sum; conv2d_residual rounds once, needs no map for the
branch, and no pass over the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from projgen.ir.attrs import Add, Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, TensorType
from projgen.quant.matrix import accumulator_scale

SMALLEST_FACTOR: Final = 16  # A row's scale is raised by at most 1 / 16 so that the residual's factor is an integer.
_KERNELS: Final = ((1, 1), (3, 3))


def fold_residuals(graph: Graph, types: Mapping[str, TensorType]) -> Graph:
    """The float graph with conv2d_residual in the place of conv2d -> add wherever that is as exact and as fast.

    The convolution has one group, stride and dilation 1, a kernel of 1x1 or 3x3, an even number of outputs and no
    activation; only the sum reads it; the sum's other operand has its shape. Every factor is 16 or more. Where both
    operands are such convolutions, the one with more weights takes the sum.

    Args:
        graph: float stage, canonical.
        types: the quantised types that its activations would have.
    """
    nodes = {node.name: node for node in graph.nodes}
    for add in graph.nodes:
        if not isinstance(add.attrs, Add):
            continue
        found = [
            (conv, residual)
            for branch, residual in (("b", "a"), ("a", "b"))
            if (conv := _branch(graph, add, add.inputs[branch], add.inputs[residual], types)) is not None
        ]
        if found:
            conv, residual = max(found, key=lambda pair: graph.data(pair[0], "w").size)
            attrs = conv.attrs
            if isinstance(attrs, Conv2d):
                attrs = replace(attrs, activation=add.attrs.activation)
            inputs = {"x": conv.inputs["x"], "residual": add.inputs[residual], **_constants(conv)}
            nodes[add.name] = replace(conv, op="conv2d_residual", inputs=inputs, output=add.output, attrs=attrs)
            del nodes[conv.name]
    return graph.with_(nodes=nodes.values())


def _constants(conv: Node) -> dict[str, str]:
    return {role: name for role, name in conv.inputs.items() if role != "x"}


def _branch(graph: Graph, add: Node, branch: str, residual: str, types: Mapping[str, TensorType]) -> Node | None:
    """The convolution that makes ``branch``, if it can take the sum with ``residual``."""
    conv = graph.producer(branch)
    if conv is None or conv.op != "conv2d" or not isinstance(conv.attrs, Conv2d):
        return None
    if graph.is_output(branch) or graph.readers(branch) != (add,) or branch == residual:
        return None
    other = types.get(residual)
    if other is None or other.dtype is not DType.INT8 or other.shape != graph.type(branch).shape:
        return None
    w = graph.data(conv, "w")
    plain = Conv2d(padding=conv.attrs.padding)
    if conv.attrs != plain or w.shape[1:3] not in _KERNELS or len(w) % 2:
        return None
    return conv if _smallest_factor(graph, conv, other, types[add.output], types) >= SMALLEST_FACTOR else None


def _smallest_factor(
    graph: Graph, conv: Node, residual: TensorType, y: TensorType, types: Mapping[str, TensorType]
) -> float:
    """The smallest factor that a residual would have in the convolution's rows."""
    x = types[conv.inputs["x"]]
    if x.quant is None or y.quant is None or residual.quant is None:
        raise ValueError(f"{conv.name}: the types of its operands carry no scale")
    w = graph.data(conv, "w").astype(np.float64)
    b = graph.data(conv, "b").astype(np.float64) if "b" in conv.inputs else np.zeros(len(w))
    scale = accumulator_scale(w.reshape(len(w), -1), b, x.quant.scale, y.quant.scale)
    return float((residual.quant.scale / scale).min())
