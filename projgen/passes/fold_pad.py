"""Fold zero padding of height and width into the convolution or average pooling that reads it."""

from __future__ import annotations

from dataclasses import replace

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph, Node
from projgen.passes.record import Pass
from projgen.passes.remove_dead import NO_DEAD_NODES
from projgen.passes.rewrite import Edit, exhaust, sole_reader


def fold(graph: Graph, node: Node) -> Edit | None:
    pad = graph.producer(node.inputs["x"]) if isinstance(node.attrs, ir.Conv2d | ir.AvgPool2d) else None
    if pad is None or not isinstance(pad.attrs, ir.Pad) or sole_reader(graph, pad.output) is None:
        return None
    if pad.attrs.value != 0.0 or pad.attrs.amounts[2] != (0, 0):
        return None
    (top, bottom), (left, right) = pad.attrs.amounts[:2]
    assert isinstance(node.attrs, ir.Conv2d | ir.AvgPool2d)
    old = node.attrs.padding
    padding = (old[0] + top, old[1] + bottom, old[2] + left, old[3] + right)
    if isinstance(node.attrs, ir.Conv2d):
        attrs: ir.Conv2d | ir.AvgPool2d = replace(node.attrs, padding=padding)
    else:
        counted = node.attrs.count_include_pad or not any(old)
        height, width = node.attrs.kernel
        if not counted or max(padding[:2]) >= height or max(padding[2:]) >= width:
            return None
        attrs = replace(node.attrs, padding=padding, count_include_pad=True)
    folded = replace(node, attrs=attrs, inputs={**node.inputs, "x": pad.inputs["x"]})
    return Edit(frozenset({pad.name, node.name}), (folded,))


def run(graph: Graph) -> Graph:
    return exhaust(graph, (fold,))


PASS = Pass("fold_pad", run, requires=(NO_DEAD_NODES,), ensures=(NO_DEAD_NODES,))
