"""Operators that move, cut or join elements."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch

from projgen.importers.torch.context import RESHAPES, Call, Handler, Importer, Operand, Refused, Stack, Tracked
from projgen.ir import attrs as ir

PERMUTATIONS = ("permute", "transpose", "t", "mT", "numpy_T", "swapaxes", "swapdims", "movedim")
_WHOLE_BATCH = "the batch as an axis of its own"


def drop_axes(imp: Importer, call: Call, t: Tracked, axes: Collection[int]) -> Tracked:
    """The activation without these torch axes of size 1."""
    shape = tuple(size for axis, size in zip(t.order, imp.shape(t), strict=True) if axis not in axes)
    value = imp.reshape(call, t.value, shape)

    def moved(axis: int) -> int:
        return axis - sum(dropped < axis for dropped in axes)

    return Tracked(value, tuple(moved(axis) for axis in t.order if axis not in axes), moved(t.batch))


def raise_rank(imp: Importer, call: Call, t: Tracked, rank: int) -> Tracked:
    """The activation with torch axes of size 1 put in front until it has ``rank`` axes."""
    more = rank - t.rank
    if more <= 0:
        return t
    value = imp.reshape(call, t.value, (*(1,) * more, *imp.shape(t)))
    return Tracked(value, (*range(more), *(axis + more for axis in t.order)), t.batch + more)


def reshape(imp: Importer, call: Call) -> Operand:
    """view, reshape, flatten, squeeze, unsqueeze, unflatten: the call's result shape says it all."""
    return reshaped(imp, call, call.activation("self"), call.shape)


def reshaped(imp: Importer, call: Call, x: Tracked, shape: Sequence[int]) -> Tracked:
    """The activation in another torch shape that has the batch as an axis."""
    return _only_units(imp, call, x, shape) or _reshape(imp, call, x, shape)


def keeps_batch(imp: Importer, x: Tracked, shape: Sequence[int]) -> bool:
    """Whether a torch shape has the batch as an axis of its own, where the activation's elements have it."""
    ahead = math.prod(imp.torch_shape(x)[: x.batch])
    return any(size == imp.batch and math.prod(shape[:axis]) == ahead for axis, size in enumerate(shape))


def _only_units(imp: Importer, call: Call, x: Tracked, shape: Sequence[int]) -> Tracked | None:
    """A reshape that adds or drops axes of size 1 keeps the order of the others."""
    old = imp.torch_shape(x)
    before = [axis for axis, size in enumerate(old) if size != 1 or axis == x.batch]
    after = [axis for axis, size in enumerate(shape) if size != 1]
    if [old[axis] for axis in before] != [shape[axis] for axis in after]:
        return None
    renamed = dict(zip(before, after, strict=True))
    units = [axis for axis, size in enumerate(shape) if size == 1]
    order = (*units, *(renamed[axis] for axis in x.order if axis in renamed))
    value = imp.reshape(call, x.value, [shape[axis] for axis in order])
    return Tracked(value, order, renamed[x.batch])


def _reshape(imp: Importer, call: Call, x: Tracked, shape: Sequence[int]) -> Tracked:
    x = imp.ordered(call, x, x.plain)
    ahead = math.prod(imp.torch_shape(x)[: x.batch])
    for axis, size in enumerate(shape):
        if size == imp.batch and math.prod(shape[:axis]) == ahead:
            value = imp.reshape(call, x.value, (*shape[:axis], *shape[axis + 1 :]))
            return Tracked(value, tuple(a for a in range(len(shape)) if a != axis), axis)
    raise call.refused(f"the batch is merged with another axis (result shape {tuple(shape)})", _WHOLE_BATCH)


def permute(_imp: Importer, call: Call) -> Operand:
    """Permutations only change which torch axis each IR axis holds."""
    x = call.activation("self")
    return permuted(x, new_places(call, x.rank))


def permuted(x: Tracked, dims: Sequence[int]) -> Tracked:
    """The activation with torch axis ``dims[i]`` as axis i."""
    return Tracked(x.value, tuple(dims.index(axis) for axis in x.order), dims.index(x.batch))


