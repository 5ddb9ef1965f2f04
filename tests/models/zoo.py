"""The model zoo: each entry builds a seeded module in evaluation mode and inputs of batch 2.

Normalisation layers have statistics and scales away from their defaults, so that leaving one out shows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the zoo.

    Attributes:
        make: builds the module. shapes: of each input, without the batch. is_sequence: axis 1 is time.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    is_sequence: bool = False


def build(name: str, batch: int = 2, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The seeded model and standard normal inputs."""
    entry = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = entry.make()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.2)
                layer.running_mean = torch.randn(layer.num_features) * 0.3
                layer.running_var = torch.rand(layer.num_features) + 0.5
        inputs = tuple(torch.randn(batch, *shape) for shape in entry.shapes)
    return module.eval(), inputs


class LastStep(nn.Module):
    """A recurrent layer read at its last step by a fully connected one."""

    def __init__(self, rnn: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


class EveryStep(nn.Module):
    """A recurrent layer with an output at every step."""

    def __init__(self, rnn: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.fc = nn.Linear(width, outputs)
        self.tanh = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.tanh(self.fc(self.rnn(x)[0]))


class FinalState(nn.Module):
    """An LSTM whose final state h_n feeds the classifier, with the sequence averaged beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 10, batch_first=True)
        self.fc = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, (h, _) = self.lstm(x)
        return self.fc(torch.cat((h[-1], y.mean(dim=1)), dim=-1))


class Residual(nn.Module):
    """Two convolutions around a shortcut, padded unevenly in front of the strided one."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.shortcut = nn.Conv2d(3, 8, 1, stride=2)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(self.pad(x))))
        y = self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
        return torch.softmax(self.fc(y.mean(dim=(2, 3))), dim=-1)


class Gated(nn.Module):
    """Convolution gated by a sigmoid, pooled both ways and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 5, dilation=2, padding=4)
        self.gate = nn.Conv1d(4, 6, 1)
        self.average = nn.AdaptiveAvgPool1d(1)
        self.maximum = nn.AdaptiveMaxPool1d(1)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.conv(x)) * torch.sigmoid(self.gate(x))
        return self.fc(torch.cat((self.average(y), self.maximum(y)), dim=1).flatten(1))


class TwoInputs(nn.Module):
    """Two inputs, joined; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(7, 8)
        self.right = nn.Linear(5, 8)
        self.head = nn.Linear(16, 3)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.relu(torch.cat((self.left(a), self.right(b)), dim=-1))
        return self.head(joined), torch.sigmoid(self.left(a) + self.right(b))


def _mlp() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(20, 16), bn=nn.BatchNorm1d(16), relu=nn.ReLU(), fc2=nn.Linear(16, 9), out=nn.Softmax(-1)
        )
    )


def _cnn2d() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 3, padding=1),
            relu1=nn.ReLU6(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 12, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
            relu2=nn.ReLU(),
            pool2=nn.AvgPool2d(2, padding=1),
            flatten=nn.Flatten(),
            fc=nn.Linear(12 * 2 * 2, 10),
        )
    )


def _ds_cnn() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 8, (5, 3), stride=2, padding=(2, 1), bias=False),
            bn=nn.BatchNorm2d(8),
            relu=nn.ReLU(),
            depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            bn1=nn.BatchNorm2d(8),
            relu1=nn.ReLU(),
            pointwise=nn.Conv2d(8, 12, 1),
            relu2=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(12, 6),
        )
    )


def _cnn1d() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv1d(2, 8, 7, stride=2),
            bn1=nn.BatchNorm1d(8),
            relu1=nn.ReLU(),
            conv2=nn.Conv1d(8, 8, 3, padding=1, groups=4),
            pool=nn.MaxPool1d(3, stride=2, padding=1),
            flatten=nn.Flatten(),
            fc=nn.Linear(8 * 8, 4),
        )
    )


ZOO: dict[str, Entry] = {
    "mlp": Entry(_mlp, ((20,),)),
    "cnn2d": Entry(_cnn2d, ((1, 10, 8),)),
    "ds_cnn": Entry(_ds_cnn, ((1, 13, 8),)),
    "cnn1d": Entry(_cnn1d, ((2, 36),)),
    "residual": Entry(Residual, ((3, 10, 10),)),
    "gated": Entry(Gated, ((4, 15),)),
    "two_inputs": Entry(TwoInputs, ((7,), (5,))),
    "lstm": Entry(lambda: LastStep(nn.LSTM(12, 20, batch_first=True), 20, 9), ((11, 12),), is_sequence=True),
    "gru": Entry(lambda: LastStep(nn.GRU(5, 16, batch_first=True), 16, 3), ((9, 5),), is_sequence=True),
    "lstm_steps": Entry(lambda: EveryStep(nn.LSTM(4, 8, batch_first=True), 8, 2), ((7, 4),), is_sequence=True),
    "lstm_no_bias": Entry(
        lambda: LastStep(nn.LSTM(4, 8, batch_first=True, bias=False), 8, 2), ((7, 4),), is_sequence=True
    ),
    "gru_two_layers": Entry(
        lambda: EveryStep(nn.GRU(4, 8, num_layers=2, batch_first=True), 8, 2), ((7, 4),), is_sequence=True
    ),
    "lstm_bidirectional": Entry(
        lambda: EveryStep(nn.LSTM(4, 8, batch_first=True, bidirectional=True), 16, 2), ((7, 4),), is_sequence=True
    ),
    "final_state": Entry(FinalState, ((8, 6),), is_sequence=True),
}
