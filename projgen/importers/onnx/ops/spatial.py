"""What convolution and pooling share: windows, padding, output lengths."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from projgen.importers.onnx.build import Build, Call
from projgen.importers.onnx.sizes import Size, Symbolic, new_symbol
from projgen.importers.onnx.values import Activation


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry over the 1 or 2 spatial axes; ``before``/``after`` is the padding at each end."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    ceil: bool = False

    @property
    def is_symmetric(self) -> bool:
        return self.before == self.after

    @property
    def is_padded(self) -> bool:
        return any(self.before) or any(self.after)


def read_window(call: Call, x: Activation, kernel: tuple[int, ...] | None = None) -> Window:
    """The geometry a node states; refuses other than 1 or 2 spatial axes."""
    axes = x.rank - 2
    if axes not in {1, 2}:
        raise call.refusal(f"over {axes} spatial axes; 1 and 2 are supported")
    ones = (1,) * axes
    kernel = kernel or tuple(call.attribute("kernel_shape", ()))
    stride = tuple(call.attribute("strides", ones))
    dilation = tuple(call.attribute("dilations", ones))
    if len(kernel) != axes or len(stride) != axes or len(dilation) != axes:
        raise call.fault(f"kernel_shape {kernel}, strides {stride} and dilations {dilation} need {axes} entries each")
    mode = call.attribute("auto_pad", "NOTSET")
    ceil = bool(call.attribute("ceil_mode", 0))
    pads = tuple(call.attribute("pads", (0,) * (2 * axes)))
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        before, after = _same_padding(call, x, kernel, stride, dilation, upper=mode == "SAME_UPPER")
        ceil = False
    elif mode == "VALID":
        before = after = (0,) * axes
    elif len(pads) == 2 * axes and min(pads, default=0) >= 0:
        before, after = pads[:axes], pads[axes:]
    else:
        raise call.fault(f"pads {pads}")
    return Window(kernel, stride, dilation, before, after, ceil)


def _same_padding(
    call: Call,
    x: Activation,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    *,
    upper: bool,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before, after = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        span = d * (k - 1) + 1
        if isinstance(size, Symbolic):
            if s != 1:
                raise call.refusal("auto_pad with a stride over an axis of open length")
            total = span - 1
        else:
            total = max((-(-size // s) - 1) * s + span - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return tuple(before), tuple(after)


def output_sizes(x: Activation, window: Window) -> list[Size]:
    """Lengths of the spatial axes after the window has passed."""
    sizes: list[Size] = []
    for axis, size in enumerate(x.shape[2:]):
        stride, padding = window.stride[axis], window.before[axis] + window.after[axis]
        lost = window.dilation[axis] * (window.kernel[axis] - 1) + 1 - padding
        if isinstance(size, Symbolic):
            sizes.append(size if stride == 1 and lost == 1 else new_symbol())
            continue
        steps = size - lost
        out = (-(-steps // stride) if window.ceil else steps // stride) + 1
        if window.ceil and (out - 1) * stride >= size + window.before[axis]:
            out -= 1  # PyTorch's and ONNX's rule: no window may start in the padding after the data
        sizes.append(out)
    return sizes


def padded(build: Build, name: str, node: fx.Node, window: Window, value: float) -> fx.Node:
    """``node`` with the window's padding added by a layer of its own."""
    ends = tuple(length for pair in zip(window.before[::-1], window.after[::-1], strict=True) for length in pair)
    if len(window.kernel) == 1:
        layer: nn.Module = nn.ConstantPad1d((ends[0], ends[1]), value)
    else:
        layer = nn.ConstantPad2d((ends[0], ends[1], ends[2], ends[3]), value)
    return build.layer(f"{name}_pad", layer, node)
