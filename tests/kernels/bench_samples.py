"""Layers of ordinary size, for counting instructions."""

from __future__ import annotations

from projgen.ir.attrs import AvgPool2d, Conv2d, MaxPool2d
from projgen.ir.types import DType, Quant
from projgen.ops import attention, conv, elementwise, layer_norm, linear, pool, shape, softmax
from projgen.ops.common import int8_type
from projgen.ops.record import Sample


def bench() -> list[Sample]:
    same = (1, 1, 1, 1)
    x, y = int8_type((16, 16, 8), 0.05, 3), Quant(0.06, -1)
    return [
        linear.sample("fc_128x128", 128, 128),
        linear.sample("fc_640x128", 640, 128),
        linear.sample("fc_100x9", 100, 9),
        linear.sample("fc_64x4_to_int16", 64, 4, y=DType.INT16),
        conv.sample("conv3x3_8_16", (16, 16, 8), 16, (3, 3), Conv2d((1, 1), same)),
        conv.sample("pointwise_16_32", (8, 8, 16), 32, (1, 1), Conv2d()),
        conv.sample("depthwise3x3_16", (16, 16, 16), 16, (3, 3), Conv2d((1, 1), same, groups=16)),
        conv.sample("depthwise3x3_small", (5, 5, 8), 8, (3, 3), Conv2d((1, 1), same, groups=8)),
        elementwise.lut_samples().__next__(),
        elementwise.binary_sample("add", "add", x, x, y),
        elementwise.binary_sample("mul", "mul", x, x, Quant(0.3, 0)),
        pool._max_sample("max2x2", (16, 16, 8), MaxPool2d((2, 2), (2, 2)), Quant(0.05, 0)),
        pool.avg_sample("global_avg", (8, 8, 16), AvgPool2d((8, 8), (1, 1)), Quant(0.05, 6), Quant(0.03, -2)),
        softmax._sample("softmax10", int8_type((10,), 0.1)),
        attention.sample("attention_20x2x8", 20, 2, 8),
        layer_norm.sample("layer_norm_20x32", 32, lead=(20,)),
        *list(shape.pad_samples())[:1],
        *list(shape.transpose_samples())[:1],
        *list(shape.concat_samples())[:1],
    ]
