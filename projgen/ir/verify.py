"""What is a legal graph, per stage. A violation is a fault of projgen, never the user's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from projgen.errors import ProjgenError
from projgen.ir.graph import Graph, Node, Port, Stage
from projgen.ir.printer import print_node
from projgen.ir.types import TIME, DType, TensorType
from projgen.ops import registry


class VerifyError(Exception):
    """A graph breaks a rule of its stage: names the pass that made it, the node and the node's neighbours."""

    def __init__(self, rule: str, *, after: str = "", node: str = "", neighbourhood: str = "") -> None:
        self.rule = rule
        self.after = after
        self.node = node
        self.neighbourhood = neighbourhood
        text = f"after pass {after!r}: " if after else ""
        text += f"node {node!r}: {rule}" if node else rule
        super().__init__(text + (f"\n{neighbourhood}" if neighbourhood else ""))


Fault = tuple[str, Node | None]


def verify(graph: Graph, *, after: str = "") -> None:
    """Check every rule of the graph's stage.

    Args:
        graph: at any stage.
        after: the pass that made it, for the message.
    Raises:
        VerifyError: the first violation.
    """
    for rule in (_structure, _ports, _constants, _types, _STAGES[graph.stage]):
        for text, node in rule(graph):
            raise VerifyError(
                text,
                after=after,
                node=node.name if node else "",
                neighbourhood=neighbourhood(graph, node) if node else "",
            )


def neighbourhood(graph: Graph, node: Node) -> str:
    """The node between the producers of its inputs and the readers of its output, one line each."""
    before = [n for n in graph.nodes if n.output in node.inputs.values() and n is not node]
    after = [n for n in graph.readers(node.output) if n is not node]
    marked = [("  ", n) for n in before] + [("> ", node)] + [("  ", n) for n in after]
    return "\n".join(mark + print_node(graph, n) for mark, n in marked)


def _structure(graph: Graph) -> Iterator[Fault]:
    """Names are unique and every input is defined before it is used (hence no cycles)."""
    for name, value in graph.values.items():
        if value.name != name:
            yield f"value {value.name!r} is filed under {name!r}", None
    names = Counter(node.name for node in graph.nodes)
    defined = {port.value for port in graph.inputs}
    defined.update(name for name, value in graph.values.items() if value.is_constant)
    operators = registry()
    for node in graph.nodes:
        if names[node.name] > 1:
            yield "its name is used twice", node
        if node.op not in operators:
            yield f"unknown operator {node.op!r}", node
        elif not isinstance(node.attrs, operators[node.op].attrs):
            yield f"attributes {type(node.attrs).__name__} do not belong to operator {node.op!r}", node
        for role, name in node.inputs.items():
            if name not in graph.values:
                yield f"its input {role!r} reads {name!r}, which does not exist", node
            if name not in defined:
                yield f"its input {role!r} reads {name!r} before it is defined", node
        if node.output not in graph.values:
            yield f"its output {node.output!r} has no value record", node
        if node.output in defined:
            yield f"its output {node.output!r} is defined twice", node
        defined.add(node.output)
    for name in graph.values:
        if name not in defined:
            yield f"value {name!r} has no producer", None


def _ports(graph: Graph) -> Iterator[Fault]:
    for kind, ports in (("input", graph.inputs), ("output", graph.outputs)):
        if not ports:
            yield f"the graph has no {kind}", None
        if len({port.name for port in ports}) != len(ports):
            yield f"two {kind}s have one name", None
        for port in ports:
            yield from _port(graph, kind, port)
    if len({port.value for port in graph.inputs}) != len(graph.inputs):
        yield "two inputs share one value", None


def _port(graph: Graph, kind: str, port: Port) -> Iterator[Fault]:
    if port.value not in graph.values:
        yield f"{kind} {port.name!r} names the missing value {port.value!r}", None
        return
    value = graph.values[port.value]
    if value.is_constant:
        yield f"{kind} {port.name!r} is a constant", None
    if sorted(port.perm) != list(range(len(value.type.shape))):
        yield f"{kind} {port.name!r}: {port.perm} is no permutation of the axes of {value.type}", None


