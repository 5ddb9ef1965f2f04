"""Views cancel, merge and sink; ports and weights take over Transposes; a recording's time axis comes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph
from projgen.passes import Step, absorb_layout, absorb_ports, restore_time, run_pipeline, simplify_views
from projgen.passes.record import Pass
from tests.passes.graphs import Maker, same_meaning


def after(before: Graph, action: Pass) -> Graph:
    result = run_pipeline(before, [Step(action, "the one under test")])
    assert same_meaning(before, result)
    return result


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_inverse_transposes_cancel() -> None:
    m = Maker(x=(6, 5, 4))
    y = m.transpose("back", m.relu("relu", m.transpose("there", "x", 2, 0, 1)), 1, 2, 0)
    assert ops(after(m.graph(y), simplify_views.PASS)) == ["unary"]


def test_reshapes_merge_and_vanish() -> None:
    m = Maker(x=(6, 4))
    y = m.reshape("c", m.reshape("b", m.reshape("a", m.relu("relu", "x"), 24), 2, 12), 6, 4)
    assert ops(after(m.graph(y), simplify_views.PASS)) == ["unary"]


def test_axes_of_one_element_move_for_free() -> None:
    m = Maker(x=(1, 5, 4))
    assert ops(after(m.graph(m.transpose("t", m.relu("r", "x"), 1, 0, 2)), simplify_views.PASS)) == ["unary", "reshape"]


def test_views_sink_below_sums_and_constants() -> None:
    m = Maker(x=(5, 4), y=(5, 4))
    a, b = (m.reshape(f"view_{v}", v, 1, 5, 4) for v in ("x", "y"))
    total = m.node("sum", "add", ir.Add(), a=a, b=b)
    scaled = m.node("scaled", "mul", ir.Mul(), a=total, b=m.random(1, 1, 4))
    whole = m.node("whole", "add", ir.Add(), a=scaled, b=m.random(1, 5, 4))
    result = after(m.graph(m.batch_norm("bn", whole)), simplify_views.PASS)
    assert ops(result) == ["add", "mul", "add", "batch_norm", "reshape"]


def test_padding_goes_behind_the_view_of_a_sequence() -> None:
    m = Maker(x=(5, 4))
    y = m.reshape("map", m.node("pad", "pad", ir.Pad(((2, 0), (0, 0))), x="x"), 1, 7, 4)
    result = after(m.graph(y), simplify_views.PASS)
    assert ops(result) == ["reshape", "pad"]
    assert result.nodes[1].attrs.amounts == ((0, 0), (2, 0), (0, 0))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_chain_of_views_keeps_its_meaning(data: st.DataObject) -> None:
    m = Maker(x=(2, 3, 4))
    y, shape = "x", (2, 3, 4)
    for i in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["transpose", "reshape", "unary", "add"]))
        if kind == "transpose":
            y = m.transpose(f"n{i}", y, *data.draw(st.permutations(range(len(shape)))))
        elif kind == "reshape":
            y = m.reshape(
                f"n{i}", y, *data.draw(st.sampled_from([(24,), (1, 24), (4, 6), (2, 3, 4), (3, 1, 8), (1, 2, 3, 4)]))
            )
        elif kind == "unary":
            y = m.node(f"n{i}", "unary", ir.Unary("tanh"), x=y)
        else:
            y = m.node(f"n{i}", "add", ir.Add(), a=y, b=m.random(*shape))
        shape = m.values[y].type.shape
    before = m.graph(m.linear("fc", y, 3))
    assert same_meaning(before, run_pipeline(before, [Step(simplify_views.PASS, "")]))
    assert same_meaning(before, run_pipeline(before))


def test_ports_take_transposes() -> None:
    m = Maker(x=(4, 6, 5))
    x = m.node(
        "scale", "mul", ir.Mul(), a=m.node("pad", "pad", ir.Pad(((0, 0), (1, 0), (0, 2))), x="x"), b=m.random(4, 1, 1)
    )
    y = m.conv("conv", m.transpose("hwc", x, 1, 2, 0), 3)
    result = after(m.graph(m.transpose("chw", y, 2, 0, 1)), absorb_ports.PASS)
    assert ops(result) == ["pad", "mul", "conv2d"]
    assert (result.inputs[0].perm, result.outputs[0].perm) == ((1, 2, 0), (1, 2, 0))


def test_an_input_read_in_two_orders_keeps_its_own() -> None:
    m = Maker(x=(4, 6, 5))
    y = m.conv("conv", m.transpose("hwc", "x", 1, 2, 0), 3)
    z = m.relu("relu", "x")
    result = after(m.graph(y, z), absorb_ports.PASS)
    assert ops(result) == ["transpose", "conv2d", "unary"]
    assert result.inputs[0].perm == (0, 1, 2)


def test_weights_take_the_order_of_a_flattened_map() -> None:
    m = Maker(x=(3, 2, 4))
    flat = m.reshape("flat", m.transpose("chw", m.relu("relu", "x"), 2, 0, 1), 24)
    result = after(m.graph(m.linear("fc", flat, 5)), absorb_layout.PASS)
    assert ops(result) == ["unary", "reshape", "linear"]


def test_weights_take_the_order_within_rows() -> None:
    """(1, W, C * k) rows of a map of height 1 permute inside; a real exchange of rows stays."""
    m = Maker(x=(6, 2, 4))
    rows = m.reshape("rows", m.transpose("t", m.relu("relu", "x"), 0, 2, 1), 6, 8)
    assert ops(after(m.graph(m.linear("fc", rows, 5)), absorb_layout.PASS)) == ["unary", "reshape", "linear"]
    m = Maker(x=(6, 2, 4))
    rows = m.reshape("rows", m.transpose("t", m.relu("relu", "x"), 1, 2, 0), 2, 24)
    assert "transpose" in ops(after(m.graph(m.linear("fc", rows, 5)), absorb_layout.PASS))


def test_weights_take_the_order_of_joined_pieces() -> None:
    m = Maker(x=(3, 2, 4), y=(5,))
    flat = m.reshape("flat", m.transpose("chw", "x", 2, 0, 1), 24)
    cat = m.node("cat", "concat", ir.Concat(0), x0="y", x1=flat)
    result = after(m.graph(m.linear("fc", cat, 5)), absorb_layout.PASS)
    assert ops(result) == ["reshape", "concat", "linear"]


def test_rows_take_the_order_of_a_map_made_from_a_vector() -> None:
    m = Maker(x=(7,))
    y = m.transpose("hwc", m.reshape("chw", m.linear("fc", "x", 24), 4, 3, 2), 1, 2, 0)
    assert ops(after(m.graph(m.conv("conv", y, 2, kernel=2)), absorb_layout.PASS)) == ["linear", "reshape", "conv2d"]


def _rnn(m: Maker, x: str, name: str = "rnn") -> str:
    d = m.values[x].type.shape[-1]
    return m.node(name, "gru", ir.Gru(3), x=x, w=m.random(9, d), r=m.random(9, 3), b=m.random(9), b_hn=m.random(3))


def test_time_returns_through_stepwise_nodes() -> None:
    m = Maker(x=(6, 5), late=(4,))
    y = _rnn(m, m.batch_norm("bn", m.linear("inp", "x", 4)))
    view = m.reshape("view", y, 1, 6, 3)
    pooled = m.node("mean", "avg_pool2d", ir.AvgPool2d((1, 6), (1, 6)), x=view)
    last = m.node("last", "select", ir.Select(0, -1), x=y)
    cat = m.node("cat", "concat", ir.Concat(0), x0=m.reshape("flat", pooled, 3), x1=last, x2="late")
    result = after(m.graph(m.linear("fc", cat, 2)), restore_time.PASS)
    assert [str(result.type(p.value)) for p in result.inputs] == ["float32[Tx5]", "float32[4]"]
    assert "mean_time" in ops(result)
    assert str(result.type("rnn")) == "float32[Tx3]"
    assert next(n for n in result.nodes if n.name == "last").attrs.index == -1


def test_time_returns_only_to_one_direction() -> None:
    m = Maker(x=(6, 5))
    weights = {"w": m.random(9, 5), "r": m.random(9, 3), "b": m.random(9), "b_hn": m.random(3)}
    back = m.node("back", "gru", ir.Gru(3, reverse=True), x="x", **weights)
    joined = m.node("cat", "concat", ir.Concat(1), x0=_rnn(m, "x"), x1=back)
    assert not after(m.graph(joined), restore_time.PASS).has_time


@pytest.mark.parametrize("kind", ["flatten", "slice", "pad", "pool", "other length", "outputs", "late"])
def test_time_stays_where_the_length_matters(kind: str) -> None:
    m = Maker(x=(6, 5), other=(6 if kind != "other length" else 4, 5))
    y, z = _rnn(m, "x"), _rnn(m, "other", "second")
    last = m.node("last", "select", ir.Select(0, -1), x=z)
    if kind == "flatten":
        y = m.linear("fc", m.reshape("flat", y, 18), 2)
    elif kind == "slice":
        y = m.node("slice", "slice", ir.Slice(0, 1, 4), x=y)
    elif kind == "pad":
        y = m.node("pad", "pad", ir.Pad(((1, 0), (0, 0))), x=y)
    elif kind == "pool":
        y = m.node("pool", "avg_pool2d", ir.AvgPool2d((1, 2), (1, 2)), x=m.reshape("map", y, 1, 6, 3))
    elif kind == "late":
        y = m.node("sum", "add", ir.Add(), a=y, b=m.reshape("row", last, 1, 3))
    result = after(m.graph(y) if kind == "late" else m.graph(y, last), restore_time.PASS)
    assert not result.has_time
    assert next(n for n in result.nodes if n.name == "last").attrs.index == (3 if kind == "other length" else 5)
