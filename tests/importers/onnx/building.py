"""Hand-made ONNX models, their constants and inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(7)


def arr(*shape: int, scale: float = 0.5) -> np.ndarray:
    """Normally distributed weights."""
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def model(
    nodes: Sequence[onnx.NodeProto],
    shapes: Sequence[Sequence[int | str]],
    constants: dict[str, np.ndarray] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with inputs x, x2, ... of these shapes."""
    names = ["x", *(f"x{index}" for index in range(2, len(shapes) + 1))]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in zip(names, shapes, strict=True)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def sample(shape: Sequence[int], batch: int, seed: int = 0) -> torch.Tensor:
    """Normally distributed inputs of a shape without its batch."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))
