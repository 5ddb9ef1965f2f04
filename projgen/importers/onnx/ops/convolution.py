"""Conv and ConvTranspose over one or two spatial axes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from projgen.importers.onnx.build import Build, Call, Handler
from projgen.importers.onnx.ops.spatial import output_sizes, padded, read_window
from projgen.importers.onnx.sizes import Size, Symbolic, new_symbol
from projgen.importers.onnx.values import Activation, Value, tensor


def _conv(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    source = call.needed(1, "weights")
    weight, bias = source.array, call.const(2, "bias")
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
    read = build.real(x)
    if not window.is_symmetric:
        read = padded(build, call.name, read, window, 0.0)
    node = build.layer(call.name, layer, read, key=(*call.sharing, window))
    build.tie(node, source)
    return [build.activation(node, (x.shape[0], weight.shape[0], *output_sizes(x, window)), x.dtype)]


def _conv_transpose(build: Build, call: Call) -> Sequence[Value]:
    """As nn.ConvTranspose1d or 2d, its end cut off where the file cuts more there than at the start."""
    x = call.activation(0)
    source = call.needed(1, "weights")
    weight, bias = source.array, call.const(2, "bias")
    axes = weight.ndim - 2
    groups, channels = call.attribute("group", 1), x.shape[1]
    if axes not in {1, 2} or x.rank != axes + 2:
        raise call.refusal(f"over {axes} spatial axes; 1 and 2 are supported")
    if channels != weight.shape[0] or weight.shape[0] % groups:
        raise call.fault(f"{channels} channels in {groups} groups for weights of shape {weight.shape}")
    ones = (1,) * axes
    stride, dilation = tuple(call.attribute("strides", ones)), tuple(call.attribute("dilations", ones))
    kernel = tuple(int(size) for size in weight.shape[2:])
    cut, extra = _cut(call, x, kernel, stride, dilation)
    outputs = weight.shape[1] * groups
    kind: Any = nn.ConvTranspose1d if axes == 1 else nn.ConvTranspose2d
    layer = kind(
        channels,
        outputs,
        kernel,
        stride=stride,
        padding=cut,
        output_padding=tuple(max(0, e) for e in extra),
        dilation=dilation,
        groups=groups,
        bias=bias is not None,
        dtype=x.dtype,
    )
    with torch.no_grad():
        layer.weight.copy_(tensor(weight))
        if bias is not None:
            layer.bias.copy_(tensor(bias.array))
    node = build.layer(call.name, layer, build.real(x), key=call.sharing)
    build.tie(node, source)
    sizes: list[Size] = []
    for axis, size in enumerate(x.shape[2:]):
        grown = dilation[axis] * (kernel[axis] - 1) + 1 - 2 * cut[axis] + extra[axis] - stride[axis]
        if isinstance(size, Symbolic):
            sizes.append(size if stride[axis] == 1 and grown == 0 else new_symbol())
        else:
            sizes.append(size * stride[axis] + grown)
    if min(extra) < 0:
        ends = tuple(slice(None, e if e < 0 else None) for e in extra)
        node = build.call(operator.getitem, node, (slice(None), slice(None), *ends))
    return [build.activation(node, (x.shape[0], outputs, *sizes), x.dtype)]


def _cut(
    call: Call, x: Activation, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Per spatial axis what is cut off both ends, and how much longer than that the output is at its end."""
    axes = len(kernel)
    added = tuple(call.attribute("output_padding", (0,) * axes))
    pads = tuple(call.attribute("pads", (0,) * (2 * axes)))
    wanted, mode = call.attribute("output_shape", None), call.attribute("auto_pad", "NOTSET")
    same = mode in {"SAME_UPPER", "SAME_LOWER"}
    if len(stride) != axes or len(dilation) != axes or len(added) != axes or len(pads) != 2 * axes:
        raise call.fault(f"strides {stride}, dilations {dilation}, pads {pads}, output_padding {added}")
    cut, extra = [], []
    for axis, size in enumerate(x.shape[2:]):
        before, after = (0, 0) if mode == "VALID" else (int(pads[axis]), int(pads[axes + axis]))
        reach = dilation[axis] * (kernel[axis] - 1) + 1 + int(added[axis])
        if wanted is not None or same:
            if wanted is not None and isinstance(size, Symbolic):
                raise call.refusal("an output_shape for an axis of open length")
            total = reach - stride[axis]
            if wanted is not None and not isinstance(size, Symbolic):
                total += size * stride[axis] - int(wanted[axis - axes])
            small, large = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
            before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
            after += min(total, 0)
        longer = before - after + int(added[axis])
        if before < 0 or longer >= max(stride[axis], dilation[axis]):
            raise call.refusal(
                f"pads {before} and {after} with output_padding {added[axis]}, a stride of {stride[axis]}"
            )
        cut.append(before)
        extra.append(longer)
    return tuple(cut), tuple(extra)


OPERATORS: dict[str, Handler] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
