"""The meaning of a graph, executed: the float stage in floats, the quantised stage in exact integers.

Arrays are batch first, (N, ...) or (N, T, ...), in the IR's layout; a symbolic time axis is as long as the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from projgen import ops
from projgen.errors import InputError
from projgen.ir.graph import Array, Graph, Node, Port, Stage
from projgen.ir.types import TIME, TensorType

Step = Callable[[Node, Mapping[str, Array]], Array]
Trace = Iterator[tuple[Node, Mapping[str, Array], Array]]


def run_float(graph: Graph, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs of a float-stage graph, computed in the inputs' type (float32 or float64)."""
    return _outputs(graph, inputs, trace_float(graph, inputs))


def run_integer(graph: Graph, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Outputs of a quantised graph, in the outputs' integer types: the bit-exact meaning of the model."""
    return _outputs(graph, inputs, trace_integer(graph, inputs))


def trace_float(graph: Graph, inputs: Sequence[Array]) -> Trace:
    """(node, its arguments, its output) in execution order; only what is still needed is kept."""
    _require_stage(graph, Stage.FLOAT)
    checked = [_float_input(p, x) for p, x in _paired(graph, inputs)]
    dtype = np.result_type(*checked)

    def step(node: Node, args: Mapping[str, Array]) -> Array:
        wide = {
            role: a.astype(dtype, copy=False) if graph.arg(node, role).is_constant else a for role, a in args.items()
        }
        return ops.get(node.op).reference(node.attrs, wide)

    return _trace(graph, checked, step)


def trace_integer(graph: Graph, inputs: Sequence[Array]) -> Trace:
    """(node, its arguments, its output) in execution order, each in its value's integer type."""
    _require_stage(graph, Stage.QUANTISED)
    checked = [_integer_input(graph, p, x) for p, x in _paired(graph, inputs)]

    def step(node: Node, args: Mapping[str, Array]) -> Array:
        integer = ops.get(node.op).integer
        if integer is None:
            raise ValueError(f"operator {node.op!r} of node {node.name!r} has no integer meaning")
        return _narrow(node, integer(node, args), graph.type(node.output))

    return _trace(graph, checked, step)


def _outputs(graph: Graph, inputs: Sequence[Array], trace: Trace) -> tuple[Array, ...]:
    wanted = {p.value for p in graph.outputs}
    found = {p.value: np.asarray(x) for p, x in zip(graph.inputs, inputs, strict=False) if p.value in wanted}
    found.update((node.output, y) for node, _, y in trace if node.output in wanted)
    return tuple(found[p.value] for p in graph.outputs)


def _trace(graph: Graph, inputs: Sequence[Array], step: Step) -> Trace:
    live = {p.value: x for p, x in zip(graph.inputs, inputs, strict=True)}
    last_reader = {value: i for i, node in enumerate(graph.nodes) for value in node.inputs.values()}
    for i, node in enumerate(graph.nodes):
        args: dict[str, Array] = {}
        for role, name in node.inputs.items():
            data = graph.values[name].data
            args[role] = live[name] if data is None else data
        y = step(node, args)
        yield node, args, y
        for name in node.inputs.values():
            if last_reader[name] == i:
                live.pop(name, None)
        if node.output in last_reader:
            live[node.output] = y


def _narrow(node: Node, y: Array, t: TensorType) -> Array:
    """The output in its own integer type, in which it must fit."""
    if y.size and (int(y.min()) < t.dtype.low or int(y.max()) > t.dtype.high):
        raise ValueError(f"node {node.name!r}: integers {y.min()}..{y.max()} leave {t.dtype.value}")
    return y.astype(t.dtype.value)


def _require_stage(graph: Graph, stage: Stage) -> None:
    if graph.stage is not stage:
        raise ValueError(f"graph {graph.name!r} is at stage {graph.stage}, not {stage}")


def _paired(graph: Graph, inputs: Sequence[Array]) -> list[tuple[Port, Array]]:
    """Each input with its port; number, shapes, batches and steps agree."""
    if len(inputs) != len(graph.inputs):
        names = ", ".join(p.name for p in graph.inputs)
        raise InputError(f"{len(inputs)} inputs were given", f"{len(graph.inputs)}: {names}", "the inputs")
    pairs = [(port, np.asarray(x)) for port, x in zip(graph.inputs, inputs, strict=True)]
    for port, x in pairs:
        shape = graph.type(port.value).shape
        fits = x.ndim == len(shape) + 1 and all(
            n >= 1 and d in (TIME, n) for d, n in zip(shape, x.shape[1:], strict=True)
        )
        if not fits:
            raise InputError(
                f"input {port.name!r} has shape {x.shape}", " x ".join(["N", *map(str, shape)]), "the inputs"
            )
    batches = sorted({len(x) for _, x in pairs})
    if len(batches) > 1:
        raise InputError(f"the inputs have batches of {batches}", "one batch size", "the inputs")
    steps = sorted({x.shape[1] for port, x in pairs if graph.type(port.value).has_time})
    if len(steps) > 1:
        raise InputError(f"the inputs have {steps} time steps", "one number of steps", "the inputs")
    return pairs


def _float_input(port: Port, x: Array) -> Array:
    if x.dtype.kind not in "fiu":
        raise InputError(f"input {port.name!r} holds {x.dtype}", "numbers", "the inputs")
    return x if x.dtype == np.float64 else x.astype(np.float32, copy=False)


def _integer_input(graph: Graph, port: Port, x: Array) -> Array:
    dtype = graph.type(port.value).dtype
    if x.dtype.kind not in "iu":
        raise InputError(f"input {port.name!r} holds {x.dtype}", f"integers of {dtype.value}", "the inputs")
    if x.size and (int(x.min()) < dtype.low or int(x.max()) > dtype.high):
        raise InputError(f"input {port.name!r} holds {x.min()}..{x.max()}", f"{dtype.low}..{dtype.high}", "the inputs")
    return x.astype(dtype.value)
