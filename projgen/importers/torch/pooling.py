"""Pooling, and reductions over space or time."""

from __future__ import annotations

import math
from typing import Literal

from projgen.importers.torch.context import Call, Handler, Importer, Operand, Refused, Tracked
from projgen.importers.torch.dense import from_spatial, geometry, spatial
from projgen.importers.torch.shapes import drop_axes
from projgen.ir import attrs as ir

Kind = Literal["max", "mean"]
_NO_INDICES = Refused("the indices of a maximum are not computed", "the maximum alone")


def _emit(imp: Importer, call: Call, kind: Kind, kernel: tuple[int, int], x: str) -> str:
    """A pooling whose windows tile its input."""
    if kind == "max":
        return imp.emit(call, "max_pool2d", ir.MaxPool2d(kernel, kernel), {"x": x})
    return imp.emit(call, "avg_pool2d", ir.AvgPool2d(kernel, kernel), {"x": x})


def _windows(
    call: Call, size: tuple[int, ...], axes: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int], bool]:
    """Kernel, stride, padding (top, bottom, left, right) and whether ``ceil_mode`` lengthened the padding."""
    kernel = geometry(call, "kernel_size", axes, 1)
    stride = geometry(call, "stride", axes, 1) if call.args.get("stride") else kernel
    before = geometry(call, "padding", axes, 0)
    after = list(before)
    if call.args.get("ceil_mode"):
        for axis in (0, 1):
            room = size[axis] + 2 * before[axis] - kernel[axis]
            steps = math.ceil(room / stride[axis])
            if steps * stride[axis] >= size[axis] + before[axis]:
                steps -= 1
            after[axis] += max(0, steps * stride[axis] - room)
    return kernel, stride, (before[0], after[0], before[1], after[1]), tuple(after) != before


def max_pool(imp: Importer, call: Call) -> Operand:
    axes = 1 if call.op == "max_pool1d" else 2
    if any(d != 1 for d in call.pair("dilation")):
        raise call.refused(f"dilation {call.args['dilation']}", "dilation 1")
    x = spatial(imp, call, call.activation("self"), axes)
    kernel, stride, padding, _ = _windows(call, imp.shape(x), axes)
    y = imp.emit(call, "max_pool2d", ir.MaxPool2d(kernel, stride, padding), {"x": x})
    pooled = from_spatial(imp, call, y, axes)
    return (pooled, _NO_INDICES) if "with_indices" in call.op else pooled


def avg_pool(imp: Importer, call: Call) -> Operand:
    axes = 1 if call.op == "avg_pool1d" else 2
    if call.args.get("divisor_override") is not None:
        raise call.refused("divisor_override", "the window's own count")
    x = spatial(imp, call, call.activation("self"), axes)
    kernel, stride, padding, longer = _windows(call, imp.shape(x), axes)
    include = bool(call.args["count_include_pad"]) and any(padding)
    if longer and include and any(call.pair("padding")):
        raise call.refused("ceil_mode with counted padding", "count_include_pad=False, or padding 0")
    attrs = ir.AvgPool2d(kernel, stride, padding, count_include_pad=not longer and (include or not any(padding)))
    return from_spatial(imp, call, imp.emit(call, "avg_pool2d", attrs, {"x": x}), axes)


def adaptive_pool(imp: Importer, call: Call) -> Operand:
    axes = 1 if call.op.endswith("1d") else 2
    x = spatial(imp, call, call.activation("self"), axes)
    size = imp.shape(x)[:2]
    given = call.args["output_size"]
    numbers = list(given) if isinstance(given, list | tuple) else [given] * axes
    wanted = [1, *numbers] if axes == 1 else numbers
    wanted = [own if want is None else want for own, want in zip(size, wanted, strict=True)]
    if any(want < 1 or own % want for own, want in zip(size, wanted, strict=True)):
        raise call.refused(
            f"adaptive pooling of {size} to {tuple(wanted)}", "output sizes that divide the input's evenly"
        )
    kernel = (size[0] // wanted[0], size[1] // wanted[1])
    kind: Kind = "max" if "max" in call.op else "mean"
    pooled = from_spatial(imp, call, _emit(imp, call, kind, kernel, x), axes)
    return (pooled, _NO_INDICES) if kind == "max" else pooled


def _reduce(imp: Importer, call: Call, kind: Kind) -> Tracked:
    """A mean or maximum over some axes, as pooling of a map (H, W, C) or of rows (1, R, K)."""
    x = call.activation("self")
    given = call.args.get("dim")
    dims = [given] if isinstance(given, int) else list(given or range(x.rank))
    axes = frozenset(d % x.rank for d in dims)
    if x.batch in axes:
        raise call.refused("a reduction over the batch", "other axes")
    direct = len(x.order) == 3 and x.order[-1] not in axes
    if not direct:
        x = imp.ordered(call, x, (*(a for a in x.order if a in axes), *(a for a in x.order if a not in axes)))
    shape = imp.shape(x)
    ones = tuple(1 if axis in axes else size for axis, size in zip(x.order, shape, strict=True))
    if direct:
        kernel = (shape[0] if ones[0] == 1 else 1, shape[1] if ones[1] == 1 else 1)
        value = _emit(imp, call, kind, kernel, x.value)
    else:
        rows = math.prod(size for axis, size in zip(x.order, shape, strict=True) if axis in axes)
        flat = imp.reshape(call, x.value, (1, rows, math.prod(shape) // rows))
        value = imp.reshape(call, _emit(imp, call, kind, (1, rows), flat), ones)
    kept = Tracked(value, x.order, x.batch)
    return kept if call.args.get("keepdim") else drop_axes(imp, call, kept, axes)


def mean(imp: Importer, call: Call) -> Operand:
    return _reduce(imp, call, "mean")


def amax(imp: Importer, call: Call) -> Operand:
    return _reduce(imp, call, "max")


def max_dim(imp: Importer, call: Call) -> Operand:
    if call.overload != "dim":
        raise call.refused(f"overload {call.overload!r}", "max over given axes")
    return (_reduce(imp, call, "max"), _NO_INDICES)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool2d_with_indices"), max_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), avg_pool),
    **dict.fromkeys(
        ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d"), adaptive_pool
    ),
    "_adaptive_avg_pool2d": adaptive_pool,
    "mean": mean,
    "amax": amax,
    "max": max_dim,
}