def _constants(graph: Graph) -> Iterator[Fault]:
    for name, value in graph.values.items():
        reader = next(iter(graph.readers(name)), None)
        if value.data is not None:
            if tuple(value.data.shape) != value.type.shape:
                yield f"constant {name!r} has shape {value.data.shape}, its type is {value.type}", reader
            if value.data.dtype.name != value.type.dtype.value:
                yield f"constant {name!r} holds {value.data.dtype}, its type is {value.type}", reader
            if value.data.dtype.kind == "f" and not np.isfinite(value.data).all():
                yield f"constant {name!r} holds NaN or infinity", reader
        yield from ((text, graph.producer(name) or reader) for text in _axes(name, value.type))


def _axes(name: str, t: TensorType) -> Iterator[str]:
    if TIME in t.shape[1:]:
        yield f"value {name!r} of type {t} has its time axis elsewhere than in front"
    if any(isinstance(d, int) and d < 1 for d in t.shape):
        yield f"value {name!r} of type {t} is empty"


def _types(graph: Graph) -> Iterator[Fault]:
    """Each output's type is what the operator's shape rule makes of the inputs' types."""
    operators = registry()
    for node in graph.nodes:
        types = {role: graph.type(name) for role, name in node.inputs.items()}
        try:
            inferred = operators[node.op].infer(node.attrs, types)
        except ProjgenError as error:
            yield f"its operator refuses the inputs: {error}", node
            continue
        found = graph.type(node.output)
        same = inferred == found if graph.stage is Stage.FLOAT else inferred.shape == found.shape
        if not same:
            yield f"its output is {found}, its operator gives {inferred}", node


def _float(graph: Graph) -> Iterator[Fault]:
    for node in graph.nodes:
        if node.numerics is not None:
            yield "it has numerics in the float stage", node
        for role, name in (*node.inputs.items(), ("output", node.output)):
            t = graph.type(name)
            if t.dtype is not DType.FLOAT32 or t.quant is not None:
                yield f"its {role} {name!r} is {t} in the float stage", node


def _quantised(graph: Graph) -> Iterator[Fault]:
    """Integers everywhere, every activation with its affine map, multipliers multiples of 4."""
    operators = registry()
    for node in graph.nodes:
        if operators[node.op].integer is None:
            yield f"operator {node.op!r} has no integer meaning", node
        for role, value in ((role, graph.arg(node, role)) for role in node.inputs):
            if value.type.dtype is DType.FLOAT32:
                yield f"its input {role!r} is {value.type} in the quantised stage", node
            if role.split("_")[0] == "m" and value.data is not None:
                if value.type.dtype is not DType.INT32:
                    yield f"its multipliers {role!r} are {value.type}, not int32", node
                if np.any(value.data.astype(np.int64) % 4):
                    yield f"its multipliers {role!r} are no multiples of 4", node
        for field in ("multiplier", "multipliers"):
            given = getattr(node.numerics, field, 0)
            if any(m % 4 for m in (given if isinstance(given, tuple) else (given,))):
                yield f"its {field} {given} is no multiple of 4", node
    for name, value in graph.values.items():
        if not value.is_constant:
            if value.type.dtype not in {DType.INT8, DType.INT16}:
                yield f"activation {name!r} is {value.type}, neither int8 nor int16", graph.producer(name)
            if value.type.quant is None:
                yield f"activation {name!r} has no scale", graph.producer(name)
            elif not _usable(value.type):
                yield f"activation {name!r} has an unusable scale or zero point: {value.type}", graph.producer(name)


def _usable(t: TensorType) -> bool:
    quant = t.quant
    if quant is None:
        return False
    return 0.0 < quant.scale < float("inf") and t.dtype.low <= quant.zero_point <= t.dtype.high


_STAGES: dict[Stage, Callable[[Graph], Iterator[Fault]]] = {Stage.FLOAT: _float, Stage.QUANTISED: _quantised}
