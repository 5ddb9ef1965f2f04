"""The fixed-point rules against Python's own unbounded integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from projgen.errors import UnsupportedError
from projgen.ir.types import DType, Quant
from projgen.quant import fixed

QUICK = settings(deadline=None, max_examples=300)


@QUICK
@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**29 - 1), st.integers(0, 8))
@example(-(2**31), 2**29 - 1, 0)
@example(2**31 - 1, 2**29 - 1, 0)
def test_requantise_is_the_exact_formula(acc: int, quarter: int, shift: int) -> None:
    acc >>= shift  # acc << shift stays in int32
    m = 4 * quarter
    exact = math.floor(Fraction(acc * 2**shift * m, 2**32) + Fraction(1, 2))
    assert int(fixed.requantise(acc, m, shift)) == exact


@QUICK
@given(st.floats(-1e9, 1e9))
@example(0.49999999999999994)
@example(-0.5)
@example(2.5)
def test_nearest_rounds_halves_away_from_zero(x: float) -> None:
    exact = Fraction(x)
    want = math.floor(abs(exact) + Fraction(1, 2))
    assert int(fixed.nearest(x)) == (want if exact >= 0 else -want)


@QUICK
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=5))
@example([0.5])
@example([0.49999999999])
@example([1.0])
def test_multipliers_are_multiples_of_four_with_the_smallest_shift(scales: list[float]) -> None:
    m, shift = fixed.multipliers(scales, "here")
    for value, scale in zip(m.tolist(), scales, strict=True):
        assert value % 4 == 0
        assert 0 <= value < 2**31
        assert abs(Fraction(value, 2**32) * 2**shift - Fraction(scale)) <= Fraction(2**shift, 2**31)
    if shift:
        before = [4 * int(fixed.nearest(s * 2.0 ** (31 - shift))) for s in scales]
        assert max(before) >= 2**31


def test_half_needs_a_shift() -> None:
    """scale 2^-p < .5 alone would admit M = 2^31."""
    assert fixed.multipliers([0.5], "here")[1] == 1
    assert fixed.multipliers([math.nextafter(0.5, 0)], "here")[1] == 1
    assert fixed.multipliers([0.499], "here")[1] == 0


@pytest.mark.parametrize("scale", [-0.1, math.nan, math.inf])
def test_impossible_scales_are_refused(scale: float) -> None:
    with pytest.raises(UnsupportedError, match="layer 7: a requantisation scale is negative or not finite"):
        fixed.multipliers([0.1, scale], "layer 7")


def test_a_hopeless_ratio_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"layer 7: the output's scale is 3\.36e\+07 times finer"):
        fixed.multipliers([2.0**25], "layer 7")


@QUICK
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_affine_holds_its_range_and_zero(a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    quant = fixed.affine(min(a, b), max(a, b))
    assert -128 <= quant.zero_point <= 127
    assert np.float32(quant.scale) == quant.scale
    assert fixed.to_reals(quant.zero_point, quant) == 0.0
    if high - low > 1e-30:
        for edge in (low, high):
            back = float(fixed.to_reals(fixed.to_integers(edge, quant, DType.INT8), quant))
            assert abs(back - edge) <= 0.51 * quant.scale


def test_a_tensor_of_zeros_has_a_usable_map() -> None:
    assert fixed.affine(0.0, 0.0) == Quant(1.0, 0)


@QUICK
@given(st.floats(1e-12, 1e12))
def test_power_of_two_is_the_smallest(peak: float) -> None:
    scale = 2.0 ** fixed.power_of_two(peak)
    assert peak <= 4095 * scale
    assert peak > 4095 * scale / 2


def test_shifts_and_saturation() -> None:
    v = np.array([-40000, -129, -3, -2, -1, 0, 1, 2, 3, 128, 40000])
    assert fixed.saturate(v, 8).tolist() == [-128, -128, -3, -2, -1, 0, 1, 2, 3, 127, 127]
    assert fixed.saturate(v, 16).tolist()[0::10] == [-32768, 32767]
    assert fixed.rounding_shift(v, 1).tolist() == [-20000, -64, -1, -1, 0, 0, 1, 1, 2, 64, 20000]
    assert fixed.rounding_shift(v, 0).tolist() == v.tolist()
