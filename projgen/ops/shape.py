"""Operators that only move values: pad, slice, select, reshape, transpose, concat."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from projgen.ir.attrs import Attrs, Concat, Pad, Reshape, Select, Slice, Transpose
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.numerics import PadNumerics
from projgen.ir.types import TIME, DType, Quant, TensorType
from projgen.ops.common import (
    as_attrs,
    elementwise_cost,
    exact_oracle,
    int8_type,
    need_quant,
    one_node,
    passes_node,
    passes_quant,
    require,
    static_dim,
)
from projgen.ops.elementwise import RESCALE, lut_node
from projgen.ops.record import Args, Array, Cost, OpDef, Sample, Types
from projgen.quant.fixed import affine, to_integers
from projgen.quant.scope import Quantised, QuantScope, Stats


def infer_pad(attrs: Pad, types: Types) -> TensorType:
    x = types["x"]
    require(len(attrs.amounts) == len(x.shape), f"pad: {len(attrs.amounts)} amounts for x {x.shape}", "one an axis")
    require(all(min(pair) >= 0 for pair in attrs.amounts), f"pad: {attrs.amounts}", "amounts from 0 up")
    require(math.isfinite(attrs.value), f"pad: value {attrs.value}", "a finite value")
    require(not x.has_time or attrs.amounts[0] == (0, 0), "pad: the time axis is padded", "padding of other axes")
    shape = tuple(d if d == TIME else int(d) + sum(p) for d, p in zip(x.shape, attrs.amounts, strict=True))
    return x.with_shape(shape)


def pad(attrs: Pad, args: Args) -> Array:
    return np.pad(args["x"], ((0, 0), *attrs.amounts), constant_values=attrs.value)


def pad_integer(node: Node, args: Args) -> Array:
    if not isinstance(node.numerics, PadNumerics):
        raise ValueError(f"node {node.name!r} has no pad numerics")
    return pad(replace(as_attrs(node, Pad), value=node.numerics.value), {"x": args["x"].astype(np.int64)})


def pad_oracle(graph: Graph, node: Node, args: Args) -> Array:
    quant = need_quant(graph.type(node.output))
    attrs = as_attrs(node, Pad)
    value = float(np.clip(attrs.value / quant.scale + quant.zero_point, -128, 127))
    return pad(replace(attrs, value=value), {"x": args["x"].astype(np.float64)})


def pad_quant(attrs: Pad, types: Types, stats: Stats) -> Quant:
    """0 is exact in the input's map; another value may need a wider range."""
    return need_quant(types["x"]) if attrs.value == 0.0 else affine(stats.minimum, stats.maximum)


def quantise_pad(scope: QuantScope, node: Node) -> Quantised:
    y = scope.types[node.output]
    value = int(to_integers(as_attrs(node, Pad).value, need_quant(y), y.dtype))
    x, nodes, values = rescaled(scope, node, "x")
    return Quantised((*nodes, replace(node, inputs={"x": x}, numerics=PadNumerics(value))), values)


def rescaled(scope: QuantScope, node: Node, role: str) -> tuple[str, tuple[Node, ...], tuple[Value, ...]]:
    """The input under the output's map: itself, or the output of a table node that changes scale and zero point."""
    source = scope.graph.arg(node, role)
    if source.data is not None:
        quant = need_quant(scope.types[node.output])
        data = to_integers(source.data, quant, DType.INT8).astype(np.int8)
        name = f"{node.name}.{role}"
        return name, (), (Value(name, TensorType(source.type.shape, DType.INT8, quant), data),)
    x, y = need_quant(scope.types[source.name]), need_quant(scope.types[node.output])
    if x == y:
        return source.name, (), ()
    name = f"{node.name}.{role}.rescaled"
    made, table = lut_node(f"{node.name}.{role}.rescale", node.source, source.name, name, RESCALE, (x, y))
    return name, (made,), (Value(name, TensorType(source.type.shape, DType.INT8, y)), table)


def infer_slice(attrs: Slice, types: Types) -> TensorType:
    x = types["x"]
    require(0 <= attrs.axis < len(x.shape), f"slice: axis {attrs.axis} of x {x.shape}", "one of its axes")
    size = static_dim("slice", x.shape[attrs.axis], attrs.axis)
    fits = 0 <= attrs.start < attrs.stop <= size and attrs.step >= 1
    require(fits, f"slice: [{attrs.start}:{attrs.stop}:{attrs.step}] of {size}", "0 <= start < stop <= size, step > 0")
    kept = len(range(attrs.start, attrs.stop, attrs.step))
    return x.with_shape((*x.shape[: attrs.axis], kept, *x.shape[attrs.axis + 1 :]))


