"""Every rule of the verifier, broken once; and the operators' own samples, which are legal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph, Node, Port, Stage, Value
from projgen.ir.numerics import MatrixNumerics, Requant
from projgen.ir.types import DType, Quant, TensorType
from projgen.ir.verify import VerifyError, neighbourhood, verify
from projgen.ops import registry
from tests.passes.graphs import Maker


def legal() -> Graph:
    m = Maker(x=("T", 4))
    return m.graph(m.relu("relu", m.linear("fc", "x", 3)))


def quantised() -> Graph:
    values = (
        Value("x", TensorType((4,), DType.INT8, Quant(0.1, 3))),
        Value("w", TensorType((2, 4), DType.INT8), np.ones((2, 4), np.int8)),
        Value("b", TensorType((2,), DType.INT32), np.zeros(2, np.int32)),
        Value("m", TensorType((2,), DType.INT32), np.full(2, 1 << 30, np.int32)),
        Value("y", TensorType((2,), DType.INT8, Quant(0.2))),
    )
    numerics = MatrixNumerics(3, Requant(0, 0, -128, 127))
    node = Node("fc", "linear", {n: n for n in ("x", "w", "b", "m")}, "y", ir.Linear(), numerics=numerics)
    ports = (Port("x", "x", (0,)),), (Port("y", "y", (0,)),)
    return Graph("q", Stage.QUANTISED, *ports, (node,), {v.name: v for v in values})


def change_node(graph: Graph, index: int, **changes: object) -> Graph:
    nodes = list(graph.nodes)
    nodes[index] = replace(nodes[index], **changes)
    return replace(graph, nodes=tuple(nodes))


def change_value(graph: Graph, name: str, **changes: object) -> Graph:
    return replace(graph, values={**graph.values, name: replace(graph.values[name], **changes)})


def without(graph: Graph, name: str) -> Graph:
    return replace(graph, values={k: v for k, v in graph.values.items() if k != name})


FLOAT_FAULTS: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "order": (lambda g: replace(g, nodes=g.nodes[::-1]), "node 'relu': .*reads 'fc' before it is defined"),
    "cycle": (lambda g: change_node(g, 0, inputs={**g.nodes[0].inputs, "x": "relu"}), "reads 'relu' before"),
    "missing input": (lambda g: without(g, "fc.w"), "reads 'fc.w', which does not exist"),
    "missing output": (lambda g: without(g, "relu"), "'relu' has no value record"),
    "twice": (lambda g: change_node(g, 1, output="fc"), "'fc' is defined twice"),
    "same name": (lambda g: change_node(g, 1, name="fc"), "its name is used twice"),
    "filed wrongly": (lambda g: replace(g, values={**g.values, "fc": g.values["relu"]}), "'relu' is filed under 'fc'"),
    "no producer": (
        lambda g: replace(g, values={**g.values, "lost": Value("lost", TensorType((1,)))}),
        "'lost' has no producer",
    ),
    "operator": (lambda g: change_node(g, 0, op="matmul"), "unknown operator 'matmul'"),
    "attributes": (
        lambda g: change_node(g, 0, attrs=ir.Softmax()),
        "attributes Softmax do not belong to operator 'linear'",
    ),
    "no output": (lambda g: replace(g, outputs=()), "the graph has no output"),
    "output name": (
        lambda g: replace(g, outputs=(*g.outputs, Port("fc", "out_relu", (0, 1)))),
        "two outputs have one name",
    ),
    "shared input": (lambda g: replace(g, inputs=(*g.inputs, Port("x", "y", (0, 1)))), "two inputs share one value"),
    "lost port": (
        lambda g: replace(g, outputs=(Port("lost", "y", (0, 1)),)),
        "output 'y' names the missing value 'lost'",
    ),
    "constant port": (lambda g: replace(g, outputs=(Port("fc.b", "y", (0,)),)), "output 'y' is a constant"),
    "axes": (lambda g: replace(g, outputs=(Port("relu", "y", (0, 2)),)), r"\(0, 2\) is no permutation"),
    "type": (
        lambda g: change_value(g, "relu", type=TensorType((3, 3))),
        "node 'relu': its output is .*gives float32.Tx3",
    ),
    "shape": (lambda g: change_value(g, "fc.b", type=TensorType((4,))), r"constant 'fc.b' has shape \(3,\)"),
    "dtype": (lambda g: change_value(g, "fc.b", data=np.zeros(3)), "holds float64"),
    "nan": (lambda g: change_value(g, "fc.b", data=np.full(3, np.nan, np.float32)), "holds NaN or infinity"),
    "refused": (
        lambda g: change_value(g, "fc.b", type=TensorType((2,)), data=np.zeros(2, np.float32)),
        "its operator refuses the inputs: linear: b",
    ),
    "time": (lambda g: change_value(g, "x", type=TensorType((4, "T"))), "time axis elsewhere than in front"),
    "empty": (lambda g: change_value(g, "x", type=TensorType(("T", 0))), "is empty"),
    "numerics": (lambda g: change_node(g, 0, numerics=quantised().nodes[0].numerics), "numerics in the float stage"),
    "integers": (
        lambda g: change_value(g, "fc.b", type=TensorType((3,), DType.INT8), data=np.zeros(3, np.int8)),
        "'fc.b' is .* in the float stage",
    ),
}

QUANTISED_FAULTS: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "float constant": (
        lambda g: change_value(g, "b", type=TensorType((2,)), data=np.zeros(2, np.float32)),
        "its input 'b' is .* in the quantised stage",
    ),
    "multiplier": (lambda g: change_value(g, "m", data=np.array([4, 6], np.int32)), "'m' are no multiples of 4"),
    "multiplier type": (
        lambda g: change_value(g, "m", type=TensorType((2,), DType.INT16), data=np.full(2, 4, np.int16)),
        "multipliers 'm' are .*, not int32",
    ),
    "no scale": (lambda g: change_value(g, "y", type=TensorType((2,), DType.INT8)), "activation 'y' has no scale"),
    "scale": (lambda g: change_value(g, "y", type=TensorType((2,), DType.INT8, Quant(0.0))), "unusable scale"),
    "zero point": (
        lambda g: change_value(g, "y", type=TensorType((2,), DType.INT8, Quant(0.1, 300))),
        "unusable scale",
    ),
    "wide": (lambda g: change_value(g, "y", type=TensorType((2,), DType.INT32, Quant(0.1))), "neither int8 nor int16"),
    "shape": (lambda g: change_value(g, "y", type=TensorType((3,), DType.INT8, Quant(0.1))), "its operator gives"),
}


def test_legal_graphs_pass() -> None:
    verify(legal())
    verify(quantised())


@pytest.mark.parametrize("fault", FLOAT_FAULTS)
def test_float_faults(fault: str) -> None:
    breaks, message = FLOAT_FAULTS[fault]
    with pytest.raises(VerifyError, match=f"(?s)after pass 'p': .*{message}"):
        verify(breaks(legal()), after="p")


@pytest.mark.parametrize("fault", QUANTISED_FAULTS)
def test_quantised_faults(fault: str) -> None:
    breaks, message = QUANTISED_FAULTS[fault]
    with pytest.raises(VerifyError, match=message):
        verify(breaks(quantised()))


def test_an_operator_without_integers_is_no_quantised_node() -> None:
    m = Maker(x=(4,))
    graph = replace(m.graph(m.batch_norm("bn", "x")), stage=Stage.QUANTISED)
    with pytest.raises(VerifyError, match="operator 'batch_norm' has no integer meaning"):
        verify(graph)


def test_a_fault_is_no_error_of_the_user() -> None:
    from projgen.errors import ProjgenError

    with pytest.raises(VerifyError) as caught:
        verify(replace(legal(), outputs=()))
    assert not isinstance(caught.value, ProjgenError)
    assert (caught.value.node, caught.value.neighbourhood) == ("", "")


def test_the_neighbourhood_shows_producers_and_readers() -> None:
    graph = legal()
    lines = neighbourhood(graph, graph.nodes[1]).splitlines()
    assert lines == ["  fc = linear(x, w=3x4, b=3) : float32[Tx3]", "> relu = unary(fc, kind=relu) : float32[Tx3]"]


@pytest.mark.parametrize("op", sorted(registry()))
def test_the_samples_of_every_operator_are_legal(op: str) -> None:
    for sample in registry()[op].samples():
        verify(sample.graph, after=sample.name)
