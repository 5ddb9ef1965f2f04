"""Recurrent layers as single ONNX nodes.

PyTorch's exporters slice the weights gate by gate and freeze the number of steps. Here each recurrent layer is
swapped, before tracing, for a stand-in that calls one ONNX node per layer: the stock LSTM or GRU, or, for
factored weights, the function ``projgen::ProjectedLSTM`` or ``projgen::ProjectedGRU``, whose body multiplies
the factors and calls the stock operator. So the number of steps stays open, and nothing multiplies the factors
out before the file is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from projgen.errors import UnsupportedError
from projgen.projection.layers import ProjectedGRU, ProjectedLSTM

DOMAIN = "projgen"
LAYER = "projgen.layer"  # metadata key: which of several stacked layers a node is
PARAMETERS = "projgen.parameters"  # metadata key: the parameter names of a function call, comma separated
OPSET = 20
# Position in PyTorch's row blocks (LSTM: i, f, g, o; GRU: r, z, n) of each gate in ONNX's order.
_TO_ONNX = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
_DIRECTIONS = ("", "_reverse")
_FACTORS = (("W", "weight_ih", "input_projector"), ("R", "weight_hh", "output_projector"))


def _reordered(tensor: Tensor, kind: str) -> Tensor:
    order = _TO_ONNX[kind]
    return tensor.detach().reshape(len(order), -1, *tensor.shape[1:])[list(order)].reshape(tensor.shape).contiguous()


def _cell_tensors(layer: nn.Module, kind: str, index: int) -> dict[str, Tensor]:
    """Tensors of one cell in ONNX's gate order, by the names of the function's parameters."""
    tensors: dict[str, Tensor] = {}
    if isinstance(layer, ProjectedLSTM | ProjectedGRU):
        for name, weight, projector in _FACTORS:
            factor, q = layer.cell_tensor(weight, index), layer.cell_tensor(projector, index)
            assert factor is not None
            if name == "W" or not layer.joint[index]:
                tensors[name] = _reordered(factor, kind)
            if q is not None:
                tensors[projector] = q
        folded = layer.cell_tensor("projector_bias", index)
        if folded is not None:
            tensors["projector_bias"] = folded
        biases = layer._biases(index) if layer.bias and folded is None else []
    else:
        assert isinstance(layer, nn.LSTM | nn.GRU)
        suffix = f"l{index // 2}{_DIRECTIONS[index % 2]}" if layer.bidirectional else f"l{index}"
        for name, weight, _ in _FACTORS:
            tensors[name] = _reordered(getattr(layer, f"{weight}_{suffix}"), kind)
        biases = [getattr(layer, f"bias_{side}_{suffix}") for side in ("ih", "hh")] if layer.bias else []
    if biases:
        tensors["B"] = torch.cat([_reordered(bias, kind) for bias in biases])
    return tensors


class OnnxRecurrent(nn.Module):
    """Stand-in for an LSTM or GRU, called like it, that traces to one ONNX node per layer.

    It computes nothing by itself: it exists to be exported.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU | ProjectedLSTM | ProjectedGRU) -> None:
        super().__init__()
        if getattr(layer, "proj_size", 0):
            raise UnsupportedError("an LSTM with proj_size", "nn.LSTM without proj_size, nn.GRU", "model")
        self.kind = "LSTM" if isinstance(layer, nn.LSTM | ProjectedLSTM) else "GRU"
        self.hidden_size = layer.hidden_size
        self.batch_first = layer.batch_first
        self.directions = 2 if layer.bidirectional else 1
        self.parameters_of_layer: list[list[str]] = []
        for number in range(layer.num_layers):
            cells = [_cell_tensors(layer, self.kind, number * self.directions + d) for d in range(self.directions)]
            if any("projector" in name for cell in cells for name in cell):
                named = {name + s: t for s, cell in zip(_DIRECTIONS, cells, strict=False) for name, t in cell.items()}
            else:
                named = {name: torch.stack([cell[name] for cell in cells]) for name in cells[0]}
            for name, tensor in named.items():
                # A projector stays the parameter it is: another layer may share it.
                own = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.clone())
                self.register_parameter(_attribute(name, number), own)
            self.parameters_of_layer.append(list(named))

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """As the layer it stands for; the input has three axes."""
        states = list(state) if isinstance(state, tuple) else [] if state is None else [state]
        x = x.transpose(0, 1) if self.batch_first else x
        finals: list[list[Tensor]] = [[], []]
        for number, names in enumerate(self.parameters_of_layer):
            start = number * self.directions
            initial = [item[start : start + self.directions] for item in states]
            y, *final = self._node(x, names, number, initial)
            for kept, item in zip(finals, final, strict=False):
                kept.append(item)
            x = y.squeeze(1) if self.directions == 1 else y.transpose(1, 2).flatten(2)
        x = x.transpose(0, 1) if self.batch_first else x
        h, c = (torch.cat(kept) if len(kept) > 1 else kept[0] if kept else None for kept in finals)
        return x, (h if self.kind == "GRU" else (h, c))

    def _node(self, x: Tensor, names: Sequence[str], number: int, initial: list[Tensor]) -> Sequence[Tensor]:
        tensors = {name: getattr(self, _attribute(name, number)) for name in names}
        inputs: list[Tensor | None]
        attributes: dict[str, Any] = {"hidden_size": self.hidden_size}
        options: dict[str, Any]
        notes = {LAYER: f"l{number}"} if len(self.parameters_of_layer) > 1 else {}
        if any("projector" in name for name in names):
            states = ["initial_h", "initial_c"][: len(initial)]
            inputs = [x, *tensors.values(), *initial]
            operator = f"{DOMAIN}::Projected{self.kind}"
            options = {"version": 1}
            notes[PARAMETERS] = ",".join(["X", *names, *states])
        else:
            inputs = [x, tensors["W"], tensors["R"], tensors.get("B"), None, *initial]
            operator, options = self.kind, {}
            attributes["direction"] = "forward" if self.directions == 1 else "bidirectional"
            if self.kind == "GRU":
                attributes["linear_before_reset"] = 1
        steps, batch, _ = x.shape
        final = (self.directions, batch, self.hidden_size)
        shapes = [(steps, *final[:1], *final[1:]), *[final] * (2 if self.kind == "LSTM" else 1)]
        result: Sequence[Tensor] = torch.onnx.ops.symbolic_multi_out(
            operator, inputs, attributes, dtypes=[x.dtype] * len(shapes), shapes=shapes, metadata_props=notes, **options
        )
        return result