def slice_(attrs: Slice, args: Args) -> Array:
    index = (slice(None),) * (attrs.axis + 1)
    return args["x"][(*index, slice(attrs.start, attrs.stop, attrs.step))]


def infer_select(attrs: Select, types: Types) -> TensorType:
    x = types["x"]
    require(0 <= attrs.axis < len(x.shape), f"select: axis {attrs.axis} of x {x.shape}", "one of its axes")
    dim = x.shape[attrs.axis]
    if isinstance(dim, int):
        require(-1 <= attrs.index < dim, f"select: index {attrs.index} of {dim}", "an index inside the axis, or -1")
    else:
        require(attrs.index == -1, f"select: step {attrs.index} of a sequence", "-1, the last step")
    return x.with_shape((*x.shape[: attrs.axis], *x.shape[attrs.axis + 1 :]))


def select(attrs: Select, args: Args) -> Array:
    return np.asarray(np.take(args["x"], attrs.index, axis=attrs.axis + 1))


def infer_reshape(attrs: Reshape, types: Types) -> TensorType:
    x = types["x"]
    require(not x.has_time, f"reshape: x {x.shape} has a time axis", "a static shape")
    require(
        math.prod(attrs.shape) == x.elements, f"reshape: x {x.shape} to {attrs.shape}", "the same number of elements"
    )
    return x.with_shape(attrs.shape)


def reshape(attrs: Reshape, args: Args) -> Array:
    return args["x"].reshape(len(args["x"]), *attrs.shape)


def view_cost(_attrs: Any, _types: Types, _out: TensorType) -> Cost:
    return Cost(macs=0)


def infer_transpose(attrs: Transpose, types: Types) -> TensorType:
    x = types["x"]
    rank = len(x.shape)
    require(sorted(attrs.perm) == list(range(rank)), f"transpose: {attrs.perm} of x {x.shape}", "each axis once")
    require(not x.has_time or attrs.perm[0] == 0, "transpose: the time axis moves", "time as the first axis")
    return x.with_shape(tuple(x.shape[p] for p in attrs.perm))


def transpose(attrs: Transpose, args: Args) -> Array:
    return args["x"].transpose(0, *(p + 1 for p in attrs.perm))


def infer_concat(attrs: Concat, types: Types) -> TensorType:
    first, *rest = types.values()
    axis = attrs.axis
    require(0 <= axis < len(first.shape), f"concat: axis {axis} of {first.shape}", "one of the axes")
    total = static_dim("concat", first.shape[axis], axis)
    for other in rest:
        same = len(other.shape) == len(first.shape) and all(
            a == b for i, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)) if i != axis
        )
        require(same, f"concat: {first.shape} with {other.shape} along axis {axis}", "equal sizes on the other axes")
        total += static_dim("concat", other.shape[axis], axis)
    return first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))


def concat(attrs: Concat, args: Args) -> Array:
    """A constant part has no batch axis and is repeated for each sample."""
    parts = list(args.values())
    rank = max(p.ndim for p in parts)
    batch = next(len(p) for p in parts if p.ndim == rank)
    full = [p if p.ndim == rank else np.broadcast_to(p, (batch, *p.shape)) for p in parts]
    return np.concatenate(full, axis=attrs.axis + 1)


def quantise_concat(scope: QuantScope, node: Node) -> Quantised:
    """Inputs of another scale pass through a table first."""
    inputs: dict[str, str] = {}
    nodes: list[Node] = []
    values: list[Value] = []
    for role in node.inputs:
        inputs[role], more_nodes, more_values = rescaled(scope, node, role)
        nodes += more_nodes
        values += more_values
    return Quantised((*nodes, replace(node, inputs=inputs)), tuple(values))


def moved(reference: Callable[[Any, Args], Array]) -> Callable[[Node, Args], Array]:
    """The integer meaning of an operator that moves values: its reference."""

    def integer(node: Node, args: Args) -> Array:
        return reference(node.attrs, args).astype(np.int64)

    return integer


def _sample(name: str, op: str, attrs: Attrs, x: TensorType, infer: Callable[[Any, Types], TensorType]) -> Sample:
    numerics = None
    if isinstance(attrs, Pad):
        numerics = PadNumerics(int(to_integers(attrs.value, need_quant(x), DType.INT8)))
    node = Node(name, op, {"x": "x"}, "y", attrs, numerics=numerics)
    return one_node(name, node, {"x": x, "y": infer(attrs, {"x": x})}, {})


