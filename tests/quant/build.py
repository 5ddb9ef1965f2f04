"""Small float graphs for the quantisation tests."""

from __future__ import annotations

import numpy as np

from projgen.ir.attrs import Attrs
from projgen.ir.graph import Array, Graph, Node, Port, Stage, Value
from projgen.ir.types import Dim, TensorType
from projgen.ops import get


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


class Builder:
    """Adds nodes one after another; types follow from the shape rules."""

    def __init__(self, **inputs: tuple[Dim, ...]) -> None:
        self.values = {name: Value(name, TensorType(shape)) for name, shape in inputs.items()}
        self.ports = tuple(Port(name, name, tuple(range(len(shape)))) for name, shape in inputs.items())
        self.nodes: list[Node] = []

    def add(self, op: str, output: str, attrs: Attrs, **roles: str | Array) -> str:
        names = {}
        for role, given in roles.items():
            names[role] = given if isinstance(given, str) else f"{output}.{role}"
            if not isinstance(given, str):
                self.values[names[role]] = Value(names[role], TensorType(given.shape), given)
        types = {role: self.values[name].type for role, name in names.items()}
        self.values[output] = Value(output, get(op).infer(attrs, types))
        self.nodes.append(Node(f"n_{output}", op, names, output, attrs, source=f"net.{output}"))
        return output

    def graph(self, *outputs: str, inputs: tuple[Port, ...] | None = None) -> Graph:
        ports = tuple(Port(name, name, tuple(range(len(self.values[name].type.shape)))) for name in outputs)
        return Graph("net", Stage.FLOAT, inputs or self.ports, ports, tuple(self.nodes), self.values)
