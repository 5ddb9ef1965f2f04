"""Convolutions that add a residual on MVE cores: bytes on every compiler, instructions, what they may overwrite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from projgen.ir.attrs import Conv2d
from projgen.kernels.conv_mve_layouts import TapStream
from projgen.kernels.record import KernelChoice
from projgen.ops.conv_residual import sample, samples
from projgen.ops.record import Sample
from tests.kernels.single_node import EVERY_BUILD, build, check, choice_of, chosen, instructions

TARGET = "cortex-m55"
KERNELS = ("pointwise_residual_mve", "conv2d_residual_mve")
SAME = Conv2d(padding=(1, 1, 1, 1))


def work() -> list[tuple[Sample, KernelChoice]]:
    hard = [
        *samples(),
        sample("tail_and_odd", (4, 11, 8), 7, (3, 3), SAME),
        sample("looped", (4, 8, 128), 6, (3, 3), SAME),
        sample("narrow", (5, 3, 8), 8, (3, 3), SAME),
        sample("pointwise_tail", (1, 19, 8), 8, (1, 1), Conv2d()),
    ]
    found = [(s, choice_of(s, k, TARGET)) for s in hard for k in KERNELS]
    fitting = [(s, c) for s, c in found if c is not None]
    assert {c.kernel for _, c in fitting} == set(KERNELS)
    return fitting


@EVERY_BUILD
def test_bytes_with_compilers(compiler: str, optimise: str, tmp_path: Path) -> None:
    check(work(), TARGET, tmp_path, compiler=compiler, optimise=optimise)


def test_plain_c_under_sanitizers(tmp_path: Path) -> None:
    check(work(), "host", tmp_path, sanitize=True)


def test_instructions(tmp_path: Path) -> None:
    s = sample("block", (32, 32, 16), 16, (3, 3), SAME)
    choice = chosen(s, TARGET)
    assert choice.kernel == "conv2d_residual_mve"
    (count,) = instructions(build([(s, choice)], TARGET, tmp_path), [s])
    assert count <= 0.1245 * 32 * 32 * 16 * 16 * 9
    assert choice.instructions == pytest.approx(count, rel=0.02)


def test_where_outputs_may_lie_over_the_inputs() -> None:
    def overwritten(s: Sample, kernel: str = "conv2d_residual_mve") -> frozenset[str]:
        choice = choice_of(s, kernel, TARGET)
        assert choice is not None
        return choice.in_place

    assert overwritten(sample("whole", (5, 8, 16), 16, (3, 3), SAME)) == {"x", "residual"}
    assert overwritten(sample("wider", (5, 8, 8), 16, (3, 3), SAME)) == {"residual"}
    assert overwritten(sample("pixels_twice", (5, 9, 16), 16, (3, 3), SAME)) == {"x"}
    assert overwritten(sample("outputs_twice", (5, 8, 16), 15, (3, 3), SAME)) == {"x"}
    assert overwritten(sample("pointwise", (5, 8, 8), 16, (1, 1), Conv2d()), "pointwise_residual_mve") == {"residual"}
    itself = sample("itself_twice", (5, 9, 16), 16, (3, 3), SAME)
    node = itself.graph.nodes[0]
    graph = itself.graph.with_(nodes=[replace(node, inputs={**node.inputs, "residual": node.inputs["x"]})])
    assert overwritten(replace(itself, graph=graph)) == frozenset()


def test_stream_ends_a_pair_with_its_factors() -> None:
    constants: dict[str, npt.NDArray[np.generic]] = {
        "w": np.ones((3, 1, 1, 1), np.int8),
        "b": np.array([1, 2, 3], np.int32),
        "m": np.array([4, 8, 12], np.int32),
        "f": np.array([-1, 20, 30], np.int32),
    }
    layout = TapStream((3, 1, 1, 1), 1, (0,), 8, False, True)
    packed = layout.pack(constants)
    assert packed[4:10].tolist() == [1, 2, 2, 4, 0xFFFFFFFF, 20]
    assert packed[14:].tolist() == [2, 4, 3, 6, 20, 30]
    assert all(np.array_equal(v, constants[role]) for role, v in layout.unpack(packed).items())
