"""Who is speaking? An LSTM on the Japanese Vowels, from PyTorch to proven int8 C on emulated Cortex-M4 and M55.

Trains LSTM(12 -> 100) + Linear(9) on the 270 training utterances, projects it to ranks 8/7/4 (83.4% fewer
learnables) and to other levels, fine-tunes without labels, quantises, emits C, runs all 370 test utterances at their
true lengths on the emulated cores, checks every output byte against the integer simulator, prints one table and
writes report.html. Training and calibration never see the test utterances.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from datasets import Sequences, japanese_vowels
from deployment import accuracy, deploy, float_logits
from torch import Tensor, nn
from training import batches_of_equal_length, train

import projgen
from projgen.errors import MismatchError
from projgen.pca.counting import count_learnables
from projgen.report import Level, SummaryRow, print_summary, write_report

RANKS: dict[str, int | tuple[int, int] | None] = {"lstm": (8, 7), "fc": 4}
LEVELS = (0.7, 0.9, 0.95)
TARGETS = ("cortex-m4", "cortex-m55")
SEED = 0


class VowelNet(nn.Module):
    """LSTM(12 -> 100), then a linear layer on the last step: 9 speakers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 100, batch_first=True)
        self.fc = nn.Linear(100, 9)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        return self.fc(y[:, -1])


def fit(model: nn.Module, data: Sequences, *, epochs: int, rate: float) -> None:
    """Supervised training; utterances of a batch are grouped by length, so that no step is padding."""
    labels = torch.from_numpy(data.labels)
    lengths = np.array([len(s) for s in data.x])

    def loss(indices: npt.NDArray[np.int64]) -> Tensor:
        total = torch.zeros(())
        for length in np.unique(lengths[indices]):
            group = indices[lengths[indices] == length]
            logits = model(torch.from_numpy(np.stack([data.x[i] for i in group])))
            total = total + nn.functional.cross_entropy(logits, labels[group], reduction="sum")
        return total / len(indices)

    model.train()
    train(loss, model.parameters(), len(data.x), epochs=epochs, batch=54, rate=rate, seed=SEED)
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the C files and report.html")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the same weights on any number of cores
    train_set, test = japanese_vowels()
    calibration = batches_of_equal_length(train_set.x)

    def test_accuracy(model: nn.Module) -> float:
        return accuracy(float_logits(model, test.x), test.labels)

    print("training LSTM(12 -> 100) + Linear(9) ...")
    dense = VowelNet()
    fit(dense, train_set, epochs=60, rate=1e-2)

    print("projecting ...")

    def fine_tuned(model: nn.Module) -> nn.Module:
        """A copy of ``model`` trained briefly to follow the dense one, without labels."""
        return projgen.distill(model, dense, calibration, steps=500, verbosity="off")

    pca = projgen.NeuronPCA(dense, calibration, verbosity="off")
    projected, info = projgen.compress(dense, pca, ranks=RANKS, unpack=True, verbosity="off")
    tuned = fine_tuned(projected)
    candidates = [(projected, info, tuned)]
    for goal in LEVELS:
        small, small_info = projgen.compress(dense, pca, learnables_reduction_goal=goal, unpack=True, verbosity="off")
        candidates.append((small, small_info, fine_tuned(small)))
    candidates.sort(key=lambda entry: entry[1].learnables_reduction)
    levels = [
        Level(found.learnables_reduction, count_learnables(small), test_accuracy(small), test_accuracy(after))
        for small, found, after in candidates
    ]

    print("quantising, building and running all test utterances on the emulated cores ...")
    common = {"calibration": calibration, "test": test.x, "labels": test.labels, "targets": TARGETS, "out": out}
    models = (
        deploy(dense, "int8", name="vowels", **common),
        deploy(tuned, "projected int8", name="vowels", **common),
        deploy(candidates[-1][2], f"projected int8, {levels[-1].reduction:.0%}", name="vowels", **common),
    )
    same_through_onnx(tuned, out / "projected.onnx", calibration, test)

    rows = [
        SummaryRow("float", "-", test_accuracy(dense), count_learnables(dense)),
        SummaryRow("projected float", "-", test_accuracy(tuned), count_learnables(tuned)),
        *(row for model in models for row in model.summary_rows()),
    ]
    print_summary(rows, levels)
    page = write_report(
        out / "report.html",
        title="Japanese Vowels",
        rows=rows,
        levels=levels,
        models=models,
        spectra={name: (pca.input_eigenvalues[name], pca.output_eigenvalues[name]) for name in pca.layer_names},
    )
    print(f"C and simulator agree byte for byte on {len(test.x)} test utterances; report: {page}")


def same_through_onnx(model: nn.Module, path: Path, calibration: list[Tensor], test: Sequences) -> None:
    """The same model through an ONNX file gives the same integers, or ``MismatchError``."""
    projgen.save(model, path, example=calibration[0])
    direct = projgen.quantize(model, calibration)
    again = projgen.quantize(projgen.load_onnx(path), calibration)
    for x in test.x:
        integers = direct.quantize_input(x[None])
        if not np.array_equal(direct.run_int(integers), again.run_int(integers)):
            raise MismatchError("the ONNX file of the projected model gives other integers than the model itself")


if __name__ == "__main__":
    main()
