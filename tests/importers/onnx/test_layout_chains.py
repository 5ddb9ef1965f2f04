"""Chains of transposes, reshapes, squeezes and slices, drawn at random, against onnxruntime.

Each chain is written twice: with an open batch, and with a batch of 1 or 2 baked into the input and into every
Reshape. Both must load, and agree with onnxruntime running the open one at another batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from projgen.importers.onnx import load_onnx
from tests.importers.onnx.exporting import relative_error, run_onnx, run_torch

BATCH = 3


@dataclass(slots=True)
class Chain:
    """Nodes made so far. ``shape`` is that of the last value, its axis 0 being the batch."""

    baked: int | None
    shape: list[int]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    last: str = "x"

    def add(self, operator: str, shape: list[int], integers: list[int] | None = None, **attributes: object) -> None:
        inputs, output = [self.last], f"v{len(self.nodes)}"
        if integers is not None:
            inputs.append(f"c{len(self.nodes)}")
            self.constants.append(numpy_helper.from_array(np.array(integers, np.int64), inputs[1]))
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        self.last, self.shape = output, shape

    def model(self, sizes: list[int]) -> onnx.ModelProto:
        batch = "batch" if self.baked is None else self.baked
        source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *sizes])
        result = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "chain", [source], [result], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def regroup(data: st.DataObject, count: int) -> list[int]:
    """Factors of a number of elements, in some order."""
    factors = []
    while count > 1:
        divisors = [d for d in range(2, count + 1) if count % d == 0]
        factors.append(data.draw(st.sampled_from(divisors)))
        count //= factors[-1]
    return factors or [1]


def step(chains: list[Chain], data: st.DataObject) -> None:
    """The same random operation at the end of every chain."""
    shape = chains[0].shape
    rest = shape[1:]
    kind = data.draw(st.sampled_from(["transpose", "reshape", "minus", "unsqueeze", "squeeze", "flatten", "relu"]))
    if kind == "transpose":
        order = [0, *(1 + axis for axis in data.draw(st.permutations(range(len(rest)))))]
        for chain in chains:
            chain.add("Transpose", [shape[axis] for axis in order], perm=order)
    elif kind in {"reshape", "minus"}:
        target = regroup(data, int(np.prod(rest)))
        written = list(target)
        if kind == "minus":
            written[data.draw(st.integers(0, len(target) - 1))] = -1
        for chain in chains:
            chain.add("Reshape", [0, *target], [0 if chain.baked is None else chain.baked, *written])
    elif kind == "unsqueeze" and len(shape) < 5:
        axis = data.draw(st.integers(1, len(shape)))
        for chain in chains:
            chain.add("Unsqueeze", [*shape[:axis], 1, *shape[axis:]], [axis])
    elif kind == "squeeze" and 1 in rest:
        axis = 1 + rest.index(1)
        for chain in chains:
            chain.add("Squeeze", shape[:axis] + shape[axis + 1 :], [axis])
    elif kind == "flatten" and len(shape) > 1:
        for chain in chains:
            chain.add("Flatten", [0, int(np.prod(rest))], axis=1)
    else:
        for chain in chains:
            chain.add("Relu", shape)


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3),
    baked=st.sampled_from([1, 2]),
    length=st.integers(1, 6),
    data=st.data(),
)
def test_chains_agree_with_onnxruntime_for_any_batch(
    sizes: list[int], baked: int, length: int, data: st.DataObject
) -> None:
    chains = [Chain(None, [0, *sizes]), Chain(baked, [0, *sizes])]
    for _ in range(length):
        step(chains, data)
    x = torch.arange(BATCH * int(np.prod(sizes)), dtype=torch.float32).reshape(BATCH, *sizes) - 5
    wanted = run_onnx(chains[0].model(sizes), [x])
    for chain in chains:
        loaded = load_onnx(chain.model(sizes))
        assert relative_error(run_torch(loaded, [x]), wanted) == 0.0
