"""Transposed convolutions, gathered and through the fast convolutions: bytes on every core, predicted instructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen import ops
from projgen.kernels.conv_transpose_layouts import PhaseBias, Phases, PhaseWeights, Stacked, reach
from projgen.kernels.layouts import Plain
from projgen.kernels.record import KernelChoice
from projgen.ops.conv_transpose import OP, sample, transposed
from projgen.ops.record import Sample
from tests.kernels.draws import transposed_convs
from tests.kernels.rig import TRAPS, Library, cases
from tests.kernels.single_node import build, choice_of, chosen, differing, instructions

PORTABLE = "conv_transpose2d_portable"
FAST = {"cortex-m4": "conv_transpose2d_dsp", "cortex-m55": "conv_transpose2d_mve"}
ONE, TWO = (1, 1, 1, 1), (2, 2)


def work(samples: list[Sample], target: str) -> list[tuple[Sample, KernelChoice]]:
    """Every kernel of the target for each sample that it fits."""
    kernels = (PORTABLE, "conv_transpose2d_dsp", *FAST.values())
    found = [(s, choice_of(s, kernel, target)) for s in samples for kernel in dict.fromkeys(kernels)]
    return [(s, c) for s, c in found if c is not None]


@pytest.mark.parametrize("target", ["cortex-m3", "cortex-m4", "cortex-m33", "cortex-m55"])
def test_bytes_on_cores(target: str, tmp_path: Path) -> None:
    todo = work(list(ops.get(OP).samples()), target)
    kinds = {"cortex-m3": 1, "cortex-m4": 2, "cortex-m33": 2, "cortex-m55": 3}
    assert len({c.kernel for _, c in todo}) == kinds[target]
    assert differing(build(todo, target, tmp_path), [s for s, _ in todo]) == {}


@settings(max_examples=4, deadline=None)
@given(samples=st.lists(transposed_convs(), min_size=12, max_size=12))
@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
def test_drawn_geometries(target: str, tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    """The C, also that beside the assembly, on this machine with traps and guarded buffers."""
    library = Library(cases(samples, target), tmp_path_factory.mktemp("drawn"), ("gcc", "-O1", *TRAPS["gcc"]))
    assert len(library.cases) >= len(samples)
    library.check()


def test_what_the_fast_kernels_leave_to_the_gathering_one() -> None:
    groups = sample("groups", (4, 4, 4), 6, (3, 3), transposed(TWO, ONE, groups=2))
    cut = sample("cut", (6, 6, 4), 4, (2, 2), transposed(TWO, (4, 4, 0, 0)))
    for target, kernel in FAST.items():
        assert choice_of(groups, kernel, target) is choice_of(cut, kernel, target) is None
        assert chosen(groups, target).kernel == PORTABLE


def test_a_stride_of_one_writes_the_output_itself() -> None:
    s = sample("plain", (6, 6, 8), 8, (3, 3), transposed(padding=ONE))
    choice = chosen(s)
    assert choice.kernel == "conv_transpose2d_dsp"
    assert choice.function.startswith("pg_winograd2d")
    assert "pg_interleave.h" not in choice.sources


# (shape, outputs, kernel, attributes, instructions per product that meets a pixel: M4, M55), whole layers, -O2
FIGURES = (
    ((8, 8, 32), 16, (2, 2), transposed(TWO), 1.10, 0.27),
    ((8, 8, 16), 16, (4, 4), transposed(TWO, ONE), 1.30, 0.29),
    ((8, 8, 16), 16, (3, 3), transposed(TWO, ONE, (1, 1)), 2.20, 0.49),
    ((8, 8, 16), 16, (3, 3), transposed(padding=ONE), 0.55, 0.17),
)


@pytest.mark.parametrize("target", FAST)
def test_instructions(target: str, tmp_path: Path) -> None:
    todo = []
    for index, (shape, outputs, kernel, attrs, *_) in enumerate(FIGURES):
        s = sample(f"figure {index}", shape, outputs, kernel, attrs)
        assert chosen(s, target).kernel == FAST[target]
        for name in (PORTABLE, FAST[target]):
            choice = choice_of(s, name, target)
            assert choice is not None
            todo.append((s, choice))
    counted = instructions(build(todo, target, tmp_path), [s for s, _ in todo])
    for index, ((s, choice), count) in enumerate(zip(todo, counted, strict=True)):
        node = s.graph.nodes[0]
        types = {role: s.graph.values[value].type for role, value in node.inputs.items()}
        products = ops.get(OP).cost(node.attrs, types, s.graph.type("y")).macs
        if choice.kernel != PORTABLE:
            assert count <= FIGURES[index // 2][4 if target == "cortex-m4" else 5] * products, s.name
        assert choice.instructions == pytest.approx(count, rel=0.08), (s.name, choice.kernel)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    seed=st.integers(0, 1 << 30),
)
def test_orders_hold_the_constants(
    shape: tuple[int, int, int, int], stride: tuple[int, int], dilation: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, shape).astype(np.int8)
    b = rng.integers(-(1 << 28), 1 << 28, shape[0]).astype(np.int32)
    phases = Phases(shape, stride, dilation)
    assert sorted(k for p in range(stride[0]) for k in phases.taps(0, p)) == list(range(shape[1]))
    unseen, size = phases.unseen(w, 5), (reach(phases, 0), reach(phases, 1))
    rows, wide = len(phases.pairs) * shape[0], (len(phases.pairs) * shape[0], *size, shape[3])
    for layout, role, data in (
        (PhaseWeights(phases), "w", w),
        (PhaseBias(unseen), "b", b),
        (Stacked(phases, unseen, size, Plain("w", wide, "int8")), "w", w),
        (Stacked(phases, unseen, size, Plain("b", (rows,), "int32")), "b", b),
        (Stacked(phases, unseen, size, Plain("m", (rows,), "int32")), "m", b),
    ):
        table = layout.pack({role: data})
        assert np.array_equal(layout.unpack(table)[role], data)
        if len(phases.pairs) > 1 and role != "w":
            table[-1] += 1
            with pytest.raises(ValueError, match="the phases hold different constants"):
                layout.unpack(table)
