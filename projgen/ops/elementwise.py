"""Element-wise operators: batch normalisation (float only), activations, the int8 table, sum and product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from projgen.errors import UnsupportedError
from projgen.ir.attrs import Activation, Add, BatchNorm, Lut, Mul, Unary, UnaryKind
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.numerics import AddNumerics, MulNumerics, Requant
from projgen.ir.types import TIME, Dim, DType, Quant, TensorType
from projgen.ops.common import (
    activate,
    as_attrs,
    clamp_range,
    constant_type,
    draw,
    elementwise_cost,
    generator,
    int8_type,
    need_quant,
    one_node,
    require,
)
from projgen.ops.record import Args, Array, OpDef, Sample, Types
from projgen.quant.fixed import affine, multipliers, nearest, requantise, to_integers, to_reals
from projgen.quant.scope import Quantised, QuantScope, Stats

ADD_FACTOR = 1 << 14
_NAMED: tuple[UnaryKind, ...] = ("relu", "relu6", "sigmoid", "tanh", "gelu", "gelu_tanh")


def infer_batch_norm(_attrs: BatchNorm, types: Types) -> TensorType:
    x = types["x"].shape
    for role in ("mean", "variance", "gamma", "beta"):
        shape = types[role].shape
        require(shape == (x[-1],), f"batch_norm: {role} has shape {shape}", f"({x[-1]},)")
    return TensorType(x)


def batch_norm(attrs: BatchNorm, args: Args) -> Array:
    scale = args["gamma"] / np.sqrt(args["variance"] + args["variance"].dtype.type(attrs.epsilon))
    return np.asarray((args["x"] - args["mean"]) * scale + args["beta"])


def infer_unary(_attrs: Unary | Lut, types: Types) -> TensorType:
    return TensorType(types["x"].shape)


def unary(attrs: Unary, args: Args) -> Array:
    x = args["x"]
    match attrs.kind:
        case "relu":
            return np.maximum(x, 0)
        case "relu6":
            return np.clip(x, 0, 6)
        case "sigmoid":
            return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))
        case "tanh":
            return np.asarray(np.tanh(x))
        case "gelu":
            return np.asarray(0.5 * x * (1 + erf(x * np.sqrt(0.5).astype(x.dtype))))
        case "gelu_tanh":
            inner = np.sqrt(2.0 / np.pi).astype(x.dtype) * (x + x.dtype.type(0.044715) * x**3)
            return np.asarray(0.5 * x * (1 + np.tanh(inner)))
        case "clip":
            return np.clip(x, attrs.low, attrs.high)


def unary_quant(attrs: Unary, _types: Types, stats: Stats) -> Quant:
    """tanh and sigmoid have known ranges; the others are calibrated."""
    if attrs.kind == "tanh":
        return Quant(2.0**-7, 0)
    if attrs.kind == "sigmoid":
        return Quant(2.0**-8, -128)
    return affine(stats.minimum, stats.maximum)


def table(attrs: Unary, x: Quant, y: Quant) -> npt.NDArray[np.int8]:
    """The 256 entries of an int8 -> int8 function: saturate(nearest(f(real) / s_y) + z_y)."""
    real = to_reals(np.arange(-128, 128), x)
    return to_integers(unary(attrs, {"x": real}), y, DType.INT8).astype(np.int8)


def lut_node(name: str, source: str, x: str, y: str, attrs: Unary, quants: tuple[Quant, Quant]) -> tuple[Node, Value]:
    """A table node from value ``x`` to value ``y`` and its table."""
    data = table(attrs, *quants)
    rescale = attrs.kind == "clip" and attrs == RESCALE
    node = Node(name, "lut", {"x": x, "table": f"{name}.table"}, y, Lut("rescale" if rescale else attrs.kind), source)
    return node, Value(f"{name}.table", constant_type(data), data)


RESCALE = Unary("clip")  # the identity: its table changes only scale and zero point


def quantise_unary(scope: QuantScope, node: Node) -> Quantised:
    x, y = scope.types[node.inputs["x"]], scope.types[node.output]
    if x.dtype is not DType.INT8:
        raise UnsupportedError(f"{node.name}: an activation of {x.dtype.value} values", "int8", "the model")
    attrs = as_attrs(node, Unary)
    made, values = lut_node(
        node.name, node.source, node.inputs["x"], node.output, attrs, (need_quant(x), need_quant(y))
    )
    return Quantised((made,), (values,))


def lut(_node: Node, args: Args) -> Array:
    return args["table"].astype(np.int64)[args["x"].astype(np.int64) + 128]


def lut_oracle(graph: Graph, node: Node, args: Args) -> Array:
    """The named function of the dequantised input; a table of another name means itself."""
    function = as_attrs(node, Lut).function
    x, y = need_quant(graph.arg(node, "x").type), need_quant(graph.type(node.output))
    known = next((Unary(k) for k in _NAMED if k == function), RESCALE if function == "rescale" else None)
    if known is None:
        return lut(node, args).astype(np.float64)
    return np.clip(unary(known, {"x": to_reals(args["x"], x)}) / y.scale + y.zero_point, -128, 127)


def infer_binary(op: str, types: Types) -> TensorType:
    a, b = types["a"].shape, types["b"].shape
    fits = len(a) == len(b) and all(d in (1, c) for c, d in zip(a, b, strict=False))
    require(fits, f"{op}: a {a} and b {b}", "b of a's rank, each axis a's or 1")
    return TensorType(a)


def infer_add(_attrs: Add, types: Types) -> TensorType:
    return infer_binary("add", types)


def infer_mul(_attrs: Mul, types: Types) -> TensorType:
    return infer_binary("mul", types)


def add(attrs: Add, args: Args) -> Array:
    return activate(attrs.activation, args["a"] + args["b"])


def mul(attrs: Mul, args: Args) -> Array:
    return activate(attrs.activation, args["a"] * args["b"])


def add_integer(node: Node, args: Args) -> Array:
    n = node.numerics
    if not isinstance(n, AddNumerics):
        raise ValueError(f"node {node.name!r} has no add numerics")
    acc = n.factor_a * (args["a"].astype(np.int64) - n.zero_a) + n.factor_b * (args["b"].astype(np.int64) - n.zero_b)
    return scalar_rescale(acc, n.multiplier, n.requant)


def mul_integer(node: Node, args: Args) -> Array:
    n = node.numerics
    if not isinstance(n, MulNumerics):
        raise ValueError(f"node {node.name!r} has no mul numerics")
    acc = (args["a"].astype(np.int64) - n.zero_a) * (args["b"].astype(np.int64) - n.zero_b)
    return scalar_rescale(acc, n.multiplier, n.requant)


def scalar_rescale(acc: Array, multiplier: int, requant: Requant) -> Array:
    """y = clamp(zero point + RQ(acc, M, p), low, high) with one M for the tensor."""
    return np.clip(requant.zero_point + requantise(acc, multiplier, requant.shift), requant.low, requant.high)


def binary_oracle(graph: Graph, node: Node, args: Args) -> Array:
    reals = {role: to_reals(args[role], need_quant(graph.arg(node, role).type)) for role in ("a", "b")}
    y = reals["a"] + reals["b"] if node.op == "add" else reals["a"] * reals["b"]
    out = graph.type(node.output)
    kind = as_attrs(node, Add).activation if node.op == "add" else as_attrs(node, Mul).activation
    low, high = clamp_range(kind, out)
    return np.clip(y / need_quant(out).scale + need_quant(out).zero_point, low, high)


def add_numerics(name: str, a: Quant, b: Quant, y: TensorType, activation: Activation) -> AddNumerics:
    """The accumulator's scale is max(s_a, s_b) / 2^14: both factors are integers of at most 15 bits."""
    scale = max(a.scale, b.scale) / ADD_FACTOR
    m, shift = multipliers([scale / need_quant(y).scale], name)
    prove_scalar(name, 2 * 255 * ADD_FACTOR, shift)
    low, high = clamp_range(activation, y)
    return AddNumerics(
        factor_a=int(nearest(a.scale / scale)),
        zero_a=a.zero_point,
        factor_b=int(nearest(b.scale / scale)),
        zero_b=b.zero_point,
        multiplier=int(m[0]),
        requant=Requant(shift, need_quant(y).zero_point, low, high),
    )


