"""Choices within several limits, against trying all of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.projection.limits import Table, cheapest, least_error


def drawn(seed: int, layers: int, most: int, costs: int) -> list[Table[int]]:
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(layers):
        n = int(rng.integers(1, most + 1))
        tables.append(Table(tuple(range(n)), rng.exponential(size=n), rng.integers(1, 20, (n, costs)).astype(float)))
    return tables


def tried(tables: list[Table[int]], limits: np.ndarray) -> float:
    """The least error of all combinations within the limits, inf if there is none."""
    least = np.inf
    for choice in product(*(range(len(t.choices)) for t in tables)):
        cost = sum(t.cost[i] for t, i in zip(tables, choice, strict=True))
        if (cost <= limits).all():
            least = min(least, sum(t.error[i] for t, i in zip(tables, choice, strict=True)))
    return float(least)


def spent(tables: list[Table[int]], choices: list[int]) -> tuple[float, np.ndarray]:
    error = sum(t.error[i] for t, i in zip(tables, choices, strict=True))
    return float(error), np.sum([t.cost[i] for t, i in zip(tables, choices, strict=True)], axis=0)


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(1, 4),
    costs=st.integers(1, 3),
    share=st.floats(0.05, 1.2),
    free=st.booleans(),
)
def test_the_best_of_all_combinations(seed: int, layers: int, costs: int, share: float, free: bool) -> None:
    tables = drawn(seed, layers, 6, costs)
    limits = np.full(costs, share * 19 * layers)
    if free:
        limits[0] = np.inf
    found, best = least_error(tables, limits), tried(tables, limits)
    if found is None:
        assert best == np.inf
        return
    error, cost = spent(tables, found)
    assert error == pytest.approx(best) and (cost <= limits + 1e-6).all()
    useful = least_error([t.useful() for t in tables], limits)
    assert useful is not None and spent(tables, useful)[0] == pytest.approx(best)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), share=st.floats(0.3, 0.8))
def test_thinned_sums_keep_the_limits_and_come_near(seed: int, share: float) -> None:
    """With room for 400 sums of 5^8: what is found keeps the limits, and lies between the exact error and that with
    limits of a slot less for each table."""
    tables = drawn(seed, 8, 5, 2)
    limits = np.full(2, share * 19 * 8)
    exact, found = least_error(tables, limits, 10**6), least_error(tables, limits, 400)
    if exact is None or found is None:
        assert exact is None or share < 0.45
        return
    error, cost = spent(tables, found)
    assert (cost <= limits + 1e-6).all() and error >= spent(tables, exact)[0] - 1e-12
    less = least_error(tables, limits * (1 - 8 / 20), 10**6)
    assert less is None or error <= spent(tables, less)[0] + 1e-12


def test_what_another_choice_beats_is_left_out() -> None:
    """Ranks 5 to 8 cost the same on a core of eight lanes: only 8 is of use; rank 9 costs more and errs more."""
    table = Table(
        (4, 5, 6, 7, 8, 9),
        np.array([9.0, 5.0, 4.0, 3.0, 2.0, 2.5]),
        np.array([[10, 4], [16, 8], [16, 8], [16, 8], [16, 8], [24, 12]], dtype=float),
    )
    assert sorted(table.useful().choices) == [4, 8]


def test_the_cheapest_counts_in_units_of_the_limits() -> None:
    table = Table(("small", "fast"), np.array([1.0, 1.0]), np.array([[90.0, 10.0], [50.0, 40.0]]))
    assert cheapest([table], np.array([100.0, 1000.0])) == ["fast"]
    assert cheapest([table], np.array([1000.0, 100.0])) == ["small"]
    assert cheapest([table], np.array([np.inf, 100.0])) == ["small"]
