"""LSTM and GRU: one layer, one direction, dense or with factored weights."""

from __future__ import annotations

from functools import partial
from typing import Final

from projgen.errors import InputError
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.types import DType, Quant, TensorType
from projgen.ops.record import Cost, OpDef, Types
from projgen.ops.recurrent_float import gru_reference, is_joint, lstm_reference, reference_traces
from projgen.ops.recurrent_integer import gru_integer, lstm_integer
from projgen.ops.recurrent_oracle import gru_oracle, lstm_oracle
from projgen.ops.recurrent_rule import quantise
from projgen.ops.recurrent_samples import samples
from projgen.quant.scope import Stats

__all__ = ["OPS", "reference_traces"]

H_QUANT: Final = Quant(2.0**-7, 0)  # |h| < 1, so the scale of every hidden state is fixed
_GATES: Final = {Lstm: 4, Gru: 3}

Attrs = Lstm | Gru


def infer(attrs: Attrs, types: Types) -> TensorType:
    """Output (T, H) of x (T, D); checks the shape of every constant."""
    x = types["x"]
    layer = "an LSTM" if isinstance(attrs, Lstm) else "a GRU"
    if len(x.shape) != 2 or x.shape[1] == "T":
        raise InputError(f"the input of {layer} has shape {x.shape}", "(time, features)", "the model")
    if attrs.hidden < 1:
        raise InputError(f"{layer} has {attrs.hidden} hidden units", "at least 1", "the model")
    if is_joint(attrs) and not (attrs.input_projected and attrs.recurrent_projected):
        raise InputError(f"{layer} is joint without both factors", "both sides projected", "the model")
    is_float = x.dtype is DType.FLOAT32
    for role, want in _constant_shapes(attrs, types, is_float).items():
        if types[role].shape != want:
            raise InputError(f"{role} of {layer} has shape {types[role].shape}", f"{want}", "the model")
    shape = (x.shape[0], attrs.hidden)
    return TensorType(shape) if is_float else TensorType(shape, DType.INT8, H_QUANT)


def _constant_shapes(attrs: Attrs, types: Types, is_float: bool) -> dict[str, tuple[int, ...]]:
    """Expected shape of each constant; factors lie (features, rank) as floats and (rank, features) as integers."""
    inputs = int(types["x"].shape[1])
    hidden = attrs.hidden
    rows = _GATES[type(attrs)] * hidden
    rank_axis = 1 if is_float else 0
    shapes: dict[str, tuple[int, ...]] = {"b": (rows,)}
    from_x, from_h = inputs, hidden
    if attrs.input_projected:
        from_x = int(types["q_in"].shape[rank_axis])
        shapes["q_in"] = (inputs, from_x) if is_float else (from_x, inputs)
    if attrs.recurrent_projected:
        from_h = int(types["q_out"].shape[rank_axis])
        shapes["q_out"] = (hidden, from_h) if is_float else (from_h, hidden)
    shapes["w"] = (rows, from_x)
    if is_joint(attrs):
        shapes["q_out"] = (hidden, from_x) if is_float else (from_x, hidden)
    else:
        shapes["r"] = (rows, from_h)
    if isinstance(attrs, Gru):
        shapes["b_hn"] = (hidden,)
    if attrs.initial_state:
        shapes |= {"h0": (hidden,)} | ({"c0": (hidden,)} if isinstance(attrs, Lstm) else {})
    return shapes


def output_quant(attrs: Attrs, types: Types, stats: Stats) -> Quant:  # noqa: ARG001  (the records' signature)
    """Fixed: scale 2^-7, zero point 0."""
    return H_QUANT


def cost(attrs: Attrs, types: Types, output: TensorType) -> Cost:  # noqa: ARG001  (the records' signature)
    """Multiplications of one step: the gate products, and the factors where the layer is projected."""
    macs = sum(types[role].elements for role in ("w", "r", "q_in", "q_out") if role in types)
    return Cost(macs, 10 * attrs.hidden)


LSTM: Final = OpDef(
    name="lstm",
    attrs=Lstm,
    infer=infer,
    reference=lstm_reference,
    integer=lstm_integer,
    oracle=lstm_oracle,
    output_quant=output_quant,
    quantise=quantise,
    cost=cost,
    samples=partial(samples, Lstm),
)
GRU: Final = OpDef(
    name="gru",
    attrs=Gru,
    infer=infer,
    reference=gru_reference,
    integer=gru_integer,
    oracle=gru_oracle,
    output_quant=output_quant,
    quantise=quantise,
    cost=cost,
    samples=partial(samples, Gru),
)
OPS: Final = (LSTM, GRU)
