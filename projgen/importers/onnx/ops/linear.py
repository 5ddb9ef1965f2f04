"""Gemm and MatMul by constant matrices: fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import fx, nn

from projgen.importers.onnx.build import Build, Call, Handler
from projgen.importers.onnx.sizes import Symbolic
from projgen.importers.onnx.values import Activation, Array, Value, tensor
from projgen.projection.shared import SharedProjector


def linear_layer(weight: Array, bias: Array | None) -> nn.Linear:
    """A layer computing ``x @ weight.T + bias``. weight: (out, in), bias: (out)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=tensor(weight[:0]).dtype)
    with torch.no_grad():
        layer.weight.copy_(tensor(weight))
        if bias is not None:
            layer.bias.copy_(tensor(bias))
    return layer


def row_vector(array: Array, width: int) -> Array | None:
    """A constant that adds the same vector (width) to every row, or None if it does more."""
    if array.size == 1:
        return np.full(width, array.reshape(()))
    flat = array.reshape(-1, array.shape[-1])
    if array.shape[-1] == width and bool((flat == flat[:1]).all()):
        return np.asarray(flat[0])
    return None


def _gemm(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    source = call.needed(1, "weights")
    weight = source.array
    if weight.ndim != 2 or x.rank != 2:
        raise call.fault("Gemm takes matrices")
    if call.attribute("transA", 0):
        x = Activation(x.view.permute((1, 0)), x.dtype)
    if not call.attribute("transB", 0):
        weight = weight.T
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    if alpha != 1.0:
        weight = (alpha * weight).astype(weight.dtype)
    given = call.const(2, "addend")
    bias = None
    if given is not None and given.array.size:
        bias = row_vector(given.array, weight.shape[0])
        if bias is None:
            raise call.refusal("its addend differs from row to row, which is no bias of a fully connected layer")
        if beta != 1.0:
            bias = (beta * bias).astype(weight.dtype)
    node = _apply(build, call, x, linear_layer(weight, bias), call.sharing)
    if alpha == 1.0:
        build.tie(node, source, turned=not call.attribute("transB", 0))
    return [_output(build, node, x, weight.shape[0])]


def _matmul(build: Build, call: Call) -> Sequence[Value]:
    left, right = call.given(0), call.given(1)
    if isinstance(left, Activation) and isinstance(right, Activation):
        return [_product(build, call, left, right)]
    if not isinstance(call.given(0), Activation):
        raise call.refusal("its left operand is constant; only data times a constant matrix is a layer")
    x = call.activation(0)
    source = call.needed(1, "right operand's elements")
    if source.array.ndim != 2:
        raise call.refusal(f"its right operand has {source.array.ndim} axes; a constant matrix is needed")
    projector = next((q for q in build.projectors if np.array_equal(q.detach().numpy(), source.array)), None)
    if projector is not None:
        shared = SharedProjector(*projector.shape, dtype=projector.dtype)
        shared.weight = projector
        return [_output(build, _apply(build, call, x, shared), x, source.shape[1])]
    node = _apply(build, call, x, linear_layer(source.array.T, None))
    build.tie(node, source, turned=True)
    return [_output(build, node, x, source.shape[1])]


def _product(build: Build, call: Call, a: Activation, b: Activation) -> Activation:
    """The product of two tensors of the data, as attention has it: axes in front that exporters merge stay apart."""
    front = a.view.groups[:-2]
    sizes = [[atom.size for atom in group] for group in front]
    if min(a.rank, b.rank) < 3 or [[atom.size for atom in group] for group in b.view.groups[:-2]] != sizes:
        raise call.refusal("two tensors of the data whose axes before the last two differ")
    if a.shape[-1] != b.shape[-2]:
        raise call.fault(f"its inputs have the shapes {tuple(a.shape)} and {tuple(b.shape)}")
    left, right = (build.real(Activation(x.view.parted(2), x.dtype)) for x in (a, b))
    shape = [*(size for group in sizes for size in group), a.shape[-2], b.shape[-1]]
    made = build.activation(build.call(torch.matmul, left, right), shape, a.dtype)
    return Activation(made.view.merged([len(group) for group in front]), a.dtype)


def _apply(
    build: Build, call: Call, x: Activation, layer: nn.Linear | SharedProjector, key: tuple[object, ...] = ()
) -> fx.Node:
    inputs = layer.weight.shape[0 if isinstance(layer, SharedProjector) else 1]
    if isinstance(x.shape[-1], Symbolic):
        raise call.refusal("its input's features lie along an axis whose length is open, such as the batch")
    if x.shape[-1] != inputs:
        raise call.fault(f"its input has {x.shape[-1]} features, its weights {inputs}")
    return build.layer(call.name, layer, build.real(_rows_apart(x)), key=key)


def _rows_apart(x: Activation) -> Activation:
    """The input of a layer, its rows in several axes where they are several merged, such as batch and time."""
    return x if x.view.is_plain else replace(x, view=x.view.parted(1))


def _output(build: Build, node: fx.Node, x: Activation, features: int) -> Activation:
    """The result of a layer on x, its rows as x has them."""
    made = build.activation(node, (*_rows_apart(x).shape[:-1], features), x.dtype)
    counts = [len(group) for group in x.view.groups[:-1]]
    return made if x.view.is_plain else Activation(made.view.merged(counts), x.dtype)


def absorb_bias(build: Build, value: Activation, addend: Array) -> bool:
    """Make a constant the bias of the layer that computed ``value``, if it can be one.

    Only for a value that nothing else reads.
    """
    layer = build.layers.get(value.view.node)
    if not isinstance(layer, nn.Linear) or layer.bias is not None or value.view.groups[-1:] != value.view.base[-1:]:
        return False
    bias = row_vector(addend, layer.out_features) if addend.ndim <= value.rank else None
    if bias is None:
        return False
    layer.bias = nn.Parameter(tensor(bias).to(layer.weight.dtype))
    return True


OPERATORS: dict[str, Handler] = {"Gemm": _gemm, "MatMul": _matmul}
