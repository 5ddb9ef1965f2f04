"""From an ONNX graph to a PyTorch module: one pass over the nodes, in order.

Values known from the file alone (weights, axis lengths) are computed on the way; every other node becomes an
ordinary layer or call. Nothing is optimised before: a product of two weight matrices that feeds a recurrent
layer, and our functions ``projgen::ProjectedLSTM`` and ``projgen::ProjectedGRU``, are met as they stand in the
file, so factors come back bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import fx, nn

from projgen.errors import InputError, UnsupportedError
from projgen.importers.onnx.build import Build, Call, describe, unsupported
from projgen.importers.onnx.fold import fold
from projgen.importers.onnx.ops import FUNCTIONS, OPERATORS, SUPPORTED
from projgen.importers.onnx.ops.recurrent import DOMAIN
from projgen.importers.onnx.reader import array_of, read_model
from projgen.importers.onnx.sizes import Size, new_symbol
from projgen.importers.onnx.values import FLOATS, Activation, Const, Value
from projgen.importers.spec import InputSpec, example_inputs, remember_inputs

_STANDARD = {"", "ai.onnx"}


def load_onnx(source: str | os.PathLike[str] | onnx.ModelProto) -> nn.Module:
    """An ONNX model as an ordinary PyTorch module.

    Weights become ``nn.Conv2d``, ``nn.Linear``, ``nn.LSTM``, ... submodules named after the ONNX nodes, so the
    result trains, projects, exports and compiles as any other module. It is in evaluation mode, takes its
    inputs in the file's order with axis 0 as a batch of any size (whatever size the file states), and
    remembers their shapes.

    Args:
        source: path of an ``.onnx`` file (external data beside it is read) or an ``onnx.ModelProto``.
    Raises:
        InputError: the file is missing, a folder, cut off or malformed.
        UnsupportedError: an operator, or a form of it, that projgen does not read: the message names the
            operator, its node and module, and lists what is supported.
        InputTypeError: ``source`` is neither a path nor a ``ModelProto``.
    """
    model, label = read_model(source)
    reader = _Reader(Build(), model)
    specs = reader.inputs(model.graph)
    reader.run(model.graph)
    module = reader.finish(model.graph)
    remember_inputs(module, specs)
    _check_batch(module, label)
    return module


@dataclass(slots=True)
class _Reader:
    """One graph, or one function body, being read."""

    build: Build
    model: ir.Model
    values: dict[ir.Value, Value | None] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.opsets = self.opsets or self.model.graph.opset_imports or self.model.opset_imports

    def inputs(self, graph: ir.Graph) -> tuple[InputSpec, ...]:
        """Placeholders for the graph's inputs, and what to remember of them."""
        specs = []
        batches: dict[int | None, Size] = {}
        for value in graph.inputs:
            if value.name in graph.initializers:
                continue
            if (
                not isinstance(value.type, ir.TensorType)
                or value.dtype not in FLOATS
                or value.shape is None
                or 0 in value.shape
            ):
                raise UnsupportedError(
                    f"ONNX input '{value.name}' of type {value.type} and shape {value.shape}",
                    "float tensors with a known number of axes, none of length 0",
                    "the model",
                )
            baked = [size if isinstance(size, int) else None for size in value.shape]
            is_open = [axis == 0 or size is None for axis, size in enumerate(baked)]
            if _is_time_first(value):
                is_open[1] = True
            sizes = [new_symbol(size) if opened else size or 1 for size, opened in zip(baked, is_open, strict=True)]
            if sizes and not _is_time_first(value):
                sizes[0] = batches.setdefault(baked[0], sizes[0])  # one batch for all inputs
            dtype = FLOATS[value.dtype]
            self.values[value] = self.build.new_input(value.name or "input", sizes, dtype)
            shape = tuple(None if opened else size for size, opened in zip(baked, is_open, strict=True))
            specs.append(InputSpec(value.name or "input", shape[1:], dtype))
        return tuple(specs)

    def run(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            for output, value in zip(node.outputs, self._outputs(node), strict=False):
                self.values[output] = value

    def _outputs(self, node: ir.Node) -> Sequence[Value | None]:
        if node.op_type == "Constant" and node.domain in _STANDARD:
            return [_constant(node)]
        call = self._call(node)
        if node.op_identifier() in self.model.functions:
            function = self.model.functions[node.op_identifier()]
            if node.domain == DOMAIN and node.op_type in FUNCTIONS:
                return FUNCTIONS[node.op_type](self.build, call)
            return self._inlined(function, call)
        if node.domain in _STANDARD:
            folded = fold(call)
            if folded is not None:
                return folded
            if node.op_type in OPERATORS:
                return OPERATORS[node.op_type](self.build, call)
        raise unsupported(node, "", SUPPORTED)

    def _call(self, node: ir.Node) -> Call:
        function = self.model.functions.get(node.op_identifier())
        return Call(
            node,
            tuple(None if value is None else self._value(node, value) for value in node.inputs),
            {
                name: item
                for name, item in ((a.name, self._attribute(a)) for a in node.attributes.values())
                if item is not None
            },
            node.version or self.opsets.get(node.domain, 1),
            tuple(bool(output.uses()) or output.is_graph_output() for output in node.outputs),
            tuple(v is not None and len(v.uses()) == 1 and not v.is_graph_output() for v in node.inputs),
            tuple(value.name or "" for value in function.inputs) if function is not None else (),
            SUPPORTED,
        )

    def _attribute(self, attribute: ir.Attr) -> Any:
        if attribute.is_ref():
            return self.attributes.get(attribute.ref_attr_name or "")
        return attribute.value

    def _value(self, node: ir.Node, value: ir.Value) -> Value | None:
        if value not in self.values:
            tensor = value.const_value
            if tensor is None or value.producer() is not None:
                raise InputError(
                    f"{describe(node)} reads '{value.name}', which nothing before it produces",
                    "a valid ONNX file, its nodes in order",
                    "model",
                )
            self.values[value] = Const(array_of(tensor, value.name or ""), name=value.name or "")
        return self.values[value]

    def _inlined(self, function: ir.Function, call: Call) -> list[Value | None]:
        """The outputs of another model-local function, its body read in place."""
        defaults = {name: attribute.value for name, attribute in function.attributes.items()}
        body = _Reader(self.build, self.model, {}, {**defaults, **call.attributes}, function.opset_imports)
        for index, parameter in enumerate(function.inputs):
            body.values[parameter] = call.given(index)
        body.run(function)
        return [body.values.get(output) for output in function.outputs]

    def finish(self, graph: ir.Graph) -> fx.GraphModule:
        """The module, once every node has been read."""
        results = []
        for value in graph.outputs:
            result = self.values.get(value)
            if not isinstance(result, Activation):
                raise UnsupportedError(
                    f"ONNX output '{value.name}' does not depend on the data",
                    "outputs computed from inputs",
                    "the model",
                )
            results.append(self.build.real(result))
        self.build.graph.output(results[0] if len(results) == 1 else tuple(results))
        module = fx.GraphModule(self.build.root, self.build.graph, "OnnxModel")
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        return module.eval()


def _is_time_first(value: ir.Value) -> bool:
    """Whether a recurrent layer reads an input as it is in ONNX's layout, the batch on axis 1."""
    readers = (use.node for use in value.uses() if use.idx == 0 and use.node.op_type in {"LSTM", "GRU"})
    return any(node.attributes.get_int("layout", 0) == 0 for node in readers)


def _constant(node: ir.Node) -> Const:
    """The value of a Constant node in any of its spellings."""
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        attribute = node.attributes.get(name)
        if attribute is not None and name == "value":
            return Const(array_of(attribute.value, node.name or ""))
        if attribute is not None:
            return Const(np.asarray(attribute.value, dtype=np.float32 if "float" in name else np.int64))
    raise UnsupportedError(
        f"{describe(node)} holds {', '.join(node.attributes) or 'nothing'}", "dense numeric constants", "the model"
    )


def _check_batch(module: nn.Module, label: str) -> None:
    """Run once with a batch the file does not state; what breaks then was tied to its own batch."""
    specs = getattr(module, "_projgen_inputs", ())
    examples = example_inputs(module, batch=3)
    if examples is None or any(None in spec.shape for spec in specs):
        return
    try:
        with torch.no_grad():
            module(*examples)
    except (RuntimeError, ValueError) as error:
        raise UnsupportedError(
            f"{label} does not run with a batch of 3 ({str(error).splitlines()[0]})",
            "models whose layers treat axis 0 of every input as the batch",
            "the model",
        ) from error
