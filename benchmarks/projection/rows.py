"""What is measured: per network its levels, how far the student is trained, and what must be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.projection import nets
from benchmarks.projection.nets import Net


@dataclass(frozen=True, slots=True)
class Reduction:
    """A share of the learnables to remove."""

    share: float


@dataclass(frozen=True, slots=True)
class PcaRanks:
    """The size that ``"pca"`` has at given ranks."""

    ranks: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PcaVariance:
    """The size that ``"pca"`` has when each activation keeps a share of its variance."""

    share: float


@dataclass(frozen=True, slots=True)
class Lost:
    """At most so many points below the seed's own dense network."""

    points: float


@dataclass(frozen=True, slots=True)
class Reached:
    """At least this accuracy."""

    accuracy: float


Limit = Lost | Reached
OURS = ("output",)
BOTH = ("pca", "output")


@dataclass(frozen=True, slots=True)
class Level:
    """A size, and what ``"output"`` must reach at it.

    Attributes:
        name: in tables. size: what both methods may keep. closed, distilled: limits before and after distillation;
            None measures without a limit. distil: the methods whose students are trained.
        beyond_pca: the mean of "output" must lie above that of "pca", before and after distillation.
    """

    name: str
    size: Reduction | PcaRanks | PcaVariance
    closed: Limit | None = None
    distilled: Limit | None = None
    distil: tuple[str, ...] = ()
    beyond_pca: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A network at its levels.

    Attributes:
        name: on the command line. title: in the table. steps: of distillation, with batches of ``batch``.
        int8_tests: test observations on which the integer network is compared with its float one.
    """

    name: str
    title: str
    net: Net
    levels: tuple[Level, ...]
    steps: int = 800
    batch: int = 56
    int8_tests: int = 1000

    def recipe(self, level: Level, method: str, seed: int) -> dict[str, object]:
        """What decides a cell, as plain values."""
        found: dict[str, object] = {
            **self.net.recipe(), "row": self.name, "level": level.name, "method": method, "seed": seed,
            "size": [type(level.size).__name__, asdict(level.size)],
            "distil": [self.steps, self.batch] if method in level.distil else None, "int8_tests": self.int8_tests,
        }  # fmt: skip
        if self.net.calibration is not None:
            found["calibration"] = self.net.calibration
        return found


def _rank_levels(accuracies: Mapping[int, float], ranks: Mapping[int, Mapping[str, Any]]) -> tuple[Level, ...]:
    return tuple(Level(f"rank {r}", PcaRanks(ranks[r]), Reached(accuracies[r])) for r in accuracies)


def _curve(*shares: float) -> tuple[Level, ...]:
    return tuple(Level(f"{share:.0%}", Reduction(share), distil=BOTH, beyond_pca=True) for share in shares)


_RANKS = (4, 6, 8, 12)

ROWS: tuple[Row, ...] = (
    Row(
        "jv", "Japanese Vowels", nets.JAPANESE_VOWELS,
        (
            Level("83.4%", PcaRanks({"rnn": (8, 7), "fc": 4}), Lost(0.5)),
            Level("90%", Reduction(0.90), Lost(1.1), Lost(0.4), distil=OURS),
            Level("95%", Reduction(0.95), Lost(2.5), Lost(0.5), distil=OURS),
            Level("97%", Reduction(0.97), Lost(6.5), Lost(0.8), distil=OURS),
            Level("98%", Reduction(0.98), None, Lost(1.0), distil=OURS),
        ),
    ),
    Row(
        "digits-mlp", "Digits, fully connected", nets.DIGITS_MLP,
        _rank_levels({4: 0.80, 6: 0.91, 8: 0.955, 12: 0.972}, {r: {"0": r, "2": r} for r in _RANKS}),
    ),
    Row(
        "digits-lstm", "Digits, row by row", nets.DIGITS_LSTM,
        _rank_levels({4: 0.66, 6: 0.90, 8: 0.935, 12: 0.95}, {r: {"rnn": (None, r)} for r in _RANKS}),
    ),
    Row(
        "digits-cnn", "Digits, convolutions", nets.DIGITS_CNN,
        tuple(
            Level(f"variance {share:.2f}", PcaVariance(share), Lost(points))
            for share, points in ((0.95, 1.9), (0.90, 3.9), (0.80, 7.7))
        ),
    ),
    Row(
        "fsdd", "Spoken digits", nets.SPOKEN_DIGITS,
        (
            Level("70%", Reduction(0.70), Lost(1.2)),
            Level("80%", Reduction(0.80), Lost(3.2), Lost(0.5), distil=BOTH),
            Level("90%", Reduction(0.90), None, Lost(0.7), distil=BOTH),
        ),
        steps=1600,
    ),
    Row(
        "heartbeats", "Heartbeats", nets.HEARTBEATS,
        tuple(
            Level(f"{share:.0%}", Reduction(share), Lost(points))
            for share, points in ((0.80, 0.3), (0.90, 0.5), (0.95, 0.8))
        ),
    ),
    Row(
        "mnist", "MNIST", nets.MNIST,
        (
            Level("80%", Reduction(0.80), Lost(0.3)),
            Level("90%", Reduction(0.90), Lost(0.9)),
            Level("95%", Reduction(0.95), Lost(2.6), Lost(1.8), distil=OURS),
        ),
    ),
    Row("ds-cnn", "Spoken digits of an unheard speaker, DS-CNN", nets.DS_CNN, _curve(0.5, 0.7, 0.8), steps=200),
    Row("resnet", "MNIST, residual network", nets.RESNET, _curve(0.7, 0.8, 0.9, 0.95), steps=200, int8_tests=500),
)  # fmt: skip
