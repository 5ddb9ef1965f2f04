"""LSTM and GRU kernels as cases of the rig, drawn layers, and layers of the sizes that are measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.interpreter import run_integer
from projgen.kernels.recurrent import KERNELS
from projgen.ops.record import Sample
from projgen.ops.recurrent_samples import CASES, Case, sample
from projgen.targets import load_target
from tests.kernels import rig

TARGETS = {"portable": "host", "thumb2": "cortex-m3", "dsp": "cortex-m4", "mve": "cortex-m55"}

LARGE = (
    Case("lstm_28_20", Lstm, 28, 20, steps=3),
    Case("lstm_100_60_r30_40", Lstm, 100, 60, ranks=(30, 40), steps=3),
    Case("lstm_40_41_dense_r12", Lstm, 40, 41, k=-2, ranks=(None, 12), steps=3),
    Case("lstm_300_9", Lstm, 300, 9, k=1, steps=3),
    Case("lstm_60_70_joint_51", Lstm, 60, 70, ranks=(51, 51), k=1, spread=100.0, joint=True, steps=3),
    Case("lstm_90_12_joint_6_k4", Lstm, 90, 12, ranks=(6, 6), k=4, joint=True, steps=3),
    Case("lstm_2_90_joint_15_k-4", Lstm, 2, 90, ranks=(15, 15), k=-4, spread=300.0, joint=True, steps=3),
    Case("gru_70_65", Gru, 70, 65, steps=3),
    Case("gru_150_33_k2", Gru, 150, 33, k=2, steps=3),
    Case("gru_50_48_r17_18", Gru, 50, 48, ranks=(17, 18), spread=100.0, steps=3),
)


def samples() -> list[Sample]:
    return [sample(case) for case in CASES]


def cases(made: Iterable[Sample], form: str) -> list[rig.Case]:
    """The kernels of one form ("portable", "dsp", "mve") on each sample; a reversed layer gets its steps in order."""
    machine = load_target(TARGETS[form])
    found = []
    for s in made:
        node = s.graph.nodes[0]
        (expected,) = run_integer(s.graph, s.inputs)
        x = s.inputs[0]
        if node.attrs.reverse:  # type: ignore[union-attr]
            x, expected = x[:, ::-1], expected[:, ::-1]
        for kernel in KERNELS:
            if kernel.op == node.op and kernel.name.endswith(form):
                choice = kernel.apply(s.graph, node, machine)
                if choice is not None:
                    found.append(rig.Case(s, node, choice, (np.ascontiguousarray(x),), np.asarray(expected)))
    return found


@st.composite
def layers(draw: Any) -> Sample:
    """Odd sizes, k of both signs, any rank, saturating gates."""
    inputs, hidden = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    factored = st.one_of(st.none(), st.integers(1, 12))
    ranks = (draw(factored), draw(factored))
    cell, joint = draw(st.sampled_from([Lstm, Gru])), False
    if cell is Lstm and ranks[0] is not None and draw(st.booleans()):
        ranks, joint = (ranks[0], ranks[0]), True
    wide = 3 if any(ranks) and not joint else 8
    k = 0 if all(ranks) and not joint else draw(st.integers(-wide, wide))
    if abs(k) > 3:  # the products must fit 32 bits whatever the weights
        inputs, hidden = min(inputs, 12), min(hidden, 12)
    if ranks[0] is not None and not joint:
        k = max(k, 0) if ranks[1] is None else k
    return sample(
        Case(
            f"drawn_{draw(st.integers(0, 2**32 - 1))}",
            cell,
            inputs,
            hidden,
            k=k,
            fraction=draw(st.integers(4, 12)),
            gain=draw(st.sampled_from([0.3, 1.5, 6.0])),
            ranks=ranks,
            spread=draw(st.sampled_from([100.0, 900.0])),
            zero_point=draw(st.integers(-128, 127)),
            initial_state=draw(st.booleans()),
            steps=draw(st.integers(1, 4)),
            joint=joint,
        )
    )
