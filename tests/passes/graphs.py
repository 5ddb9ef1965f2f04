"""Hand-made float graphs for the tests of single passes."""

from __future__ import annotations

import numpy as np

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph, Node, Port, Stage, Value
from projgen.ir.interpreter import run_float
from projgen.ir.types import Dim, TensorType
from projgen.ops import get


class Maker:
    """Builds a graph node by node; arrays among a node's inputs become constants."""

    def __init__(self, **inputs: tuple[Dim, ...]) -> None:
        self.values = {name: Value(name, TensorType(shape)) for name, shape in inputs.items()}
        self.inputs = tuple(Port(name, name, tuple(range(len(shape)))) for name, shape in inputs.items())
        self.nodes: list[Node] = []
        self.rng = np.random.default_rng(7)

    def random(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape).astype(np.float32)

    def node(self, name: str, op: str, attrs: ir.Attrs, **inputs: str | np.ndarray) -> str:
        names = {}
        for role, given in inputs.items():
            names[role] = given if isinstance(given, str) else f"{name}.{role}"
            if not isinstance(given, str):
                data = np.asarray(given, np.float32)
                self.values[names[role]] = Value(names[role], TensorType(tuple(data.shape)), data)
        types = {role: self.values[value].type for role, value in names.items()}
        self.values[name] = Value(name, get(op).infer(attrs, types))
        self.nodes.append(Node(name, op, names, name, attrs, name))
        return name

    def conv(self, name: str, x: str, outputs: int, kernel: int = 3, **settings: object) -> str:
        attrs = ir.Conv2d(**settings)
        channels = self.values[x].type.shape[-1] // attrs.groups
        w = self.random(outputs, kernel, kernel, channels)
        return self.node(name, "conv2d", attrs, x=x, w=w, b=self.random(outputs))

    def linear(self, name: str, x: str, outputs: int) -> str:
        w = self.random(outputs, self.values[x].type.shape[-1])
        return self.node(name, "linear", ir.Linear(), x=x, w=w, b=self.random(outputs))

    def batch_norm(self, name: str, x: str) -> str:
        n = self.values[x].type.shape[-1]
        return self.node(
            name, "batch_norm", ir.BatchNorm(1e-5), x=x, mean=self.random(n), variance=self.random(n) ** 2 + 0.5,
            gamma=self.random(n), beta=self.random(n),
        )  # fmt: skip

    def relu(self, name: str, x: str) -> str:
        return self.node(name, "unary", ir.Unary("relu"), x=x)

    def reshape(self, name: str, x: str, *shape: int) -> str:
        return self.node(name, "reshape", ir.Reshape(shape), x=x)

    def transpose(self, name: str, x: str, *perm: int) -> str:
        return self.node(name, "transpose", ir.Transpose(perm), x=x)

    def drop(self, *names: str) -> None:
        self.nodes = [node for node in self.nodes if node.name not in names]

    def graph(self, *outputs: str) -> Graph:
        ports = tuple(Port(v, f"out_{v}", tuple(range(len(self.values[v].type.shape)))) for v in outputs)
        return Graph("test", Stage.FLOAT, self.inputs, ports, tuple(self.nodes), self.values).with_()


def outputs_in_user_order(graph: Graph, seed: int = 3, steps: int = 6) -> list[np.ndarray]:
    """The outputs for random inputs, both in the user's axis order, so that ports may differ."""
    rng = np.random.default_rng(seed)
    fed = []
    for port in graph.inputs:
        shape = [steps if d == "T" else d for d in graph.type(port.value).shape]
        user = [shape[port.perm.index(axis)] for axis in range(len(shape))]
        x = rng.normal(size=(2, *user))
        fed.append(x.transpose(0, *(axis + 1 for axis in port.perm)))
    return [
        y.transpose(0, *(1 + port.perm.index(axis) for axis in range(len(port.perm))))
        for y, port in zip(run_float(graph, fed), graph.outputs, strict=True)
    ]


def same_meaning(before: Graph, after: Graph) -> bool:
    """Whether two graphs compute the same outputs, up to float64 rounding of float32 weights."""
    pairs = zip(outputs_in_user_order(before), outputs_in_user_order(after), strict=True)
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in pairs)
