"""The runner: order, conditions, verification between passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph
from projgen.ir.verify import VerifyError
from projgen.passes import PIPELINE, Pass, Step, fold_affine, merge_duplicates, remove_dead, run_pipeline
from projgen.passes.rewrite import Edit, exhaust
from tests.passes.graphs import Maker, same_meaning


def small() -> Graph:
    m = Maker(x=(4,))
    return m.graph(m.relu("relu", m.linear("fc", "x", 3)))


def test_every_step_has_a_reason() -> None:
    assert all(len(step.reason) > 20 for step in PIPELINE)


def test_stages_are_reported_in_order() -> None:
    seen: list[tuple[str, int]] = []
    result = run_pipeline(small(), on_stage=lambda name, graph: seen.append((name, len(graph.nodes))))
    assert [name for name, _ in seen] == ["import", *(step.action.name for step in PIPELINE)]
    assert (seen[0][1], seen[-1][1]) == (2, 1)
    assert len(result.nodes) == 1


def test_a_broken_graph_names_the_pass_that_made_it() -> None:
    def broken(graph: Graph) -> Graph:
        return graph.with_(nodes=reversed(graph.nodes))

    with pytest.raises(
        VerifyError, match=r"after pass 'reverse': node 'relu': .*reads 'fc' before it is defined"
    ) as caught:
        run_pipeline(small(), [Step(Pass("reverse", broken), "to break it")])
    assert "> relu = unary(fc, kind=relu)" in caught.value.neighbourhood
    assert "fc = linear(x, w=3x4, b=3)" in caught.value.neighbourhood


def test_a_broken_import_is_told_apart() -> None:
    graph = small()
    with pytest.raises(VerifyError, match="after pass 'import'"):
        run_pipeline(graph.with_(nodes=reversed(graph.nodes)))


def test_conditions_are_checked() -> None:
    m = Maker(x=(4,))
    m.linear("unread", "x", 2)
    graph = m.graph(m.batch_norm("bn", "x"))
    with pytest.raises(VerifyError, match="pass fold_affine requires that every node is read") as caught:
        run_pipeline(graph, [Step(fold_affine.PASS, "alone")])
    assert caught.value.node == "unread"
    lazy = replace(fold_affine.PASS, run=remove_dead.run)
    with pytest.raises(VerifyError, match="pass fold_affine ensures that no BatchNorm"):
        run_pipeline(graph, [Step(remove_dead.PASS, "first"), Step(lazy, "does nothing")])


def test_an_error_inside_a_pass_names_it() -> None:
    def failing(_: Graph) -> Graph:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run_pipeline(small(), [Step(Pass("failing", failing), "to fail")])
    assert caught.value.__notes__ == ["in pass 'failing'"]


def test_rules_that_undo_each_other_are_caught() -> None:
    def again(graph: Graph, node: object) -> Edit | None:
        return Edit() if node is graph.nodes[0] else None

    with pytest.raises(RuntimeError, match=r"\['again'\] undo each other"):
        exhaust(small(), (again,))


def test_dead_nodes_and_their_constants_go() -> None:
    m = Maker(x=(4,))
    dead = m.linear("dead", "x", 2)
    m.relu("dead_too", dead)
    graph = remove_dead.run(m.graph(m.linear("fc", "x", 3)))
    assert [node.name for node in graph.nodes] == ["fc"]
    assert set(graph.values) == {"x", "fc", "fc.w", "fc.b"}


def test_twins_are_merged() -> None:
    m = Maker(x=(3, 4))
    a, b = (m.node(name, "select", ir.Select(0, 1), x="x") for name in ("a", "b"))
    other = m.node("other", "select", ir.Select(0, 2), x="x")
    before = m.graph(m.node("cat", "concat", ir.Concat(0), x0=a, x1=b, x2=other))
    after = merge_duplicates.run(before)
    assert [node.name for node in after.nodes] == ["a", "other", "cat"]
    assert same_meaning(before, after)


def test_constants_shared_by_two_layers_survive_a_fold() -> None:
    m = Maker(x=(4,))
    w = m.linear("first", "x", 4)
    m.node("second", "linear", ir.Linear(), x="x", w="first.w", b=np.zeros(4))
    before = m.graph(m.batch_norm("bn", w), "second")
    after = run_pipeline(before)
    assert [node.op for node in after.nodes] == ["linear", "linear"]
    assert same_meaning(before, after)
