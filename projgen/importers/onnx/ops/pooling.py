"""Pooling over windows and over whole axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from projgen.importers.onnx.build import Build, Call, Handler
from projgen.importers.onnx.ops.spatial import output_sizes, padded, read_window
from projgen.importers.onnx.values import Value


def _max_pool(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    if len(call.used) > 1 and call.used[1]:
        raise call.refusal("its second output, the indices, is read")
    window = read_window(call, x)
    source = build.real(x)
    inside = window.is_symmetric and all(2 * p <= k for p, k in zip(window.before, window.kernel, strict=True))
    if not inside:
        source = padded(build, call.name, source, window, float("-inf"))
    kind: Any = nn.MaxPool1d if len(window.kernel) == 1 else nn.MaxPool2d
    layer = kind(
        window.kernel,
        window.stride,
        padding=window.before if inside else 0,
        dilation=window.dilation,
        ceil_mode=window.ceil,
    )
    node = build.layer(call.name, layer, source)
    return [build.activation(node, (*x.shape[:2], *output_sizes(x, window)), x.dtype)]


def _average_pool(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    window = read_window(call, x)
    if any(step != 1 for step in window.dilation):
        raise call.refusal("with dilations")
    counted = bool(call.attribute("count_include_pad", 0))
    if window.ceil and counted:
        raise call.refusal("with ceil_mode and count_include_pad together, whose divisor tools disagree about")
    inside = window.is_symmetric and all(2 * p <= k for p, k in zip(window.before, window.kernel, strict=True))
    source = build.real(x)
    if not inside:
        if not counted:
            raise call.refusal(
                "with padding that is uneven, or wider than half the window, and not counted (count_include_pad=0)"
            )
        source = padded(build, call.name, source, window, 0.0)
    kind: Any = nn.AvgPool1d if len(window.kernel) == 1 else nn.AvgPool2d
    layer = kind(
        window.kernel,
        window.stride,
        padding=window.before if inside else 0,
        ceil_mode=window.ceil,
        count_include_pad=counted,
    )
    node = build.layer(call.name, layer, source)
    return [build.activation(node, (*x.shape[:2], *output_sizes(x, window)), x.dtype)]


def _global(one: Callable[[int], nn.Module], two: Callable[[int], nn.Module]) -> Handler:
    def handler(build: Build, call: Call) -> Sequence[Value]:
        x = call.activation(0)
        axes = x.rank - 2
        if axes not in {1, 2}:
            raise call.refusal(f"over {axes} spatial axes; 1 and 2 are supported")
        node = build.layer(call.name, (one if axes == 1 else two)(1), build.real(x))
        return [build.activation(node, (*x.shape[:2], *(1,) * axes), x.dtype)]

    return handler


def _reduce(function: Callable[..., Any], whole: Handler) -> Handler:
    def handler(build: Build, call: Call) -> Sequence[Value]:
        x = call.activation(0)
        axes = call.static(1, "axes", "axes")
        if not axes:
            if call.attribute("noop_with_empty_axes", 0):
                return [x]
            axes = list(range(x.rank))
        reduced = sorted({call.axis(axis, x.rank) for axis in axes})
        kept = bool(call.attribute("keepdims", 1))
        if kept and x.rank in {3, 4} and reduced == list(range(2, x.rank)):
            return whole(build, call)  # how exporters write adaptive pooling to one element
        node = build.call(function, build.real(x), tuple(reduced), kept)
        sizes = [1 if axis in reduced else size for axis, size in enumerate(x.shape)]
        shape = sizes if kept else [size for axis, size in enumerate(sizes) if axis not in reduced]
        return [build.activation(node, shape, x.dtype)]

    return handler


_GLOBAL_AVERAGE = _global(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_GLOBAL_MAX = _global(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)

OPERATORS: dict[str, Handler] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _GLOBAL_AVERAGE,
    "GlobalMaxPool": _GLOBAL_MAX,
    "MaxPool": _max_pool,
    "ReduceMax": _reduce(torch.amax, _GLOBAL_MAX),
    "ReduceMean": _reduce(torch.mean, _GLOBAL_AVERAGE),
}
