"""Transposes, reshapes, slices, padding, concatenation, and the fills and shapes that exporters emit."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch.nn import functional

from projgen.importers.onnx.build import Build, Call, Handler
from projgen.importers.onnx.fold import fill_value, shape_slice
from projgen.importers.onnx.sizes import Size, Symbolic, new_symbol, same
from projgen.importers.onnx.values import FLOATS, Activation, Const, Filled, Value, from_objects, integers


def _same(_: Build, call: Call) -> Sequence[Value]:
    value = call.given(0)
    if value is None:
        raise call.fault("it has no input")
    if any(call.used[1:]):
        raise call.refusal("its second output is read")
    return [value]


def _dropout(build: Build, call: Call) -> Sequence[Value]:
    training = call.const(2, "training mode")
    if training is not None and bool(training.array.reshape(-1)[0]):
        raise call.refusal("in training mode; export the model in evaluation mode")
    return _same(build, call)


def _cast(_: Build, call: Call) -> Sequence[Value]:
    value = call.given(0)
    if isinstance(value, Activation):
        wanted = ir.DataType(call.attribute("to", 1))
        if FLOATS.get(wanted) != value.dtype:
            raise call.refusal(f"from {value.dtype} to {wanted.name}; only casts that change nothing are supported")
        return [value]
    if isinstance(value, Filled):
        return [Filled(value.value.astype(ir.DataType(call.attribute("to", 1)).numpy()), value.shape)]
    raise call.refusal("of a value that is computed from axis lengths")


def _cast_like(_: Build, call: Call) -> Sequence[Value]:
    value, like = call.given(0), call.given(1)
    if isinstance(value, Const | Filled) and isinstance(like, Activation):
        wanted = torch.empty(0, dtype=like.dtype).numpy().dtype
        if isinstance(value, Const):
            return [Const(value.array.astype(wanted))]
        return [Filled(value.value.astype(wanted), value.shape)]
    if isinstance(value, Activation) and isinstance(like, Activation | Const):
        wanted_type = (
            like.dtype if isinstance(like, Activation) else FLOATS.get(ir.DataType.from_numpy(like.array.dtype))
        )
        if value.dtype == wanted_type:
            return [value]
    raise call.refusal("that changes the element type of the data")


def _shape(_: Build, call: Call) -> Sequence[Value]:
    value = call.given(0)
    if value is None:
        raise call.fault("it has no input")
    sizes = np.empty(len(value.shape), dtype=object)
    sizes[:] = list(value.shape)
    return [from_objects(sizes[shape_slice(call)])]


def _constant_of_shape(_: Build, call: Call) -> Sequence[Value]:
    shape = integers(call.given(0))
    if shape is None:
        raise call.refusal("its shape is computed from the data")
    return [Filled(fill_value(call), tuple(shape))]


def _expand(_: Build, call: Call) -> Sequence[Value]:
    value, shape = call.given(0), integers(call.given(1))
    if shape is None or value is None:
        raise call.refusal("its shape is computed from the data")
    pairs = list(zip(value.shape[::-1], shape[::-1], strict=False))
    if len(shape) <= len(value.shape) and all(same(mine, wanted) or wanted == 1 for mine, wanted in pairs):
        return [value]
    if isinstance(value, Const) and value.array.size == 1:
        return [Filled(value.array.reshape(-1)[0], tuple(shape))]
    if isinstance(value, Const) and bool((value.array == value.array.reshape(-1)[0]).all()):
        sizes = [*shape[: -len(value.shape)], *(b if a == 1 else a for a, b in pairs[::-1])]
        return [Filled(value.array.reshape(-1)[0], tuple(sizes))]
    raise call.refusal("that copies data along an axis")


def _transpose(_: Build, call: Call) -> Sequence[Value]:
    x = call.given(0)
    rank = len(x.shape) if x is not None else 0
    order = [call.axis(axis, rank) for axis in call.attribute("perm", range(rank - 1, -1, -1))]
    if isinstance(x, Filled):
        return [Filled(x.value, tuple(x.shape[axis] for axis in order))]
    x = call.activation(0)
    return [Activation(x.view.permute(order), x.dtype)]


def _reshape(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    target = call.integers(1, "shape", "target shape")
    if target is None:
        raise call.fault("its target shape is missing")
    if not call.attribute("allowzero", 0):
        target = [x.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    elif 0 in target:
        raise call.refusal("to a shape with an axis of length 0")
    view = x.view.reshape(target)
    rest = _rearranged(x, target) if view is None else None
    if rest is not None:
        node = build.call(torch.reshape, build.real(x), (-1, *rest))
        return [build.activation(node, (x.shape[0], *rest), x.dtype)]
    if view is None:
        raise call.refusal(
            f"to {_text(target)} from {_text(x.shape)}: the axes don't line up for every batch "
            "(a batch size baked into the file is generalised)"
        )
    return [Activation(view, x.dtype, call.name)]


def _rearranged(x: Activation, target: Sequence[Size]) -> list[int] | None:
    """The sizes after axis 0, where a reshape keeps that axis and all other lengths are known; else None."""
    if not target or any(isinstance(size, Symbolic) for size in (*x.shape[1:], *target[1:])):
        return None
    elements = math.prod(int(size) for size in x.shape[1:] if not isinstance(size, Symbolic))
    sizes = [int(size) for size in target[1:] if not isinstance(size, Symbolic)]
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and known:
        sizes[sizes.index(-1)] = elements // known
    keeps_batch = same(x.shape[0], target[0]) or target[0] == -1
    return sizes if keeps_batch and min(sizes, default=1) > 0 and math.prod(sizes) == elements else None


def _text(sizes: Sequence[Size]) -> str:
    return "(" + ", ".join("open" if isinstance(size, Symbolic) else str(size) for size in sizes) + ")"


def _flatten(_: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    axis = call.attribute("axis", 1)
    first = axis if axis == x.rank else call.axis(axis, x.rank)
    view = x.view.merge(first, x.rank).merge(0, first)
    return [Activation(view, x.dtype, call.name)]


def _squeeze(_: Build, call: Call) -> Sequence[Value]:
    x = call.given(0)
    if not isinstance(x, Activation | Filled):
        raise call.refusal("of a value that is computed from axis lengths")
    axes = call.static(1, "axes", "axes")
    rank = len(x.shape)
    removed = (
        [axis for axis, size in enumerate(x.shape) if same(size, 1)]
        if axes is None
        else [call.axis(axis, rank) for axis in axes]
    )
    for axis in removed:
        if isinstance(x.shape[axis], Symbolic):
            raise call.refusal("it removes an axis whose length is open, such as the batch")
        if x.shape[axis] != 1:
            raise call.fault(f"axis {axis} has length {x.shape[axis]}, not 1")
    if isinstance(x, Filled):
        return [Filled(x.value, tuple(size for axis, size in enumerate(x.shape) if axis not in removed))]
    return [Activation(x.view.remove(removed), x.dtype)]


def _unsqueeze(_: Build, call: Call) -> Sequence[Value]:
    x = call.given(0)
    if not isinstance(x, Activation | Filled):
        raise call.refusal("of a value that is computed from axis lengths")
    axes = call.static(1, "axes", "axes") or []
    places = [call.axis(axis, len(x.shape) + len(axes)) for axis in axes]
    if isinstance(x, Filled):
        shape = list(x.shape)
        for place in sorted(places):
            shape.insert(place, 1)
        return [Filled(x.value, tuple(shape))]
    return [Activation(x.view.insert(places), x.dtype)]


def _slice(build: Build, call: Call) -> Sequence[Value]:
    x = call.given(0)
    if not isinstance(x, Activation | Filled):
        raise call.refusal("of a value that is computed from axis lengths")
    rank = len(x.shape)
    starts = call.static(1, "starts", "starts") or []
    ends = call.integers(2, "ends", "ends") or []
    axes = call.static(3, "axes", "axes") or list(range(len(starts)))
    steps = call.static(4, "steps", "steps") or [1] * len(starts)
    if len({len(starts), len(ends), len(axes), len(steps)}) != 1:
        raise call.fault("its starts, ends, axes and steps differ in number")
    index = [slice(None)] * rank
    shape = list(x.shape)
    for start, end, axis, step in zip(starts, ends, (call.axis(a, rank) for a in axes), steps, strict=True):
        index[axis], shape[axis] = _range(call, shape[axis], start, end, step)
    if all(part == slice(None) for part in index):
        return [x]
    if isinstance(x, Filled):
        return [Filled(x.value, tuple(shape))]
    node = build.call(operator.getitem, build.real(x), tuple(index))
    return [build.activation(node, shape, x.dtype)]


def _split(build: Build, call: Call) -> Sequence[Value]:
    x = call.given(0)
    if not isinstance(x, Activation | Const):
        raise call.refusal("of a value that is computed from axis lengths")
    axis = call.axis(call.attribute("axis", 0), len(x.shape))
    size = x.shape[axis]
    if isinstance(size, Symbolic):
        raise call.refusal("along an axis whose length is open, such as the batch")
    pieces = call.static(1, "split", "pieces")
    if pieces is None:
        each = -(-size // len(call.used))
        pieces = [min(each, size - start) for start in range(0, size, each)]
    if sum(pieces) != size or len(pieces) != len(call.used):
        raise call.fault(f"pieces of {pieces} of an axis of {size}")
    if min(pieces) < 1:
        raise call.refusal("into pieces of which one is empty")
    if isinstance(x, Const):
        return [Const(part) for part in np.split(x.array, np.cumsum(pieces)[:-1], axis)]
    nodes = build.call(torch.split, build.real(x), tuple(pieces), axis)
    return [
        build.activation(
            build.call(operator.getitem, nodes, number), (*x.shape[:axis], piece, *x.shape[axis + 1 :]), x.dtype
        )
        for number, piece in enumerate(pieces)
    ]


def _range(call: Call, size: Size, start: int, end: Size, step: int) -> tuple[slice, Size]:
    """A slice of an axis of this length, and how long the result is."""
    if step < 1:
        raise call.refusal(f"with step {step}; steps of 1 and more are supported")
    whole = size == end
    if isinstance(end, Symbolic) and not whole:
        raise call.refusal("its ends depend on the length of another axis")
    stop = None if whole or isinstance(end, Symbolic) else end
    if not isinstance(size, Symbolic):
        stop = None if stop is not None and stop >= size else stop
        length: Size = len(range(*slice(start, stop, step).indices(size)))
        if not length:
            raise call.refusal("an empty slice")
        whole = length == size
    else:
        stop = None if stop is not None and stop > np.iinfo(np.int32).max - 1 else stop
        whole = start == 0 and stop is None and step == 1
        length = size if whole else 1 if (start, stop) == (-1, None) else new_symbol()
        if not whole and start >= 0 and stop is not None and stop >= 0 and stop - start == 1:
            length = 1
    return (slice(None), size) if whole else (slice(start, stop, None if step == 1 else step), length)


def _gather(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    axis = call.axis(call.attribute("axis", 0), x.rank)
    indices = call.needed(1, "indices").array
    size = x.shape[axis]
    if not isinstance(size, Symbolic) and indices.size and not bool((abs(indices + 0.5) < size).all()):
        raise call.fault(f"an index is outside an axis of length {size}")
    if indices.ndim == 0 and size == 1:
        return [Activation(x.view.remove([axis]), x.dtype)]
    if indices.ndim == 0:
        node = build.call(torch.select, build.real(x), axis, int(indices))
        return [build.activation(node, (*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype)]
    run = np.arange(indices.size) + indices.reshape(-1)[:1]
    if indices.ndim != 1 or not indices.size or not bool((indices == run).all()) or indices[0] < 0 <= indices[-1]:
        raise call.refusal("its indices are no run of neighbours; one index, or a range, is supported")
    stop = int(indices[-1]) + 1
    index = [slice(None)] * axis + [slice(int(indices[0]), None if stop == 0 else stop)]
    node = build.call(operator.getitem, build.real(x), tuple(index))
    return [build.activation(node, (*x.shape[:axis], indices.size, *x.shape[axis + 1 :]), x.dtype)]


def _concat(build: Build, call: Call) -> Sequence[Value]:
    tensors = [call.activation(index) for index in range(len(call.inputs))]
    axis = call.axis(call.attribute("axis", 0), tensors[0].rank)
    if len(tensors) == 1:
        return [tensors[0]]
    total: Size = 0
    for tensor in tensors:
        total = total + tensor.shape[axis]
    node = build.call(torch.cat, tuple(build.real(tensor) for tensor in tensors), axis)
    shape = [total if i == axis else size for i, size in enumerate(tensors[0].shape)]
    return [build.activation(node, shape, tensors[0].dtype)]


def _pad(build: Build, call: Call) -> Sequence[Value]:
    x = call.activation(0)
    mode = call.attribute("mode", "constant")
    if mode != "constant":
        raise call.refusal(f"in mode {mode!r}; only constant padding is supported")
    pads = call.static(1, "pads", "pads")
    axes = call.static(3, "axes", "axes")
    given = call.const(2, "fill value")
    value = float(call.attribute("value", 0.0) if given is None or not given.array.size else given.array.reshape(-1)[0])
    places = list(range(x.rank)) if axes is None else [call.axis(axis, x.rank) for axis in axes]
    if pads is None or len(pads) != 2 * len(places):
        raise call.fault("it needs two pads for each axis")
    if min(pads, default=0) < 0:
        raise call.refusal("negative padding")
    ends = {axis: (pads[i], pads[i + len(places)]) for i, axis in enumerate(places)}
    padded = [axis for axis, lengths in ends.items() if any(lengths)]
    if not padded:
        return [x]
    arguments = [length for axis in range(x.rank - 1, min(padded) - 1, -1) for length in ends.get(axis, (0, 0))]
    node = build.call(functional.pad, build.real(x), tuple(arguments), "constant", value)
    shape = [size + sum(ends.get(axis, (0, 0))) for axis, size in enumerate(x.shape)]
    return [build.activation(node, shape, x.dtype)]


OPERATORS: dict[str, Handler] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _same,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