def pad_samples() -> Iterator[Sample]:
    def make(name: str, shape: tuple[Any, ...], amounts: tuple[tuple[int, int], ...], value: float = 0.0) -> Sample:
        return _sample(name, "pad", Pad(amounts, value), int8_type(shape, 0.05, 9), infer_pad)

    yield make("pad_map", (3, 4, 2), ((1, 1), (2, 0), (0, 0)))
    yield make("pad_channels", (2, 3, 3), ((0, 0), (0, 0), (1, 2)))
    yield make("pad_vector_value", (7,), ((2, 3),), 1.5)
    yield make("pad_time_features", (TIME, 3), ((0, 0), (1, 1)), -0.7)


def slice_samples() -> Iterator[Sample]:
    yield _sample("slice_rows", "slice", Slice(0, 1, 4), int8_type((5, 3, 2)), infer_slice)
    yield _sample("slice_columns_step", "slice", Slice(1, 0, 5, 2), int8_type((3, 5, 2)), infer_slice)
    yield _sample("slice_channels", "slice", Slice(2, 3, 8, 3), int8_type((3, 2, 9)), infer_slice)
    yield _sample("slice_time_features", "slice", Slice(1, 2, 5), int8_type((TIME, 6)), infer_slice)


def select_samples() -> Iterator[Sample]:
    yield _sample("select_last_step", "select", Select(0, -1), int8_type((TIME, 7)), infer_select)
    yield _sample("select_row", "select", Select(0, 2), int8_type((4, 3, 2)), infer_select)
    yield _sample("select_column", "select", Select(1, 0), int8_type((4, 3, 2)), infer_select)
    yield _sample("select_channel", "select", Select(2, 1), int8_type((4, 3, 2)), infer_select)


def reshape_samples() -> Iterator[Sample]:
    yield _sample("reshape_flatten", "reshape", Reshape((24,)), int8_type((2, 3, 4)), infer_reshape)
    yield _sample("reshape_to_map", "reshape", Reshape((1, 5, 3)), int8_type((15,)), infer_reshape)


def transpose_samples() -> Iterator[Sample]:
    yield _sample(
        "transpose_to_channels_first", "transpose", Transpose((2, 0, 1)), int8_type((3, 4, 5)), infer_transpose
    )
    yield _sample("transpose_swap", "transpose", Transpose((1, 0)), int8_type((3, 8)), infer_transpose)
    yield _sample("transpose_inner", "transpose", Transpose((0, 2, 1)), int8_type((2, 3, 7)), infer_transpose)


def concat_samples() -> Iterator[Sample]:
    def make(name: str, axis: int, *shapes: tuple[Any, ...]) -> Sample:
        types = {f"x{i}": int8_type(s, 0.05, -2) for i, s in enumerate(shapes)}
        out = infer_concat(Concat(axis), types)
        node = Node(name, "concat", {r: r for r in types}, "y", Concat(axis))
        return one_node(name, node, {**types, "y": out}, {})

    yield make("concat_channels", 2, (3, 2, 4), (3, 2, 1), (3, 2, 5))
    yield make("concat_rows", 0, (1, 3, 2), (4, 3, 2))
    yield make("concat_columns", 1, (3, 1, 2), (3, 2, 2))
    yield make("concat_vectors", 0, (5,), (9,))
    yield make("concat_time_features", 1, (TIME, 3), (TIME, 4))


def _record(
    name: str,
    attrs: type,
    infer: Callable[[Any, Types], TensorType],
    reference: Callable[[Any, Args], Array],
    samples: Callable[[], Iterator[Sample]],
    *,
    view: bool = False,
) -> OpDef:
    """An operator that hands on its input's integers."""
    return OpDef(
        name=name,
        attrs=attrs,
        infer=infer,
        reference=reference,
        integer=moved(reference),
        oracle=exact_oracle(reference),
        output_quant=passes_quant,
        quantise=passes_node,
        cost=view_cost if view else elementwise_cost,
        samples=samples,
        view=view,
    )


OPS: tuple[OpDef, ...] = (
    replace(
        _record("pad", Pad, infer_pad, pad, pad_samples),
        integer=pad_integer,
        oracle=pad_oracle,
        output_quant=pad_quant,
        quantise=quantise_pad,
    ),
    _record("slice", Slice, infer_slice, slice_, slice_samples),
    _record("select", Select, infer_select, select, select_samples),
    _record("reshape", Reshape, infer_reshape, reshape, reshape_samples, view=True),
    _record("transpose", Transpose, infer_transpose, transpose, transpose_samples),
    replace(
        _record("concat", Concat, infer_concat, concat, concat_samples), output_quant=None, quantise=quantise_concat
    ),
)
