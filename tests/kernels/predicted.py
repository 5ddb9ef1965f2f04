"""Predicted beside counted instructions of single layers whose shapes are drawn, none of them used in a fit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from projgen.harness.counting import count_image
from projgen.harness.records import Record
from projgen.ir.attrs import AvgPool2d, Conv2d, Gru, Lstm, MaxPool2d
from projgen.ir.types import DType, Quant
from projgen.ops import attention, conv, conv_residual, elementwise, layer_norm, linear, pool
from projgen.ops.common import int8_type
from projgen.ops.record import Sample
from projgen.ops.recurrent_samples import Case, sample
from projgen.schedule.choose import choose
from projgen.targets import load_target
from tests.chain.support import draw
from tests.kernels.single_node import build

SAME: Final = (1, 1, 1, 1)
SMALL: Final = 300  # instructions below which a layer is no cost: one call more or less counts there


@dataclass(frozen=True, slots=True)
class Prediction:
    """One layer on one target."""

    target: str
    sample: str
    kernel: str
    predicted: float
    counted: float

    @property
    def error(self) -> float:
        """Relative to what was counted."""
        return self.predicted / self.counted - 1.0


def drawn(seed: int) -> Iterator[Sample]:
    """Layers of every family, their sizes drawn."""
    rng = np.random.default_rng(seed)

    def r(low: int, high: int, step: int = 1) -> int:
        return int(rng.integers(low // step, high // step + 1)) * step

    tag = f"drawn{seed}"
    yield linear.sample(f"{tag} fully connected", r(20, 300), r(5, 140))
    yield linear.sample(f"{tag} fully connected, relu", r(20, 300), r(5, 140), activation="relu6", y_zero=-128)
    yield linear.sample(f"{tag} fully connected to int16", r(20, 200), r(4, 40), y=DType.INT16)
    for name, size, channels, outputs in (
        ("3x3", (r(5, 17), r(5, 17)), r(4, 40, 4), r(4, 32, 2)),
        ("3x3 of odd channels", (r(5, 12), r(5, 12)), r(5, 23, 2) | 1, r(5, 13)),
        ("stem", (r(12, 32), r(12, 32)), 3, r(8, 16, 2)),
    ):
        yield conv.sample(f"{tag} {name}", (*size, channels), outputs, (3, 3), Conv2d(padding=SAME))
    yield conv.sample(
        f"{tag} 3x3 stride 2", (r(8, 16), r(8, 16), r(8, 32, 4)), r(8, 32, 2), (3, 3), Conv2d((2, 2), SAME)
    )
    yield conv.sample(f"{tag} 5x5", (r(5, 9), r(5, 9), r(3, 12)), r(4, 9), (5, 5), Conv2d(padding=(2, 2, 2, 2)))
    yield conv.sample(f"{tag} 1-D", (1, r(20, 70), r(4, 20)), r(6, 20), (1, 5), Conv2d(padding=(0, 0, 2, 2)))
    grouped = Conv2d(padding=SAME, groups=2)
    yield conv.sample(f"{tag} two groups", (r(5, 8), r(5, 8), r(8, 20, 2)), r(4, 12, 2), (3, 3), grouped)
    yield conv.sample(f"{tag} pointwise", (r(3, 13), r(3, 13), r(8, 130)), r(8, 70), (1, 1), Conv2d())
    yield conv.sample(
        f"{tag} pointwise to int16", (r(4, 9), r(4, 9), r(8, 70)), r(4, 16), (1, 1), Conv2d(), y=DType.INT16
    )
    channels = r(4, 64, 4)
    depthwise = Conv2d(padding=SAME, groups=channels)
    yield conv.sample(f"{tag} depthwise", (r(5, 25), r(5, 25), channels), channels, (3, 3), depthwise)
    depthwise = Conv2d((2, 2), SAME, groups=channels)
    yield conv.sample(f"{tag} depthwise stride 2", (r(6, 24), r(6, 24), channels), channels, (3, 3), depthwise)
    channels = r(8, 32, 4)
    yield conv_residual.sample(
        f"{tag} residual", (r(4, 12), r(4, 12), channels), channels, (3, 3), Conv2d(padding=SAME)
    )
    for name, cell in (("LSTM", Lstm), ("GRU", Gru)):
        inputs, units = r(8, 60), r(20, 100)
        yield sample(Case(f"{tag} {name}", cell, inputs, units))
        yield sample(Case(f"{tag} {name} projected", cell, inputs, units, ranks=(r(2, 8), r(3, 12))))
    quant = Quant(0.05, 3)
    size = (r(6, 16), r(6, 16), r(8, 40, 4))
    yield pool._max_sample(f"{tag} maximum", size, MaxPool2d((2, 2), (2, 2)), quant)
    yield pool.avg_sample(f"{tag} mean of a map", size, AvgPool2d(size[:2], (1, 1)), quant, Quant(0.04, -3))
    for op in ("add", "mul"):
        types = (int8_type(size, 0.05, 3), int8_type(size, 0.04, -3))
        yield elementwise.binary_sample(f"{tag} {op}", op, *types, Quant(0.08, 1))
    yield linear.sample(f"{tag} fully connected of int16", r(9, 200), r(5, 60), x=DType.INT16)
    yield attention.sample(f"{tag} attention", r(8, 40), r(1, 4), r(3, 16))
    sizes = {"keys": r(9, 40), "width": r(3, 16)}
    yield attention.sample(f"{tag} attention to other steps", r(3, 20), r(1, 4), r(3, 16), **sizes)
    yield layer_norm.sample(f"{tag} layer norm", r(8, 70), lead=(r(2, 30),))
    for op in ("add", "mul"):
        size = (r(5, 16), r(5, 16), r(5, 60))
        for name, other in (("channels", (1, 1, size[2])), ("pixels", (*size[:2], 1))):
            types = (int8_type(size, 0.05, 3), int8_type(other, 0.04, -3))
            yield elementwise.binary_sample(f"{tag} {op} of {name}", op, *types, Quant(0.08, 1))


def predictions(target: str, samples: Sequence[Sample]) -> list[Prediction]:
    """Every sample with the kernel that a compilation takes: the layer alone, a time step of a recurrent one."""
    machine = load_target(target)
    work = [(s, choose(s.graph, s.graph.nodes[-1], machine, "fast", "speed")) for s in samples]
    records: list[Record] = []
    for m, s in enumerate(samples):
        for steps in (1, 3) if s.graph.has_time else (1,):
            records.append(Record(draw(s.graph, 3, steps)[2], model=m))
    with tempfile.TemporaryDirectory(prefix="projgen-predicted-") as folder:
        counts = count_image(build(work, target, Path(folder)), records, check_alignment=False)
    assert counts is not None
    by_model: dict[int, list[int]] = {}
    for record, layers in zip(records, counts.layers, strict=True):
        by_model.setdefault(record.model, []).append(sum(layers))
    return [
        Prediction(target, s.name, choice.kernel, choice.instructions, (found[-1] - found[0]) / 2 or found[0])
        for (s, choice), found in zip(work, by_model.values(), strict=True)
    ]
