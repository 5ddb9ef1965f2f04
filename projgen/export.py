"""``projgen.save``: a model to a file that other tools run."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from projgen.errors import InputError, InputTypeError, UnsupportedError
from projgen.importers.spec import example_inputs, input_specs

BATCH, TIME = "batch", "time"
FORMATS = (".onnx", ".pt2")


def save(module: nn.Module, path: str | os.PathLike[str], example: Any = None) -> Path:
    """Write a model to ``.onnx`` (runs in any ONNX runtime) or ``.pt2`` (runs in PyTorch alone).

    The batch, axis 0, stays open in both. In ``.onnx`` so does the number of steps of a model with recurrent
    layers, as far as the model allows. Low-rank factors stay factors: a projected fully connected layer is two
    Gemm or MatMul nodes, a projected convolution up to three Conv nodes, a projected LSTM or GRU a call of the
    function ``projgen::ProjectedLSTM`` or ``projgen::ProjectedGRU``, which the file defines itself. The model is
    saved as it predicts (evaluation mode) and is not modified.

    Args:
        module: the model.
        path: where to; the ending chooses the format. The file is complete or not there at all.
        example: one input, or a tuple of inputs, with the batch on axis 0; not needed where the model remembers
            its input shapes (``load_onnx``, ``compress``, ``unpack_projected_layers`` and ``distill`` see to that).
    Returns:
        The path.
    Raises:
        InputError: unknown ending, a folder that is missing or not writable, no example, or one the model
            can't run. UnsupportedError: the model can't be exported with an open batch.
        InputTypeError: ``module`` is no nn.Module, or the example no tensor.
    """
    path = Path(path)
    if not isinstance(module, nn.Module):
        raise InputTypeError(f"a model of type {type(module).__name__}", "a torch.nn.Module", "module")
    if path.suffix not in FORMATS:
        raise InputError(f"'{path}' has the ending '{path.suffix}'", " or ".join(FORMATS), "path")
    inputs = _examples(module, example)
    model = copy.deepcopy(module).cpu().eval()
    write = _onnx_writer(model, inputs) if path.suffix == ".onnx" else _pt2_writer(model, inputs)
    _replace(path, write)
    return path


def _examples(module: nn.Module, example: Any) -> tuple[Tensor, ...]:
    """Example inputs on the CPU with a batch of at least 2, which torch.export needs to keep it open."""
    if example is None:
        remembered = example_inputs(module)
        if remembered is None:
            raise InputError(
                f"{type(module).__name__} does not remember its input shapes, and no example is given",
                "one input, or a tuple of inputs, with the batch on axis 0",
                "example",
            )
        return remembered
    items = example if isinstance(example, tuple | list) else (example,)
    tensors = []
    for item in items:
        if not isinstance(item, Tensor | np.ndarray):
            raise InputTypeError(f"an example of type {type(item).__name__}", "tensors or arrays", "example")
        tensor = torch.as_tensor(item).detach().cpu()
        if tensor.dim() < 2 or not tensor.shape[0]:
            raise InputError(f"an example of shape {tuple(tensor.shape)}", "(batch, ...)", "example")
        tensors.append(tensor if tensor.shape[0] > 1 else torch.cat((tensor, tensor)))
    return tuple(tensors)


def _run(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    try:
        with torch.no_grad():
            model(*inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"the model does not run on the example ({_first_line(error)})",
            "inputs of the model's shapes, the batch on axis 0",
            "example",
        ) from error


def _pt2_writer(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[Path], object]:
    from projgen.exporters.onnx_file import trace

    _run(model, inputs)
    try:
        program = trace(model, inputs, [{0: BATCH} for _ in inputs])
    except (RuntimeError, ValueError) as error:
        raise _frozen(error) from error
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # names the user's folders
    return lambda path: torch.export.save(program, path)


def _onnx_writer(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[Path], object]:
    from projgen.exporters.onnx_file import onnx_model

    _run(model, inputs)
    specs = input_specs(model)
    names = [spec.name for spec in specs] if specs else _names(len(inputs))
    try:
        proto = onnx_model(model, inputs, names, _open_axes(model, inputs))
    except (RuntimeError, ValueError) as error:
        raise error if isinstance(error, InputError) else _frozen(error) from error
    data = proto.SerializeToString()
    return lambda path: path.write_bytes(data)


def _names(count: int) -> list[str]:
    return ["input"] if count == 1 else [f"input_{index}" for index in range(count)]


def _open_axes(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[list[dict[int, str]]]:
    """Choices of open axes, best first: the batch and, for sequences, the time; the batch alone."""
    batch = [{0: BATCH} for _ in inputs]
    specs = input_specs(model)
    is_sequence = any(isinstance(layer, nn.RNNBase) or hasattr(layer, "cell_tensor") for layer in model.modules())
    stated = [spec.shape[:1] == (None,) for spec in specs] if specs else [False] * len(inputs)
    sequences = [is_open or (is_sequence and x.dim() == 3) for is_open, x in zip(stated, inputs, strict=True)]
    if not any(sequences):
        return [batch]
    return [[{0: BATCH, 1: TIME} if is_open else {0: BATCH} for is_open in sequences], batch]


def _frozen(error: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"the model can't be exported with an open batch ({_first_line(error)})",
        "models whose forward runs for any batch and has no data-dependent branches",
        "the model",
    )


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write in a hidden folder beside the target, then move the file into place.

    It has its final name from the start, because torch.export.save stores that name in the file.
    """
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}'", "an existing folder", "path")
    if path.is_dir():
        raise InputError(f"'{path}' is a folder", "a file name", "path")
    try:
        with tempfile.TemporaryDirectory(prefix=".projgen-", dir=folder) as hidden:
            temporary = Path(hidden) / path.name
            write(temporary)
            temporary.replace(path)
    except OSError as error:
        raise InputError(f"'{path}' can't be written ({error.strerror})", "a writable folder", "path") from error
