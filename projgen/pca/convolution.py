"""Convolutions and transposed ones in one form: rows of weights, and the patch of input that each output pixel sees.

A transposed convolution is a convolution of stride 1 over its input spread out, zeros between the pixels. Its patch
holds the pixel that each kernel tap meets, or zero, in the order of its rows.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgen.errors import UnsupportedError

Convolution = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def is_convolution(module: nn.Module) -> TypeGuard[Convolution]:
    """Whether a module is a convolution that can be projected, transposed or not."""
    return isinstance(module, CONVOLUTIONS)


def is_transposed(module: Convolution) -> TypeGuard[nn.ConvTranspose1d | nn.ConvTranspose2d]:
    return isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d)


def rows_of(module: Convolution) -> Tensor:
    """The weights as (O, C/groups, *kernel), whatever their order in the module."""
    if not is_transposed(module):
        return module.weight
    kernel = module.kernel_size
    blocks = module.weight.reshape(module.groups, -1, module.weight.shape[1], *kernel)
    return blocks.transpose(1, 2).reshape(module.out_channels, -1, *kernel)


def in_own_order(module: Convolution, rows: Tensor) -> Tensor:
    """The reverse of ``rows_of``: (O, C/groups, *kernel) as the module's weight; its groups count."""
    if not is_transposed(module):
        return rows
    blocks = rows.reshape(module.groups, -1, *rows.shape[1:])
    return blocks.transpose(1, 2).reshape(-1, blocks.shape[1], *rows.shape[2:])


def patches_of(conv: Convolution, x: Tensor) -> Tensor:
    """The patches a convolution multiplies: (groups, N*positions, C/groups*taps), channel major as its rows."""
    kernel, dilation = (_pair(v, 1) for v in (conv.kernel_size, conv.dilation))
    if is_transposed(conv):
        windows, stride = _spread(conv, x), (1, 1)
    else:
        padded = F.pad(x, conv._reversed_padding_repeated_twice, _pad_mode(conv))
        windows, stride = padded.unsqueeze(2) if x.dim() == 3 else padded, _pair(conv.stride, 1)
    columns = F.unfold(windows, kernel, dilation=dilation, stride=stride)  # (N, C*taps, P)
    if is_transposed(conv):  # the kernel lies the other way round
        taps = kernel[0] * kernel[1]
        columns = columns.reshape(x.shape[0], -1, taps, columns.shape[-1]).flip(2)
    blocks = columns.reshape(x.shape[0], conv.groups, -1, columns.shape[-1])
    return blocks.permute(1, 0, 3, 2).reshape(conv.groups, -1, blocks.shape[2])


def _spread(conv: nn.ConvTranspose1d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """(N, C, H, W): the input's pixels a stride apart, as the turned kernel slides over it."""
    maps = x.unsqueeze(2) if x.dim() == 3 else x
    kernel, stride, dilation = (_pair(v, 1) for v in (conv.kernel_size, conv.stride, conv.dilation))
    padding, added = _pair(conv.padding, 0), _pair(conv.output_padding, 0)
    sizes, places, inside = [], [], []
    for axis in (0, 1):
        reach, length = dilation[axis] * (kernel[axis] - 1), maps.shape[2 + axis]
        size = (length - 1) * stride[axis] + 2 * reach + 1 - 2 * padding[axis] + added[axis]
        at = torch.arange(length, device=x.device) * stride[axis] + reach - padding[axis]
        kept = ((at >= 0) & (at < size)).nonzero().squeeze(1)
        sizes.append(size)
        places.append(at[kept])
        inside.append(kept)
    canvas = maps.new_zeros(*maps.shape[:2], *sizes)
    canvas[:, :, places[0].unsqueeze(1), places[1]] = maps[:, :, inside[0].unsqueeze(1), inside[1]]
    return canvas


def _pair(value: object, fill: int) -> tuple[int, int]:
    """A setting per axis as (rows, columns); ``fill`` is that of a 1-D layer's rows."""
    numbers = value if isinstance(value, tuple) else (value,)
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (fill, int(numbers[0]))


def _pad_mode(conv: Convolution) -> str:
    return "constant" if conv.padding_mode == "zeros" else conv.padding_mode


def refuse_output_size(name: str, given: tuple[object, ...]) -> None:
    """Refuse a transposed convolution that is called with an output size of its own, by the layer's name."""
    if any(value is not None for value in given):
        raise UnsupportedError(
            f"layer {name!r} is called with output_size, which a projected layer can't take",
            "output_padding where the layer is made",
            "the model",
        )
