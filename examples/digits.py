"""Handwritten digits: a convolutional net from PyTorch to proven int8 C on emulated Cortex-M4 and M55.

Trains on the shipped UCI digits (8x8 images), or with ``--mnist`` on the MNIST images of the ``PROJGEN_DATA`` folder;
projects, fine-tunes, quantises, emits C, runs the test images on the emulated cores, checks every output byte
against the integer simulator, prints one table and writes report.html.
"""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from datasets import digits
from deployment import accuracy, deploy, float_logits
from torch import Tensor, nn
from training import train

import projgen
from projgen.errors import InputError
from projgen.pca.counting import count_learnables
from projgen.report import Level, SummaryRow, print_summary, write_report

LEVELS = (0.5, 0.7, 0.85)
DEPLOYED = 0.7
TARGETS = ("cortex-m4", "cortex-m55")
SEED = 0

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class DigitNet(nn.Module):
    """Two 3x3 convolutions with batch normalisation and pooling, two linear layers: 10 classes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Linear(32 * (size // 4) ** 2, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.features(x).flatten(1))))


def load(mnist: bool) -> tuple[Images, Labels, Images, Labels]:
    """(training images, labels, test images, labels); images (N, 1, S, S), 0 to 1."""
    if not mnist:
        x, y = digits()
        order = np.random.default_rng(SEED).permutation(len(x))
        return x[order[:1297]], y[order[:1297]], x[order[1297:]], y[order[1297:]]
    folder = os.environ.get("PROJGEN_DATA")
    if not folder or not (Path(folder) / "mnist" / "mnist.npz").is_file():
        raise InputError("--mnist without mnist/mnist.npz", "a folder that holds it", "the variable PROJGEN_DATA")
    with np.load(Path(folder) / "mnist" / "mnist.npz", allow_pickle=False) as archive:
        train_x, test_x = (archive[k][:, None].astype(np.float32) / 255 for k in ("x_train", "x_test"))
        train_y, test_y = (archive[k].astype(np.int64) for k in ("y_train", "y_test"))
    return train_x[:10000], train_y[:10000], test_x[:1000], test_y[:1000]


def fit(model: nn.Module, x: Images, y: Labels, *, epochs: int, rate: float) -> None:
    """Supervised training."""
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    model.train()
    train(
        lambda i: nn.functional.cross_entropy(model(inputs[i]), labels[i]),
        model.parameters(),
        len(x),
        epochs=epochs,
        batch=64,
        rate=rate,
        seed=SEED,
    )
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/digits"), help="folder for the C files and report.html")
    parser.add_argument("--mnist", action="store_true", help="MNIST from PROJGEN_DATA instead of the shipped digits")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the same weights on any number of cores
    train_x, train_y, test_x, test_y = load(options.mnist)
    calibration = list(torch.from_numpy(train_x[:512]).split(64))

    def test_accuracy(model: nn.Module) -> float:
        return accuracy(float_logits(model, list(test_x)), test_y)

    print("training the convolutional net ...")
    dense = DigitNet(train_x.shape[-1])
    fit(dense, train_x, train_y, epochs=3 if options.mnist else 20, rate=3e-3)

    print("projecting ...")
    pca = projgen.NeuronPCA(dense, calibration, verbosity="off")
    levels, tuned_models = [], {}
    for goal in LEVELS:
        small, info = projgen.compress(dense, pca, learnables_reduction_goal=goal, unpack=True, verbosity="off")
        tuned = copy.deepcopy(small)
        fit(tuned, train_x, train_y, epochs=1 if options.mnist else 4, rate=1e-3)
        tuned_models[goal] = tuned
        levels.append(
            Level(info.learnables_reduction, count_learnables(small), test_accuracy(small), test_accuracy(tuned))
        )

    print("quantising, building and running the test images on the emulated cores ...")
    common = {"calibration": calibration, "test": list(test_x), "labels": test_y, "targets": TARGETS, "out": out}
    models = (
        deploy(dense, "int8", name="digits", **common),
        deploy(tuned_models[DEPLOYED], "projected int8", name="digits", **common),
    )
    rows = [
        SummaryRow("float", "-", test_accuracy(dense), count_learnables(dense)),
        *(row for model in models for row in model.summary_rows()),
    ]
    print_summary(rows, levels)
    page = write_report(
        out / "report.html",
        title="MNIST" if options.mnist else "Handwritten digits",
        rows=rows,
        levels=levels,
        models=models,
        spectra={name: (pca.input_eigenvalues[name], pca.output_eigenvalues[name]) for name in pca.layer_names},
    )
    print(f"C and simulator agree byte for byte on {len(test_x)} test images; report: {page}")


if __name__ == "__main__":
    main()
