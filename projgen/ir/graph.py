"""The graph: frozen records, values by name, nodes in execution order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from projgen.ir.attrs import Attrs
from projgen.ir.numerics import Numerics
from projgen.ir.types import TensorType

Array = npt.NDArray[Any]


class Stage(StrEnum):
    """How far a graph has come; each has its own rules (``projgen.ir.verify``)."""

    FLOAT = "float"
    QUANTISED = "quantised"


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One tensor: an activation, or a constant when ``data`` is given."""

    name: str
    type: TensorType
    data: Array | None = None

    @property
    def is_constant(self) -> bool:
        return self.data is not None


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. ``inputs`` maps the operator's roles ("x", "w", ...) to value names, in the operator's order.

    ``source`` is the layer of the user's model it came from; ``numerics`` is set in the quantised stage by the
    operators that compute.
    """

    name: str
    op: str
    inputs: Mapping[str, str]
    output: str
    attrs: Attrs
    source: str = ""
    numerics: Numerics | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", MappingProxyType(dict(self.inputs)))

    def __reduce__(self) -> tuple[object, ...]:
        fields = (self.name, self.op, dict(self.inputs), self.output, self.attrs, self.source, self.numerics)
        return (Node, fields)


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the model: its name there, and the axes.

    ``perm`` takes the user's axes (PyTorch's order, without batch) to the IR's: ir = user.transpose(perm).
    """

    value: str
    name: str
    perm: tuple[int, ...]

    def to_ir(self, x: Array) -> Array:
        """A batch in the user's axes as the IR has it; a view. ``x`` has one axis more than ``perm``."""
        return x.transpose(0, *(p + 1 for p in self.perm))

    def to_user(self, x: Array) -> Array:
        """A batch in the IR's axes as the user has it; a view."""
        inverse = sorted(range(len(self.perm)), key=self.perm.__getitem__)
        return x.transpose(0, *(p + 1 for p in inverse))


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A model at one stage. ``nodes`` are in execution order; ``values`` holds every value by name."""

    name: str
    stage: Stage
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    values: Mapping[str, Value] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def type(self, name: str) -> TensorType:
        return self.values[name].type

    def constant(self, name: str) -> Array:
        data = self.values[name].data
        if data is None:
            raise KeyError(f"value {name!r} is no constant")
        return data

    def arg(self, node: Node, role: str) -> Value:
        """The value that plays ``role`` for ``node``."""
        return self.values[node.inputs[role]]

    def data(self, node: Node, role: str) -> Array:
        """The constant that plays ``role`` for ``node``."""
        return self.constant(node.inputs[role])

    def producer(self, name: str) -> Node | None:
        return next((n for n in self.nodes if n.output == name), None)

    def readers(self, name: str) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if name in n.inputs.values())

    def is_output(self, name: str) -> bool:
        return any(p.value == name for p in self.outputs)

    def is_input(self, name: str) -> bool:
        return any(p.value == name for p in self.inputs)

    @property
    def has_time(self) -> bool:
        """Whether the model runs over a sequence of any length."""
        return any(self.type(p.value).has_time for p in self.inputs)

    def activations(self, node: Node) -> Iterator[tuple[str, Value]]:
        """(role, value) of the inputs that are no constants."""
        return ((r, self.values[v]) for r, v in node.inputs.items() if not self.values[v].is_constant)

    def with_(
        self,
        *,
        nodes: Iterable[Node] | None = None,
        values: Iterable[Value] = (),
        inputs: tuple[Port, ...] | None = None,
        outputs: tuple[Port, ...] | None = None,
        stage: Stage | None = None,
    ) -> Graph:
        """A copy with other nodes, with ``values`` added or replaced, and without the values nobody names."""
        new_nodes = self.nodes if nodes is None else tuple(nodes)
        new_inputs = self.inputs if inputs is None else inputs
        new_outputs = self.outputs if outputs is None else outputs
        merged = {**self.values, **{v.name: v for v in values}}
        used = {p.value for p in (*new_inputs, *new_outputs)}
        for node in new_nodes:
            used.update(node.inputs.values())
            used.add(node.output)
        kept = {k: v for k, v in merged.items() if k in used}
        return replace(
            self,
            nodes=new_nodes,
            values=kept,
            inputs=new_inputs,
            outputs=new_outputs,
            stage=self.stage if stage is None else stage,
        )
