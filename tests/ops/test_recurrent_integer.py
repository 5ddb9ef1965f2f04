"""The integer meaning of LSTM and GRU: tables, one step by hand, the float64 oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.numerics import GruNumerics, LstmNumerics
from projgen.ops import recurrent, recurrent_integer
from projgen.ops.record import Array, Sample
from projgen.ops.recurrent_samples import CASES, sample

SAMPLES = [sample(case) for case in CASES]
T = [round(32767 * math.tanh(i / 16)) for i in range(-128, 129)]


def arguments(s: Sample) -> dict[str, Array]:
    node = s.graph.nodes[0]
    return {role: s.graph.data(node, role) for role in node.inputs if role != "x"} | {"x": s.inputs[0]}


@pytest.mark.parametrize("s", SAMPLES, ids=lambda s: s.name)
def test_oracle(s: Sample) -> None:
    node = s.graph.nodes[0]
    op = recurrent.LSTM if isinstance(node.attrs, Lstm) else recurrent.GRU
    y = op.integer(node, arguments(s))
    want = op.oracle(s.graph, node, arguments(s))
    assert y.shape == want.shape == (*s.inputs[0].shape[:2], node.attrs.hidden)
    assert np.abs(y - want).max() <= 1.0
    assert len(np.unique(y)) > 5


def test_the_samples_reach_the_extremes() -> None:
    numerics = [s.graph.nodes[0].numerics for s in SAMPLES]
    assert {n.k > 0 for n in numerics} == {n.k < 0 for n in numerics} == {True, False}
    assert {n.cell_fraction for n in numerics if isinstance(n, LstmNumerics)} >= {4, 12}
    assert max(n.shift for n in numerics) >= 4
    saturated = next(s for s in SAMPLES if s.name == "lstm_12_20_saturated")
    y = recurrent.LSTM.integer(saturated.graph.nodes[0], arguments(saturated))
    assert y.min() == -128 and y.max() == 127


def test_table_errors() -> None:
    v = np.arange(-32768, 32768)
    assert np.abs(recurrent_integer.tanh(v) / 2**15 - np.tanh(v / 4096)).max() < 4.13e-4
    assert np.abs(recurrent_integer.sigmoid(v) / 2**15 - 1 / (1 + np.exp(-v / 2048))).max() < 2.36e-4
    assert list(recurrent_integer.TANH_TABLE) == T


def sat(v: int, bits: int) -> int:
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, v))


def dot(a: list[int], b: list[int]) -> int:
    return sum(u * v for u, v in zip(a, b, strict=True))


def rq(acc: int, m: int, p: int) -> int:
    return ((acc << p) * m + 2**31) >> 32


def act(v: int) -> int:
    i, f = (v >> 8) + 128, v & 255
    return T[i] + (((T[i + 1] - T[i]) * f + 128) >> 8)


def sg(v: int) -> int:
    return (act(v) + 32767) >> 1


def qr(a: int, b: int) -> int:
    return (a * b + 2**14) >> 15


def rs(v: int, s: int) -> int:
    return (v + 2 ** (s - 1)) >> s if s else v


def plain_sequence(s: Sample, row: int) -> list[list[int]]:
    """The specification with Python integers, one unit at a time: h8 after each step of one sequence."""
    node = s.graph.nodes[0]
    attrs, n = node.attrs, node.numerics
    a: Mapping[str, list] = {role: data.tolist() for role, data in arguments(s).items()}
    hidden = range(attrs.hidden)
    h16 = a.get("h0", [0] * attrs.hidden)
    h8 = [sat(rs(h, 8), 8) for h in h16] if isinstance(attrs, Gru) else list(h16)
    c = a.get("c0", [0] * attrs.hidden)
    steps = a["x"][row][::-1] if attrs.reverse else a["x"][row]
    out = []
    for x in steps:
        v, u = x, h8
        if n.input_low_rank:
            p = n.input_low_rank.shift
            v = [sat(rq(dot(qs, x) + b, m, p), 16) for qs, b, m in zip(a["q_in"], a["b_in"], a["m_in"], strict=True)]
        if n.recurrent_low_rank:
            p = n.recurrent_low_rank.shift
            u = [sat(rq(dot(qs, h8), m, p), 16) for qs, m in zip(a["q_out"], a["m_out"], strict=True)]
        if isinstance(n, LstmNumerics) and n.joint_low_rank:
            p, left, right = n.joint_low_rank.shift, max(n.k, 0), max(-n.k, 0)
            v = [
                sat(rq((dot(qs, x) << left) + (dot(us, h8) << right) + b, m, p), 16)
                for qs, us, b, m in zip(a["q_in"], a["q_out"], a["b_in"], a["m_in"], strict=True)
            ]
            ax, ah = [dot(ws, v) for ws in a["w"]], [0] * len(a["w"])
        else:
            ax = [dot(ws, v) << max(n.k, 0) for ws in a["w"]]
            ah = [dot(ws, u) << max(-n.k, 0) for ws in a["r"]]

        def gate(g: int, j: int, extra: int, ax: list[int] = ax) -> int:
            row = g * attrs.hidden + j
            return sat(rq(ax[row] + extra + a["b"][row], a["m"][row], n.shift), 16)

        new8 = []
        for j in hidden:
            if isinstance(n, LstmNumerics):
                i, f, g, o = (gate(q, j, ah[q * attrs.hidden + j]) for q in range(4))
                fraction = n.cell_fraction
                c[j] = sat(qr(c[j], sg(f)) + rs(qr(sg(i), act(g)), 15 - fraction), 16)
                squashed = act(sat(c[j] << (12 - fraction), 16))
                new8.append(sat(rs(qr(sg(o), squashed), 8), 8))
            else:
                assert isinstance(n, GruNumerics)
                r, z = (sg(gate(q, j, ah[q * attrs.hidden + j])) for q in range(2))
                t = ((ah[2 * attrs.hidden + j] + a["b_hn"][j]) * r) >> 16
                m = act(gate(2, j, t << 1))
                h16[j] = m + ((z * (h16[j] - m) + 2**14) >> 15)
                new8.append(sat(rs(h16[j], 8), 8))
        h8 = new8
        out.append(h8)
    return out[::-1] if attrs.reverse else out


@pytest.mark.parametrize("s", SAMPLES, ids=lambda s: s.name)
def test_specification_by_hand(s: Sample) -> None:
    node = s.graph.nodes[0]
    op = recurrent.LSTM if isinstance(node.attrs, Lstm) else recurrent.GRU
    y = op.integer(node, arguments(s))
    for row in (0, 4):
        assert y[row].tolist() == plain_sequence(s, row)
