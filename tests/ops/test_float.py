"""The float meaning against PyTorch's own operators, and the shape rules' refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen import ops
from projgen.errors import InputError
from projgen.ir import attrs as A
from projgen.ir.graph import Array
from projgen.ir.types import TIME, TensorType


def run(op: str, attrs: Any, **args: Array) -> Array:
    record = ops.get(op)
    types = {r: TensorType(a.shape if r in CONSTANTS else a.shape[1:]) for r, a in args.items()}
    y = record.reference(attrs, args)
    assert y.shape[1:] == record.infer(attrs, types).shape
    return y


CONSTANTS = frozenset({"w", "mean", "variance", "gamma", "beta"})


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def close(y: Array, expected: torch.Tensor, channels_first: bool = False) -> None:
    want = expected.numpy()
    if channels_first:
        want = want.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-9)


def test_linear() -> None:
    x, w, b = normal(3, 4, 7), normal(5, 7, seed=1), normal(5, seed=2)
    args = {"x": x, "w": w, "b": b}
    y = ops.get("linear").reference(A.Linear("relu"), args)
    close(y, F.relu(F.linear(torch.tensor(x), torch.tensor(w), torch.tensor(b))))
    close(run("linear", A.Linear(), x=x, w=w), F.linear(torch.tensor(x), torch.tensor(w)))


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_conv2d(data: st.DataObject) -> None:
    small = st.integers(1, 3)
    groups = data.draw(small)
    cin, cout = groups * data.draw(small), groups * data.draw(small)
    kernel, stride, dilation = ((data.draw(small), data.draw(small)) for _ in range(3))
    top, bottom, left, right = (data.draw(st.integers(0, 2)) for _ in range(4))
    x = normal(2, data.draw(st.integers(7, 10)), data.draw(st.integers(7, 10)), cin)
    w = normal(cout, *kernel, cin // groups, seed=1)
    attrs = A.Conv2d(stride, (top, bottom, left, right), dilation, groups)
    wide = F.pad(torch.tensor(x.transpose(0, 3, 1, 2)), (left, right, top, bottom))
    expected = F.conv2d(wide, torch.tensor(w.transpose(0, 3, 1, 2)), stride=stride, dilation=dilation, groups=groups)
    close(run("conv2d", attrs, x=x, w=w), expected, channels_first=True)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_conv_transpose2d(data: st.DataObject) -> None:
    small = st.integers(1, 3)
    groups = data.draw(small)
    cin, cout = groups * data.draw(small), groups * data.draw(small)
    kernel, stride, dilation = ((data.draw(small), data.draw(small)) for _ in range(3))
    top, bottom, left, right = (data.draw(st.integers(0, 1)) for _ in range(4))
    added = tuple(data.draw(st.integers(0, max(stride[i], dilation[i]) - 1)) for i in range(2))
    x = normal(2, data.draw(st.integers(3, 6)), data.draw(st.integers(3, 6)), cin)
    w = normal(cin, cout // groups, *kernel, seed=1)
    attrs = A.ConvTranspose2d(stride, (top, bottom, left, right), added, dilation, groups)
    maps = torch.tensor(x.transpose(0, 3, 1, 2))
    whole = F.conv_transpose2d(maps, torch.tensor(w), **_geometry(attrs))
    expected = whole[:, :, top : whole.shape[2] - bottom, left : whole.shape[3] - right]
    rows = w.reshape(groups, cin // groups, cout // groups, *kernel).transpose(0, 2, 3, 4, 1)
    w_ir = rows.reshape(cout, *kernel, cin // groups)
    close(run("conv_transpose2d", attrs, x=x, w=w_ir), expected, channels_first=True)
    out = ops.get("conv_transpose2d").infer(attrs, {"x": TensorType(x.shape[1:]), "w": TensorType(w_ir.shape)})
    cost = ops.get("conv_transpose2d").cost(attrs, {"x": TensorType(x.shape[1:]), "w": TensorType(w_ir.shape)}, out)
    ones = F.conv_transpose2d(torch.ones_like(maps), torch.ones_like(torch.tensor(w)), **_geometry(attrs))
    assert cost.macs == int(ones[0, :, top : ones.shape[2] - bottom, left : ones.shape[3] - right].sum())


def _geometry(attrs: A.ConvTranspose2d) -> Any:
    return {
        "stride": attrs.stride,
        "output_padding": attrs.output_padding,
        "groups": attrs.groups,
        "dilation": attrs.dilation,
    }


def test_conv2d_in_parts_of_a_large_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = normal(5, 6, 6, 2), normal(3, 3, 3, 2, seed=1)
    whole = ops.get("conv2d").reference(A.Conv2d(), {"x": x, "w": w})
    monkeypatch.setattr("projgen.ops.conv._PATCH_ELEMENTS", 600)
    np.testing.assert_allclose(ops.get("conv2d").reference(A.Conv2d(), {"x": x, "w": w}), whole, rtol=1e-12)


def test_batch_norm() -> None:
    x, (mean, gamma, beta) = normal(3, 4, 5, 6), normal(3, 6, seed=1)
    variance = normal(6, seed=2) ** 2
    y = run("batch_norm", A.BatchNorm(1e-3), x=x, mean=mean, variance=variance, gamma=gamma, beta=beta)
    first, *stats = (torch.tensor(v) for v in (x.transpose(0, 3, 1, 2), mean, variance, gamma, beta))
    close(y, F.batch_norm(first, *stats, eps=1e-3), channels_first=True)


UNARY: Mapping[str, Any] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "clip": lambda x: torch.clamp(x, -0.3, 0.9),
}


@pytest.mark.parametrize("kind", UNARY)
def test_unary(kind: Any) -> None:
    x = normal(4, 50) * 5
    y = run("unary", A.Unary(kind, -0.3, 0.9), x=x)
    close(y, UNARY[kind](torch.tensor(x)))


def test_sum_and_product_repeat_b() -> None:
    a, b = normal(2, 3, 4), normal(2, 1, 4, seed=1)
    np.testing.assert_array_equal(run("add", A.Add(), a=a, b=b), a + b)
    np.testing.assert_array_equal(run("mul", A.Mul("relu"), a=a, b=b), np.maximum(a * b, 0))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 1))])
def test_pooling(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
    x = normal(2, 7, 6, 3)
    first = torch.tensor(x.transpose(0, 3, 1, 2))
    four = (padding[0], padding[0], padding[1], padding[1])
    close(run("max_pool2d", A.MaxPool2d(kernel, stride, four), x=x), F.max_pool2d(first, kernel, stride, padding), True)
    for include in (True, False):
        y = run("avg_pool2d", A.AvgPool2d(kernel, stride, four, include), x=x)
        close(y, F.avg_pool2d(first, kernel, stride, padding, count_include_pad=include), True)


def test_softmax_of_large_values() -> None:
    x = normal(3, 9) * 300
    close(run("softmax", A.Softmax(), x=x), torch.softmax(torch.tensor(x), -1))


def test_moves() -> None:
    x = normal(2, 3, 4, 5)
    np.testing.assert_array_equal(
        run("pad", A.Pad(((1, 0), (0, 2), (0, 0)), 0.5), x=x),
        np.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=0.5),
    )
    np.testing.assert_array_equal(run("slice", A.Slice(1, 1, 4, 2), x=x), x[:, :, 1:4:2])
    np.testing.assert_array_equal(run("select", A.Select(2, 3), x=x), x[..., 3])
    np.testing.assert_array_equal(run("reshape", A.Reshape((60,)), x=x), x.reshape(2, 60))
    np.testing.assert_array_equal(run("transpose", A.Transpose((2, 0, 1)), x=x), x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(run("concat", A.Concat(0), x0=x, x1=x[:, :1]), np.concatenate([x, x[:, :1]], 1))
    np.testing.assert_array_equal(ops.get("select").reference(A.Select(0, -1), {"x": x}), x[:, -1])
    np.testing.assert_array_equal(ops.get("mean_time").reference(A.MeanTime(), {"x": x[..., 0]}), x[..., 0].mean(1))


def t(*shape: Any) -> TensorType:
    return TensorType(shape)


@pytest.mark.parametrize(
    ("op", "attrs", "types", "message"),
    [
        ("linear", A.Linear(), {"x": t(5), "w": t(3, 6)}, "x has 5 features and w takes 6"),
        ("linear", A.Linear(), {"x": t(5), "w": t(3, 5), "b": t(4)}, "b has shape (4,)"),
        ("conv2d", A.Conv2d(), {"x": t(4, 4), "w": t(1, 1, 1, 1)}, "x (4, 4)"),
        ("conv2d", A.Conv2d(), {"x": t(TIME, 4, 1), "w": t(1, 1, 1, 1)}, "axis 0 is the time axis"),
        ("conv2d", A.Conv2d(), {"x": t(4, 4, 2), "w": t(1, 1, 1, 3)}, "x has 2 channels and w takes 3"),
        ("conv2d", A.Conv2d(groups=2), {"x": t(4, 4, 3), "w": t(2, 1, 1, 1)}, "2 groups of 3 input"),
        ("conv2d", A.Conv2d(), {"x": t(4, 2, 1), "w": t(1, 3, 3, 1)}, "a 3x3 kernel on a 4x2 input"),
        ("conv_transpose2d", A.ConvTranspose2d(), {"x": t(4, 4), "w": t(1, 1, 1, 1)}, "x (4, 4)"),
        (
            "conv_transpose2d",
            A.ConvTranspose2d(),
            {"x": t(4, 4, 2), "w": t(1, 1, 1, 3)},
            "x has 2 channels and w takes 3",
        ),
        ("conv_transpose2d", A.ConvTranspose2d(groups=2), {"x": t(4, 4, 3), "w": t(2, 1, 1, 1)}, "2 groups of 3 input"),
        (
            "conv_transpose2d",
            A.ConvTranspose2d(padding=(2, 2, 0, 0)),
            {"x": t(4, 4, 1), "w": t(1, 1, 1, 1)},
            "an output of 0x4",
        ),
        (
            "conv_transpose2d",
            A.ConvTranspose2d(output_padding=(-1, 0)),
            {"x": t(4, 4, 1), "w": t(1, 1, 1, 1)},
            "output padding (-1, 0)",
        ),
        ("conv2d", A.Conv2d(padding=(0, -1, 0, 0)), {"x": t(4, 4, 1), "w": t(1, 1, 1, 1)}, "padding from 0 up"),
        (
            "batch_norm",
            A.BatchNorm(1e-5),
            {r: t(4) for r in ("x", "mean", "variance", "gamma")} | {"beta": t(3)},
            "beta",
        ),
        ("add", A.Add(), {"a": t(1, 4), "b": t(3, 4)}, "b of a's rank"),
        ("mul", A.Mul(), {"a": t(3, 4), "b": t(4)}, "b of a's rank"),
        ("max_pool2d", A.MaxPool2d((2, 2), (2, 2), (2, 0, 0, 0)), {"x": t(4, 4, 1)}, "padding smaller than the window"),
        ("avg_pool2d", A.AvgPool2d((5, 2), (1, 1)), {"x": t(4, 4, 1)}, "a 5x2 window on a 4x4 input"),
        ("mean_time", A.MeanTime(), {"x": t(4, 4)}, "x (T, F)"),
        ("softmax", A.Softmax(), {"x": t(40000)}, "at most 32767"),
        ("pad", A.Pad(((1, 1), (0, 0))), {"x": t(TIME, 4)}, "the time axis is padded"),
        ("pad", A.Pad(((1, 1),), float("inf")), {"x": t(4)}, "a finite value"),
        ("slice", A.Slice(0, 2, 9), {"x": t(4)}, "[2:9:1] of 4"),
        ("slice", A.Slice(0, 0, 1), {"x": t(TIME, 3)}, "axis 0 is the time axis"),
        ("select", A.Select(0, 0), {"x": t(TIME, 3)}, "-1, the last step"),
        ("select", A.Select(1, 3), {"x": t(2, 3)}, "index 3 of 3"),
        ("reshape", A.Reshape((5,)), {"x": t(2, 3)}, "the same number of elements"),
        ("transpose", A.Transpose((1, 0)), {"x": t(TIME, 3)}, "the time axis moves"),
        ("concat", A.Concat(1), {"x0": t(2, 3), "x1": t(3, 3)}, "equal sizes on the other axes"),
    ],
)
def test_refusals(op: str, attrs: Any, types: dict[str, TensorType], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ops.get(op).infer(attrs, types)
    assert message in str(caught.value)
    assert caught.value.allowed
