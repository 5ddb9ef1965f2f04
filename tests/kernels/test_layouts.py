"""Packed tables: what is unpacked is what was packed, for every legal constant, in the documented order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.kernels.layouts import Array, Computed, Plain, TapMajor
from projgen.kernels.packed import LIMIT, NATURAL, WIDENED, PairStream, VectorStream, largest_accumulator
from projgen.kernels.record import Layout
from tests.kernels.rig import cases, samples

QUICK = settings(deadline=None, max_examples=60)
SIZE = st.integers(1, 40)


def matrix(seed: int, outputs: int, inputs: int, bias: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.choice([-127, -1, 0, 1, 127, 64], (outputs, inputs)).astype(np.int8),
        "b": rng.integers(-bias, bias, outputs, dtype=np.int32),
        "m": (rng.integers(0, 2**29, outputs) * 4).astype(np.int32),
    }


def same(layout: Layout, constants: Mapping[str, Array]) -> Array:
    """The table of ``constants``, having checked that it holds exactly them."""
    packed = layout.pack(constants)
    unpacked = layout.unpack(packed)
    assert set(unpacked) == set(constants)
    for role, values in constants.items():
        assert unpacked[role].shape == values.shape
        np.testing.assert_array_equal(unpacked[role], values)
    return packed


@QUICK
@given(st.integers(0, 99), SIZE, SIZE, st.sampled_from([NATURAL, WIDENED]), st.booleans())
def test_pair_stream_keeps_everything(
    seed: int, outputs: int, inputs: int, order: tuple[int, int, int, int], paired: bool
) -> None:
    constants = matrix(seed, outputs, inputs, LIMIT if paired else 2**31)
    packed = same(PairStream(outputs, inputs, order, paired), constants)
    quads = -(-inputs // 4)
    full, tail = divmod(outputs, 4)
    assert packed.dtype == np.uint32
    assert packed.size == full * (4 * quads + 8) + -(-tail // 2) * (2 * quads + 4)


@QUICK
@given(st.integers(0, 99), SIZE, SIZE, st.sampled_from([8, 16]))
def test_vector_stream_keeps_everything(seed: int, outputs: int, inputs: int, lanes: int) -> None:
    packed = same(VectorStream(outputs, inputs, lanes), matrix(seed, outputs, inputs, 2**31))
    assert packed.size == -(-outputs // 8) * (16 + -(-inputs // lanes) * lanes * 2)


@QUICK
@given(st.integers(0, 99), SIZE, st.integers(1, 5), st.integers(1, 5))
def test_tap_major_keeps_everything(seed: int, outputs: int, kh: int, kw: int) -> None:
    w = np.random.default_rng(seed).integers(-127, 128, (outputs, kh, kw, 1)).astype(np.int8)
    packed = same(TapMajor("w", w.shape), {"w": w})
    assert packed[1 if outputs > 1 else 0] == w[1 if outputs > 1 else 0, 0, 0, 0]


def test_pair_stream_is_in_the_documented_order() -> None:
    w = np.array([[1, 2, 3, 4, 5], [-1, -2, -3, -4, -5], [6, 7, 8, 9, 10]], np.int8)
    constants = {"w": w, "b": np.array([100, -7, 3], np.int32), "m": np.array([4, 8, 12], np.int32)}

    def word(a: int, b: int, c: int, d: int) -> int:
        """Two halfwords: 256 a + b below, 256 c + d above."""
        return (256 * a + b & 0xFFFF) | (256 * c + d & 0xFFFF) << 16

    first = [256 * 100 - 7, -7 & 0xFFFFFFFF, word(1, -1, 3, -3), word(2, -2, 4, -4), word(5, -5, 0, 0), 0, 4, 8]
    second = [256 * 3, 0, word(6, 0, 8, 0), word(7, 0, 9, 0), word(10, 0, 0, 0), 0, 12, 0]
    assert PairStream(3, 5, WIDENED).pack(constants).tolist() == first + second

    def single(*weights: int) -> int:
        return int.from_bytes(np.array(weights, np.int8).tobytes(), "little")

    first = [100, -7 & 0xFFFFFFFF, single(1, 2, 3, 4), single(-1, -2, -3, -4), single(5, 0, 0, 0), single(-5, 0, 0, 0)]
    second = [3, 0, single(6, 7, 8, 9), 0, single(10, 0, 0, 0), 0]
    assert PairStream(3, 5, WIDENED, packed=False).pack(constants).tolist() == [*first, 4, 8, *second, 12, 0]
    crossed = PairStream(3, 5, NATURAL, packed=False).pack(constants)
    assert crossed[2] == single(1, 3, 2, 4)


def test_vector_stream_is_in_the_documented_order() -> None:
    w = np.arange(1, 10, dtype=np.int8)[:, None]
    constants = {"w": w, "b": np.arange(9, dtype=np.int32) * 10, "m": np.arange(9, dtype=np.int32) * 4}
    packed = VectorStream(9, 1, 8).pack(constants)
    assert packed[:8].tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert packed[8:24].tolist() == [x for row in range(1, 9) for x in (row, 0)]
    assert packed[24:32].tolist() == [0, 8, 16, 24, 4, 12, 20, 28]
    assert packed[32] == 80


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values in 0\.\.70000 do not fit uint16"):
        Plain("table", (2,), "uint16").pack({"table": np.array([0, 70000])})
    with pytest.raises(ValueError, match="does not hold the computed values"):
        Computed((1, 2), "int32").unpack(np.array([1, 3], np.int32))
    with pytest.raises(ValueError, match="b have no place"):
        Computed((1, 2), "int32").pack({"b": np.array([1], np.int32)})


@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
def test_tables_of_every_sample_hold_the_node_s_constants(target: str) -> None:
    tables = 0
    for case in cases(samples(), target):
        for table in case.choice.tables:
            unpacked = table.layout.unpack(table.data)
            assert set(unpacked) == set(table.roles), case.label
            for role in table.roles:
                np.testing.assert_array_equal(unpacked[role], case.graph.data(case.node, role), err_msg=case.label)
            tables += 1
    assert tables > 150


def test_largest_accumulator_is_reached() -> None:
    w, b = np.array([[3, -4], [1, 1]], np.int8), np.array([-10, 5], np.int32)
    assert largest_accumulator(w, b, 128) == 7 * 128 + 10
