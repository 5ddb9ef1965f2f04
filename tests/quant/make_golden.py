"""Writes tests/quant/golden: saved models and what they must give for ever.

Only to be run when the meaning changes on purpose:

python -m tests.quant.make_golden
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from projgen.ir import attrs as A
from projgen.ir.graph import Array, Graph
from projgen.ir.types import TIME
from projgen.quant.calibrate import calibrate
from projgen.quant.model import QuantizedModel
from projgen.quant.quantise import quantise
from tests.quant.build import Builder, normal

FOLDER = Path(__file__).parent / "golden"


def maps() -> Graph:
    """A residual block of low-rank convolutions with pooling, concat, pad and softmax."""
    net = Builder(x=(7, 6, 8))
    net.add("conv2d", "c1", A.Conv2d(), x="x", w=normal(3, 1, 1, 8))
    net.add("conv2d", "c2", A.Conv2d(padding=(1, 1, 1, 1)), x="c1", w=normal(4, 3, 3, 3, seed=1))
    net.add("conv2d", "c3", A.Conv2d(), x="c2", w=normal(8, 1, 1, 4, seed=2), b=normal(8, seed=3))
    net.add("add", "s", A.Add("relu6"), a="x", b="c3")
    net.add("conv2d", "d", A.Conv2d((2, 1), (0, 1, 2, 0), (1, 2), 8), x="s", w=normal(8, 2, 3, 1, seed=4))
    net.add("unary", "t", A.Unary("tanh"), x="d")
    net.add("mul", "g", A.Mul(), a="t", b=normal(1, 1, 8, seed=5))
    net.add("max_pool2d", "m", A.MaxPool2d((2, 2), (2, 2), (0, 0, 1, 0)), x="g")
    net.add("pad", "p", A.Pad(((0, 0), (0, 0), (1, 1))), x="m")
    net.add("avg_pool2d", "v", A.AvgPool2d((2, 3), (1, 1), (1, 0, 1, 1), False), x="p")
    net.add("slice", "q", A.Slice(2, 1, 10, 2), x="v")
    net.add("concat", "k", A.Concat(2), x0="q", x1="m")
    net.add("transpose", "r", A.Transpose((2, 0, 1)), x="k")
    net.add("reshape", "f", A.Reshape((net.values["k"].type.elements,)), x="r")
    net.add("linear", "l", A.Linear(), x="f", w=normal(5, net.values["f"].type.elements, seed=6), b=normal(5, seed=7))
    net.add("softmax", "y", A.Softmax(), x="l")
    return net.graph("y", "l")


def sequences() -> Graph:
    """LSTM, GRU, a linear layer over time, mean and last step."""
    net = Builder(x=(TIME, 4))
    net.add("lstm", "h", A.Lstm(6), x="x", w=normal(24, 4), r=normal(24, 6, seed=1), b=normal(24, seed=2))
    gates = {"w": normal(15, 6, seed=3), "r": normal(15, 5, seed=4), "b": normal(15, seed=5), "b_hn": normal(5, seed=6)}
    net.add("gru", "g", A.Gru(5), x="h", **gates)
    net.add("linear", "l", A.Linear("relu"), x="g", w=normal(7, 5, seed=7), b=normal(7, seed=8))
    net.add("mean_time", "m", A.MeanTime(), x="l")
    net.add("select", "y", A.Select(0, -1), x="g")
    return net.graph("m", "y")


MODELS = {"maps": (maps, (7, 6, 8)), "sequences": (sequences, (9, 4))}


def inputs(shape: tuple[int, ...]) -> Array:
    return normal(12, *shape, seed=40, scale=1.2)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, (build, shape) in MODELS.items():
        graph = build()
        model = QuantizedModel(quantise(graph, calibrate(graph, [(normal(40, *shape, seed=30),)])))
        model.save(FOLDER / f"{name}.qmodel")
        x = model.quantize_input(inputs(shape))
        outputs = model.run_int(x)
        np.savez(FOLDER / f"{name}.npz", x=x, **{f"y{i}": y for i, y in enumerate(outputs)})


if __name__ == "__main__":
    main()
