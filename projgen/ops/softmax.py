"""Softmax over the last axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from projgen.ir.attrs import Softmax
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.numerics import SoftmaxNumerics
from projgen.ir.types import TIME, DType, Quant, TensorType
from projgen.ops.common import constant_type, int8_type, need_quant, one_node, require
from projgen.ops.record import Args, Array, Cost, OpDef, Sample, Types
from projgen.quant.fixed import nearest
from projgen.quant.scope import Quantised, QuantScope, Stats

MAX_CLASSES = 32767
_OUTPUT = Quant(2.0**-8, -128)


def infer(_attrs: Softmax, types: Types) -> TensorType:
    shape = types["x"].shape
    require(len(shape) >= 1 and isinstance(shape[-1], int), f"softmax: x {shape}", "a last axis of fixed size")
    require(int(shape[-1]) <= MAX_CLASSES, f"softmax over {shape[-1]} values", f"at most {MAX_CLASSES}")
    return TensorType(shape)


def reference(_attrs: Softmax, args: Args) -> Array:
    x = args["x"]
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def exponentials(scale: float) -> npt.NDArray[np.int32]:
    """E[d] = nearest(65535 exp(-d scale)), d = 0..255."""
    return nearest(65535.0 * np.exp(-np.arange(256) * scale)).astype(np.int32)


def integer(_node: Node, args: Args) -> Array:
    """d = max - q; y = min(floor((512 E[d] + S) / (2 S)), 255) - 128 with S the sum of E."""
    x = args["x"].astype(np.int64)
    e = args["table"].astype(np.int64)[x.max(axis=-1, keepdims=True) - x]
    total = e.sum(axis=-1, keepdims=True)
    return np.asarray(np.minimum((512 * e + total) // (2 * total), 255) - 128)


def oracle(graph: Graph, node: Node, args: Args) -> Array:
    quant = need_quant(graph.arg(node, "x").type)
    real = (args["x"].astype(np.float64) - quant.zero_point) * quant.scale
    return np.minimum(reference(Softmax(), {"x": real}) * 256.0, 255.0) - 128.0


def output_quant(_attrs: Softmax, _types: Types, _stats: Stats) -> Quant:
    return _OUTPUT


def quantise(scope: QuantScope, node: Node) -> Quantised:
    scale = need_quant(scope.types[node.inputs["x"]]).scale
    table = exponentials(scale)
    name = f"{node.name}.table"
    inputs = {"x": node.inputs["x"], "table": name}
    return Quantised(
        (replace(node, inputs=inputs, numerics=SoftmaxNumerics(scale)),), (Value(name, constant_type(table), table),)
    )


def cost(_attrs: Softmax, _types: Types, out: TensorType) -> Cost:
    return Cost(macs=0, elements=out.elements)


def _sample(name: str, x: TensorType) -> Sample:
    scale = need_quant(x).scale
    node = Node(name, "softmax", {"x": "x", "table": "table"}, "y", Softmax(), numerics=SoftmaxNumerics(scale))
    y = TensorType(x.shape, DType.INT8, _OUTPUT)
    return one_node(name, node, {"x": x, "y": y}, {"table": exponentials(scale)})


def samples() -> Iterator[Sample]:
    yield _sample("softmax_1", int8_type((1,)))
    yield _sample("softmax_10", int8_type((10,), 0.1, 12))
    yield _sample("softmax_9_sharp", int8_type((9,), 1.5, -128))
    yield _sample("softmax_300_flat", int8_type((300,), 0.001, 127))
    yield _sample("softmax_rows_4x7", int8_type((4, 7), 0.07))
    yield _sample("softmax_time_12", int8_type((TIME, 12), 0.04))


OPS: tuple[OpDef, ...] = (
    OpDef(
        name="softmax",
        attrs=Softmax,
        infer=infer,
        reference=reference,
        integer=integer,
        oracle=oracle,
        output_quant=output_quant,
        quantise=quantise,
        cost=cost,
        samples=samples,
    ),
)