def mul_numerics(name: str, a: Quant, b: Quant, y: TensorType, activation: Activation) -> MulNumerics:
    m, shift = multipliers([a.scale * b.scale / need_quant(y).scale], name)
    prove_scalar(name, 255 * 255, shift)
    low, high = clamp_range(activation, y)
    requant = Requant(shift, need_quant(y).zero_point, low, high)
    return MulNumerics(a.zero_point, b.zero_point, int(m[0]), requant)


def prove_scalar(name: str, bound: int, shift: int) -> None:
    """Refuse, by name, an accumulator that could leave int32 after its pre-shift."""
    if bound << shift >= 2**31:
        raise UnsupportedError(
            f"{name}: the int32 accumulator could reach {bound << shift}",
            f"at most {2**31 - 1} for every input",
            "the calibration data, whose range of this output is far smaller than its operands allow",
        )


def quantise_binary(scope: QuantScope, node: Node) -> Quantised:
    """A constant operand becomes int8 with a range of its own."""
    quants: dict[str, Quant] = {}
    inputs = dict(node.inputs)
    values: list[Value] = []
    for role in ("a", "b"):
        value = scope.graph.arg(node, role)
        if value.data is None:
            quants[role] = need_quant(scope.types[value.name])
            continue
        quants[role] = affine(float(value.data.min()), float(value.data.max()))
        inputs[role] = f"{node.name}.{role}"
        data = to_integers(value.data, quants[role], DType.INT8).astype(np.int8)
        values.append(Value(inputs[role], constant_type(data, quants[role]), data))
    y = scope.types[node.output]
    numerics: AddNumerics | MulNumerics
    if node.op == "add":
        numerics = add_numerics(node.name, quants["a"], quants["b"], y, as_attrs(node, Add).activation)
    else:
        numerics = mul_numerics(node.name, quants["a"], quants["b"], y, as_attrs(node, Mul).activation)
    return Quantised((replace(node, inputs=inputs, numerics=numerics),), tuple(values))


