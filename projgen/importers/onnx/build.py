"""The PyTorch module under construction, and one ONNX node as its operator sees it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from torch import fx, nn

from projgen.errors import InputError, UnsupportedError
from projgen.importers.onnx.names import Namer, identifier, module_path, scope_of
from projgen.importers.onnx.sizes import Size, Symbol, Symbolic, product
from projgen.importers.onnx.values import Activation, Array, Const, Filled, Value, integers, tensor
from projgen.importers.onnx.views import View, group_sizes, new_view


@dataclass(slots=True)
class Build:
    """Graph and layers made so far."""

    root: nn.Module = field(default_factory=nn.Module)
    graph: fx.Graph = field(default_factory=fx.Graph)
    namer: Namer = field(default_factory=Namer)
    origins: dict[Symbol, tuple[fx.Node, int]] = field(default_factory=dict)
    layers: dict[fx.Node, nn.Module] = field(default_factory=dict)
    shared: dict[tuple[object, ...], str] = field(default_factory=dict)
    parameters: dict[tuple[Const, bool], nn.Parameter] = field(default_factory=dict)
    projectors: list[nn.Parameter] = field(default_factory=list)  # of recurrent layers' outputs
    _real: dict[tuple[object, ...], fx.Node] = field(default_factory=dict)

    def new_input(self, name: str, shape: Sequence[Size], dtype: torch.dtype) -> Activation:
        return self.activation(self.graph.placeholder(self.namer(identifier(name))), shape, dtype)

    def activation(self, node: fx.Node, shape: Sequence[Size], dtype: torch.dtype) -> Activation:
        """A value for a tensor that ``node`` computes."""
        for axis, size in enumerate(shape):
            if isinstance(size, Symbolic) and size.coefficient == 1 and len(size.symbols) == 1:
                self.origins.setdefault(size.symbols[0], (node, axis))
        return Activation(new_view(node, shape), dtype)

    def layer(self, wanted_name: str, module: nn.Module, *args: fx.Node, key: tuple[object, ...] = ()) -> fx.Node:
        """Call ``module`` as a submodule of this name, or the earlier one of the same non-empty ``key``."""
        name = self.shared.get(key) or self.namer(wanted_name)
        if key and key in self.shared:
            module = self.root.get_submodule(name)
        else:
            self._add(name, module)
            self.shared.update({key: name} if key else {})
        node = self.graph.create_node("call_module", name, args, {}, identifier(name))
        self.layers[node] = module
        return node

    def tie(self, node: fx.Node, source: Const, *, turned: bool = False) -> None:
        """Let layers whose weights are the same constant of the file (or all its transpose) have one parameter."""
        layer = self.layers[node]
        weight = layer.get_parameter("weight")
        first = self.parameters.setdefault((source, turned), weight)
        if first.shape == weight.shape:
            layer.register_parameter("weight", first)

    def _add(self, path: str, module: nn.Module) -> None:
        parent = self.root
        *folders, last = path.split(".")
        for folder in folders:
            if folder not in dict(parent.named_children()):
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        parent.add_module(last, module)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        return self.graph.call_function(function, args, kwargs)

    def buffer(self, wanted_name: str, array: Array) -> fx.Node:
        """A constant tensor, stored as a buffer."""
        name = self.namer(identifier(wanted_name))
        self.root.register_buffer(name, tensor(array))
        return self.graph.get_attr(name)

    def real(self, value: Activation) -> fx.Node:
        """The node whose output is this tensor, with the transposes and reshapes that are really needed."""
        view = value.view
        if view.is_plain:
            return view.node
        key = (view.node, view.base, view.groups)
        if key not in self._real:
            self._real[key] = self._materialise(view, value.name)
        return self._real[key]

    def _materialise(self, view: View, name: str) -> fx.Node:
        order = [atom for group in view.groups for atom in group]
        flat = [atom for group in view.base for atom in group]
        if order == flat:
            return self.reshaped(view.node, view.base, view.groups, name)
        permutation = _axis_order(view.base, view.groups)
        if permutation is not None:
            return self._permuted(view.node, permutation)
        single = tuple((atom,) for atom in flat)
        parts = self.reshaped(view.node, view.base, single)
        moved = self._permuted(parts, [flat.index(atom) for atom in order])
        return self.reshaped(moved, tuple((atom,) for atom in order), view.groups, name)

    def _permuted(self, node: fx.Node, order: Sequence[int]) -> fx.Node:
        moved = [axis for axis, source in enumerate(order) if axis != source]
        if len(moved) == 2:
            return self.call(torch.transpose, node, *moved)
        return self.call(torch.permute, node, tuple(order))

    def reshaped(
        self, node: fx.Node, have: Sequence[tuple[Any, ...]], want: Sequence[tuple[Any, ...]], name: str = ""
    ) -> fx.Node:
        """``node`` with axes ``have`` regrouped to ``want`` (same atoms, same order)."""
        if tuple(have) == tuple(want):
            return node
        same = next((axis for axis, (a, b) in enumerate(zip(have, want, strict=False)) if a != b), len(want))
        first = min(same, len(want) - 1)
        is_flattened = len(want) == first + 1 and len(have) > len(want)
        dropped = [axis for axis, group in enumerate(have) if not group]
        if dropped and not (is_flattened and name) and [group for group in have if group] == list(want):
            return self.call(torch.squeeze, node, dropped[0] if len(dropped) == 1 else tuple(dropped))
        if is_flattened:
            return self.layer(name or "flatten", nn.Flatten(first), node)
        if [group for group in have if group] == [group for group in want if group] and not dropped:
            for axis in (axis for axis, group in enumerate(want) if not group):
                node = self.call(torch.unsqueeze, node, axis)
            return node
        return self.call(torch.reshape, node, self._size_arguments(node, have, want))

    def _size_arguments(
        self, node: fx.Node, have: Sequence[tuple[Any, ...]], want: Sequence[tuple[Any, ...]]
    ) -> tuple[int | fx.Node, ...]:
        """The shape for a reshape: one -1, all else that the shape of ``node`` tells is asked from it.

        So the network still runs when a layer before loses channels. An axis that is split keeps its inner parts'
        lengths, as a flattened map keeps its pixels.
        """
        sizes = group_sizes(want)
        sources = [_source(group, have) for group in want]
        is_open = [isinstance(size, Symbolic) for size in sizes]
        made = [i for i, source in enumerate(sources) if source is None or source.is_regrouped]
        choice = [i for i in made if is_open[i]] + [i for i in made if sources[i] is not None]
        free = next(iter(choice + [i for i, opened in enumerate(is_open) if opened]), None)
        arguments: list[int | fx.Node] = []
        for index, (size, source) in enumerate(zip(sizes, sources, strict=True)):
            if index == free:
                arguments.append(-1)
            elif source is not None and source.axes and not (is_open[index] and source.is_regrouped):
                arguments.append(self._asked(node, source))
            else:
                arguments.append(self.length(size) if isinstance(size, Symbolic) else size)
        return tuple(arguments)

    def _asked(self, node: fx.Node, source: _Source) -> fx.Node:
        """The length of axes of ``node`` together, at run time."""
        lengths = [self.graph.call_method("size", (node, axis)) for axis in source.axes]
        total = lengths[0]
        for length in lengths[1:]:
            total = self.graph.call_function(operator.mul, (total, length))
        return total if source.divisor == 1 else self.graph.call_function(operator.floordiv, (total, source.divisor))

    def length(self, size: Symbolic) -> fx.Node:
        """A node that computes an open size at run time."""
        total: Any = None if size.coefficient == 1 else size.coefficient
        for symbol in size.symbols:
            if symbol not in self.origins:
                raise UnsupportedError("a Reshape to a length that the file computes from its inputs", "", "the model")
            node, axis = self.origins[symbol]
            length = self.graph.call_method("size", (node, axis))
            total = length if total is None else self.graph.call_function(operator.mul, (total, length))
        assert isinstance(total, fx.Node)
        return total


@dataclass(frozen=True, slots=True)
class _Source:
    """What an axis after a reshape is made of: whole axes before it, the last one divided by ``divisor``."""

    axes: tuple[int, ...]
    divisor: int = 1

    @property
    def is_regrouped(self) -> bool:
        return len(self.axes) > 1 or self.divisor > 1


def _source(group: tuple[Any, ...], have: Sequence[tuple[Any, ...]]) -> _Source | None:
    """Where an axis comes from; None for an inner part of an axis that is split."""
    axes: list[int] = []
    left = group
    for axis, parts in enumerate(have):
        if not parts or not left or parts[0] != left[0]:
            continue
        axes.append(axis)
        if len(parts) > len(left):
            inner = product(atom.size for atom in parts[len(left) :])
            if isinstance(inner, Symbolic) or parts[: len(left)] != left:
                return None
            return _Source(tuple(axes), inner)
        if left[: len(parts)] != parts:
            return None
        left = left[len(parts) :]
    return None if left else _Source(tuple(axes))


def _axis_order(base: tuple[tuple[Any, ...], ...], groups: tuple[tuple[Any, ...], ...]) -> list[int] | None:
    """The permutation of whole base axes that gives ``groups``, if there is one."""
    free = list(range(len(base)))
    order: list[int] = []
    for group in groups:
        axis = next((axis for axis in free if base[axis] == group), None)
        if axis is None:
            return None
        free.remove(axis)
        order.append(axis)
    return order if not free else None


@dataclass(frozen=True, slots=True)
class Call:
    """One node of the file with its inputs' values.

    Attributes:
        node: the node. inputs: None where an optional input is left out. attributes: references resolved.
        opset: version of the operator's set. used: whether each output is read anywhere.
        alone: whether each input is read here only. parameters: input names of a model-local function.
        supported: the operators there are, for messages.
    """

    node: ir.Node
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    opset: int
    used: tuple[bool, ...]
    alone: tuple[bool, ...]
    parameters: tuple[str, ...]
    supported: tuple[str, ...]

    @property
    def sharing(self) -> tuple[object, ...]:
        """Equal for two nodes that are the same layer: same constant inputs and attributes."""
        constants = tuple(value for value in self.inputs if isinstance(value, Const))
        attributes = tuple(sorted((name, str(value)) for name, value in self.attributes.items()))
        return (self.node.op_type, constants, attributes)

    @property
    def name(self) -> str:
        return module_path(self.node)

    def refusal(self, reason: str = "") -> UnsupportedError:
        """The error to raise for a form that is not supported, naming operator, node, module and what is supported."""
        return unsupported(self.node, reason, self.supported)

    def fault(self, reason: str) -> InputError:
        """The error to raise for a node that breaks ONNX's rules."""
        return InputError(f"{describe(self.node)} is malformed: {reason}", "a valid ONNX file", "the model file")

    def attribute(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)

    def given(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def activation(self, index: int) -> Activation:
        value = self.given(index)
        if not isinstance(value, Activation):
            raise self.refusal(
                f"input {index} is a constant or is computed from shapes; a tensor of the data is needed"
            )
        return value

    def const(self, index: int, what: str) -> Const | None:
        """A constant input, None if it is left out."""
        value = self.given(index)
        if value is None or isinstance(value, Const):
            return value
        if isinstance(value, Filled) and all(not isinstance(size, Symbolic) for size in value.shape):
            return Const(np.full([int(size) for size in value.shape if not isinstance(size, Symbolic)], value.value))
        raise self.refusal(f"its {what} must be constant, but they are computed at run time")

    def needed(self, index: int, what: str) -> Const:
        value = self.const(index, what)
        if value is None:
            raise self.fault(f"its {what} are missing")
        return value

    def integers(self, index: int, attribute: str, what: str) -> list[Size] | None:
        """Integers given as an input or, in older opsets, as an attribute; None if given nowhere."""
        value = self.given(index)
        if value is None:
            stated = self.attribute(attribute, None)
            return None if stated is None else [int(item) for item in stated]
        found = integers(value)
        if found is None:
            raise self.refusal(f"its {what} must be constant, but they are computed at run time")
        return found

    def static(self, index: int, attribute: str, what: str) -> list[int] | None:
        """As ``integers``, every one known."""
        found = self.integers(index, attribute, what)
        if found is None:
            return None
        if any(isinstance(item, Symbolic) for item in found):
            raise self.refusal(f"its {what} depend on the length of an input axis")
        return [int(item) for item in found if not isinstance(item, Symbolic)]

    def axis(self, value: int, rank: int) -> int:
        if not -rank <= value < rank:
            raise self.fault(f"axis {value} of a tensor with {rank} axes")
        return value % rank


def unsupported(node: ir.Node, reason: str, supported: Sequence[str]) -> UnsupportedError:
    why = f": {reason}" if reason else " is not supported"
    return UnsupportedError(f"{describe(node)}{why}", "operators " + ", ".join(supported), "the model")


def describe(node: ir.Node) -> str:
    """Operator, node and module of a node, for messages."""
    domain = f"{node.domain}::" if node.domain not in {"", "ai.onnx"} else ""
    scope = scope_of(node)
    name = node.name or next((output.name for output in node.outputs if output.name), "")
    place = f" in module {scope!r}" if scope else ""
    return f"ONNX operator {domain}{node.op_type} (node {name!r}{place})"


Handler: TypeAlias = "Callable[[Build, Call], Sequence[Value]]"
