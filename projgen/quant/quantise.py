"""The quantised graph: types for every activation, then each operator's own rule, then the overflow proofs."""

from __future__ import annotations

from collections.abc import Mapping

from projgen import ops
from projgen.errors import UnsupportedError
from projgen.ir.graph import Graph, Node, Stage, Value
from projgen.ir.types import DType, Quant, TensorType
from projgen.ir.verify import verify
from projgen.quant.calibrate import Calibration
from projgen.quant.fixed import affine
from projgen.quant.low_rank import low_rank_types
from projgen.quant.residual import fold_residuals
from projgen.quant.scope import QuantScope, Stats


def quantise(graph: Graph, calibration: Calibration) -> Graph:
    """The quantised stage of a canonical float graph.

    Args:
        graph: float stage, without batch normalisation.
        calibration: of this very graph.
    Raises:
        UnsupportedError: an operator without an integer form, or rows whose accumulator can't be proven to fit int32.
    """
    graph = fold_residuals(graph, choose_types(graph, calibration.stats))
    types = choose_types(graph, calibration.stats)
    scope = QuantScope(graph, types, calibration.stats, calibration.inner)
    nodes: list[Node] = []
    values = [Value(name, t) for name, t in types.items()]
    for node in graph.nodes:
        rule = ops.get(node.op).quantise
        if rule is None:
            raise UnsupportedError(
                f"{node.source or node.name}: operator {node.op!r} has no integer form",
                ", ".join(sorted(name for name, op in ops.registry().items() if op.quantise)),
                "the model",
            )
        made = rule(scope, node)
        nodes += made.nodes
        values += made.values
    quantised = graph.with_(nodes=nodes, values=values, stage=Stage.QUANTISED)
    verify(quantised, after="quantise")
    prove(quantised)
    return quantised


def prove(graph: Graph) -> None:
    """Prove of every node of a quantised graph that no int32 accumulator can overflow, whatever the input.

    Raises:
        UnsupportedError: naming the node, the row and the bound.
    """
    for node in graph.nodes:
        check = ops.get(node.op).prove
        if check is not None:
            check(graph, node)


def choose_types(graph: Graph, stats: Mapping[str, Stats]) -> dict[str, TensorType]:
    """The quantised type of every activation.

    int8 with a calibrated affine map, but for: what an operator fixes (softmax, tanh, pass-through, ...), int16
    low-rank intermediates, and values that only a concat reads, which take its map and so need no rescaling.
    """
    low_rank = low_rank_types(graph, stats)
    joined = _joined(graph, stats, frozenset(low_rank))
    types: dict[str, TensorType] = {}
    for port in graph.inputs:
        types[port.value] = _int8(graph.type(port.value), _calibrated(stats[port.value]))
    for node in graph.nodes:
        t, name = graph.type(node.output), node.output
        if name in low_rank:
            types[name] = low_rank[name]
        elif name in joined:
            types[name] = _int8(t, joined[name])
        else:
            types[name] = _int8(t, _output_quant(graph, node, types, stats[name]))
    return types


def _output_quant(graph: Graph, node: Node, types: Mapping[str, TensorType], stats: Stats) -> Quant:
    rule = ops.get(node.op).output_quant
    if rule is None:
        return _calibrated(stats)
    inputs = {role: types.get(value, graph.type(value)) for role, value in node.inputs.items()}
    return rule(node.attrs, inputs, stats)


def _joined(graph: Graph, stats: Mapping[str, Stats], fixed: frozenset[str]) -> dict[str, Quant]:
    """Maps of concat inputs that are free to take the output's: calibrated by themselves, and read by it alone."""
    joined: dict[str, Quant] = {}
    for node in reversed(graph.nodes):
        if node.op != "concat":
            continue
        quant = joined.get(node.output, _calibrated(stats[node.output]))
        for value in node.inputs.values():
            producer = graph.producer(value)
            alone = len(graph.readers(value)) == 1 and not graph.is_output(value) and value not in fixed
            if producer is not None and alone and ops.get(producer.op).output_quant is None:
                joined[value] = quant
    return joined


def _calibrated(stats: Stats) -> Quant:
    return affine(stats.minimum, stats.maximum)


def _int8(t: TensorType, quant: Quant) -> TensorType:
    return TensorType(t.shape, DType.INT8, quant)