def prove_binary(graph: Graph, node: Node) -> None:
    n = node.numerics
    if isinstance(n, AddNumerics):
        prove_scalar(node.name, 255 * (abs(n.factor_a) + abs(n.factor_b)), n.requant.shift)
    elif isinstance(n, MulNumerics):
        prove_scalar(node.name, 255 * 255, n.requant.shift)
    else:
        raise ValueError(f"node {node.name!r} of {graph.name!r} has no numerics")


def binary_sample(
    name: str,
    op: str,
    a: TensorType,
    b: TensorType,
    y: Quant,
    *,
    activation: Activation = "none",
    constant: Array | None = None,
    inputs: tuple[Array, ...] | None = None,
) -> Sample:
    """A quantised sum or product; ``constant`` takes the place of b."""
    out = TensorType(a.shape, DType.INT8, y)
    types = {"a": a, "b": b, "y": out}
    numerics: AddNumerics | MulNumerics
    if op == "add":
        numerics = add_numerics(name, need_quant(a), need_quant(b), out, activation)
        node = Node(name, op, {"a": "a", "b": "b"}, "y", Add(activation), numerics=numerics)
    else:
        numerics = mul_numerics(name, need_quant(a), need_quant(b), out, activation)
        node = Node(name, op, {"a": "a", "b": "b"}, "y", Mul(activation), numerics=numerics)
    return one_node(name, node, types, {} if constant is None else {"b": constant}, inputs)


def lut_sample(name: str, attrs: Unary, shape: tuple[Dim, ...], x: Quant, y: Quant) -> Sample:
    node, value = lut_node(name, "", "x", "y", attrs, (x, y))
    node = replace(node, inputs={"x": "x", "table": "table"})
    if value.data is None:
        raise ValueError("a table without data")
    types = {"x": TensorType(shape, DType.INT8, x), "y": TensorType(shape, DType.INT8, y)}
    return one_node(name, node, types, {"table": value.data})


def lut_samples() -> Iterator[Sample]:
    yield lut_sample("lut_relu", Unary("relu"), (5, 3, 2), Quant(0.03, -11), Quant(0.02, -128))
    yield lut_sample("lut_relu6_odd", Unary("relu6"), (37,), Quant(0.07, 5), Quant(0.0235, -128))
    yield lut_sample("lut_sigmoid", Unary("sigmoid"), (3, 4, 4), Quant(0.06, 3), Quant(2.0**-8, -128))
    yield lut_sample("lut_gelu", Unary("gelu"), (31,), Quant(0.04, -20), Quant(0.03, -122))
    yield lut_sample("lut_gelu_tanh", Unary("gelu_tanh"), (2, 7), Quant(0.05, 9), Quant(0.025, -121))
    yield lut_sample("lut_tanh_time", Unary("tanh"), (TIME, 6), Quant(0.03, -1), Quant(2.0**-7, 0))
    yield lut_sample("lut_clip", Unary("clip", -0.5, 1.25), (20,), Quant(0.03, 0), Quant(0.0075, -60))
    yield lut_sample("lut_rescale", RESCALE, (16,), Quant(0.05, 9), Quant(0.031, -100))


