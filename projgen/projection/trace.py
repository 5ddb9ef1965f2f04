"""Which units and channels of a network can go: each group of them with everything that makes or reads it.

The model is exported to a graph of ATen operators and every tensor axis that indexes the units of a layer is
followed: through channel-wise operators (activations, pooling, normalisation, depthwise convolutions, slices of
other axes), through flattening (each channel becomes a block of features), and through residual sums, which tie
two groups together. Whatever is not known to be channel-wise fixes the groups it reads, as do the model's outputs.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from projgen.pca.convolution import is_convolution

_POINTWISE = {
    "relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "tanh", "tanh_", "sigmoid", "sigmoid_", "gelu",
    "silu", "silu_", "elu", "leaky_relu", "leaky_relu_", "hardswish", "hardswish_", "hardsigmoid", "dropout",
    "feature_dropout", "clone", "contiguous", "detach", "alias", "to", "_to_copy", "neg", "abs", "clamp", "exp",
}  # fmt: skip
_POOLING = {
    "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_max_pool1d", "adaptive_max_pool2d",
}  # fmt: skip
_CONVOLUTIONS = {"conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"}
_BINARY = {"add", "add_", "sub", "mul", "mul_"}


@dataclass(frozen=True, slots=True)
class Consumer:
    """A layer that multiplies the units: ``module`` reads each unit as ``block`` consecutive features.

    ``recurrent``: an RNN reading its own hidden state. ``cell``: which cell of an RNN. ``offset``: its feature or
    channel that is the first unit's.
    """

    module: str
    block: int = 1
    recurrent: bool = False
    cell: int = 0
    offset: int = 0


@dataclass(slots=True)
class Group:
    """Units that live and die together.

    Attributes:
        size: their number. producers: the layers whose rows they are.
        followers: per-unit layers on the way (BatchNorm, depthwise convolutions).
        consumers: the layers whose columns read them.
        cells: of the recurrent producers, which cell makes them.
        reason: why they must all stay, empty if they may go.
    """

    size: int
    producers: list[str] = field(default_factory=list)
    followers: list[str] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    cells: dict[str, int] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Tag:
    """Axis of a tensor that indexes the units of groups, one after the other, each over ``block`` entries."""

    groups: tuple[int, ...]
    axis: int
    block: int = 1


def find_groups(model: nn.Module, example: tuple[Tensor, ...]) -> list[Group]:
    """The groups of units of a model; an empty list when it can't be exported.

    Args:
        model: in eval mode. example: one batch of at least two observations.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of exports in general, not of this model's groups
            program = torch.export.export(model, example)
    except (RuntimeError, ValueError, TypeError, torch._dynamo.exc.TorchDynamoException):
        return []
    return _Tracer(model, program).run()


@dataclass(frozen=True, slots=True)
class _Cells:
    """An RNN's groups, one per cell; ``last``: those of its last layer. ``rank``: axes of its input."""

    groups: tuple[int, ...]
    last: tuple[int, ...]
    rank: int


