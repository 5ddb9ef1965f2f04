"""Models with equalised low-rank products: the C gives the simulator's bytes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from projgen.quant.equalise import equalised
from projgen.quant.quantise import quantise
from tests.chain.support import Part, build, compare, draw, part
from tests.quant.test_equalise import calibrated, inputs, product, sequence, triple

FLOATS = {
    "linear": product(share=2.0),
    "conv": triple(),
    "lstm": sequence(share=2.0),
    "joint": sequence(joint=True, share=2.0),
    "gru": sequence("gru", share=2.0),
}


@cache
def parts() -> tuple[Part, ...]:
    made = []
    for name, graph in FLOATS.items():
        better, seen, done = equalised(graph, *calibrated(graph, inputs(graph)))
        assert done, name
        quantised = quantise(better, seen)
        made.append(part(quantised, draw(quantised, 8, steps=9), name))
    return tuple(made)


@pytest.mark.parametrize(
    "target",
    [
        "host",
        pytest.param("cortex-m4", marks=pytest.mark.qemu),
        pytest.param("cortex-m55", marks=pytest.mark.qemu),
    ],
)
def test_same_bytes(target: str, tmp_path: Path) -> None:
    found = compare(build(parts(), target, tmp_path), parts())
    assert found.samples == len(FLOATS) and found.runs >= 16 * len(FLOATS)
