"""Both PyTorch exporters behind one function, and comparison with onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

EXPORTERS = ("dynamo", "torchscript")


def export(
    model: nn.Module, inputs: tuple[Tensor, ...], path: Path, exporter: str, *, is_batch_open: bool = True
) -> Path:
    """Write a model with one of PyTorch's exporters."""
    names = [f"input_{index}" for index in range(len(inputs))]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            dims = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs) if is_batch_open else None
            torch.onnx.export(model, inputs, path, dynamo=True, input_names=names, dynamic_shapes=dims, verbose=False)
        else:
            axes = {name: {0: "batch"} for name in names} if is_batch_open else None
            torch.onnx.export(model, inputs, path, dynamo=False, input_names=names, dynamic_axes=axes)
    return path


def run_onnx(model: Path | onnx.ModelProto, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """Outputs of onnxruntime, one thread, no optimisation that could hide a fault."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    feed = {item.name: tensor.numpy() for item, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return list(session.run(None, feed))


def run_torch(model: nn.Module, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """Outputs of a module as arrays."""
    with torch.no_grad():
        result = model(*inputs)
    return [item.numpy() for item in (result if isinstance(result, tuple) else (result,))]


def relative_error(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Largest difference over the largest magnitude of each output; infinite for other shapes."""
    if len(got) != len(wanted) or any(a.shape != b.shape for a, b in zip(got, wanted, strict=True)):
        return float("inf")
    return max(float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-6)) for a, b in zip(got, wanted, strict=True))