class _Tracer:
    def __init__(self, model: nn.Module, program: torch.export.ExportedProgram) -> None:
        self._model = model
        signature = program.graph_signature
        self._nodes = list(program.graph.nodes)
        self._owner = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._groups: list[Group] = []
        self._parent: list[int] = []
        self._tags: dict[Any, _Tag] = {}
        self._cells: dict[Any, _Cells] = {}
        self._states: dict[Any, tuple[int, ...]] = {}
        self._calls: dict[str, int] = {}

    def run(self) -> list[Group]:
        for node in self._nodes:
            if node.op == "call_function":
                self._visit(node)
            elif node.op == "output":
                self._fix_all(node.all_input_nodes, "the network's outputs never change")
        for index, group in enumerate(self._groups):
            if any(self._calls.get(name, 0) > 1 for name in (*group.producers, *group.followers)) or any(
                self._calls.get(consumer.module, 0) > 1 for consumer in group.consumers
            ):
                self._fix(_Tag((index,), 0), "a layer that makes or reads them is used more than once")
        roots = [i for i in range(len(self._groups)) if self._find(i) == i]
        return [self._groups[i] for i in roots]

    def _visit(self, node: Any) -> None:
        name = str(node.target).removeprefix("aten.").split(".")[0]
        tensors = [n for n in node.all_input_nodes if n in self._tags]
        states = [n for n in node.all_input_nodes if n in self._states]
        if name == "select" and states and not int(node.args[1]):
            self._tags[node] = _Tag((self._states[node.args[0]][node.args[2]],), 1)
            return
        self._fix_all(states, "the final states of several cells are read together")
        if name == "linear" or name in _CONVOLUTIONS:
            self._layer(node, name)
        elif name in {"lstm", "gru"}:
            self._recurrent(node, name)
        elif str(node.target).endswith("getitem>") or "getitem" in str(node.target):
            self._item(node)
        elif not tensors:
            return
        elif name in _POINTWISE:
            self._tags[node] = self._tags[node.args[0]]
        elif name == "batch_norm":
            self._norm(node)
        elif name in _BINARY:
            self._binary(node)
        elif name == "cat":
            self._joined(node, tensors)
        else:
            alone = len(tensors) == 1 and node.args[0] is tensors[0] and isinstance(node.meta["val"], Tensor)
            tag = self._moved(node, name, self._tags[tensors[0]]) if alone else None
            if tag is None:
                self._fix_all(tensors, f"operator {name} is not known to treat them one by one")
            else:
                self._tags[node] = tag

    def _layer(self, node: Any, name: str) -> None:
        x, weight = node.args[0], node.args[1]
        module = self._module_of(weight)
        tag = self._tags.get(x)
        if module is None:
            self._fix_all(node.all_input_nodes, "a weight that is no layer's parameter")
            return
        self._calls[module] = self._calls.get(module, 0) + 1
        owner = self._model.get_submodule(module)
        out_axis = len(_shape(node)) - 1 if name == "linear" else 1
        in_axis = len(_shape(x)) - 1 if name == "linear" else 1
        if name != "linear" and is_convolution(owner) and owner.groups > 1:
            channelwise = owner.groups == owner.in_channels == owner.out_channels
            if tag is not None and channelwise and tag.axis == 1 and tag.block == 1 and len(tag.groups) == 1:
                self._groups[self._find(tag.groups[0])].followers.append(module)
                self._tags[node] = tag
                return
            if tag is not None:
                self._fix(tag, f"the grouped convolution {module!r} reads them")
            return
        if tag is not None:
            if tag.axis == in_axis and (name == "linear" or tag.block == 1):
                self._consume(tag, module)
            else:
                self._fix(tag, f"layer {module!r} reads them along another axis")
        self._tags[node] = _Tag((self._new(_shape(node)[out_axis], module),), out_axis)

    def _consume(self, tag: _Tag, module: str, cell: int = 0) -> None:
        offset = 0
        for index in tag.groups:
            group = self._groups[self._find(index)]
            group.consumers.append(Consumer(module, tag.block, False, cell, offset))
            offset += group.size * tag.block

    def _recurrent(self, node: Any, name: str) -> None:
        state = node.args[1] if isinstance(node.args[1], list | tuple) else [node.args[1]]
        weights = node.args[2] if isinstance(node.args[2], list | tuple) else node.args[3]
        module = self._module_of(weights[0]) if isinstance(weights, list | tuple) else None
        x = node.args[0]
        tag = self._tags.get(x)
        owner = None if module is None else self._model.get_submodule(module)
        self._fix_all([n for n in state if n in self._tags], "they are an RNN's initial state")
        zero_state = all(not isinstance(n, torch.fx.Node) or "zeros" in str(n.target) for n in state)
        if module is None or not isinstance(owner, nn.LSTM | nn.GRU):
            if tag is not None:
                self._fix(tag, f"the RNN {module or name!r} that reads them has no weights of its own")
            return
        self._calls[module] = self._calls.get(module, 0) + 1
        if tag is not None and (tag.axis != len(_shape(x)) - 1 or tag.block != 1):
            self._fix(tag, f"layer {module!r} reads them along another axis")
            tag = None
        directions = 2 if owner.bidirectional else 1
        groups: list[int] = []
        for cell in range(owner.num_layers * directions):
            group = self._new(owner.hidden_size, module)
            groups.append(group)
            self._groups[group].cells[module] = cell
            self._groups[group].consumers.append(Consumer(module, recurrent=True, cell=cell))
            first = (cell // directions - 1) * directions
            reads = tag if first < 0 else _Tag(tuple(groups[first : first + directions]), 0)
            if reads is not None:
                self._consume(reads, module, cell)
        self._cells[node] = _Cells(tuple(groups), tuple(groups[-directions:]), len(_shape(x)))
        if not zero_state:
            self._fix_all([node], "the RNN starts from a state given from outside")

    def _item(self, node: Any) -> None:
        source, index = node.args
        if source in self._cells:
            found = self._cells[source]
            if index == 0 or (index == 1 and len(found.groups) == 1):
                self._tags[node] = _Tag(found.last, found.rank - 1)
            elif index == 1 and found.rank == 3:
                self._states[node] = found.groups
            elif node.users:
                self._fix_all([source], "the cell state is read")
        elif source in self._tags:
            self._fix(self._tags[source], "an operator with several results reads them")

    def _norm(self, node: Any) -> None:
        tag, module = self._tags[node.args[0]], self._module_of(node.args[3]) or self._module_of(node.args[1])
        if module is None or tag.axis != 1 or tag.block != 1 or len(tag.groups) > 1:
            self._fix(tag, "a normalisation along another axis reads them")
            return
        self._calls[module] = self._calls.get(module, 0) + 1
        self._groups[self._find(tag.groups[0])].followers.append(module)
        self._tags[node] = tag

    def _binary(self, node: Any) -> None:
        operands = [a for a in node.args[:2] if isinstance(a, torch.fx.Node)]
        tags = [self._tags.get(a) for a in operands]
        known = [t for t in tags if t is not None]
        ranks = {len(_shape(a)) for a in operands}
        if len(operands) == 1:
            self._tags[node] = known[0]
        elif (
            len(known) == 2 and len(ranks) == 1 and known[0].axis == known[1].axis and known[0].block == known[1].block
        ):
            if len({self._sizes(t) for t in known}) == 1:
                for one, two in zip(known[0].groups, known[1].groups, strict=True):
                    self._join(one, two)
                self._tags[node] = known[0]
                return
            self._fix_all(operands, "a sum of different widths reads them")
        else:
            self._fix_all(operands, "they are combined with something that has no such units")

    def _joined(self, node: Any, tensors: list[Any]) -> None:
        """Several tensors one after the other along their unit axis."""
        parts = list(node.args[0])
        axis = int(node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) % len(_shape(node))
        tags = [self._tags.get(part) for part in parts]
        known = [t for t in tags if t is not None and t.axis == axis]
        groups = [self._find(g) for t in known for g in t.groups]
        if len(known) < len(parts) or len({t.block for t in known}) > 1 or len(set(groups)) < len(groups):
            self._fix_all(tensors, "they are concatenated with something that has no such units")
            return
        self._tags[node] = _Tag(tuple(groups), axis, known[0].block)

    def _cut(self, tag: _Tag, start: int, stop: int) -> tuple[int, ...] | None:
        """The groups between two positions of their axis; None if these don't lie between groups."""
        bounds = [0]
        for size in self._sizes(tag):
            bounds.append(bounds[-1] + size * tag.block)
        stop = min(stop, bounds[-1])
        if start not in bounds or stop not in bounds or start >= stop:
            return None
        return tag.groups[bounds.index(start) : bounds.index(stop)]

    def _sizes(self, tag: _Tag) -> tuple[int, ...]:
        return tuple(self._groups[self._find(g)].size for g in tag.groups)

    def _moved(self, node: Any, name: str, tag: _Tag) -> _Tag | None:
        """The tag after an operator that only moves, cuts or reduces other axes; None if unknown."""
        before, after = _shape(node.args[0]), _shape(node)
        axis, rank = tag.axis, len(before)
        args = node.args[1:]
        if name in _POOLING:
            return tag if axis == 1 else None
        if name in {"mean", "amax", "sum"}:
            dims = args[0] if args else node.kwargs.get("dim")
            dims = [dims] if isinstance(dims, int) else dims
            if not dims or axis in [d % rank for d in dims]:
                return None
            gone = 0 if len(after) == rank else sum(d % rank < axis for d in dims)
            return replace(tag, axis=axis - gone)
        if name in {"select", "slice", "index_select"}:
            dim = (args[0] if args else 0) % rank
            if dim == axis:
                start, stop, step = list(args[1:]) + [None, None, 1][len(args[1:]) :]
                groups = self._cut(tag, *slice(start, stop).indices(before[axis])[:2]) if name == "slice" else None
                return None if groups is None or step != 1 else replace(tag, groups=groups)
            return replace(tag, axis=axis - (name == "select" and dim < axis))
        if name in {"transpose", "swapaxes"}:
            one, two = args[0] % rank, args[1] % rank
            return replace(tag, axis={one: two, two: one}.get(axis, axis))
        if name == "permute":
            return replace(tag, axis=[d % rank for d in args[0]].index(axis))
        if name in {"unsqueeze", "squeeze", "view", "reshape", "flatten", "_unsafe_view"}:
            return _reshaped(tag, before, after, sum(self._sizes(tag)))
        if name in {"pad", "constant_pad_nd"}:
            return tag if len(args[0]) // 2 < rank - axis else None
        return None

    def _module_of(self, node: Any) -> str | None:
        name = self._owner.get(node.name) if isinstance(node, torch.fx.Node) else None
        if name is None:
            return None
        module = name.rpartition(".")[0]
        return module if isinstance(self._model.get_submodule(module), nn.Module) else None

    def _new(self, size: int, module: str) -> int:
        self._groups.append(Group(size, [module]))
        self._parent.append(len(self._groups) - 1)
        return len(self._groups) - 1

    def _find(self, index: int) -> int:
        while self._parent[index] != index:
            index = self._parent[index]
        return index

    def _join(self, one: int, two: int) -> None:
        a, b = self._find(one), self._find(two)
        if a == b:
            return
        kept, gone = self._groups[a], self._groups[b]
        kept.producers += gone.producers
        kept.followers += gone.followers
        kept.consumers += gone.consumers
        if set(kept.cells) & set(gone.cells):
            kept.reason = kept.reason or "two cells of one RNN are added up"
        kept.cells.update(gone.cells)
        kept.reason = kept.reason or gone.reason
        self._parent[b] = a

    def _fix(self, tag: _Tag, reason: str) -> None:
        for index in tag.groups:
            group = self._groups[self._find(index)]
            group.reason = group.reason or reason

    def _fix_all(self, nodes: Any, reason: str) -> None:
        for node in nodes:
            if node in self._tags:
                self._fix(self._tags[node], reason)
            if node in self._cells:
                self._fix(_Tag(self._cells[node].groups, 0), reason)
            if node in self._states:
                self._fix(_Tag(self._states[node], 0), reason)


def _shape(node: Any) -> tuple[int, ...]:
    value = node.meta["val"]
    return tuple(int(size) for size in value.shape)


def _reshaped(tag: _Tag, before: tuple[int, ...], after: tuple[int, ...], units: int) -> _Tag | None:
    """The unit axis after a reshape: axes before it may merge or split, those after it may join it or leave it again.

    A unit's elements lie one after the other, so any axis that starts where the units do and whose length is a
    multiple of their number holds each of them as a block.
    """
    lead = math.prod(before[: tag.axis])
    for axis, size in enumerate(after):
        if math.prod(after[:axis]) != lead:
            continue
        if size == before[tag.axis] and size != 1:
            return replace(tag, axis=axis)
        if size % units == 0 and units > 1:
            return replace(tag, axis=axis, block=size // units)
    return None
