"""A PyTorch model as an ONNX model that any runtime runs, factors kept, batch and steps open."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from projgen import __version__
from projgen.exporters.recurrent import DOMAIN, LAYER, OPSET, PARAMETERS, Signature, with_onnx_layers
from projgen.importers.onnx.names import HELPERS, WEIGHTED, Namer, module_path

_FOLDED_ELEMENTS = 64  # folds the arithmetic of slices and shapes, no weights


def onnx_model(
    model: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], dims: Sequence[Sequence[Mapping[int, str]]]
) -> onnx.ModelProto:
    """The model as ONNX.

    Args:
        model: in evaluation mode; its recurrent layers are replaced.
        inputs: examples, batch of at least 2. names: what to call the inputs.
        dims: choices of open axes, best first: per input, axis -> name. The first that the model allows is taken.
    Raises:
        RuntimeError, ValueError: what torch.export raises when no choice of open axes works.
    """
    prepared = with_onnx_layers(model)
    program, chosen = _traced(prepared, inputs, dims)
    with _quiet():
        written = torch.onnx.export(
            program, (), dynamo=True, optimize=False, verbose=False, input_names=list(names), opset_version=OPSET
        )
    assert written is not None
    graph_model = written.model
    _drop_zero_biases(graph_model.graph)
    onnxscript.optimizer.fold_constants(graph_model, input_size_limit=_FOLDED_ELEMENTS)
    onnxscript.optimizer.remove_unused_nodes(graph_model)
    _name_axes(graph_model.graph, chosen)
    outputs = graph_model.graph.outputs
    for index, output in enumerate(outputs):
        output.name = "output" if len(outputs) == 1 else f"output_{index}"
    signatures = _name_nodes(graph_model.graph)
    graph_model.producer_name, graph_model.producer_version = "projgen", __version__
    graph_model.graph.name = "model"
    proto = ir.to_proto(graph_model)
    proto.functions.extend(signature.function() for signature in signatures)
    return proto


def _traced(
    model: nn.Module, inputs: tuple[Tensor, ...], dims: Sequence[Sequence[Mapping[int, str]]]
) -> tuple[ExportedProgram, Sequence[Mapping[int, str]]]:
    for choice in dims[:-1]:
        try:
            return trace(model, inputs, choice), choice
        except (RuntimeError, ValueError):
            continue
    return trace(model, inputs, dims[-1]), dims[-1]


def trace(model: nn.Module, inputs: tuple[Tensor, ...], dims: Sequence[Mapping[int, str]]) -> ExportedProgram:
    """torch.export with the named axes open; axes of one name have one length."""
    named = {name: torch.export.Dim(name) for item in dims for name in item.values()}
    shapes = tuple({axis: named[name] for axis, name in item.items()} for item in dims)
    with torch.no_grad(), _quiet():
        return torch.export.export(model, inputs, dynamic_shapes=shapes)


def _drop_zero_biases(graph: ir.Graph) -> None:
    """The exporter expands a zero to be the bias of every convolution that has none: take it away again."""
    for node in graph:
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) == 3 else None
        producer = bias.producer() if bias is not None else None
        while producer is not None and producer.op_type in {"Expand", "CastLike"} and producer.inputs[0] is not None:
            bias = producer.inputs[0]
            producer = bias.producer()
        constant = producer.attributes.get("value") if producer is not None else None
        if constant is not None and not constant.as_tensor().numpy().any():
            node.resize_inputs(2)


def _name_axes(graph: ir.Graph, dims: Sequence[Mapping[int, str]]) -> None:
    """Call the open axes batch and time instead of s77 and s27, everywhere."""
    names = {}
    for value, item in zip(graph.inputs, dims, strict=True):
        for axis, name in item.items():
            if value.shape is not None:
                names[str(value.shape[axis])] = name
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b") if names else None
    for value in [*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)]:
        if pattern is None or value.shape is None:
            continue
        sizes = [
            size if isinstance(size, int) else pattern.sub(lambda match: names[match[0]], str(size))
            for size in value.shape
        ]
        value.shape = ir.Shape(sizes)


def _name_nodes(graph: ir.Graph) -> list[Signature]:
    """Name nodes after the modules they come from, drop the exporter's notes, note which functions are called."""
    namer = Namer()
    signatures: dict[Signature, None] = {}
    for node in sorted(graph, key=_importance):
        node.name = namer(".".join(filter(None, (module_path(node), node.metadata_props.get(LAYER)))))
    for node in graph:
        if node.domain == DOMAIN:
            signature = Signature(node.op_type, tuple(node.metadata_props[PARAMETERS].split(",")))
            node.overload = signature.overload
            signatures[signature] = None
    for item in (graph, *graph, *graph.inputs, *graph.outputs, *graph.initializers.values()):
        item.metadata_props.clear()
        item.doc_string = None
    for node in graph:
        for output in node.outputs:
            output.metadata_props.clear()
    return list(signatures)


def _importance(node: ir.Node) -> int:
    """Layers choose their names first, the arithmetic of shapes last."""
    if node.op_type in WEIGHTED:
        return 0
    return 2 if node.op_type in HELPERS or node.outputs[0].dtype == ir.DataType.INT64 else 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on itself: packages that are not installed, weights that were seen moving."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