def add_samples() -> Iterator[Sample]:
    x, other = int8_type((3, 4, 5), 0.05, 7), int8_type((3, 4, 5), 0.013, -128)
    yield binary_sample("add_maps", "add", x, other, Quant(0.055, 2))
    yield binary_sample("add_relu", "add", x, other, Quant(0.03, -128), activation="relu")
    yield binary_sample("add_relu6", "add", other, x, Quant(0.0235, -128), activation="relu6")
    same = int8_type((33,), 0.02, 0)
    a = draw(generator("add_preshift"), same)
    cancelled = (a, np.where(a % 3 == 0, a, -np.maximum(a, -127)).astype(np.int8))
    yield binary_sample("add_preshift", "add", same, same, Quant(0.02 / 2**15, -1), inputs=cancelled)
    yield binary_sample("add_channels", "add", x, int8_type((1, 1, 5), 0.3, 0), Quant(0.3, 5))
    yield binary_sample("add_pixels", "add", x, int8_type((3, 4, 1), 0.1, 31), Quant(0.1, -5))
    yield binary_sample("add_time_row", "add", int8_type((TIME, 7), 0.04, 1), int8_type((1, 7), 0.04), Quant(0.08, 0))
    bias = np.array([[[-128, 127, 0, 5, -9]]], np.int8)
    yield binary_sample("add_constant", "add", x, int8_type((1, 1, 5), 0.01, -3), Quant(0.05, 4), constant=bias)


def mul_samples() -> Iterator[Sample]:
    x, other = int8_type((3, 4, 5), 0.05, 7), int8_type((3, 4, 5), 0.0039, -128)
    yield binary_sample("mul_maps", "mul", x, other, Quant(0.045, 3))
    yield binary_sample("mul_relu", "mul", x, x, Quant(0.2, -128), activation="relu")
    yield binary_sample("mul_relu6", "mul", x, x, Quant(0.0235, -128), activation="relu6")
    yield binary_sample("mul_squeeze_excite", "mul", x, int8_type((1, 1, 5), 2.0**-8, -128), Quant(0.05, 7))
    yield binary_sample("mul_gate", "mul", x, int8_type((3, 4, 1), 2.0**-8, -128), Quant(0.05, -7))
    high, low = int8_type((19,), 1.0, 127), int8_type((19,), 1.0, -128)
    rng = generator("mul_preshift")
    near = (rng.integers(115, 128, (4, 19)).astype(np.int8), rng.integers(-128, -116, (4, 19)).astype(np.int8))
    yield binary_sample("mul_preshift", "mul", high, low, Quant(0.7, 40), inputs=near)
    yield binary_sample("mul_time", "mul", int8_type((TIME, 3), 0.02), int8_type((TIME, 3), 0.02), Quant(0.01, 0))
    gain = np.array([[[127]]], np.int8)
    yield binary_sample("mul_constant", "mul", x, int8_type((1, 1, 1), 0.01, 0), Quant(0.05, 0), constant=gain)


def none_samples() -> Iterator[Sample]:
    """A float-only operator has no integer graph."""
    return iter(())


OPS: tuple[OpDef, ...] = (
    OpDef(
        name="batch_norm",
        attrs=BatchNorm,
        infer=infer_batch_norm,
        reference=batch_norm,
        integer=None,
        oracle=None,
        output_quant=None,
        quantise=None,
        cost=elementwise_cost,
        samples=none_samples,
    ),
    OpDef(
        name="unary",
        attrs=Unary,
        infer=infer_unary,
        reference=unary,
        integer=None,
        oracle=None,
        output_quant=unary_quant,
        quantise=quantise_unary,
        cost=elementwise_cost,
        samples=none_samples,
    ),
    OpDef(
        name="lut",
        attrs=Lut,
        infer=infer_unary,
        reference=lambda _attrs, args: args["table"][args["x"].astype(np.int64) + 128],
        integer=lut,
        oracle=lut_oracle,
        output_quant=None,
        quantise=None,
        cost=elementwise_cost,
        samples=lut_samples,
    ),
    OpDef(
        name="add",
        attrs=Add,
        infer=infer_add,
        reference=add,
        integer=add_integer,
        oracle=binary_oracle,
        output_quant=None,
        quantise=quantise_binary,
        cost=elementwise_cost,
        samples=add_samples,
        prove=prove_binary,
    ),
    OpDef(
        name="mul",
        attrs=Mul,
        infer=infer_mul,
        reference=mul,
        integer=mul_integer,
        oracle=binary_oracle,
        output_quant=None,
        quantise=quantise_binary,
        cost=elementwise_cost,
        samples=mul_samples,
        prove=prove_binary,
    ),
)
