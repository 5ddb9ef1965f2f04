"""Who is speaking? An LSTM on the Japanese Vowels, from PyTorch to proven int8 C on emulated Cortex-M4 and M55.

Trains LSTM(12 -> 100) + Linear(9) on the 270 training utterances, projects it to ranks 8/7/4 (83.4% fewer
learnables), fine-tunes, quantises, emits C, runs all 370 test utterances at their true lengths on the emulated
cores, checks every output byte against the integer simulator, prints one table and writes report.html.
Training and calibration never see the test utterances.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from datasets import Sequences, japanese_vowels
from rich.console import Console
from torch import Tensor, nn
from training import batches_of_equal_length, train

import projgen
from projgen.report import Level, ModelReport, SummaryRow, print_summary, write_report

RANKS: dict[str, int | tuple[int, int] | None] = {"lstm": (8, 7), "fc": 4}
LEVELS = (0.5, 0.7, 0.9)
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

    def loss(indices: npt.NDArray[np.int64]) -> Tensor:
        lengths = np.array([len(data.x[i]) for i in indices])
        total = torch.zeros(())
        for length in np.unique(lengths):
            group = indices[lengths == length]
            logits = model(torch.from_numpy(np.stack([data.x[i] for i in group])))
            total = total + nn.functional.cross_entropy(logits, labels[group], reduction="sum")
        return total / len(indices)

    model.train()
    train(loss, model.parameters(), len(data.x), epochs=epochs, batch=54, rate=rate, seed=SEED)
    model.eval()


def accuracy(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> float:
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def float_logits(model: nn.Module, x: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.floating]:
    with torch.no_grad():
        return np.concatenate([model(torch.from_numpy(s[None])).numpy() for s in x])


def learnables(model: nn.Module) -> int:
    return projgen.count_learnables(model)


def deploy(model: nn.Module, title: str, train_set: Sequences, test: Sequences, out: Path) -> ModelReport:
    """Quantise, emit, build, run the whole test set on each target, compare every byte, measure."""
    quantized = projgen.quantize(model, batches_of_equal_length(train_set.x))
    measurements = []
    outputs = None
    for target in TARGETS:
        artifact = projgen.compile(quantized, target=target, out=out / f"{title.replace(' ', '_')}_{target}", name="vowels")
        artifact.build()
        outputs = artifact.verify(list(test.x))  # raises MismatchError unless every byte is the simulator's
        measurements.append(artifact.measure(list(test.x), labels=test.labels))
    assert outputs is not None
    return ModelReport(title, learnables(model), accuracy(np.asarray(outputs), test.labels), tuple(measurements))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    torch.manual_seed(SEED)
    train_set, test = japanese_vowels()
    calibration = batches_of_equal_length(train_set.x)

    console.print("training LSTM(12 -> 100) + Linear(9) ...")
    model = VowelNet()
    fit(model, train_set, epochs=60, rate=1e-2)
    dense_accuracy = accuracy(float_logits(model, test.x), test.labels)

    pca = projgen.NeuronPCA(model, calibration, verbosity="off")
    levels = []
    for goal in LEVELS:
        small, info = projgen.compress(
            model, pca, learnables_reduction_goal=goal, unpack=True, verbosity="off"
        )
        levels.append(level(small, info.learnables_reduction, train_set, test))
    projected, info = projgen.compress(model, pca, ranks=RANKS, unpack=True, verbosity="off")
    console.print(f"projected to ranks 8/7/4: {info.learnables_reduction:.1%} fewer learnables")
    seed_level = level(projected, info.learnables_reduction, train_set, test)
    levels = sorted([*levels, seed_level], key=lambda entry: entry.reduction)
    fit(projected, train_set, epochs=15, rate=2e-3)

    dense_report = deploy(model, "int8", train_set, test, out)
    projected_report = deploy(projected, "projected int8", train_set, test, out)
    same_through_onnx(projected, out, calibration, test)

    rows = [SummaryRow("float", "-", dense_accuracy, learnables(model))]
    rows += [row for report in (dense_report, projected_report) for row in report.summary_rows()]
    print_summary(rows, levels, console)
    page = write_report(
        out / "report.html",
        title="Japanese Vowels",
        rows=rows,
        levels=levels,
        models=(dense_report, projected_report),
        spectra={name: (pca.input_eigenvalues[name], pca.output_eigenvalues[name]) for name in pca.layer_names},
    )
    console.print(f"C and simulator agree byte for byte on {len(test.x)} test utterances; report: {page}")


def level(small: nn.Module, reduction: float, train_set: Sequences, test: Sequences) -> Level:
    """One compression level: closed form, and after a short fine-tuning of a copy."""
    closed = accuracy(float_logits(small, test.x), test.labels)
    tuned = copy.deepcopy(small)
    fit(tuned, train_set, epochs=15, rate=2e-3)
    return Level(reduction, learnables(small), closed, accuracy(float_logits(tuned, test.x), test.labels))


def same_through_onnx(model: nn.Module, out: Path, calibration: list[Tensor], test: Sequences) -> None:
    """The same model through an ONNX file gives the same integers."""
    path = out / "projected.onnx"
    projgen.save(model, path, example=calibration[0])
    again = projgen.quantize(projgen.load_onnx(path), calibration)
    direct = projgen.quantize(model, calibration)
    for x in test.x:
        integers = direct.quantize_input(x[None])
        if not np.array_equal(direct.run_int(integers), again.run_int(integers)):
            raise projgen.MismatchError("the ONNX file of the projected model gives other integers than the model itself")


if __name__ == "__main__":
    main()
