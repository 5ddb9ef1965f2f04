"""Evaluation of nodes whose inputs are all known: constants, and the arithmetic of axis lengths.

The functions work on numpy arrays of numbers and, for axis lengths, of ``Size`` objects alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from projgen.errors import ProjgenError
from projgen.importers.onnx.build import Call
from projgen.importers.onnx.sizes import Symbolic
from projgen.importers.onnx.values import Const, Factors, Shape, Value, from_objects

Fold = Callable[[Call, "list[Any]"], Any]


def _axes(call: Call, arrays: list[Any], index: int = 1) -> tuple[int, ...] | None:
    if len(arrays) > index and arrays[index] is not None:
        return tuple(int(item) for item in np.reshape(arrays[index], -1))
    stated = call.attribute("axes", None)
    return None if stated is None else tuple(int(item) for item in stated)


def _cast(call: Call, arrays: list[Any]) -> Any:
    wanted = ir.DataType(call.attribute("to", 1)).numpy()
    return arrays[0] if arrays[0].dtype == object else arrays[0].astype(wanted)


def _cast_like(_: Call, arrays: list[Any]) -> Any:
    return arrays[0] if arrays[0].dtype == object else arrays[0].astype(arrays[1].dtype)


def _slice(call: Call, arrays: list[Any]) -> Any:
    data = arrays[0]
    starts = call.static(1, "starts", "starts") or []
    ends = call.integers(2, "ends", "ends") or []
    axes = call.static(3, "axes", "axes") or list(range(len(starts)))
    steps = call.static(4, "steps", "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = data.shape[axis]
        if isinstance(end, Symbolic):
            raise call.refusal("its ends depend on the length of an input axis")
        stop = None if step < 0 and end < -length else end
        index = [slice(None)] * data.ndim
        index[axis] = slice(start, stop, step)
        data = data[tuple(index)]
    return data


def _squeeze(call: Call, arrays: list[Any]) -> Any:
    return np.squeeze(arrays[0], _axes(call, arrays))


def _unsqueeze(call: Call, arrays: list[Any]) -> Any:
    return np.expand_dims(arrays[0], _axes(call, arrays) or ())


def _reshape(call: Call, arrays: list[Any]) -> Any:
    data = arrays[0]
    target = [int(size) for size in arrays[1].reshape(-1)]
    if not call.attribute("allowzero", 0):
        target = [data.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    return data.reshape(target)


def _divide(_: Call, arrays: list[Any]) -> Any:
    a, b = arrays
    if "O" in {a.dtype.kind, b.dtype.kind}:
        return np.asarray(a // b, dtype=object)
    if a.dtype.kind in "iu":
        return (np.sign(a) * np.sign(b) * (abs(a) // abs(b))).astype(a.dtype)
    return np.divide(a, b)


def _modulo(call: Call, arrays: list[Any]) -> Any:
    return (np.fmod if call.attribute("fmod", 0) else np.mod)(*arrays)


def _reduction(reduce: Callable[..., Any]) -> Fold:
    def fold(call: Call, arrays: list[Any]) -> Any:
        axes = _axes(call, arrays)
        if axes is None and call.attribute("noop_with_empty_axes", 0):
            return arrays[0]
        kept = bool(call.attribute("keepdims", 1))
        return np.asarray(reduce(arrays[0], axis=axes, keepdims=kept))

    return fold


def _elementwise(function: Callable[..., Any]) -> Fold:
    def fold(_: Call, arrays: list[Any]) -> Any:
        result = function(*arrays)
        return result if isinstance(result, np.ndarray) else np.asarray(result)

    return fold


def _transpose(call: Call, arrays: list[Any]) -> Any:
    return np.transpose(arrays[0], call.attribute("perm", None))


def _concat(call: Call, arrays: list[Any]) -> Any:
    return np.concatenate(arrays, axis=call.attribute("axis", 0))


def _gather(call: Call, arrays: list[Any]) -> Any:
    return np.asarray(np.take(arrays[0], arrays[1], axis=call.attribute("axis", 0)), dtype=arrays[0].dtype)


def _expand(_: Call, arrays: list[Any]) -> Any:
    shape = tuple(int(size) for size in arrays[1].reshape(-1))
    return np.broadcast_to(arrays[0], np.broadcast_shapes(arrays[0].shape, shape))


def _constant_of_shape(call: Call, arrays: list[Any]) -> Any:
    value = fill_value(call)
    return np.full(tuple(int(size) for size in arrays[0].reshape(-1)), value, dtype=value.dtype)


def fill_value(call: Call) -> np.generic:
    """The element that a ConstantOfShape writes."""
    stated = call.attribute("value", None)
    value: np.generic = np.float32(0) if stated is None else stated.numpy().reshape(-1)[0]
    return value


_FOLDS: dict[str, Fold] = {
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Dropout": lambda _, arrays: arrays[0],
    "Equal": _elementwise(np.equal),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Gather": _gather,
    "Identity": lambda _, arrays: arrays[0],
    "Mod": _modulo,
    "MatMul": _elementwise(np.matmul),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Range": lambda _, arrays: np.arange(*(array.item() for array in arrays), dtype=arrays[0].dtype),
    "Reciprocal": _elementwise(np.reciprocal),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "Reshape": _reshape,
    "Shape": lambda call, arrays: np.asarray(arrays[0].shape[shape_slice(call)], dtype=np.int64),
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where),
}


def shape_slice(call: Call) -> slice:
    """The axes a Shape node reports."""
    return slice(call.attribute("start", 0), call.attribute("end", None))


def fold(call: Call) -> list[Value] | None:
    """The node's outputs, if its inputs are all known and it is one that can be evaluated; else None."""
    evaluate = _FOLDS.get(call.node.op_type)
    known = [value for value in call.inputs if value is not None]
    if evaluate is None or not known or not all(isinstance(value, Const | Shape) for value in known):
        return None
    if isinstance(known[0], Shape) and call.node.op_type == "Shape":
        return [Const(np.asarray(known[0].shape, dtype=np.int64))]
    if call.node.op_type in {"ConstantOfShape", "Expand"} and any(isinstance(v, Shape) for v in known):
        return None  # a fill of an open shape
    arrays = [value.array if isinstance(value, Const | Shape) else None for value in call.inputs]
    try:
        result = evaluate(call, arrays)
    except ProjgenError:
        raise
    except (ValueError, IndexError, TypeError) as error:
        if any(isinstance(value, Shape) for value in known):
            raise call.refusal("on constants, by a length that is open") from error
        raise call.fault(str(error)) from error
    if result.dtype == object:
        return [from_objects(result)]
    return [Const(result, _carried(call, result.shape))]


