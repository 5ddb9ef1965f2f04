"""Local rewriting: rules look at one node and propose an edit; edits are applied until no rule has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from projgen.ir.attrs import Attrs
from projgen.ir.graph import Array, Graph, Node, Value
from projgen.ir.types import DType, TensorType
from projgen.ops import get

_EDITS_PER_NODE = 200


@dataclass(frozen=True, slots=True)
class Edit:
    """A change at one node: ``drop`` names nodes that go, ``nodes`` take the place of the matched node (or stand
    before it where it stays), ``values`` are new or replaced, ``redirect`` maps old values to those read instead.
    """

    drop: frozenset[str] = frozenset()
    nodes: tuple[Node, ...] = ()
    values: tuple[Value, ...] = ()
    redirect: Mapping[str, str] = field(default_factory=dict)


Rule = Callable[[Graph, Node], Edit | None]


def exhaust(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """Apply the rules until none proposes an edit."""
    budget = _EDITS_PER_NODE * (len(graph.nodes) + 1)
    while (found := _first(graph, rules)) is not None:
        graph = apply(graph, *found)
        budget -= 1
        if budget < 0:
            raise RuntimeError(f"the rules {[rule.__name__ for rule in rules]} undo each other")
    return graph


def _first(graph: Graph, rules: Sequence[Rule]) -> tuple[Node, Edit] | None:
    for node in graph.nodes:
        for rule in rules:
            if (edit := rule(graph, node)) is not None:
                return node, edit
    return None


def apply(graph: Graph, at: Node, edit: Edit) -> Graph:
    """The graph with the edit made at a node."""

    def renamed(node: Node) -> Node:
        if not any(v in edit.redirect for v in node.inputs.values()):
            return node
        return replace(node, inputs={role: edit.redirect.get(v, v) for role, v in node.inputs.items()})

    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name == at.name:
            nodes.extend(edit.nodes)
        if node.name not in edit.drop:
            nodes.append(renamed(node))
    outputs = tuple(replace(port, value=edit.redirect.get(port.value, port.value)) for port in graph.outputs)
    return graph.with_(nodes=nodes, values=edit.values, outputs=outputs)


def swap(node: Node, made: Sequence[tuple[Node, Value]], *, constants: Sequence[Value] = ()) -> Edit:
    """The edit that puts a chain of new nodes in a node's place; the last one's output is read instead."""
    nodes = tuple(n for n, _ in made)
    values = (*constants, *(v for _, v in made))
    return Edit(frozenset({node.name}), nodes, values, {node.output: nodes[-1].output})


def make(name: str, op: str, attrs: Attrs, inputs: Mapping[str, Value], source: str) -> tuple[Node, Value]:
    """A node whose output has its own name, typed by the operator's shape rule."""
    out = get(op).infer(attrs, {role: value.type for role, value in inputs.items()})
    return Node(name, op, {role: v.name for role, v in inputs.items()}, name, attrs, source), Value(name, out)


def constant(name: str, data: Array) -> Value:
    """A float32 constant."""
    array = np.ascontiguousarray(data, np.float32)
    return Value(name, TensorType(tuple(array.shape), DType.FLOAT32), array)


def fresh(graph: Graph, base: str) -> str:
    """A name that no node or value has."""
    taken = {node.name for node in graph.nodes} | set(graph.values)
    candidate, number = base, 1
    while candidate in taken:
        candidate, number = f"{base}_{number}", number + 1
    return candidate


def sole_reader(graph: Graph, value: str) -> Node | None:
    """The only reader of a value that is no output of the graph."""
    readers = graph.readers(value)
    return readers[0] if len(readers) == 1 and not graph.is_output(value) else None


def with_constants(graph: Graph, node: Node, changed: Mapping[str, Array]) -> tuple[Node, tuple[Value, ...]]:
    """A node that reads other data in some roles. A constant that other nodes read too is left to them."""
    inputs = dict(node.inputs)
    values = []
    for role, data in changed.items():
        inputs[role] = constant_name(graph, node, role)
        values.append(constant(inputs[role], data))
    return replace(node, inputs=inputs), tuple(values)


def constant_name(graph: Graph, node: Node, role: str) -> str:
    """The name for new data in a role: that of the old constant, unless somebody else reads it too."""
    old = node.inputs[role]
    shared = len(graph.readers(old)) > 1 or list(node.inputs.values()).count(old) > 1
    return fresh(graph, f"{node.name}.{role}") if shared else old
