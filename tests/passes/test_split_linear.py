"""A layer read in pieces becomes one layer for each piece; whole reads, overlaps and single vectors keep it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph
from projgen.ir.printer import print_graph
from projgen.passes import split_linear
from tests.passes.graphs import Maker, same_meaning


def cut(shape: tuple[int, ...], *pieces: tuple[str, ir.Attrs], through: tuple[tuple[str, ir.Attrs], ...] = ()) -> Graph:
    """x, a layer of 12 outputs, views of it, and pieces that are added up."""
    m = Maker(x=shape)
    value = m.linear("fc", "x", 12)
    for i, (op, attrs) in enumerate(through):
        value = m.node(f"view{i}", op, attrs, x=value)
    parts = [m.node(f"piece{i}", op, attrs, x=value) for i, (op, attrs) in enumerate(pieces)]
    total = parts[0]
    for i, other in enumerate(parts[1:]):
        total = m.node(f"sum{i}", "add", ir.Add(), a=total, b=other)
    return m.graph(total)


THIRDS = tuple(("slice", ir.Slice(1, start, start + 4)) for start in (0, 4, 8))
CASES: dict[str, Callable[[], Graph]] = {
    "slices": lambda: cut((6, 5), *THIRDS),
    "some of the outputs": lambda: cut((6, 5), *THIRDS[:2]),
    "every second": lambda: cut((6, 5), ("slice", ir.Slice(1, 1, 12, 2)), ("slice", ir.Slice(1, 0, 12, 2))),
    "selected": lambda: cut(
        (6, 5), *(("select", ir.Select(1, i)) for i in range(3)), through=(("reshape", ir.Reshape((6, 3, 4))),)
    ),
    "transposed": lambda: cut(
        (6, 5),
        *(("select", ir.Select(0, i)) for i in range(2)),
        through=(("reshape", ir.Reshape((6, 2, 6))), ("transpose", ir.Transpose((1, 0, 2)))),
    ),
    "maps": lambda: cut((2, 3, 5), ("slice", ir.Slice(2, 0, 6)), ("slice", ir.Slice(2, 6, 12))),
}
WHOLE: dict[str, Callable[[], Graph]] = {
    "one vector": lambda: cut((5,), *(("slice", ir.Slice(0, s, s + 4)) for s in (0, 4))),
    "overlapping": lambda: cut((6, 5), ("slice", ir.Slice(1, 0, 8)), ("slice", ir.Slice(1, 4, 12))),
    "along the rows": lambda: cut((6, 5), ("slice", ir.Slice(0, 0, 3)), ("slice", ir.Slice(0, 3, 6))),
    "read whole too": lambda: cut((6, 5), ("unary", ir.Unary("tanh")), ("unary", ir.Unary("sigmoid"))),
}


@pytest.mark.parametrize("case", CASES)
def test_parted(case: str) -> None:
    graph = CASES[case]()
    parted = split_linear.run(graph)
    assert same_meaning(graph, parted)
    ops = [node.op for node in parted.nodes]
    assert not {"slice", "select"} & set(ops)
    assert ops.count("linear") == sum(node.name.startswith("piece") for node in graph.nodes)
    outputs = sum(len(parted.data(node, "w")) for node in parted.nodes if node.op == "linear")
    assert outputs == (8 if case == "some of the outputs" else 12)


@pytest.mark.parametrize("case", WHOLE)
def test_left_alone(case: str) -> None:
    graph = WHOLE[case]()
    assert print_graph(split_linear.run(graph)) == print_graph(graph)


def test_an_output_keeps_the_layer() -> None:
    m = Maker(x=(6, 5))
    value = m.linear("fc", "x", 12)
    piece = m.node("piece", "slice", ir.Slice(1, 0, 4), x=value)
    graph = m.graph(value, piece)
    assert [node.op for node in split_linear.run(graph).nodes] == ["linear", "slice"]


def test_rows_of_the_weights() -> None:
    graph = cut((6, 5), *THIRDS)
    (whole,) = (node for node in graph.nodes if node.op == "linear")
    parts = [node for node in split_linear.run(graph).nodes if node.op == "linear"]
    made = split_linear.run(graph)
    np.testing.assert_array_equal(np.concatenate([made.data(p, "w") for p in parts]), graph.data(whole, "w"))
    assert [part.name for part in parts] == ["fc.part0", "fc.part1", "fc.part2"]
