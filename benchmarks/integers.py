"""What integers cost compressed nets, with and without equalised intermediates: ``python -m benchmarks.integers``.

Trains small nets on the data that the examples ship, compresses them without fine-tuning, quantises on training inputs
and prints a table. Test inputs are opened to report alone.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import projgen
from projgen.quant.probe import decibels

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import digits
import japanese_vowels
from datasets import japanese_vowels as utterances
from training import batches_of_equal_length

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Net:
    """A trained net, batches to calibrate on, batches to report on, and the ways to compress it."""

    name: str
    model: nn.Module
    calibration: list[Tensor]
    test: list[Tensor]
    labels: npt.NDArray[np.int64]
    ways: dict[str, dict[str, Any]]


class Perceptron(nn.Sequential):
    """Digits: 64 -> 128 -> 128 -> 10."""

    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )


def nets() -> Iterator[Net]:
    """Each trained from seed 0."""
    train, test = utterances()
    torch.manual_seed(0)
    vowels = japanese_vowels.VowelNet()
    japanese_vowels.fit(vowels, train, epochs=60, rate=1e-2)
    order = np.argsort([len(x) for x in test.x], kind="stable")
    in_order = [torch.from_numpy(test.x[i])[None] for i in order]
    ranks = {"ranks": japanese_vowels.RANKS}
    ways: dict[str, dict[str, Any]] = {
        "ranks 8/7/4, pca": {**ranks, "method": "pca"},
        "ranks 8/7/4, output": {**ranks, "prune": False},
        "90%": {"learnables_reduction_goal": 0.9},
        "95%": {"learnables_reduction_goal": 0.95},
    }
    calibration = batches_of_equal_length(train.x)
    yield Net("Japanese Vowels LSTM(100)", vowels, calibration, in_order, test.labels[order], ways)
    x, y, test_x, test_y = digits.load(mnist=False)
    ways = {f"{goal:.0%}": {"learnables_reduction_goal": goal, "prune": False} for goal in (0.7, 0.85, 0.93)}
    ways["variance 0.9, pca"] = {"explained_variance_goal": 0.9, "method": "pca"}
    batches, held_out = (list(torch.from_numpy(a).split(64)) for a in (x, test_x))
    for name, make in (("digits MLP", Perceptron), ("digits CNN", lambda: digits.DigitNet(8))):
        torch.manual_seed(0)
        model = make()
        digits.fit(model, x, y, epochs=15, rate=3e-3)
        yield Net(name, model, batches, held_out, test_y, ways)


def outputs(model: Any, batches: Sequence[Tensor]) -> Floats:
    """Outputs of a module or a quantised model on all batches, (N, classes)."""
    with torch.no_grad():
        return np.concatenate([np.asarray(model(x), np.float64) for x in batches])


def ratio(got: Floats, want: Floats) -> float:
    """Signal-to-noise ratio of outputs about their means, in decibels."""
    return decibels(float(np.square(got - want).sum() / np.square(want - want.mean(axis=0)).sum()))


def rows() -> Iterator[list[str]]:
    for net in nets():
        for name, way in net.ways.items():
            small, info = projgen.compress(net.model, net.calibration, unpack=True, verbosity="off", **way)
            plain = projgen.quantize(small, net.calibration, equalise=False)
            better = projgen.quantize(small, net.calibration, int8_limit=1.0)
            want = {key: outputs(small, getattr(net, key)) for key in ("calibration", "test")}
            cells = [net.name, name, f"{100 * info.learnables_reduction:.1f}"]
            for key, values in want.items():
                both = [ratio(outputs(q, getattr(net, key)), values) for q in (plain, better)]
                cells += [f"{both[0]:.1f}", f"{both[1] - both[0]:+.1f}"]
            taken = ", ".join(e.layer for e in better.notes.equalised) or "-"
            loss = better.notes.int8_loss
            assert loss is not None and loss.decisions is not None and loss.expected is not None
            decided = [outputs(q, net.test).argmax(1) for q in (plain, better)]
            correct = [100 * float(np.mean(d == net.labels)) for d in (want["test"].argmax(1), *decided)]
            cells += [f"{c:.2f}" for c in (*correct, 100 * loss.decisions, 100 * loss.expected)]
            yield [*cells, taken]


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    head = ["net", "compressed", "% fewer", "SNR", "equalised", "SNR, test", "equalised", "accuracy, float", "int8"]
    head += ["int8, equalised", "% changed", "expected to cost", "taken"]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows():
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
