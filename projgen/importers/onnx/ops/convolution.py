"""Conv over one or two spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from projgen.importers.onnx.build import Build, Call, Handler
from projgen.importers.onnx.ops.spatial import output_sizes, padded, read_window
from projgen.importers.onnx.values import Value, tensor


def _conv(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    weight = call.needed(1, "weights").array
    bias = call.const(2, "bias")
    window = read_window(call, x, tuple(weight.shape[2:]))
    groups = call.attribute("group", 1)
    channels = x.shape[1]
    if channels != weight.shape[1] * groups or weight.shape[0] % groups:
        raise call.fault(f"{channels} channels in {groups} groups for weights of shape {weight.shape}")
    kind: Any = nn.Conv1d if len(window.kernel) == 1 else nn.Conv2d
    layer = kind(
        channels,
        weight.shape[0],
        window.kernel,
        stride=window.stride,
        padding=window.before if window.is_symmetric else 0,
        dilation=window.dilation,
        groups=groups,
        bias=bias is not None,
        dtype=x.dtype,
    )
    with torch.no_grad():
        layer.weight.copy_(tensor(weight))
        if bias is not None:
            layer.bias.copy_(tensor(bias.array))
    source = build.real(x)
    if not window.is_symmetric:
        source = padded(build, call.name, source, window, 0.0)
    node = build.layer(call.name, layer, source, key=(*call.sharing, window))
    return [build.activation(node, (x.shape[0], weight.shape[0], *output_sizes(x, window)), x.dtype)]


OPERATORS: dict[str, Handler] = {"Conv": _conv}