def swapped(x: Tracked, first: int, second: int) -> Tracked:
    """The activation with two torch axes exchanged."""
    dims = list(range(x.rank))
    dims[first], dims[second] = second, first
    return permuted(x, dims)


def new_places(call: Call, rank: int) -> list[int]:
    """Which axis of its input stands at each place of a permutation's result."""
    dims = list(range(rank))
    if call.op == "permute":
        dims = [d % rank for d in call.pair("dims", 1)]
    elif call.op == "movedim":
        source, target = call.axis("source", rank), call.axis("destination", rank)
        dims.insert(target, dims.pop(source))
    elif call.op == "numpy_T":
        dims.reverse()
    else:
        first, second = (-1, -2) if call.op in {"t", "mT"} else (call.args[n] for n in _PAIR_NAMES[call.op])
        dims[first], dims[second] = dims[second], dims[first]
    return dims


_PAIR_NAMES = {"transpose": ("dim0", "dim1"), "swapaxes": ("axis0", "axis1"), "swapdims": ("dim0", "dim1")}


def _select(imp: Importer, call: Call, x: Tracked, dim: int, index: int, base: str = "") -> Tracked:
    if dim == x.batch:
        raise call.refused("it picks from the batch", _WHOLE_BATCH)
    axis = x.order.index(dim)
    size = imp.shape(x)[axis]
    kept = index if index == -1 else index % size
    value = imp.emit(call, "select", ir.Select(axis, kept), {"x": x.value}, base)
    order = tuple(a - (a > dim) for a in x.order if a != dim)
    return Tracked(value, order, x.batch - (x.batch > dim))


def select(imp: Importer, call: Call) -> Operand:
    given = call.args["self"]
    if isinstance(given, Stack) and call.args["dim"] == 0:
        return given.items[int(call.args["index"])]()
    x = imp.materialise(call, given)
    if isinstance(x, Refused):
        raise call.refused(x.what, x.allowed)
    return _select(imp, call, x, call.axis("dim", x.rank), int(call.args["index"]))


def _slice(imp: Importer, call: Call, x: Tracked, dim: int, start: int, stop: int, step: int = 1) -> Tracked:
    """x[start:stop:step] along a torch axis, bounds already 0 <= start < stop <= size."""
    size = imp.torch_shape(x)[dim]
    if (start, stop, step) == (0, size, 1):
        return x
    if dim == x.batch:
        raise call.refused("it cuts the batch", _WHOLE_BATCH)
    if start >= stop:
        raise call.refused(f"an empty slice {start}:{stop}", "at least one element")
    axis = x.order.index(dim)
    value = imp.emit(call, "slice", ir.Slice(axis, start, stop, step), {"x": x.value})
    return Tracked(value, x.order, x.batch)


def slice_(imp: Importer, call: Call) -> Operand:
    x = call.activation("self")
    dim = call.axis("dim", x.rank)
    size = imp.torch_shape(x)[dim]
    if call.op == "narrow":
        start = int(call.args["start"]) % size
        return _slice(imp, call, x, dim, start, start + int(call.args["length"]))
    start, stop, step = slice(call.args["start"], call.args["end"], call.args["step"]).indices(size)
    if call.args["start"] == -1 and stop == size and dim != x.batch:
        # The last step, whatever the length: a Select that a symbolic time axis allows.
        last = _select(imp, call, x, dim, -1)
        return Tracked(imp.reshape(call, last.value, _with_one(imp.shape(x), x.order.index(dim))), x.order, x.batch)
    return _slice(imp, call, x, dim, start, stop, step)


