"""The float meaning of LSTM and GRU against torch, its traces and the shape rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from projgen.errors import InputError
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.types import TIME, DType, TensorType
from projgen.ops import recurrent
from projgen.ops.record import Array, OpDef

CASES = [(cell, d, h, state) for cell in ("lstm", "gru") for d, h in ((1, 1), (3, 5)) for state in (False, True)]


def torch_case(cell: str, d: int, h: int, state: bool) -> tuple[Lstm | Gru, dict[str, Array], np.ndarray]:
    """Attributes, arguments and torch's own output of one random layer."""
    torch.manual_seed(7)
    net = (torch.nn.LSTM if cell == "lstm" else torch.nn.GRU)(d, h, batch_first=True).double()
    x = torch.randn(2, 6, d, dtype=torch.float64)
    p = {name: value.detach() for name, value in net.named_parameters()}
    b_ih, b_hh = p["bias_ih_l0"], p["bias_hh_l0"]
    args = {"x": x, "w": p["weight_ih_l0"], "r": p["weight_hh_l0"], "b": b_ih + b_hh}
    if cell == "gru":
        args["b"] = torch.cat([(b_ih + b_hh)[: 2 * h], b_ih[2 * h :]])
        args["b_hn"] = b_hh[2 * h :]
    h0, c0 = torch.rand(h, dtype=torch.float64), torch.randn(h, dtype=torch.float64)
    start: object = None
    if state:
        args |= {"h0": h0} | ({"c0": c0} if cell == "lstm" else {})
        wide = [v.expand(1, 2, h).contiguous() for v in (h0, c0)]
        start = tuple(wide) if cell == "lstm" else wide[0]
    y, _ = net(x, start)
    attrs = (Lstm if cell == "lstm" else Gru)(h, initial_state=state)
    return attrs, {k: v.numpy() for k, v in args.items()}, y.detach().numpy()


def record(attrs: Lstm | Gru) -> OpDef:
    return recurrent.LSTM if isinstance(attrs, Lstm) else recurrent.GRU


@pytest.mark.parametrize(("cell", "d", "h", "state"), CASES)
def test_reference_is_torch(cell: str, d: int, h: int, state: bool) -> None:
    attrs, args, want = torch_case(cell, d, h, state)
    np.testing.assert_allclose(record(attrs).reference(attrs, args), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_reverse_is_the_flipped_sequence(cell: str) -> None:
    attrs, args, _ = torch_case(cell, 3, 5, True)
    back = type(attrs)(5, initial_state=True, reverse=True)
    flipped = {**args, "x": args["x"][:, ::-1]}
    want = record(attrs).reference(attrs, flipped)[:, ::-1]
    np.testing.assert_array_equal(record(back).reference(back, args), want)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_factors_multiply_out(cell: str) -> None:
    attrs, args, _ = torch_case(cell, 3, 5, False)
    rng = np.random.default_rng(1)
    rows = args["w"].shape[0]
    low = {"w": rng.normal(size=(rows, 2)), "q_in": rng.normal(size=(3, 2))}
    low |= {"r": rng.normal(size=(rows, 3)), "q_out": rng.normal(size=(5, 3))}
    dense = {"w": low["w"] @ low["q_in"].T, "r": low["r"] @ low["q_out"].T}
    projected = type(attrs)(5, input_projected=True, recurrent_projected=True)
    want = record(attrs).reference(attrs, {**args, **dense})
    np.testing.assert_allclose(record(attrs).reference(projected, {**args, **low}), want, atol=1e-12)


def test_a_joint_lstm_is_one_with_equal_first_factors() -> None:
    attrs, args, _ = torch_case("lstm", 3, 5, True)
    rng = np.random.default_rng(1)
    low = {"w": rng.normal(size=(20, 4)), "q_in": rng.normal(size=(3, 4)), "q_out": rng.normal(size=(5, 4))}
    given = {role: a for role, a in {**args, **low}.items() if role != "r"}
    joint = Lstm(5, True, True, initial_state=True, joint=True)
    separate = Lstm(5, True, True, initial_state=True)
    want = record(attrs).reference(separate, {**given, "r": low["w"]})
    np.testing.assert_allclose(record(attrs).reference(joint, given), want, atol=1e-12)
    traces, apart = (recurrent.reference_traces(a, {**given, "r": low["w"]}) for a in (joint, separate))
    assert set(traces) == {"h", "c", "z"}
    np.testing.assert_allclose(traces["z"], apart["z_in"] + apart["z_out"], atol=1e-12)
    types = float_types(given)
    assert recurrent.infer(joint, types) == TensorType((TIME, 5))
    assert recurrent.cost(joint, types, types["x"]).macs == 4 * (20 + 3 + 5)
    with pytest.raises(InputError, match=r"q_out of an LSTM has shape \(5, 3\).*\(5, 4\)"):
        recurrent.infer(joint, {**types, "q_out": TensorType((5, 3))})
    with pytest.raises(InputError, match="an LSTM is joint without both factors"):
        recurrent.infer(Lstm(5, True, joint=True), types)


def test_float32_stays_float32() -> None:
    attrs, args, want = torch_case("lstm", 3, 5, False)
    y = recurrent.LSTM.reference(attrs, {**args, "x": args["x"].astype(np.float32)})
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, want, atol=1e-5)


def test_traces() -> None:
    attrs, args, y = torch_case("lstm", 3, 5, True)
    traces = recurrent.reference_traces(attrs, args)
    assert set(traces) == {"h", "c"}
    np.testing.assert_allclose(traces["h"][:, 1:], y[:, :-1], atol=1e-12)
    np.testing.assert_array_equal(traces["h"][:, 0], np.broadcast_to(args["h0"], (2, 5)))
    rng = np.random.default_rng(1)
    low = {"r": rng.normal(size=(20, 2)), "q_out": rng.normal(size=(5, 2))}
    traces = recurrent.reference_traces(Lstm(5, recurrent_projected=True, initial_state=True), {**args, **low})
    assert set(traces) == {"h", "c", "z_out"}
    np.testing.assert_allclose(traces["z_out"], traces["h"] @ low["q_out"], atol=1e-12)


def float_types(args: dict[str, Array], time: int | str = TIME) -> dict[str, TensorType]:
    shapes = {role: a.shape for role, a in args.items()} | {"x": (time, args["x"].shape[2])}
    return {role: TensorType(shape) for role, shape in shapes.items()}


def test_shape_rule() -> None:
    attrs, args, _ = torch_case("gru", 3, 5, False)
    types = float_types(args)
    assert recurrent.infer(attrs, types) == TensorType((TIME, 5))
    assert recurrent.infer(attrs, float_types(args, 9)).shape == (9, 5)
    integer = {**types, "x": TensorType((TIME, 3), DType.INT8)}
    assert recurrent.infer(attrs, integer) == TensorType((TIME, 5), DType.INT8, recurrent.H_QUANT)
    assert recurrent.cost(attrs, types, types["x"]).macs == 15 * 8
    with pytest.raises(InputError, match=r"r of a GRU has shape \(15, 4\).*\(15, 5\)"):
        recurrent.infer(attrs, {**types, "r": TensorType((15, 4))})
    with pytest.raises(InputError, match=r"has shape \(3,\).*\(time, features\)"):
        recurrent.infer(attrs, {**types, "x": TensorType((3,))})
