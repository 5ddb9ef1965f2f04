"""Fully connected kernels for DSP and MVE cores: the plain C beside the assembly, and where each kernel may be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from projgen.ir.graph import Graph
from projgen.ir.interpreter import trace_integer
from projgen.ir.numerics import MatrixNumerics
from projgen.ir.types import DType
from projgen.kernels import linear as kernels
from projgen.kernels.packed import LIMIT
from projgen.kernels.record import KernelChoice
from projgen.ops.linear import sample
from projgen.ops.record import Sample
from projgen.targets import load_target
from tests.kernels import draws
from tests.kernels.rig import TRAPS, Library, cases

FAST = [
    *(("cortex-m4", name) for name in ("linear_dsp", "linear_dsp_looped")),
    *(("cortex-m55", name) for name in ("linear_mve", "linear_mve_shared", "linear_mve_looped")),
]


def choice(made: Sample, target: str, name: str) -> KernelChoice | None:
    kernel = next(k for k in kernels.KERNELS if k.name == name)
    return kernel.apply(made.graph, made.graph.nodes[0], load_target(target))


@pytest.mark.parametrize(("target", "name"), FAST)
def test_plain_equivalent(target: str, name: str, tmp_path: Path) -> None:
    made = draws.collect(draws.linears(), 100)
    library = Library(cases(made, target, name), tmp_path, ("gcc", "-O1", *TRAPS["gcc"]))
    assert len(library.cases) >= 20
    library.check()


def at_the_bound(excess: int) -> Sample:
    """One row of all +-127 whose |w| 128 + |b| is the packed kernel's limit less one, plus ``excess``."""
    made = sample("bound", 500, 1)
    w = np.where(np.arange(500) % 2, 127, -127).astype(np.int8)[None]
    b = np.array([LIMIT - 1 - 500 * 127 * 128 + excess], np.int32)
    values = [replace(made.graph.values["w"], data=w), replace(made.graph.values["b"], data=b)]
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (4, 500)).astype(np.int8)
    x[0], x[1] = np.where(w[0] > 0, 127, -128), np.where(w[0] > 0, -128, 127)
    return Sample("bound", made.graph.with_(values=values), (x,))


def test_packed_pairs_are_used_up_to_their_bound_and_not_beyond(tmp_path: Path) -> None:
    below, beyond = (choice(at_the_bound(excess), "cortex-m4", "linear_dsp") for excess in (0, 1))
    assert below is not None
    assert beyond is not None
    assert "plain" not in below.function
    assert "plain" in beyond.function
    Library(cases([at_the_bound(0), at_the_bound(1)], "cortex-m4", "linear_dsp"), tmp_path).check()


@pytest.mark.parametrize("rank", [4, 7, 8])
def test_low_rank_pair_reads_an_int16_operand(rank: int, tmp_path: Path) -> None:
    made = cases([draws.low_rank(rank)], "cortex-m4", "linear_dsp")
    assert [c.node.name for c in made] == ["second"]
    assert made[0].choice.scratch_bytes == (0 if rank % 4 == 0 else 16)
    Library(made, tmp_path).check()


def test_peak_of_an_activation_is_proven_from_its_producer() -> None:
    graph = draws.low_rank(4).graph
    peak = kernels.peak(graph, "z")
    worst = np.where(graph.constant("w") > 0, 127, -128).astype(np.int8)
    [middle, _] = (y for _, _, y in _trace(graph, worst))
    assert np.abs(middle).max() <= peak < 2**14
    assert kernels.peak(graph, "x") == 128
    node = graph.nodes[0]
    assert isinstance(node.numerics, MatrixNumerics)
    clamped = replace(node, numerics=replace(node.numerics, requant=replace(node.numerics.requant, low=-9, high=5)))
    assert kernels.peak(graph.with_(nodes=(clamped, graph.nodes[1])), "z") == 9


def _trace(graph: Graph, x: np.ndarray) -> list:  # type: ignore[type-arg]
    return list(trace_integer(graph, (x,)))


@pytest.mark.parametrize("outputs", [4, 7, 9, 10])
def test_int16_operands_that_are_not_proven_small_take_single_weights(outputs: int, tmp_path: Path) -> None:
    wide = sample(f"wide_{outputs}", 200, outputs, x=DType.INT16)
    made = cases([wide, draws.low_rank(outputs, fine=True)], "cortex-m4", "linear_dsp")
    assert [("plain" in c.choice.function, c.node.name) for c in made if c.node.name != "first"] == [
        (True, wide.graph.nodes[0].name),
        (True, "second"),
    ]
    Library(made, tmp_path, ("gcc", "-O1", *TRAPS["gcc"])).check()


def test_mve_refuses_an_int16_output_with_a_zero_point() -> None:
    made = sample("zero", 9, 8, y=DType.INT16)
    node = made.graph.nodes[0]
    assert isinstance(node.numerics, MatrixNumerics)
    assert choice(made, "cortex-m55", "linear_mve") is not None
    moved = replace(node, numerics=replace(node.numerics, requant=replace(node.numerics.requant, zero_point=1)))
    assert choice(Sample("zero", made.graph.with_(nodes=(moved,)), ()), "cortex-m55", "linear_mve") is None


@pytest.mark.parametrize(("target", "name"), FAST)
def test_faster_than_portable_by_prediction(target: str, name: str) -> None:
    made = sample("large", 128, 128)
    fast, plain = choice(made, target, name), choice(made, target, "linear_portable")
    assert fast is not None
    assert plain is not None
    assert fast.instructions < plain.instructions / 2
