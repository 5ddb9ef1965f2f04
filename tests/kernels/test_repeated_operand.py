"""Sums and products whose second operand is shorter than the first: bytes on every core, instructions an element."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from projgen.ir.interpreter import trace_integer
from projgen.ir.types import Quant
from projgen.kernels.elementwise import Operand, operand
from projgen.kernels.record import KernelChoice
from projgen.ops.common import int8_type
from projgen.ops.elementwise import binary_sample
from projgen.ops.record import Sample
from tests.kernels import draws
from tests.kernels.rig import TRAPS, Case, Library
from tests.kernels.single_node import build, check, choice_of, instructions
from tests.kernels.test_odds_dsp import clamped

CORES = {"dsp": "cortex-m4", "mve": "cortex-m55"}
MAP = (10, 12, 32)


def sample(op: str, a: tuple[int, ...], b: tuple[int, ...]) -> Sample:
    types = int8_type(a, 0.05, 3), int8_type(b, 0.02, -90)
    return binary_sample(f"{op} {a} {b}", op, *types, Quant(0.06 if op == "add" else 0.1, 11))


@st.composite
def repeated(draw: Any) -> Sample:
    """b for every channel, for every pixel or one number; odd sizes; constant or not; limits on both sides or not."""
    pixels, channels = draw(st.integers(1, 20)), draw(st.integers(1, 37))
    shapes = [((2, pixels, channels), b) for b in ((1, 1, channels), (1, pixels, channels), (2, pixels, 1), (1, 1, 1))]
    a, b = draw(st.sampled_from(shapes))
    zeros = [draw(draws.ZERO) for _ in range(3)]
    op = draw(st.sampled_from(["add", "mul"]))
    y = Quant(draw(st.floats(0.02, 0.2)), zeros[2])
    data = np.resize(np.array(draw(st.lists(draws.ZERO, min_size=1, max_size=9)), np.int8), b)
    types = int8_type(a, 0.05, zeros[0]), int8_type(b, 0.02, zeros[1])
    constant = data if draw(st.booleans()) else None
    made = binary_sample(f"{op} {a} {b} {y} {zeros}", op, *types, y, constant=constant)
    return clamped(made) if draw(st.booleans()) else made


def work(isa: str) -> list[tuple[Sample, KernelChoice]]:
    made = [
        sample(op, a, b)
        for op in ("add", "mul")
        for a, b in (
            ((5, 7, 13), (1, 1, 13)),
            ((5, 7, 13), (5, 7, 1)),
            ((3, 1, 64), (1, 1, 64)),
            ((11, 3), (1, 3)),
            ((11, 3), (11, 1)),
            ((6, 9, 12), (1, 9, 12)),
            ((37,), (1,)),
            ((2, 8), (1, 8)),
        )
    ]
    made += [*(clamped(s) for s in made), *draws.collect(repeated(), 30)]
    return [(s, c) for s in made if (c := choice_of(s, f"{s.graph.nodes[0].op}_{isa}", CORES[isa]))]


@pytest.mark.parametrize("isa", CORES)
@pytest.mark.parametrize(("compiler", "optimise"), [("gcc", "-O0"), ("gcc", "-O2"), ("clang", "-O2")])
def test_bytes(isa: str, compiler: str, optimise: str, tmp_path: Path) -> None:
    todo = work(isa)
    assert len(todo) == 2 * 2 * 8 + 30, "the fast kernels take every one of these forms"
    check(todo, CORES[isa], tmp_path, compiler=compiler, optimise=optimise)


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m3", "cortex-m33", "cortex-a53"])
def test_bytes_elsewhere(target: str, tmp_path: Path) -> None:
    made = [s for s, _ in work("dsp")]
    kind = "dsp" if target == "cortex-m33" else "portable"
    todo = [(s, c) for s in made if (c := choice_of(s, f"{s.graph.nodes[0].op}_{kind}", target))]
    assert len(todo) == len(made)
    check(todo, target, tmp_path)


@pytest.mark.parametrize("isa", CORES)
def test_plain_c_in_guarded_buffers(isa: str, tmp_path: Path) -> None:
    """Also over the first operand."""
    parts = []
    for s, choice in work(isa):
        *_, (node, args, expected) = trace_integer(s.graph, s.inputs)
        inputs = tuple(np.ascontiguousarray(args[role]) for role, _ in s.graph.activations(node))
        parts.append(Case(s, node, choice, inputs, np.asarray(expected)))
    assert all(p.choice.in_place >= {"a"} for p in parts)
    compared = Library(parts, tmp_path, ("gcc", "-O1", *TRAPS["gcc"])).check()
    assert compared >= sum(p.expected.size for p in parts)


@pytest.mark.parametrize(
    ("isa", "op", "b", "limit"),
    [
        ("dsp", "mul", (1, 1, 32), 5.9),
        ("dsp", "add", (1, 1, 32), 5.9),
        ("dsp", "mul", (10, 12, 1), 5.7),
        ("dsp", "add", (1, 1, 1), 5.4),
        ("mve", "mul", (1, 1, 32), 2.0),
        ("mve", "add", (1, 1, 32), 2.5),
        ("mve", "mul", (10, 12, 1), 1.8),
        ("mve", "add", (10, 12, 1), 1.9),
        ("mve", "mul", (1, 1, 1), 1.6),
    ],
)
def test_instructions(isa: str, op: str, b: tuple[int, ...], limit: float, tmp_path: Path) -> None:
    s = sample(op, MAP, b)
    choice = choice_of(s, f"{op}_{isa}", CORES[isa])
    assert choice is not None
    (counted,) = instructions(build([(s, choice)], CORES[isa], tmp_path), [s])
    assert counted <= limit * math.prod(MAP)
    assert choice.instructions == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize(
    ("a", "b", "form"),
    [
        ((3, 4, 5), (3, 4, 5), Operand("same", 1, 60)),
        ((1, 1, 1), (1, 1, 1), Operand("same", 1, 1)),
        ((3, 4, 5), (1, 1, 5), Operand("channels", 12, 5)),
        ((3, 4, 5), (1, 4, 5), Operand("channels", 3, 20)),
        ((3, 4, 5), (3, 4, 1), Operand("pixels", 12, 5)),
        ((3, 4, 5), (3, 1, 1), Operand("pixels", 3, 20)),
        ((3, 4, 5), (1, 1, 1), Operand("pixels", 1, 60)),
        ((3, 4, 5), (3, 1, 5), None),
        ((3, 4, 5), (1, 4, 1), None),
    ],
)
def test_forms(a: tuple[int, ...], b: tuple[int, ...], form: Operand | None) -> None:
    s = sample("mul", a, b)
    assert operand(s.graph, s.graph.nodes[0]) == form
    found = [choice_of(s, "mul_dsp"), choice_of(s, "mul_mve", "cortex-m55")]
    assert all((c is None) == (form is None) for c in found)
