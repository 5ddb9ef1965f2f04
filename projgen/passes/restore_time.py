"""Give a recurrent model back the time axis that its recording froze.

An RNN's time axis that comes from the model's inputs through operators that work step by step becomes the symbol
``TIME`` at those inputs, and every type is inferred anew. Where anything depends on the number of steps (a
convolution along time, a flattened sequence, a maximum over time, inputs of several lengths), or where one pass
over the steps is not enough (a reversed RNN, steps that read what only the last step yields, outputs with and
without time), the whole graph keeps its static shape. A mean over the steps becomes MeanTime.
"""

from __future__ import annotations

from dataclasses import replace

from projgen.errors import InputError
from projgen.ir import attrs as ir
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.types import TIME, TensorType
from projgen.ops import get
from projgen.passes.record import Condition, Pass
from projgen.passes.remove_dead import NO_DEAD_NODES

_RECURRENT = frozenset({"lstm", "gru"})
_STEPWISE = frozenset({"linear", "unary", "add", "mul", "batch_norm", "softmax", "layer_norm", *_RECURRENT})


def run(graph: Graph) -> Graph:
    return _settle_last(_with_time(graph) or graph)


def _with_time(graph: Graph) -> Graph | None:
    """The graph over sequences of any length, or None where it depends on the length."""
    sources = set().union(*(_time_sources(graph, node) for node in graph.nodes if node.op in _RECURRENT))
    if not sources or len({graph.type(name).shape[0] for name in sources}) != 1:
        return None
    values = dict(graph.values)
    for name in sources:
        t = graph.type(name)
        values[name] = replace(values[name], type=t.with_shape((TIME, *t.shape[1:])))
    nodes: list[Node] = []
    for node in graph.nodes:
        types = {role: values[name].type for role, name in node.inputs.items()}
        if _is_mean_view(graph, node) and types["x"].has_time:
            continue
        for made in _mean_over_time(graph, node, values) or [node]:
            inferred = _infer(made, values)
            if inferred is None:
                return None
            nodes.append(made)
            values[made.output] = Value(made.output, inferred)
    timed = graph.with_(nodes=nodes, values=values.values())
    return timed if _is_one_pass(timed) else None


def _is_one_pass(graph: Graph) -> bool:
    """Whether a graph can run step by step: one direction, nothing late read early, outputs of one kind."""
    late: set[str] = set()
    for node in graph.nodes:
        if isinstance(node.attrs, ir.Lstm | ir.Gru) and node.attrs.reverse:
            return False
        read = [value for _, value in graph.activations(node)]
        stepped = graph.type(node.output).has_time
        if stepped and any(value.name in late for value in read):
            return False
        if not stepped and any(value.type.has_time or value.name in late for value in read):
            late.add(node.output)
    return len({graph.type(port.value).has_time for port in graph.outputs}) == 1


def _infer(node: Node, values: dict[str, Value]) -> TensorType | None:
    try:
        return get(node.op).infer(node.attrs, {role: values[name].type for role, name in node.inputs.items()})
    except InputError:
        return None


def _time_sources(graph: Graph, rnn: Node) -> set[str]:
    """The inputs from which an RNN's steps come; empty if they come from elsewhere too."""
    found: set[str] = set()
    pending, seen = [rnn.inputs["x"]], set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.producer(name)
        if node is None:
            found.add(name)
        elif _is_stepwise(node):
            pending += [value.name for _, value in graph.activations(node)]
        else:
            return set()
    return found


def _is_stepwise(node: Node) -> bool:
    """Whether a node's output at a step depends on its input at that step (and earlier ones) alone."""
    match node.attrs:
        case ir.Concat(axis) | ir.Slice(axis) | ir.Select(axis):
            return axis != 0
        case ir.Transpose(perm):
            return perm[0] == 0
        case ir.Pad(amounts):
            return amounts[0] == (0, 0)
        case _:
            return node.op in _STEPWISE


def _is_mean_view(graph: Graph, node: Node) -> bool:
    """A Reshape (T, F) -> (1, T, F) that only averages over T read."""
    if node.op != "reshape" or graph.is_output(node.output):
        return False
    steps = graph.type(node.inputs["x"]).shape
    if len(steps) != 2 or graph.type(node.output).shape != (1, *steps):
        return False
    return all(
        isinstance(reader.attrs, ir.AvgPool2d)
        and reader.attrs.kernel == (1, steps[0])
        and not any(reader.attrs.padding)
        for reader in graph.readers(node.output)
    )


def _mean_over_time(graph: Graph, node: Node, values: dict[str, Value]) -> list[Node] | None:
    """MeanTime and a Reshape in the place of an average over a time axis."""
    view = graph.producer(node.inputs["x"]) if isinstance(node.attrs, ir.AvgPool2d) else None
    if view is None or not _is_mean_view(graph, view) or not values[view.inputs["x"]].type.has_time:
        return None
    mean = f"{node.name}.steps"
    (features,) = values[view.inputs["x"]].type.step_shape
    return [
        Node(mean, "mean_time", {"x": view.inputs["x"]}, mean, ir.MeanTime(), node.source),
        replace(node, op="reshape", attrs=ir.Reshape((1, 1, features)), inputs={"x": mean}),
    ]


def _settle_last(graph: Graph) -> Graph:
    """Write the last index of a static axis as the number it is."""
    return graph.with_(nodes=(_settled(graph, node) for node in graph.nodes))


def _settled(graph: Graph, node: Node) -> Node:
    if not isinstance(node.attrs, ir.Select) or node.attrs.index >= 0:
        return node
    size = graph.type(node.inputs["x"]).shape[node.attrs.axis]
    return node if size == TIME else replace(node, attrs=replace(node.attrs, index=size - 1))


SETTLED_INDICES = Condition(
    "indices of static axes count from the front",
    lambda graph: next((n for n in graph.nodes if _settled(graph, n) is not n), None),
)
PASS = Pass("restore_time", run, requires=(NO_DEAD_NODES,), ensures=(SETTLED_INDICES,))