def _with_one(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def index(imp: Importer, call: Call) -> Operand:
    """Indexing one axis with evenly spaced constants: a slice."""
    x = call.activation("self")
    if call.op == "index_select":
        dim, chosen = call.axis("dim", x.rank), call.args["index"]
    else:
        used = [(axis, given) for axis, given in enumerate(call.args["indices"]) if given is not None]
        if len(used) != 1:
            raise call.refused("indices along several axes", "one axis")
        dim, chosen = used[0]
    if not isinstance(chosen, torch.Tensor) or chosen.ndim != 1 or chosen.dtype != torch.int64:
        raise call.refused("indices that are no constant list of integers", "constant, evenly spaced, rising indices")
    size = imp.torch_shape(x)[dim]
    numbers = [int(i) % size for i in chosen]
    steps = set(np.diff(numbers).tolist()) or {1}
    if len(steps) > 1 or min(steps) < 1:
        raise call.refused(f"indices {numbers}", "constant, evenly spaced, rising indices")
    return _slice(imp, call, x, dim, numbers[0], numbers[-1] + 1, steps.pop())


def split(imp: Importer, call: Call) -> Operand:
    x = call.activation("self")
    dim = call.axis("dim", x.rank)
    pieces, start = [], 0
    for piece in call.node.meta["val"]:
        stop = start + int(piece.shape[dim]) if dim != x.batch else start
        pieces.append(_slice(imp, call, x, dim, start, stop))
        start = stop
    return tuple(pieces)


def unbind(imp: Importer, call: Call) -> Operand:
    x = call.activation("self")
    dim = call.axis("dim", x.rank)
    return tuple(_select(imp, call, x, dim, i) for i in range(imp.torch_shape(x)[dim]))


def _joined(call: Call) -> list[Tracked]:
    parts: list[Tracked] = []
    for part in call.args["tensors"]:
        if isinstance(part, Refused):
            raise call.refused(part.what, part.allowed)
        if not isinstance(part, Tracked):
            raise call.refused("one of its inputs is a constant", "activations alone")
        parts.append(part)
    if len({(part.rank, part.batch) for part in parts}) != 1:
        raise call.refused("the batch axes of its inputs do not line up", "the batch as the same axis of all")
    return parts


def cat(imp: Importer, call: Call) -> Operand:
    parts = _joined(call)
    if call.op == "stack":
        dim = call.axis("dim", parts[0].rank + 1)
        parts = [_add_axis(imp, call, part, dim) for part in parts]
    else:
        dim = call.axis("dim", parts[0].rank)
    first = parts[0]
    if dim == first.batch:
        raise call.refused("it joins along the batch", "another axis")
    order = next((part.order for part in parts if part.order != part.plain), first.order)
    inputs = {f"x{i}": imp.ordered(call, part, order).value for i, part in enumerate(parts)}
    if len(inputs) == 1:
        return Tracked(inputs["x0"], order, first.batch)
    return Tracked(imp.emit(call, "concat", ir.Concat(order.index(dim)), inputs), order, first.batch)


def _add_axis(imp: Importer, call: Call, t: Tracked, dim: int) -> Tracked:
    value = imp.reshape(call, t.value, (1, *imp.shape(t)))
    return Tracked(value, (dim, *(a + (a >= dim) for a in t.order)), t.batch + (t.batch >= dim))


def pad(imp: Importer, call: Call) -> Operand:
    if call.args.get("mode", "constant") != "constant":
        raise call.refused(f"padding mode {call.args['mode']!r}", "constant padding")
    x = call.activation("self")
    pads = call.pair("pad", 1)
    amounts = {x.rank - 1 - i: (pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2)}
    if not any(pads):
        return x
    if min(pads) < 0:
        raise call.refused(f"negative padding {pads}", "padding of at least 0; slice instead")
    if any(amounts.pop(x.batch, ())):
        raise call.refused("it pads the batch", "other axes")
    attrs = ir.Pad(tuple(amounts.get(axis, (0, 0)) for axis in x.order), float(call.args.get("value") or 0.0))
    return Tracked(imp.emit(call, "pad", attrs, {"x": x.value}), x.order, x.batch)


def expand(imp: Importer, call: Call) -> Operand:
    x = call.activation("self")
    if imp.torch_shape(x) != call.shape:
        raise call.refused(f"repeating elements from {imp.torch_shape(x)} to {call.shape}", "element-wise broadcasting")
    return x


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(RESHAPES, reshape),
    **dict.fromkeys(PERMUTATIONS, permute),
    "select": select,
    **dict.fromkeys(("slice", "narrow"), slice_),
    **dict.fromkeys(("index", "index_select"), index),
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), split),
    "unbind": unbind,
    **dict.fromkeys(("cat", "stack"), cat),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    "expand": expand,
}
