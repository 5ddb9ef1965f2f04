"""Activations, sums and products, normalisation, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from projgen.importers.onnx.build import Build, Call, Handler
from projgen.importers.onnx.ops.linear import absorb_bias
from projgen.importers.onnx.sizes import Size, Symbolic, same
from projgen.importers.onnx.values import Activation, Array, Const, Filled, Value, tensor
from projgen.importers.onnx.views import View


def _elementwise(build: Build, call: Call, x: Activation, layer: nn.Module) -> Activation:
    """A layer that acts on each element alone: it slips under transposes and reshapes."""
    view = x.view
    node = build.layer(call.name, layer, view.node)
    return Activation(View(node, view.base, view.groups), x.dtype)


def _activation(layer: Callable[[], nn.Module]) -> Handler:
    def handler(build: Build, call: Call) -> Sequence[Value]:
        return [_elementwise(build, call, call.activation(0), layer())]

    return handler


def _gelu(build: Build, call: Call) -> Sequence[Value]:
    kind = call.attribute("approximate", "none")
    return [_elementwise(build, call, call.activation(0), nn.GELU(kind if isinstance(kind, str) else kind.decode()))]


def _clip(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    bounds = []
    for index, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        given = call.const(index, "bounds")
        value = float(call.attribute(name, default) if given is None else given.array.reshape(()))
        bounds.append(default if abs(value) >= np.finfo(np.float32).max else value)
    low, high = bounds
    if math.isnan(low) or math.isnan(high):
        raise call.fault("a bound is not a number")
    if (low, high) == (-math.inf, math.inf):
        return [x]
    if (low, high) == (0.0, 6.0):
        return [_elementwise(build, call, x, nn.ReLU6())]
    if (low, high) == (0.0, math.inf):
        return [_elementwise(build, call, x, nn.ReLU())]
    limits = [None if math.isinf(bound) else bound for bound in (low, high)]
    node = build.call(torch.clamp, x.view.node, *limits)
    return [Activation(View(node, x.view.base, x.view.groups), x.dtype)]


def _binary(build: Build, call: Call) -> Sequence[Value]:
    a, b = call.given(0), call.given(1)
    operator = call.node.op_type
    if isinstance(a, Activation) and isinstance(b, Activation):
        return [_two_tensors(build, call, a, b)]
    if isinstance(a, Activation) and b is not None:
        x, constant = a, _operand(call, a, b)
        if operator == "Sub":
            constant = -constant
        elif operator == "Div":
            constant = np.divide(1, constant, dtype=constant.dtype)
    elif isinstance(b, Activation) and a is not None:
        x, constant = b, _operand(call, b, a)
        if operator == "Div":
            raise call.refusal("division by a tensor of the data")
        if operator == "Sub":
            x = _with_constant(build, call, torch.mul, x, np.full((), -1, constant.dtype))
    else:
        raise call.refusal("none of its inputs is a tensor of the data")
    if operator in {"Add", "Sub"}:
        position = 0 if x is a else 1
        if x is call.given(position) and call.alone[position] and absorb_bias(build, x, constant):
            return [x]
        return [_with_constant(build, call, torch.add, x, constant)]
    return [_with_constant(build, call, torch.mul, x, constant)]


def _two_tensors(build: Build, call: Call, a: Activation, b: Activation) -> Activation:
    left, right = build.real(a), build.real(b)
    operator = call.node.op_type
    if operator == "Div":
        raise call.refusal("division by a tensor of the data")
    if operator == "Sub":
        right, operator = build.call(torch.mul, right, -1.0), "Add"
    node = build.call(torch.add if operator == "Add" else torch.mul, left, right)
    return build.activation(node, _broadcast(call, a.shape, b.shape), a.dtype)


def _broadcast(call: Call, a: Sequence[Size], b: Sequence[Size]) -> list[Size]:
    rank = max(len(a), len(b))
    pairs = zip([1] * (rank - len(a)) + list(a), [1] * (rank - len(b)) + list(b), strict=True)
    sizes: list[Size] = []
    for one, other in pairs:
        if isinstance(one, int) and isinstance(other, int) and one != other and 1 not in {one, other}:
            raise call.fault(f"shapes {tuple(a)} and {tuple(b)} don't broadcast")
        sizes.append(other if one == 1 else one)
    return sizes


def _operand(call: Call, x: Activation, value: Value) -> Array:
    """A constant operand, reduced to what every batch shares."""
    if isinstance(value, Filled):
        if len(value.shape) > x.rank or any(
            size not in {1, mine} for size, mine in zip(value.shape[::-1], x.shape[::-1], strict=False)
        ):
            raise call.refusal("its constant operand is larger than the data")
        return np.asarray(value.value)
    if not isinstance(value, Const):
        raise call.refusal("its operand is computed from axis lengths")
    array = value.array
    for axis in range(-1, -min(array.ndim, x.rank) - 1, -1):
        size = x.shape[axis]
        if isinstance(size, Symbolic) and array.shape[axis] != 1:
            first = np.take(array, [0], axis=axis)
            if not same(size, array.shape[axis]) or not bool((array == first).all()):
                raise call.refusal("its constant operand differs along an axis whose length is open, such as the batch")
            array = first
    return array


def _with_constant(build: Build, call: Call, function: Callable[..., Any], x: Activation, array: Array) -> Activation:
    if array.size == 1 and array.ndim <= x.rank:
        node = build.call(function, x.view.node, float(array.reshape(())))
        return Activation(View(node, x.view.base, x.view.groups), x.dtype)
    shape = _broadcast(call, x.shape, array.shape)
    node = build.call(function, build.real(x), build.buffer(f"{call.name}_constant", array))
    return build.activation(node, shape, x.dtype)


def _softmax(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    axis = call.axis(call.attribute("axis", -1 if call.opset >= 13 else 1), x.rank)
    if call.opset < 13 and any(size != 1 for size in x.shape[axis + 1 :]):
        raise call.refusal(f"over several axes at once (axis {axis} of {x.rank} before opset 13)")
    view, group = x.view, x.view.groups[axis]
    if not view.is_plain and group and group in view.base:
        layer = nn.Softmax(dim=view.base.index(group) - len(view.base))
        return [Activation(View(build.layer(call.name, layer, view.node), view.base, view.groups), x.dtype)]
    node = build.layer(call.name, nn.Softmax(dim=axis - x.rank), build.real(x))
    return [build.activation(node, x.shape, x.dtype)]


def _layer_norm(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    if any(call.used[1:]):
        raise call.refusal("its mean or deviation is read")
    features = x.shape[-1]
    if call.axis(call.attribute("axis", -1), x.rank) != x.rank - 1 or isinstance(features, Symbolic):
        raise call.refusal("over other axes than the last one, or one of open length")
    scale, shift = call.needed(1, "scale"), call.const(2, "bias")
    layer = nn.LayerNorm(features, call.attribute("epsilon", 1e-5), bias=shift is not None, dtype=x.dtype)
    with torch.no_grad():
        layer.weight.copy_(tensor(np.broadcast_to(scale.array, (features,))))
        if shift is not None:
            layer.bias.copy_(tensor(np.broadcast_to(shift.array, (features,))))
    return [build.activation(build.layer(call.name, layer, build.real(x)), x.shape, x.dtype)]


def _batch_norm(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    if call.attribute("training_mode", 0) or any(call.used[1:]):
        raise call.refusal("in training mode; export the model in evaluation mode")
    if x.rank not in {2, 3, 4}:
        raise call.refusal(f"on a tensor with {x.rank} axes; 2, 3 and 4 are supported")
    tensors = [call.needed(index, "parameters").array for index in range(1, 5)]
    kind: Any = nn.BatchNorm2d if x.rank == 4 else nn.BatchNorm1d
    layer = kind(x.shape[1], eps=call.attribute("epsilon", 1e-5), dtype=x.dtype)
    targets = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    with torch.no_grad():
        for target, array in zip(targets, tensors, strict=True):
            target.copy_(tensor(array))
    node = build.layer(call.name, layer, build.real(x))
    return [build.activation(node, x.shape, x.dtype)]


OPERATORS: dict[str, Handler] = {
    "Add": _binary,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Div": _binary,
    "Gelu": _gelu,
    "LayerNormalization": _layer_norm,
    "Mul": _binary,
    "Relu": _activation(nn.ReLU),
    "Sigmoid": _activation(nn.Sigmoid),
    "Softmax": _softmax,
    "Sub": _binary,
    "Tanh": _activation(nn.Tanh),
}
