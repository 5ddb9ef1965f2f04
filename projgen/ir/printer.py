"""Graphs as text: one line per port and node."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass

from projgen.ir.graph import Graph, Node, Port
from projgen.ir.types import TensorType


def print_graph(graph: Graph) -> str:
    """The whole graph, ports first and last, nodes in execution order, types aligned."""
    calls = [_call(graph, node) for node in graph.nodes]
    width = max((len(call) for call in calls), default=0)
    lines = [f"graph {graph.name} ({graph.stage.value})"]
    lines += [_port(graph, "input", port) for port in graph.inputs]
    lines += [f"  {call:<{width}} : {_tail(graph, node)}" for call, node in zip(calls, graph.nodes, strict=True)]
    lines += [_port(graph, "output", port) for port in graph.outputs]
    return "\n".join(lines) + "\n"


def print_node(graph: Graph, node: Node) -> str:
    """One node: ``y = op(x, w=name[shape], attribute=value) : type  # source``. Missing values are marked."""
    return f"{_call(graph, node)} : {_tail(graph, node)}"


def _port(graph: Graph, kind: str, port: Port) -> str:
    held = f" = {port.value}" if port.value != port.name else ""
    order = "" if port.perm == tuple(range(len(port.perm))) else f"  # axes {port.perm}"
    return f"  {kind} {port.name}{held} : {_type(graph, port.value)}{order}"


def _tail(graph: Graph, node: Node) -> str:
    source = f"  # {node.source}" if node.source and node.source != node.name else ""
    return f"{_type(graph, node.output)}{source}"


def _type(graph: Graph, name: str) -> str:
    value = graph.values.get(name)
    return "?" if value is None else str(value.type)


def _call(graph: Graph, node: Node) -> str:
    arguments = [_argument(graph, role, name) for role, name in node.inputs.items()]
    arguments += [f"{name}={_short(given)}" for name, given in _settings(node.attrs)]
    if node.numerics is not None:
        arguments += [f"{name}={_short(given)}" for name, given in _settings(node.numerics)]
    return f"{node.output} = {node.op}({', '.join(arguments)})"


def _argument(graph: Graph, role: str, name: str) -> str:
    value = graph.values.get(name)
    if value is None:
        return f"{role}={name}?"
    if value.data is None:
        return name
    return f"{role}={_shape(value.type)}"


def _shape(t: TensorType) -> str:
    dims = "x".join(str(d) for d in t.shape) or "scalar"
    return dims if t.dtype.value == "float32" else f"{t.dtype.value}[{dims}]"


def _settings(record: object) -> list[tuple[str, object]]:
    """The fields of a record that differ from their defaults."""
    if not is_dataclass(record):
        return []
    found = []
    for item in fields(record):
        value = getattr(record, item.name)
        if item.default is MISSING or value != item.default:
            found.append((item.name, value))
    return found


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if is_dataclass(value):
        inner = ", ".join(f"{name}={_short(given)}" for name, given in _settings(value))
        return f"{type(value).__name__}({inner})"
    return str(value).replace(" ", "")