def _carried(call: Call, shape: tuple[int, ...]) -> tuple[Factors | None, ...]:
    """The factors of the result, where a node multiplies two matrices or only reorders or stacks products."""
    inputs = [value for value in call.inputs if isinstance(value, Const)]
    operator = call.node.op_type
    if operator == "MatMul" and all(value.array.ndim == 2 for value in inputs):
        return (Factors(inputs[0].array, inputs[1].array),)
    first = inputs[0]
    if not any(value.factors for value in inputs):
        return ()
    if operator in {"Identity", "Unsqueeze", "Cast", "CastLike"}:
        return first.factors if shape[-2:] == first.shape[-2:] and set(shape[:-2]) <= {1} else ()
    if operator == "Slice" and first.array.ndim == 2 and shape[1] == first.shape[1]:
        return tuple(pair and Factors(_slice(call, [pair.left]), pair.right) for pair in first.factors)
    if operator == "Concat" and call.attribute("axis", 0) == 0:
        if len(shape) == 3:
            return tuple(pair for value in inputs for pair in value.factors or (None,) * value.shape[0])
        return _stacked([value.factors[0] if value.factors else None for value in inputs])
    return ()


def _stacked(factors: Sequence[Factors | None]) -> tuple[Factors | None, ...]:
    """Row blocks of one product, put together again."""
    known = [pair for pair in factors if pair is not None]
    if len(known) < len(factors) or any(pair.right is not known[0].right for pair in known):
        return ()
    return (Factors(np.concatenate([pair.left for pair in known]), known[0].right),)
