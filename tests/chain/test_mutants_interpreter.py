"""Faults planted in the recurrent interpreter: both the C and the specification by hand must disagree with each.

The other operators' faults are in ``tests/ops``.
"""

from __future__ import annotations

import inspect
from functools import cache
from types import ModuleType

import numpy as np
import pytest

from projgen.harness.build import Image
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.ir.attrs import Lstm
from projgen.ops import recurrent_integer
from projgen.ops.record import Array, Sample
from projgen.ops.recurrent_samples import CASES, sample
from tests.chain.support import Part, build, part
from tests.ops.test_recurrent_integer import plain_sequence

# (what, what stands in projgen/ops/recurrent_integer.py, what the fault makes of it)
FAULTS = (
    ("q15 product floored", "(a * b + (1 << 14)) >> 15", "(a * b) >> 15"),
    ("q15 product rounded up", "(a * b + (1 << 14)) >> 15", "(a * b + (1 << 15) - 1) >> 15"),
    ("table interpolation floored", "* f + 128) >> 8", "* f) >> 8"),
    ("table without interpolation", "* f + 128) >> 8", "* 0 + 128) >> 8"),
    ("table one entry further", "(v >> 8) + 128, v & 255", "np.minimum((v >> 8) + 129, 255), v & 255"),
    ("logistic rounded up", "+ 32767) >> 1", "+ 32768) >> 1"),
    ("bias of the input factor dropped", 'acc = acc + args["b_in"]', "pass"),
    ("clamp of a low-rank intermediate", "numerics.shift), 16)", "numerics.shift), 12)"),
    ("k on the other operand", 'args["w"]) << max(n.k, 0)', 'args["w"]) << max(-n.k, 0)'),
    ("k on the other product of a joint factor", 'args["q_in"]) << max(k, 0)', 'args["q_in"]) << max(-k, 0)'),
    ("bias of a joint factor dropped", '<< max(-k, 0)) + args["b_in"]', "<< max(-k, 0))"),
    ("clamp of a joint intermediate", 'args["m_in"], numerics.shift), 16)', 'args["m_in"], numerics.shift), 14)'),
    ("gate order of the LSTM", "v_i, v_f, v_g, v_o = ", "v_f, v_i, v_g, v_o = "),
    ("g and o swapped", "v_i, v_f, v_g, v_o = ", "v_i, v_f, v_o, v_g = "),
    ("clamp of the gates", "n.shift), 16), 4", "n.shift), 15), 4"),
    ("shift of the gates", 'requantise(acc, args["m"], n.shift)', 'requantise(acc, args["m"], 0)'),
    ("cell shift", "15 - fraction", "14 - fraction"),
    ("cell squashed at another scale", "12 - fraction", "13 - fraction"),
    ("clamp of the cell", "+ update, 16)", "+ update, 15)"),
    ("cell forgets nothing", "multiply_q15(c, sigmoid(v_f))", "multiply_q15(c, np.int64(32767))"),
    (
        "output floored",
        "rounding_shift(multiply_q15(sigmoid(v_o), squashed), 8)",
        "(multiply_q15(sigmoid(v_o), squashed) >> 8)",
    ),
    ("reset and update gates swapped", "r, z = np.split", "z, r = np.split"),
    ("reset product rounded", "* r) >> 16", "* r + 32768) >> 16"),
    ("reset product not doubled", "2 * reset", "reset"),
    ("candidate bias outside the reset gate", '+ args["b_hn"]) * r) >> 16', ') * r >> 16) + (args["b_hn"] >> 1)'),
    ("state floored", "(h - candidate) + (1 << 14)) >> 15", "(h - candidate)) >> 15"),
    ("update gate the other way round", "candidate + ((z * (h - candidate)", "h + ((z * (candidate - h)"),
    ("int8 copy of the state floored", "saturate(rounding_shift(h, 8), 8)", "saturate(h >> 8, 8)"),
    ("initial state ignored", "+ args.get(role, np.zeros(units, np.int64))", "+ 0 * len(role)"),
    ("backwards run forwards", '["x"][:, ::-1] if attrs.reverse', '["x"] if attrs.reverse'),
    ("outputs of a backward layer in the order they were made", "y[:, ::-1] if attrs.reverse", "y if attrs.reverse"),
)


@cache
def made() -> tuple[Sample, ...]:
    return tuple(sample(case) for case in CASES)


@pytest.fixture(scope="module")
def c_outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Array, ...], ...]:
    """What the portable C gives, by sample and sequence."""
    parts: list[Part] = [part(s.graph, ((x,) for x in s.inputs[0]), s.name) for s in made()]
    image: Image = build(parts, "host", tmp_path_factory.mktemp("recurrent"), optimise="-O1")
    records = [Record(vector, model=m) for m, one in enumerate(parts) for vector in one.vectors]
    results = iter(execute(image, records))
    return tuple(tuple(next(results).outputs[0] for _ in one.vectors) for one in parts)


def planted(good: str, bad: str) -> ModuleType:
    """The interpreter's module with one text replaced."""
    text = inspect.getsource(recurrent_integer)
    assert good in text, f"the interpreter has no {good!r}"
    module = ModuleType("planted")
    exec(compile(text.replace(good, bad), "planted", "exec"), module.__dict__)
    return module


def run(module: ModuleType, s: Sample) -> Array:
    """Outputs (N, T, H) of a sample's sequences."""
    node = s.graph.nodes[0]
    args = {role: s.graph.data(node, role) for role in node.inputs if role != "x"} | {"x": s.inputs[0]}
    y: Array = (module.lstm_integer if isinstance(node.attrs, Lstm) else module.gru_integer)(node, args)
    return y


def agrees_with_c(module: ModuleType, c_outputs: tuple[tuple[Array, ...], ...]) -> bool:
    for s, outputs in zip(made(), c_outputs, strict=True):
        y = run(module, s)
        if any(not np.array_equal(y[i].ravel(), out.ravel()) for i, out in enumerate(outputs)):
            return False
    return True


def agrees_with_specification(module: ModuleType) -> bool:
    return all(run(module, s)[i].tolist() == plain_sequence(s, i) for s in made() for i in (0, 4))


def test_without_a_fault_all_agree(c_outputs: tuple[tuple[Array, ...], ...]) -> None:
    module = planted("return y", "return y")
    assert agrees_with_c(module, c_outputs) and agrees_with_specification(module)


@pytest.mark.parametrize(("good", "bad"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_fault_in_the_interpreter_is_found(good: str, bad: str, c_outputs: tuple[tuple[Array, ...], ...]) -> None:
    module = planted(good, bad)
    assert not agrees_with_c(module, c_outputs), "the C agrees with the fault"
    assert not agrees_with_specification(module), "the specification by hand agrees with the fault"
