"""What single layers may cost, everything of a step included, and how that is counted."""

from __future__ import annotations

import pytest

from benchmarks.measuring import (
    GRU_DENSE,
    GRU_PROJECTED,
    LINEAR,
    LSTM_DENSE,
    LSTM_JOINT,
    LSTM_PROJECTED,
    LSTM_SHIFTED,
    costs,
    ratio,
    slope,
    workloads,
)

M4, M55 = "cortex-m4", "cortex-m55"

# Instructions per MAC of a step, at most.
PER_MAC = {
    (LSTM_DENSE, M4): 1.1,
    (LSTM_SHIFTED, M4): 1.1,
    (GRU_DENSE, M4): 1.1,
    (LINEAR, M4): 0.96,
    (LSTM_DENSE, M55): 0.2,
    (LSTM_SHIFTED, M55): 0.2,
    (GRU_DENSE, M55): 0.22,
    (LINEAR, M55): 0.16,
}


@pytest.mark.qemu
@pytest.mark.parametrize(("title", "target"), PER_MAC, ids=str)
def test_instructions_per_product(title: str, target: str) -> None:
    assert costs(target)[title].per_mac <= PER_MAC[title, target]


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("target", "projected", "dense", "most"),
    [
        (M4, LSTM_PROJECTED, LSTM_DENSE, 0.3),
        (M4, GRU_PROJECTED, GRU_DENSE, 0.4),
        (M55, LSTM_PROJECTED, LSTM_DENSE, 0.5),
        (M55, GRU_PROJECTED, GRU_DENSE, 0.7),
    ],
)
def test_a_projected_step_costs_less(target: str, projected: str, dense: str, most: float) -> None:
    assert ratio(costs(target)[projected], costs(target)[dense]) <= most


@pytest.mark.qemu
@pytest.mark.parametrize(("target", "most"), [(M4, 3250), (M55, 1060)])
def test_a_joint_step(target: str, most: int) -> None:
    """26 units, rank 14: hand-made blocks that pair no gates execute 3,152 and 1,126 instructions a step."""
    assert costs(target)[LSTM_JOINT].instructions <= most


def test_products_are_counted_by_hand() -> None:
    macs = {w.title: w.macs for w in workloads()}
    assert macs[LSTM_DENSE] == 4 * 100 * (12 + 100)
    assert macs[LSTM_PROJECTED] == 12 * 8 + 100 * 7 + 4 * 100 * (8 + 7)
    assert macs[LSTM_JOINT] == 14 * (12 + 26) + 4 * 26 * 14
    assert macs[GRU_DENSE] == 3 * 64 * (12 + 64)
    assert macs[LINEAR] == 128 * 128


def test_counts_off_a_line_are_refused() -> None:
    assert slope((1, 2, 5), (13, 16, 25)) == (3, 10)
    for counts in ((13, 16, 26), (13, 17, 25)):
        with pytest.raises(ValueError, match="are not on a line"):
            slope((1, 2, 5), counts)
    with pytest.raises(ValueError, match="are not on a line"):
        slope((1, 3), (10, 13))
