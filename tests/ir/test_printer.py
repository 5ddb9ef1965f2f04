"""Graphs as text."""

from __future__ import annotations

from dataclasses import replace

from projgen.ir import attrs as ir
from projgen.ir.graph import Port
from projgen.ir.printer import print_graph, print_node
from tests.ir.test_verify import quantised
from tests.passes.graphs import Maker


def test_one_line_per_port_and_node() -> None:
    m = Maker(x=(6, 5, 4))
    y = m.conv("conv1", "x", 2, stride=(2, 2), activation="relu")
    m.node("clip", "unary", ir.Unary("clip", -1.5, 2.0), x=y)
    graph = m.graph("clip")
    graph = replace(
        graph,
        inputs=(Port("x", "image", (1, 2, 0)),),
        nodes=(graph.nodes[0], replace(graph.nodes[1], source="block.act")),
    )
    assert print_graph(graph) == (
        "graph test (float)\n"
        "  input image = x : float32[6x5x4]  # axes (1, 2, 0)\n"
        "  conv1 = conv2d(x, w=2x3x3x4, b=2, stride=(2,2), activation=relu) : float32[2x2x2]\n"
        "  clip = unary(conv1, kind=clip, low=-1.5, high=2)                 : float32[2x2x2]  # block.act\n"
        "  output out_clip = clip : float32[2x2x2]\n"
    )


def test_numerics_and_integer_constants() -> None:
    graph = quantised()
    assert print_node(graph, graph.nodes[0]) == (
        "y = linear(x, w=int8[2x4], b=int32[2], m=int32[2], input_zero_point=3, "
        "requant=Requant(shift=0, zero_point=0, low=-128, high=127)) : int8[2] s=0.2 z=0"
    )


def test_missing_values_are_marked() -> None:
    graph = quantised()
    broken = replace(graph, values={k: v for k, v in graph.values.items() if k not in {"w", "y"}})
    text = print_node(broken, graph.nodes[0])
    assert "w=w?" in text
    assert text.endswith(": ?")
