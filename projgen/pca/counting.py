"""Learnables: what training changes, counted the same way before and after projection.

Per LSTM or GRU cell one bias vector per gate is counted (torch stores two, whose sum alone matters), except the
GRU's candidate gate: its hidden bias stands inside the reset product and counts apart. Everything else counts
as its parameters' sizes; a shared parameter counts once. docs/projection.md has the table.
"""

from __future__ import annotations

import math

from torch import nn

from projgen.pca.discover import Kind, Layer


def count_learnables(model: nn.Module) -> int:
    """Number of learnables of a whole model."""
    seen: set[int] = set()
    total = 0
    for module in model.modules():
        merged = isinstance(module, nn.LSTM | nn.GRU)
        for name, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if merged and name.startswith("bias_hh"):
                total += parameter.numel() // 3 if isinstance(module, nn.GRU) else 0
            else:
                total += math.prod(parameter.shape)
    return total


def dense_cost(layer: Layer) -> int:
    """Learnables of a layer as it is."""
    return factored_cost(layer, None, None)


def factored_cost(
    layer: Layer,
    r_in: int | None,
    r_out: int | None,
    *,
    core_bias: bool = False,
    joint: bool = False,
    folded: bool = False,
    shared: bool = False,
    separable: bool = False,
) -> int:
    """Learnables of a layer at given ranks; None leaves a projector out.

    Args:
        core_bias: a convolution with an output projector keeps its bias before it (r_out per group).
        joint: an LSTM cell whose two products share their first factor (r_in = r_out).
        folded: a joint cell whose bias is one of the low-rank vector (r_in) instead of the gates'.
        separable: a convolution of rows (kh x 1, to r_in channels) and then of columns (1 x kw).
        shared: a Linear layer that reads an RNN's hidden state through that RNN's output projector.
    """
    rows, columns = layer.outputs, layer.inputs
    if layer.kind is Kind.LINEAR:
        weights = rows * columns if r_in is None else r_in * (rows + columns * (not shared))
        return weights + rows * layer.bias
    if layer.kind is Kind.CONV:
        inner_in = columns if r_in is None else r_in
        inner_out = rows if r_out is None else r_out
        kernel = layer.columns if separable else layer.taps
        weights = inner_in * kernel * inner_out
        weights += 0 if r_in is None else columns * r_in * (layer.taps // kernel)
        weights += 0 if r_out is None else rows * r_out
        return layer.groups * (weights + layer.bias * (inner_out if core_bias else rows))
    width = layer.hidden
    weights = rows * columns if r_in is None else r_in * (rows + columns)
    weights += rows * width if r_out is None else r_out * (rows * (not joint) + width)
    return weights + ((r_in or 0) if folded else 4 * width) * layer.bias


def smallest_cost(layer: Layer) -> int:
    """Learnables of a layer at rank one on all sides."""
    return factored_cost(layer, 1, None if layer.kind is Kind.LINEAR else 1, core_bias=True)
