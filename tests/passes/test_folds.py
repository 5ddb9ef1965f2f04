"""BatchNorm, constants, padding and activations fold into their neighbours, and the meaning stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.ir import attrs as ir
from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_float
from projgen.passes import PIPELINE, Step, fold_affine, fold_pad, fuse_activation, run_pipeline
from projgen.passes.record import Pass
from projgen.quant.calibrate import calibrate
from projgen.quant.model import QuantizedModel
from projgen.quant.quantise import quantise
from tests.passes.graphs import Maker, same_meaning


def folded(before: Graph, action: Pass = fold_affine.PASS) -> list[str]:
    after = run_pipeline(before, [Step(action, "the one under test")])
    assert same_meaning(before, after)
    assert same_meaning(before, run_pipeline(before, PIPELINE))
    return [node.op for node in after.nodes]


def test_batch_norm_after_layers() -> None:
    m = Maker(x=(6, 5, 4))
    y = m.batch_norm("bn1", m.conv("conv", "x", 6, groups=2))
    y = m.batch_norm("bn2", m.linear("fc", m.relu("relu", y), 3))
    assert folded(m.graph(y)) == ["conv2d", "unary", "linear"]


def test_batch_norm_before_layers() -> None:
    m = Maker(x=(6, 5, 4))
    assert folded(m.graph(m.conv("conv", m.batch_norm("bn", "x"), 6, groups=2))) == ["conv2d"]
    m.drop("conv")
    assert folded(m.graph(m.conv("padded", "bn", 6, padding=(1, 1, 1, 1)))) == ["conv2d", "conv2d"]


def test_batch_norm_around_a_transposed_convolution() -> None:
    """One behind it folds in; the shift of one before it can't, since the taps between the pixels don't see it."""

    def transposed(m: Maker, name: str, x: str) -> str:
        attrs = ir.ConvTranspose2d((2, 2), (1, 1, 1, 1))
        return m.node(name, "conv_transpose2d", attrs, x=x, w=m.random(6, 3, 3, 4), b=m.random(6))

    m = Maker(x=(6, 5, 4))
    y = m.relu("relu", m.batch_norm("bn", transposed(m, "up", "x")))
    assert folded(m.graph(y)) == ["conv_transpose2d", "unary"]
    assert folded(m.graph(y), fuse_activation.PASS) == ["conv_transpose2d", "batch_norm", "unary"]
    m = Maker(x=(6, 5, 4))
    assert folded(m.graph(transposed(m, "up", m.batch_norm("bn", "x")))) == ["conv2d", "conv_transpose2d"]
    m = Maker(x=(6, 5, 4))
    scaled = m.node("scale", "mul", ir.Mul(), a="x", b=m.random(1, 1, 4))
    assert folded(m.graph(m.relu("relu", transposed(m, "up", scaled)))) == ["conv_transpose2d", "unary"]
    m = Maker(x=(6, 5, 4))
    assert folded(m.graph(m.relu("relu", transposed(m, "up", "x"))), fuse_activation.PASS) == ["conv_transpose2d"]


def test_batch_norm_before_a_flattened_layer() -> None:
    m = Maker(x=(3, 2, 4))
    flat = m.reshape("flat", m.transpose("chw", m.batch_norm("bn", "x"), 2, 0, 1), 24)
    assert folded(m.graph(m.linear("fc", flat, 5))) == ["transpose", "reshape", "linear"]


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_batch_norm_before_an_rnn(kind: str, projected: bool) -> None:
    m = Maker(x=("T", 5))
    gates = 4 if kind == "lstm" else 3
    attrs = (ir.Lstm if kind == "lstm" else ir.Gru)(3, input_projected=projected)
    weights = {"w": m.random(3 * gates, 2 if projected else 5), "r": m.random(3 * gates, 3), "b": m.random(3 * gates)}
    weights |= {"b_hn": m.random(3)} if kind == "gru" else {}
    weights |= {"q_in": m.random(5, 2)} if projected else {}
    assert folded(m.graph(m.node("rnn", kind, attrs, x=m.batch_norm("bn", "x"), **weights))) == [kind]


def test_batch_norm_alone() -> None:
    """A map, a vector and a sequence each get a layer of their own."""
    m = Maker(x=(6, 5, 4))
    assert folded(m.graph(m.batch_norm("bn", m.relu("relu", "x")))) == ["unary", "conv2d"]
    m = Maker(x=(4,))
    assert folded(m.graph(m.batch_norm("bn", m.relu("relu", "x")))) == ["unary", "reshape", "conv2d", "reshape"]
    m = Maker(x=("T", 4))
    assert folded(m.graph(m.batch_norm("bn", m.relu("relu", "x")))) == ["unary", "linear"]


def test_a_value_with_two_readers_is_not_changed() -> None:
    m = Maker(x=(6, 5, 4))
    y = m.conv("conv", "x", 4)
    assert folded(m.graph(m.batch_norm("bn", y), m.relu("relu", y))) == ["conv2d", "conv2d", "unary"]


def test_constants_per_channel() -> None:
    m = Maker(x=(6, 5, 4))
    y = m.node("mul", "mul", ir.Mul(), a=m.conv("conv", "x", 3), b=m.random(1, 1, 3))
    y = m.node("add", "add", ir.Add(), a=y, b=m.random(1, 1, 3))
    assert folded(m.graph(y)) == ["conv2d"]
    y = m.node("place", "add", ir.Add(), a=m.relu("relu", y), b=m.random(4, 3, 3))
    assert folded(m.graph(y)) == ["conv2d", "unary", "add"]


def test_single_numbers() -> None:
    """(x + 2) * 3 - 1, times 1, plus 0: one product and one sum; beside a layer nothing."""
    m = Maker(x=(6, 5, 4))
    y = "x"
    for i, (op, number) in enumerate((("add", 2), ("mul", 3), ("add", -1), ("mul", 1), ("add", 0))):
        attrs = ir.Add() if op == "add" else ir.Mul()
        y = m.node(f"{op}{i}", op, attrs, a=y, b=np.full((1, 1, 1), number))
    assert folded(m.graph(m.node("max", "max_pool2d", ir.MaxPool2d((2, 2), (2, 2)), x=y))) == [
        "mul",
        "add",
        "max_pool2d",
    ]
    m.drop("max")
    assert folded(m.graph(m.conv("conv", y, 3))) == ["conv2d"]


@settings(deadline=None, max_examples=25)
@given(
    before=st.lists(st.sampled_from(["mul", "add", "bn", "one"]), max_size=3),
    after=st.lists(st.sampled_from(["mul", "add", "bn", "one"]), max_size=3),
    layer=st.sampled_from(["conv", "padded", "grouped", "linear"]),
)
def test_any_chain_around_a_layer(before: list[str], after: list[str], layer: str) -> None:
    m = Maker(x=(4, 5, 6))

    def put(kinds: list[str], y: str, tag: str) -> str:
        for i, kind in enumerate(kinds):
            name, n = f"{tag}{i}", m.values[y].type.shape[-1]
            if kind == "bn":
                y = m.batch_norm(name, y)
            elif kind == "one":
                y = m.node(name, "mul", ir.Mul(), a=y, b=m.random(1, 1, 1))
            else:
                y = m.node(name, kind, ir.Mul() if kind == "mul" else ir.Add(), a=y, b=m.random(1, 1, n))
        return y

    y = put(before, "x", "before")
    if layer == "linear":
        y = m.linear("layer", y, 3)
    else:
        padding = (1, 0, 2, 1) if layer == "padded" else (0, 0, 0, 0)
        y = m.conv("layer", y, 4, padding=padding, groups=2 if layer == "grouped" else 1)
    ops = folded(m.graph(put(after, y, "after")))
    assert "batch_norm" not in ops
    assert layer == "padded" or len(ops) == 1


def test_zero_padding() -> None:
    m = Maker(x=(6, 5, 4))
    pad = m.node("pad", "pad", ir.Pad(((1, 2), (0, 3), (0, 0))), x="x")
    before = m.graph(m.conv("conv", pad, 2, padding=(1, 0, 1, 0), stride=(2, 1)))
    assert folded(before, fold_pad.PASS) == ["conv2d"]
    assert run_pipeline(before).nodes[0].attrs.padding == (2, 2, 1, 3)


@pytest.mark.parametrize(("amounts", "value"), [(((1, 1), (0, 0), (0, 1)), 0.0), (((1, 1), (1, 1), (0, 0)), 0.5)])
def test_other_padding_stays(amounts: tuple[tuple[int, int], ...], value: float) -> None:
    m = Maker(x=(6, 5, 4))
    pad = m.node("pad", "pad", ir.Pad(amounts, value), x="x")
    assert folded(m.graph(m.conv("conv", pad, 2)), fold_pad.PASS) == ["pad", "conv2d"]


def test_padding_of_pools() -> None:
    m = Maker(x=(6, 6, 4))
    pad = m.node("pad", "pad", ir.Pad(((1, 1), (1, 1), (0, 0))), x="x")
    assert folded(m.graph(m.node("max", "max_pool2d", ir.MaxPool2d((2, 2), (2, 2)), x=pad)), fold_pad.PASS)[0] == "pad"
    counted = m.node("avg", "avg_pool2d", ir.AvgPool2d((2, 2), (2, 2)), x=pad)
    m.drop("max")
    assert folded(m.graph(counted), fold_pad.PASS) == ["avg_pool2d"]
    m.drop("avg")
    own = ir.AvgPool2d((3, 3), (2, 2), (1, 1, 1, 1), count_include_pad=False)
    assert folded(m.graph(m.node("own", "avg_pool2d", own, x=pad)), fold_pad.PASS) == ["pad", "avg_pool2d"]


def test_activations() -> None:
    m = Maker(x=(6, 5, 4))
    y = m.relu("r1", m.conv("conv", "x", 4))
    y = m.node("r6", "unary", ir.Unary("relu6"), x=m.node("sum", "add", ir.Add(), a=y, b=m.conv("other", "x", 4)))
    y = m.relu("late", m.node("sigmoid", "unary", ir.Unary("sigmoid"), x=y))
    before = m.graph(y)
    assert folded(before, fuse_activation.PASS) == ["conv2d", "conv2d", "add", "unary", "unary"]
    assert [n.attrs.activation for n in run_pipeline(before).nodes[:3]] == ["relu", "none", "relu6"]


def test_an_activation_beside_another_reader_stays() -> None:
    m = Maker(x=(6, 5, 4))
    y = m.conv("conv", "x", 4)
    assert folded(m.graph(m.relu("relu", y), y), fuse_activation.PASS) == ["conv2d", "unary"]


def test_activations_in_a_row_are_one() -> None:
    m = Maker(x=(6, 5, 4))
    y = m.relu("second", m.node("first", "unary", ir.Unary("relu6"), x=m.conv("conv", "x", 4)))
    before = m.graph(y)
    assert folded(before, fuse_activation.PASS) == ["conv2d"]
    assert run_pipeline(before).nodes[0].attrs.activation == "relu6"


MOVES = {
    "max_pool2d": ir.MaxPool2d((2, 2), (2, 2), (1, 0, 1, 0)),
    "reshape": ir.Reshape((15, 8)),
    "transpose": ir.Transpose((2, 0, 1)),
    "slice": ir.Slice(2, 1, 7, 2),
    "select": ir.Select(0, -1),
    "pad": ir.Pad(((1, 1), (0, 0), (0, 2)), -3.0),
}


@pytest.mark.parametrize("kind", ["relu", "relu6"])
@pytest.mark.parametrize("op", MOVES)
def test_activations_pass_what_moves_values(op: str, kind: str) -> None:
    m = Maker(x=(5, 3, 4))
    y = m.node("move", op, MOVES[op], x=m.conv("conv", "x", 8, 1))
    before = m.graph(m.node("clamp", "unary", ir.Unary(kind), x=y))
    assert folded(before, fuse_activation.PASS) == ["conv2d", op]
    assert run_pipeline(before).nodes[0].attrs.activation == kind


@pytest.mark.parametrize("op", MOVES)
def test_activations_stay_behind_what_others_read(op: str) -> None:
    m = Maker(x=(5, 3, 4))
    y = m.conv("conv", "x", 8, 1)
    moved = m.node("move", op, MOVES[op], x=y)
    assert folded(m.graph(m.relu("relu", moved), y), fuse_activation.PASS) == ["conv2d", op, "unary"]
    assert folded(m.graph("relu", moved), fuse_activation.PASS) == ["conv2d", op, "unary"]


def test_an_activation_passes_a_mean_nowhere() -> None:
    m = Maker(x=(6, 4, 4))
    y = m.node("mean", "avg_pool2d", ir.AvgPool2d((2, 2), (2, 2)), x=m.conv("conv", "x", 8, 1))
    assert folded(m.graph(m.relu("relu", y)), fuse_activation.PASS) == ["conv2d", "avg_pool2d", "unary"]


def test_an_activation_goes_into_every_part_of_a_concat() -> None:
    """Also of a nested one, through a maximum, and into a constant part."""
    m = Maker(x=(6, 5, 4))
    pooled = m.node("max", "max_pool2d", ir.MaxPool2d((3, 3), (1, 1), (1, 1, 1, 1)), x=m.conv("a", "x", 3, 1))
    inner = m.node("inner", "concat", ir.Concat(2), x0=pooled, x1=m.random(6, 5, 2))
    r6 = m.node("r6", "unary", ir.Unary("relu6"), x=m.conv("b", "x", 2, 1))
    joined = m.node("joined", "concat", ir.Concat(2), x0=inner, x1=m.conv("c", "x", 4, 1), x2=r6)
    before = m.graph(m.relu("relu", joined))
    ops = folded(before, fuse_activation.PASS)
    assert sorted(ops) == ["concat", "concat", "conv2d", "conv2d", "conv2d", "max_pool2d"]
    activations = {n.name: n.attrs.activation for n in run_pipeline(before).nodes if isinstance(n.attrs, ir.Conv2d)}
    assert activations == {"a": "relu", "b": "relu6", "c": "relu"}


@pytest.mark.parametrize("other", ["read twice", "output", "an input", "sigmoid", "the same"])
def test_an_activation_stays_behind_a_concat_with_a_part_that_would_keep_it(other: str) -> None:
    m = Maker(x=(6, 5, 4))
    first, second = m.conv("a", "x", 4, 1), m.conv("b", "x", 4, 1)
    outputs = []
    match other:
        case "read twice":
            outputs = [m.node("sigmoid", "unary", ir.Unary("sigmoid"), x=second)]
        case "output":
            outputs = [second]
        case "an input":
            m.drop("b")
            second = "x"
        case "sigmoid":
            second = m.node("sigmoid", "unary", ir.Unary("sigmoid"), x=second)
        case "the same":
            m.drop("b")
            second = first
    joined = m.node("joined", "concat", ir.Concat(2), x0=first, x1=second)
    before = m.graph(m.relu("relu", joined), *outputs)
    assert folded(before, fuse_activation.PASS)[-2:] == ["concat", "unary"]


@pytest.mark.parametrize("role", ["q", "k", "v"])
def test_scaled_queries_and_keys_scale_the_scores(role: str) -> None:
    m = Maker(q=(3, 8), k=(5, 2, 4), v=(5, 2, 4))
    parts = {"q": "q", "k": "k", "v": "v"}
    parts[role] = m.node("scale", "mul", ir.Mul(), a=role, b=np.full((1,) * (2 if role == "q" else 3), 0.3))
    parts["q"] = m.reshape("heads", parts["q"], 3, 2, 4)
    graph = m.graph(m.node("attn", "attention", ir.Attention(0.5), **parts))
    folded = fold_affine.run(graph)
    assert same_meaning(graph, folded)
    (node,) = (n for n in folded.nodes if isinstance(n.attrs, ir.Attention))
    assert node.attrs.scale == pytest.approx(0.5 if role == "v" else 0.15)
    assert ("mul" in [n.op for n in folded.nodes]) == (role == "v")


def test_no_table_is_left_behind_a_concat_and_nothing_is_lost() -> None:
    """Every part has the map of what is left of the whole, and the output is no further from the float graph's."""
    m = Maker(x=(6, 5, 4))
    parts = {f"x{i}": m.conv(f"conv{i}", "x", 3, 1) for i in range(3)}
    before = m.graph(m.relu("relu", m.node("joined", "concat", ir.Concat(2), **parts)))
    x = np.random.default_rng(2).normal(size=(40, 6, 5, 4)).astype(np.float32)

    def error(graph: Graph) -> tuple[list[str], float]:
        model = QuantizedModel(quantise(graph, calibrate(graph, [(x,)])))
        return [n.op for n in model.graph.nodes], float(np.abs(model(x) - run_float(graph, (x,))[0]).max())

    after = run_pipeline(before)
    (ops, apart), (_, behind) = error(after), error(before)
    assert ops == ["conv2d", "conv2d", "conv2d", "concat"]
    assert apart <= behind