def _attribute(name: str, number: int) -> str:
    return name if number == 0 else f"{name}_l{number}"


def with_onnx_layers(model: nn.Module) -> nn.Module:
    """The model, whose recurrent layers are replaced in place; a model that is one gets replaced itself."""
    done: dict[nn.Module, OnnxRecurrent] = {}

    def stand_in(layer: nn.Module) -> nn.Module:
        if not isinstance(layer, nn.LSTM | nn.GRU | ProjectedLSTM | ProjectedGRU):
            return layer
        return done.setdefault(layer, OnnxRecurrent(layer))

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            setattr(parent, name, stand_in(child))
    return stand_in(model)


@dataclass(frozen=True, slots=True)
class Signature:
    """A form of ``ProjectedLSTM`` or ``ProjectedGRU``: which inputs it takes.

    Attributes:
        operator: the function's name. parameters: X, then per direction W, input_projector, R,
            output_projector, B or projector_bias as far as they are there, then the initial states. Where R is
            left out, W is the first factor of both products, with projector_bias also of the bias.
    """

    operator: str
    parameters: tuple[str, ...]

    @property
    def overload(self) -> str:
        """Empty for the usual form (one direction, both factors, biases, zero state); else what differs."""
        parts = []
        for suffix in _DIRECTIONS[: 1 + ("W_reverse" in self.parameters)]:
            factors = [short for short, name in _SHORT if name + suffix in self.parameters]
            separate = "".join(factors) or "dense"
            joint = "folded" if f"projector_bias{suffix}" in self.parameters else "joint"
            parts.append(separate if f"R{suffix}" in self.parameters else joint)
        if not self._is_biased:
            parts.append("unbiased")
        if "initial_h" in self.parameters:
            parts.append("state")
        text = "_".join(parts)
        return "" if text == "io" else text

    @property
    def _is_biased(self) -> bool:
        return "B" in self.parameters or "projector_bias" in self.parameters

    def function(self) -> onnx.FunctionProto:
        """The function's definition: the products, then the stock operator.

        Shapes: X (steps, batch, D), W (gates*H, r_i), input_projector (D, r_i), R (gates*H, r_o),
        output_projector (H, r_o), B (2*gates*H), projector_bias (r), initial_h and initial_c (directions, batch, H);
        outputs as the stock operator's.
        """
        kind = self.operator.removeprefix("Projected")
        suffixes = _DIRECTIONS[: 1 + ("W_reverse" in self.parameters)]
        nodes = [helper.make_node("Constant", [], ["first"], value_ints=[0])]
        stacks = {}
        for name, projector in (("W", "input_projector"), ("R", "output_projector"), ("B", "")):
            if name == "B" and not self._is_biased:
                continue
            layers = [self._stacked(nodes, name, projector, suffix) for suffix in suffixes]
            stacks[name] = layers[0] if len(layers) == 1 else f"{name}_both"
            if len(layers) > 1:
                nodes.append(helper.make_node("Concat", layers, [stacks[name]], axis=0))
        inputs = ["X", stacks["W"], stacks["R"], stacks.get("B", ""), ""]
        inputs += [name for name in ("initial_h", "initial_c") if name in self.parameters]
        outputs = ["Y", "Y_h", "Y_c"][: 3 if kind == "LSTM" else 2]
        fixed: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
        direction = "bidirectional" if len(suffixes) == 2 else "forward"
        stock = helper.make_node(kind, inputs, outputs, direction=direction, **fixed)
        stock.attribute.append(
            onnx.AttributeProto(name="hidden_size", ref_attr_name="hidden_size", type=onnx.AttributeProto.INT)
        )
        nodes.append(stock)
        opsets = [helper.make_opsetid("", OPSET)]
        function = helper.make_function(
            DOMAIN, self.operator, self.parameters, outputs, nodes, opsets, attributes=["hidden_size"]
        )
        function.overload = self.overload
        return function

    def _stacked(self, nodes: list[onnx.NodeProto], name: str, projector: str, suffix: str) -> str:
        """Name of the dense matrix (or bias) with a leading axis of 1, after adding the nodes that make it."""
        dense = name + suffix if name + suffix in self.parameters else f"W{suffix}"
        if name == "B" and dense != name + suffix:
            gates, zeros, factor, dense = f"B{suffix}_gates", f"B{suffix}_zeros", dense, f"B{suffix}_dense"
            nodes.append(helper.make_node("MatMul", [factor, f"projector_bias{suffix}"], [gates]))
            nodes.append(helper.make_node("Sub", [gates, gates], [zeros]))
            nodes.append(helper.make_node("Concat", [gates, zeros], [dense], axis=0))
        if projector + suffix in self.parameters:
            transposed, factor, dense = f"{projector}{suffix}_t", dense, f"{name}{suffix}_dense"
            nodes.append(helper.make_node("Transpose", [projector + suffix], [transposed], perm=[1, 0]))
            nodes.append(helper.make_node("MatMul", [factor, transposed], [dense]))
        nodes.append(helper.make_node("Unsqueeze", [dense, "first"], [f"{name}{suffix}_stacked"]))
        return f"{name}{suffix}_stacked"


_SHORT = (("i", "input_projector"), ("o", "output_projector"))
