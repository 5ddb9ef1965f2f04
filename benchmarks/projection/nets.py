"""The networks that are compressed, how each is trained, and their trained weights on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.projection import data
from benchmarks.projection.store import Store
from examples.training import train


@dataclass(frozen=True, slots=True)
class Net:
    """A network and its training: Adam with a one-cycle rate.

    Attributes:
        name: in file names and tables. build: the untrained network. load: its data.
        epochs, batch, rate: of the training. text: its layers, for the table.
        calibration: so many training observations, evenly spread, serve compression; None for all.
    """

    name: str
    text: str
    build: Callable[[], nn.Module]
    load: Callable[[], data.Data]
    epochs: int
    batch: int
    rate: float
    calibration: int | None = None

    def recipe(self) -> dict[str, object]:
        """What decides the trained weights, as plain values."""
        return {
            "net": self.name, "layers": self.text, "data": self.load.__name__,
            "epochs": self.epochs, "batch": self.batch, "rate": self.rate,
        }  # fmt: skip


class LastStep(nn.Module):
    """An RNN over (N, T, D), then a linear layer on its last step."""

    def __init__(self, cell: type[nn.LSTM | nn.GRU], inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.rnn = cell(inputs, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        return self.fc(y[:, -1])


class Separable(nn.Module):
    """A DS-CNN in the manner of keyword spotting: one convolution, four depthwise separable blocks, mean, linear."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(1, channels, (10, 4), stride=2, padding=(5, 1), bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        for _ in range(4):
            for convolution in (
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
            ):
                layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class Residual(nn.Module):
    """Two convolutions with a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity() if stride == 1 and inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(torch.relu(self.first_norm(self.first(x)))))
        return torch.relu(y + self.shortcut(x))


def japanese_vowels() -> nn.Module:
    """LSTM(12 -> 100), FC 9."""
    return LastStep(nn.LSTM, 12, 100, 9)


def spoken_digits() -> nn.Module:
    """GRU(10 -> 64), FC 10."""
    return LastStep(nn.GRU, 10, 64, 10)


def digits_mlp() -> nn.Module:
    """FC 64-64-64-10."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def digits_lstm() -> nn.Module:
    """LSTM(8 -> 64), FC 10."""
    return LastStep(nn.LSTM, 8, 64, 10)


def digits_cnn() -> nn.Module:
    """Conv 16-32 3x3, maximum of 2, FC 512-10."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def heartbeats() -> nn.Module:
    """Conv1d 16k7-32k5-64k5 of stride 2, maximum of 5, FC 320-64-2."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 7, stride=2, padding=3), nn.ReLU(), nn.Conv1d(16, 32, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv1d(32, 64, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool1d(5), nn.Flatten(), nn.Linear(320, 64),
        nn.ReLU(), nn.Linear(64, 2),
    )  # fmt: skip


def mnist() -> nn.Module:
    """Conv 16-32-48 3x3, FC 432-64-10."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(432, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def ds_cnn() -> nn.Module:
    """Four depthwise separable blocks of 64 channels."""
    return Separable(64, 10)


def resnet() -> nn.Module:
    """Conv 16, residual blocks of 16, 32 and 64 channels, mean, FC 10; batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Residual(16, 16, 1),
        Residual(16, 32, 2), Residual(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def trained(net: Net, split: data.Split, seed: int, store: Store) -> nn.Module:
    """The network trained with this seed, from disk if it was trained before; in eval mode."""
    torch.manual_seed(seed)
    model = net.build()
    path = store.weights(net.recipe(), seed)
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    bounds = np.cumsum([0, *(len(y) for y in split.labels)])

    def loss(indices: npt.NDArray[np.int64]) -> Tensor:
        total = torch.zeros(())
        for start, x, y in zip(bounds, split.x, split.labels, strict=False):
            chosen = indices[(indices >= start) & (indices < start + len(y))] - start
            if len(chosen):
                total = total + nn.functional.cross_entropy(model(x[chosen]), y[chosen], reduction="sum")
        return total / len(indices)

    model.train()
    train(
        loss, model.parameters(), split.count, epochs=net.epochs, batch=net.batch, rate=net.rate, seed=seed
    )  # fmt: skip
    store.keep_weights(path, model)
    return model.eval()


def accuracy(model: nn.Module, split: data.Split) -> float:
    """Share of observations whose largest score is the label's."""
    right = 0
    with torch.no_grad():
        for x, y in zip(split.x, split.labels, strict=True):
            for part, labels in zip(torch.split(x, 512), torch.split(y, 512), strict=True):
                right += int((model(part).argmax(-1) == labels).sum())
    return right / split.count


JAPANESE_VOWELS = Net(
    "japanese-vowels", "LSTM(12 → 100), FC 9", japanese_vowels, data.japanese_vowels, epochs=60, batch=27, rate=5e-3
)
SPOKEN_DIGITS = Net(
    "spoken-digits", "GRU(10 → 64), FC 10", spoken_digits, data.spoken_digits, epochs=30, batch=64, rate=1e-2
)
DIGITS_MLP = Net("digits-mlp", "FC 64-64-64-10", digits_mlp, data.digits_flat, epochs=60, batch=64, rate=1e-3)
DIGITS_LSTM = Net("digits-lstm", "LSTM(8 → 64), FC 10", digits_lstm, data.digits_rows, epochs=30, batch=64, rate=3e-3)
DIGITS_CNN = Net(
    "digits-cnn", "conv 16-32 3x3, maximum of 2, FC 512-10", digits_cnn, data.digits_images, epochs=15, batch=64,
    rate=5e-3,
)  # fmt: skip
HEARTBEATS = Net(
    "heartbeats", "conv1d 16k7-32k5-64k5 of stride 2, maximum of 5, FC 320-64-2", heartbeats, data.heartbeats,
    epochs=6, batch=64, rate=3e-3,
)  # fmt: skip
MNIST = Net(
    "mnist", "conv 16-32-48 3x3, FC 432-64-10", mnist, data.mnist, epochs=3, batch=64, rate=3e-3, calibration=5000
)
DS_CNN = Net(
    "ds-cnn", "conv 64 10x4, 4 depthwise separable blocks of 64, mean, FC 10", ds_cnn, data.spoken_digits_by_speaker,
    epochs=12, batch=64, rate=3e-3,
)  # fmt: skip
RESNET = Net(
    "resnet", "conv 16, residual blocks of 16, 32, 64, mean, FC 10", resnet, data.mnist, epochs=3, batch=64, rate=1e-2,
    calibration=2500,
)  # fmt: skip
