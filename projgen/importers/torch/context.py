"""What the handlers of aten operators share: layout tracking, node emission, access to a call's arguments.

Every torch activation is followed as ``Tracked``: the IR value that holds it, which torch axis is the batch, and
which torch axis each IR axis holds. A permutation in torch only changes that record; a Transpose is emitted where
an operator needs another order than the one at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from projgen.errors import InputError, UnsupportedError
from projgen.ir import attrs as ir
from projgen.ir.graph import Array, Graph, Node, Port, Stage, Value
from projgen.ir.types import DType, TensorType, static
from projgen.ops import get


@dataclass(frozen=True, slots=True)
class Tracked:
    """A torch activation. IR axis i holds torch axis ``order[i]``; torch axis ``batch`` is stripped."""

    value: str
    order: tuple[int, ...]
    batch: int = 0

    @property
    def rank(self) -> int:
        """Number of axes in torch, the batch included."""
        return len(self.order) + 1

    @property
    def plain(self) -> tuple[int, ...]:
        """The order in which the IR's axes are torch's, without the batch."""
        return tuple(a for a in range(self.rank) if a != self.batch)


@dataclass(frozen=True, slots=True)
class Stack:
    """Activations stacked along a new torch axis 0 that has not been built: the layers of an RNN's h_n."""

    items: tuple[Callable[[], Tracked], ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A result that projgen does not compute; using it is an error with this text."""

    what: str
    allowed: str


RESHAPES = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "view_copy")

Operand = Any  # Tracked | Stack | Refused | torch.Tensor | tuple[Operand, ...] | int | float | bool | str | None
Handler = Callable[["Importer", "Call"], Operand]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of an aten operator, its arguments bound to the schema's names.

    Attributes:
        node: the torch.fx node. op: the operator without overload ("conv2d"). args: values by argument name.
        source: path of the module that made the call ("" for the model itself). base: name for the IR nodes.
        shape: torch shape of the (first) result. overload: such as "dim" of ``mean.dim``.
    """

    node: torch.fx.Node
    op: str
    overload: str
    args: Mapping[str, Operand]
    source: str
    base: str
    shape: tuple[int, ...]

    @property
    def where(self) -> str:
        module = f"module {self.source!r}" if self.source else "the model's forward"
        return f"{module} (operator aten.{self.op}, node {self.node.name!r})"

    def refused(self, what: str, allowed: str = "") -> UnsupportedError:
        """The error for a call that can't be compiled, to be raised."""
        return UnsupportedError(f"aten.{self.op} (node {self.node.name!r}): {what}", allowed, self.where)

    def activation(self, name: str) -> Tracked:
        """An argument that depends on the model's inputs."""
        value = self.args[name]
        if isinstance(value, Refused):
            raise self.refused(value.what, value.allowed)
        if isinstance(value, Tracked):
            return value
        raise self.refused(f"its argument {name!r} is a constant", "an activation there")

    def is_activation(self, name: str) -> bool:
        return isinstance(self.args.get(name), Tracked | Refused)

    def constant(self, name: str) -> Array:
        """A constant argument as float32."""
        value = self.args[name]
        if isinstance(value, torch.Tensor | int | float):
            return as_array(value)
        raise self.refused(f"its argument {name!r} depends on the model's inputs", "a parameter or constant there")

    def optional(self, name: str) -> Array | None:
        return None if self.args.get(name) is None else self.constant(name)

    def pair(self, name: str, count: int = 2) -> tuple[int, ...]:
        """A list of integers, one entry repeated to ``count``; empty means absent."""
        value = self.args.get(name)
        numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not all(isinstance(n, int) for n in numbers):
            raise self.refused(f"its argument {name!r} is {value!r}", "integers")
        return numbers * count if len(numbers) == 1 else numbers

    def axis(self, name: str, rank: int) -> int:
        """A torch axis as a non-negative number."""
        return int(self.args[name]) % rank


def as_array(value: torch.Tensor | float) -> Array:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().to(torch.float32).contiguous().numpy().copy()
    return np.asarray(value, np.float32)


class Importer:
    """Collects the nodes and values of one graph while its torch.fx nodes are visited."""

    def __init__(self, name: str, batch: int) -> None:
        self.name = name
        self.batch = batch
        self.env: dict[torch.fx.Node, Operand] = {}
        self._nodes: list[Node] = []
        self._values: dict[str, Value] = {}
        self._taken: set[str] = set()
        self._transposed: dict[tuple[str, tuple[int, ...]], str] = {}
        self._inputs: list[Port] = []
        self._outputs: list[Port] = []

    def unique(self, name: str) -> str:
        """The name, or the name with a number: no two names are the same C identifier."""
        candidate, number = name, 1
        while (key := re.sub(r"\W", "_", candidate)) in self._taken:
            candidate, number = f"{name}_{number}", number + 1
        self._taken.add(key)
        return candidate

    def add_input(self, name: str, shape: Sequence[int]) -> Tracked:
        value = self.unique(name)
        rank = len(shape)
        self._values[value] = Value(value, TensorType(tuple(shape[1:])))
        self._inputs.append(Port(value, name, tuple(range(rank - 1))))
        return Tracked(value, tuple(range(1, rank)))

    def add_output(self, name: str, t: Tracked) -> None:
        self._outputs.append(Port(t.value, name, tuple(axis - 1 for axis in t.order)))

    def is_input(self, value: str) -> bool:
        return any(port.value == value for port in self._inputs)

    def graph(self) -> Graph:
        """The float-stage graph of everything emitted."""
        return Graph(
            self.name, Stage.FLOAT, tuple(self._inputs), tuple(self._outputs), tuple(self._nodes), self._values
        )

    def type(self, t: Tracked | str) -> TensorType:
        return self._values[t.value if isinstance(t, Tracked) else t].type

    def shape(self, t: Tracked | str) -> tuple[int, ...]:
        """The IR's shape; static during the import."""
        return static(self.type(t).shape)

    def torch_shape(self, t: Tracked) -> tuple[int, ...]:
        sizes = dict(zip(t.order, self.shape(t), strict=True))
        return tuple(self.batch if axis == t.batch else sizes[axis] for axis in range(t.rank))

    def emit(self, call: Call, op: str, attrs: ir.Attrs, inputs: Mapping[str, str | Array], base: str = "") -> str:
        """Append a node; arrays among the inputs become constants. Returns the name of its output value."""
        name = self.unique(base or call.base)
        names: dict[str, str] = {}
        for role, given in inputs.items():
            if isinstance(given, str):
                names[role] = given
                continue
            data = np.ascontiguousarray(given, np.float32)
            if not np.isfinite(data).all():
                raise InputError(
                    f"constant {role!r} of node {name!r} holds NaN or infinity", "finite numbers", call.where
                )
            constant = self.unique(f"{name}.{role}")
            self._values[constant] = Value(constant, TensorType(tuple(data.shape), DType.FLOAT32), data)
            names[role] = constant
        types = {role: self._values[value].type for role, value in names.items()}
        self._values[name] = Value(name, get(op).infer(attrs, types))
        self._nodes.append(Node(name, op, names, name, attrs, call.source))
        return name

    def reshape(self, call: Call, value: str, shape: Sequence[int]) -> str:
        """The value under another shape; nothing is emitted when it has that shape."""
        if self.shape(value) == tuple(shape):
            return value
        base = call.base if call.op in RESHAPES else f"{call.base}.view"
        return self.emit(call, "reshape", ir.Reshape(tuple(shape)), {"x": value}, base)

    def ordered(self, call: Call, t: Tracked, order: Sequence[int]) -> Tracked:
        """The activation with its IR axes in this order of torch axes."""
        wanted = tuple(order)
        if wanted == t.order:
            return t
        perm = tuple(t.order.index(axis) for axis in wanted)
        key = (t.value, perm)
        if key not in self._transposed:
            self._transposed[key] = self.emit(
                call, "transpose", ir.Transpose(perm), {"x": t.value}, f"{call.base}.transpose"
            )
        return Tracked(self._transposed[key], wanted, t.batch)

    def batch_first(self, call: Call, t: Tracked) -> None:
        """Refuse an activation whose batch is not torch axis 0."""
        if t.batch != 0:
            raise call.refused(f"the batch is axis {t.batch} of its input", "the batch as axis 0")

    def features_last(self, call: Call, t: Tracked) -> Tracked:
        """The activation with torch's last axis as the IR's last one, the others in the order they have."""
        last = t.rank - 1
        if t.batch == last:
            raise call.refused("it works along the batch axis", "another axis")
        return self.ordered(call, t, (*(axis for axis in t.order if axis != last), last))

    def materialise(self, call: Call, value: Operand) -> Operand:
        """Build what was left unbuilt: a Stack becomes one activation (n, batch, ...)."""
        if not isinstance(value, Stack):
            return value
        items = [item() for item in value.items]
        rank = items[0].rank + 1
        rows = [self.ordered(call, item, item.plain) for item in items]
        parts = [self.reshape(call, row.value, (1, *self.shape(row))) for row in rows]
        whole = parts[0]
        if len(parts) > 1:
            inputs = {f"x{i}": part for i, part in enumerate(parts)}
            whole = self.emit(call, "concat", ir.Concat(0), inputs, f"{call.base}.stack")
        batch = items[0].batch + 1
        return Tracked(whole, tuple(axis for axis in range(rank) if axis != batch), batch)
