"""Faults planted in the integer meaning of LSTM and GRU: the specification by hand must notice each."""

from __future__ import annotations

import inspect
import types

import numpy as np
import pytest

from projgen.ir.attrs import Lstm
from projgen.ops import recurrent_integer
from tests.ops.test_recurrent_integer import SAMPLES, arguments, plain_sequence

FAULTS = (
    ("(v >> 8) + 128, v & 255", "(v >> 8) + 128, v & 254"),
    ("* f + 128) >> 8)", "* f) >> 8)"),
    ("(tanh(v) + 32767) >> 1", "(tanh(v) + 32768) >> 1"),
    ("(a * b + (1 << 14)) >> 15", "(a * b + (1 << 13)) >> 15"),
    ('acc = acc + args["b_in"]', "acc = acc + 0"),
    ('product(from_h, args["r"]) << max(-n.k, 0)) + args["b"]', 'product(from_h, args["r"])) + args["b"]'),
    ('args["q_out"]) << max(-k, 0)', 'args["q_out"]) << max(k, 0)'),
    ("v_i, v_f, v_g, v_o", "v_i, v_g, v_f, v_o"),
    ("15 - fraction", "16 - fraction"),
    ("c << (12 - fraction), 16", "c << (12 - fraction), 17"),
    ("multiply_q15(sigmoid(v_o), squashed), 8), 8)", "multiply_q15(sigmoid(v_o), squashed), 8), 9)"),
    ('+ args["b_hn"]) * r) >> 16', ") * r) >> 16"),
    ('+ args["b_hn"]) * r) >> 16', '+ args["b_hn"]) * r + 32768) >> 16'),
    ("+ 2 * reset", "+ reset"),
    ("r, z = np.split", "z, r = np.split"),
    ("(h - candidate) + (1 << 14)", "(h - candidate) + (1 << 15)"),
    ("return saturate(rounding_shift(h, 8), 8)", "return saturate(h >> 8, 8)"),
    ('ints["x"][:, ::-1] if attrs.reverse', 'ints["x"] if attrs.reverse'),
    ("args.get(role, np.zeros(units, np.int64))", "0"),
)


def differs(module: types.ModuleType) -> bool:
    """Whether a sequence of some sample comes out otherwise than by hand."""
    for s in SAMPLES:
        node = s.graph.nodes[0]
        run = module.lstm_integer if isinstance(node.attrs, Lstm) else module.gru_integer
        args = arguments(s)
        for row in (0, 4):
            part = args | {"x": args["x"][row : row + 1]}
            try:
                y = run(node, part)[0]
            except IndexError:  # outside the table
                return True
            if not np.array_equal(y, plain_sequence(s, row)):
                return True
    return False


def module_of(source: str) -> types.ModuleType:
    module = types.ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)
    return module


def test_the_original_differs_nowhere() -> None:
    assert not differs(module_of(inspect.getsource(recurrent_integer)))


@pytest.mark.parametrize(("good", "bad"), FAULTS)
def test_a_fault_is_found(good: str, bad: str) -> None:
    source = inspect.getsource(recurrent_integer)
    assert good in source
    assert differs(module_of(source.replace(good, bad)))
