"""Drawn shapes, strides, zero points and extremes: the integers equal the plain loops and stay near the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.ir.attrs import AvgPool2d, Conv2d, MaxPool2d
from projgen.ir.types import DType, Quant
from projgen.ops import attention, conv, elementwise, layer_norm, linear, pool
from projgen.ops.common import int8_type
from projgen.ops.softmax import _sample as softmax_sample
from tests.kernels.draws import transposed_convs
from tests.ops.checks import check

ZERO = st.integers(-128, 127)
KIND = st.sampled_from([DType.INT8, DType.INT16])
ACTIVATION = st.sampled_from(["none", "relu", "relu6"])
QUICK = settings(deadline=None, max_examples=40)


def name(draw: Any) -> str:
    return f"drawn_{draw(st.integers(0, 2**32 - 1))}"


@QUICK
@given(st.data())
def test_linear(data: st.DataObject) -> None:
    x, y = data.draw(KIND), data.draw(KIND)
    sample = linear.sample(
        name(data.draw),
        data.draw(st.integers(1, 260)),
        data.draw(st.integers(1, 9)),
        lead=data.draw(st.sampled_from([(), ("T",), (2,), (2, 3)])),
        x=x,
        y=y,
        x_zero=data.draw(ZERO),
        y_zero=data.draw(ZERO),
        activation=data.draw(ACTIVATION) if y is DType.INT8 else "none",
        saturating=data.draw(st.booleans()),
    )
    check(sample)


@QUICK
@given(st.data())
def test_conv2d(data: st.DataObject) -> None:
    small = st.integers(1, 3)
    groups, y = data.draw(small), data.draw(KIND)
    kernel = (data.draw(small), data.draw(small))
    dilation = (data.draw(small), data.draw(small))
    padding = tuple(data.draw(st.integers(0, 3)) for _ in range(4))
    reach = tuple(dilation[i] * (kernel[i] - 1) + 1 for i in range(2))
    shape = (
        data.draw(st.integers(max(1, reach[0] - padding[0] - padding[1]), 8)),
        data.draw(st.integers(max(1, reach[1] - padding[2] - padding[3]), 8)),
        groups * data.draw(small),
    )
    attrs = Conv2d(
        (data.draw(small), data.draw(small)),
        padding,
        dilation,
        groups,
        data.draw(ACTIVATION) if y is DType.INT8 else "none",
    )
    sample = conv.sample(
        name(data.draw),
        shape,
        groups * data.draw(small),
        kernel,
        attrs,
        x=data.draw(KIND),
        y=y,
        x_zero=data.draw(ZERO),
        y_zero=data.draw(ZERO),
        saturating=data.draw(st.booleans()),
    )
    check(sample)


@QUICK
@given(st.data())
def test_conv_transpose2d(data: st.DataObject) -> None:
    check(data.draw(transposed_convs()))


@QUICK
@given(st.data())
def test_pooling(data: st.DataObject) -> None:
    kernel = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    stride = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    padding = tuple(data.draw(st.integers(0, kernel[i // 2] - 1)) for i in range(4))
    shape = tuple(data.draw(st.integers(max(1, kernel[i] - padding[2 * i] - padding[2 * i + 1]), 9)) for i in range(2))
    x = Quant(0.05, data.draw(ZERO))
    if data.draw(st.booleans()):
        check(pool._max_sample(name(data.draw), (*shape, 3), MaxPool2d(kernel, stride, padding), x))
        return
    attrs = AvgPool2d(kernel, stride, padding, data.draw(st.booleans()))
    y = Quant(data.draw(st.floats(0.004, 0.3)), data.draw(ZERO))
    check(pool.avg_sample(name(data.draw), (*shape, 3), attrs, x, y))


@QUICK
@given(st.data())
def test_mean_over_time(data: st.DataObject) -> None:
    x, y = Quant(0.05, data.draw(ZERO)), Quant(data.draw(st.floats(0.01, 0.2)), data.draw(ZERO))
    check(pool.mean_sample(name(data.draw), data.draw(st.integers(1, 5)), x, y, data.draw(st.integers(1, 40))))


@QUICK
@given(st.data())
def test_sum_and_product(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(["add", "mul"]))
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    narrow = tuple(d if data.draw(st.booleans()) else 1 for d in shape)
    scale = st.floats(0.001, 0.5)
    a, b = (int8_type(s, float(np.float32(data.draw(scale))), data.draw(ZERO)) for s in (shape, narrow))
    assert a.quant is not None
    assert b.quant is not None
    typical = a.quant.scale + b.quant.scale if op == "add" else a.quant.scale * b.quant.scale * 100
    y = Quant(float(np.float32(typical * data.draw(st.floats(0.3, 2)))), data.draw(ZERO))
    check(elementwise.binary_sample(name(data.draw), op, a, b, y, activation=data.draw(ACTIVATION)))


@QUICK
@given(st.integers(1, 400), st.floats(1e-4, 3.0), ZERO)
def test_softmax(n: int, scale: float, zero: int) -> None:
    check(softmax_sample(f"softmax_{n}_{scale}_{zero}", int8_type((n,), scale, zero)))


@QUICK
@given(st.data())
def test_attention(data: st.DataObject) -> None:
    queries, keys = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    heads, features, width = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 33)), data.draw(st.integers(1, 33))
    while queries * keys * heads * (features + width) > 60_000:  # the loops are slow
        queries, heads = -(-queries // 2), -(-heads // 2)
    scale = st.floats(0.001, 0.3)
    s_v = data.draw(scale)
    sample = attention.sample(
        name(data.draw),
        queries,
        heads,
        features,
        keys=keys,
        width=width,
        scales=(data.draw(scale), data.draw(scale), s_v),
        zeros=(data.draw(ZERO), data.draw(ZERO), data.draw(ZERO)),
        y=Quant(s_v / data.draw(st.sampled_from([0.4, 1.0, 3.0, 8.0])), data.draw(ZERO)),
        scale=data.draw(st.sampled_from([0.0, 0.7])),
    )
    check(sample)


@QUICK
@given(st.data())
def test_layer_norm(data: st.DataObject) -> None:
    sample = layer_norm.sample(
        name(data.draw),
        data.draw(st.integers(1, 300)),
        lead=data.draw(st.sampled_from([(), ("T",), (3,)])),
        x=Quant(data.draw(st.floats(0.001, 0.5)), data.draw(ZERO)),
        y=Quant(data.draw(st.floats(0.01, 0.1)), data.draw(ZERO)),
        epsilon=data.draw(st.sampled_from([1e-12, 1e-5, 1e-2, 1.0])),
        beta=data.draw(st.sampled_from([0.0, 0.5, 20.0])),
    )
    check(sample)
