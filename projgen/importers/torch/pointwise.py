"""Element-wise operators, softmax, and operators that do nothing at inference."""

from __future__ import annotations

import math

import numpy as np
import torch

from projgen.importers.torch.context import Call, Handler, Importer, Operand, Tracked, as_array
from projgen.importers.torch.shapes import raise_rank
from projgen.ir import attrs as ir
from projgen.ir.graph import Array


def _unary(imp: Importer, call: Call, x: Tracked, attrs: ir.Unary) -> Tracked:
    return Tracked(imp.emit(call, "unary", attrs, {"x": x.value}), x.order, x.batch)


def simple(imp: Importer, call: Call) -> Operand:
    kinds: dict[str, ir.UnaryKind] = {"relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "tanh": "tanh"}
    return _unary(imp, call, call.activation("self"), ir.Unary(kinds[call.op]))


def gelu(imp: Importer, call: Call) -> Operand:
    kind: ir.UnaryKind = "gelu_tanh" if call.args["approximate"] == "tanh" else "gelu"
    return _unary(imp, call, call.activation("self"), ir.Unary(kind))


def clip(imp: Importer, call: Call) -> Operand:
    """``hardtanh``, ``clamp`` and its one-sided forms; relu and relu6 are recognised."""
    low = _bound(call, ("min", "min_val"), -math.inf)
    high = _bound(call, ("max", "max_val"), math.inf)
    x = call.activation("self")
    if low == 0.0 and high in {6.0, math.inf}:
        return _unary(imp, call, x, ir.Unary("relu6" if high == 6.0 else "relu"))
    return _unary(imp, call, x, ir.Unary("clip", low, high))


def _bound(call: Call, names: tuple[str, ...], absent: float) -> float:
    value = next((call.args[name] for name in names if call.args.get(name) is not None), absent)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = float(value)
    if not isinstance(value, int | float):
        raise call.refused("a bound that is no number", "numbers as bounds")
    return float(value)


def constant_beside(imp: Importer, call: Call, x: Tracked, value: torch.Tensor | float) -> Array:
    """A constant in the IR's order and rank of ``x``, its batch axis dropped."""
    data = as_array(value)
    if data.ndim > x.rank:
        raise call.refused(f"a constant with more axes ({data.ndim}) than the activation ({x.rank})", "no more axes")
    data = data.reshape((1,) * (x.rank - data.ndim) + data.shape)
    first = data.take([0], axis=x.batch)
    if not np.array_equal(data, np.broadcast_to(first, data.shape)):
        raise call.refused("a constant that differs along the batch", "one constant for all samples")
    data = first.squeeze(x.batch).transpose([axis - (axis > x.batch) for axis in x.order])
    for size, own in zip(data.shape, imp.shape(x), strict=True):
        if size not in {1, own}:
            raise call.refused(
                f"a constant of shape {data.shape} widens the activation", "a constant that fits into it"
            )
    return data


def _pair(imp: Importer, call: Call, a: Tracked, b: Tracked) -> tuple[Tracked, Tracked]:
    """Two activations in one rank and order, the first one of full size."""
    a, b = raise_rank(imp, call, a, b.rank), raise_rank(imp, call, b, a.rank)
    if a.batch != b.batch:
        raise call.refused("the batch axes of its two inputs do not line up", "the batch as the same axis of both")
    order = b.order if a.order == a.plain else a.order
    a, b = imp.ordered(call, a, order), imp.ordered(call, b, order)
    if any(small < large for small, large in zip(imp.shape(a), imp.shape(b), strict=True)):
        a, b = b, a
    if any(small < large for small, large in zip(imp.shape(a), imp.shape(b), strict=True)):
        raise call.refused("both inputs would be widened", "one input of the result's shape")
    return a, b


def _combine(imp: Importer, call: Call, op: str, a: Operand, b: Operand, base: str = "") -> Tracked:
    """Add or Mul of two operands, at least one of them an activation."""
    attrs: ir.Attrs = ir.Add() if op == "add" else ir.Mul()
    if not isinstance(a, Tracked):
        a, b = b, a
    if isinstance(b, Tracked):
        a, b = _pair(imp, call, a, b)
        return Tracked(imp.emit(call, op, attrs, {"a": a.value, "b": b.value}, base), a.order, a.batch)
    data = constant_beside(imp, call, a, b)
    return Tracked(imp.emit(call, op, attrs, {"a": a.value, "b": data}, base), a.order, a.batch)


def _scaled(imp: Importer, call: Call, x: Operand, factor: float) -> Operand:
    if factor == 1:
        return x
    if isinstance(x, Tracked):
        return _combine(imp, call, "mul", x, factor, f"{call.base}.scale")
    return x * factor


def _operands(call: Call) -> tuple[Operand, Operand]:
    for name in ("self", "other"):
        if call.is_activation(name):
            call.activation(name)
    return call.args["self"], call.args["other"]


def add(imp: Importer, call: Call) -> Operand:
    a, b = _operands(call)
    return _combine(imp, call, "add", a, _scaled(imp, call, b, call.args.get("alpha", 1)))


def sub(imp: Importer, call: Call) -> Operand:
    a, b = _operands(call)
    if call.op == "rsub":
        a, b = b, a
    return _combine(imp, call, "add", a, _scaled(imp, call, b, -call.args.get("alpha", 1)))


def mul(imp: Importer, call: Call) -> Operand:
    a, b = _operands(call)
    return _combine(imp, call, "mul", a, b)


def div(imp: Importer, call: Call) -> Operand:
    """Division by a constant: a product with its reciprocal."""
    if call.args.get("rounding_mode") is not None:
        raise call.refused("a rounding division", "a true division")
    x, divisor = call.activation("self"), call.constant("other")
    if not np.all(divisor):
        raise call.refused("a division by zero", "a divisor without zeros")
    return _combine(imp, call, "mul", x, torch.tensor(1.0 / divisor.astype(np.float64)))


def neg(imp: Importer, call: Call) -> Operand:
    return _combine(imp, call, "mul", call.activation("self"), -1.0)


def softmax(imp: Importer, call: Call) -> Operand:
    x = call.activation("self")
    dim = call.axis("dim", x.rank)
    if dim == x.batch:
        raise call.refused("a softmax along the batch", "another axis")
    x = imp.ordered(call, x, (*(axis for axis in x.order if axis != dim), dim))
    return Tracked(imp.emit(call, "softmax", ir.Softmax(), {"x": x.value}), x.order, x.batch)


def identity(_imp: Importer, call: Call) -> Operand:
    """Operators without effect at inference: the activation itself."""
    if call.args.get("train"):
        raise call.refused("dropout that is active at inference", "dropout tied to the module's training mode")
    dtype = call.args.get("dtype")
    if isinstance(dtype, torch.dtype) and dtype != torch.float32:
        raise call.refused(f"a conversion to {dtype}", "float32 throughout")
    return call.activation("input" if "input" in call.args else "self")


IDENTITIES = (
    *("alias", "clone", "contiguous", "detach", "identity", "lift_fresh_copy", "to", "_to_copy"),
    *("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"),
)

HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("relu", "relu6", "sigmoid", "tanh"), simple),
    "gelu": gelu,
    **dict.fromkeys(("hardtanh", "clamp", "clamp_min", "clamp_max"), clip),
    "add": add,
    "sub": sub,
    "rsub": sub,
    "mul": mul,
    "div": div,
    "neg": neg,
    "softmax": softmax,
    "_softmax": softmax,
    **dict.fromkeys(IDENTITIES, identity),
}
