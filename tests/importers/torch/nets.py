"""Small networks of every supported structure, each with its example shape (without batch)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgen.projection.layers import ProjectedGRU, ProjectedLSTM


class Fn(nn.Module):
    """A module around a function of its input and its named layers."""

    def __init__(self, forward: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, *inputs: Tensor) -> object:
        return self._forward(self, *inputs)


def _separable(c: int, o: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False),
        nn.BatchNorm2d(c),
        nn.ReLU(inplace=True),
        nn.Conv2d(c, o, 1, bias=False),
        nn.BatchNorm2d(o),
        nn.ReLU6(),
    )


def _residual(m: nn.Module, x: Tensor) -> Tensor:
    y = m.bn2(m.conv2(F.relu(m.bn1(m.conv1(x)))))
    y += m.short(x)
    return m.fc(F.adaptive_avg_pool2d(F.relu(y), 1).flatten(1))


def _squeeze_excite(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    s = y.mean((2, 3))
    s = torch.sigmoid(m.up(F.relu(m.down(s))))
    return (y * s.view(x.size(0), -1, 1, 1)).amax((2, 3))


def _causal(m: nn.Module, x: Tensor) -> Tensor:
    y = F.relu(m.c1(F.pad(x, (4, 0))))
    z = F.relu(m.c2(F.pad(y, (4, 0))))
    return m.fc((y + z).mean(2))


def _crnn(m: nn.Module, x: Tensor) -> Tensor:
    y = F.max_pool2d(F.relu(m.bn(m.conv(x))), (2, 1))
    y = y.permute(0, 3, 1, 2).flatten(2)
    return m.fc(m.gru(y)[0][:, -1])


def _last_state(m: nn.Module, x: Tensor) -> Tensor:
    _, (h, _) = m.lstm(x)
    return m.fc(h[-1])


def _time_major(m: nn.Module, x: Tensor) -> Tensor:
    y, h = m.gru(x.transpose(0, 1))
    return m.fc(torch.cat((y[-1], h.squeeze(0)), 1))


def _initial(m: nn.Module, x: Tensor) -> Tensor:
    h0 = m.h0.weight.view(1, 1, -1).expand(1, x.size(0), -1)
    y, _ = m.lstm(x, (h0.contiguous(), torch.zeros_like(h0)))
    return torch.softmax(m.fc(y), -1)


def _branches(m: nn.Module, x: Tensor) -> Tensor:
    a, b = m.a(x), m.b(x)
    return torch.cat((F.max_pool2d(a, 2), F.avg_pool2d(b, 3, 2, 1, count_include_pad=False)), 1)


def _functional(m: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    y = F.pad(x, (1, 2, 0, 1))
    y = m.conv((y - 0.5) / 0.25)
    z = F.max_pool2d(torch.tanh(y), 3, 2, 1, ceil_mode=True)
    return z.transpose(1, 3)[:, 1:, ::2], (2 - z.clamp(-0.5, 0.5)).sub(1).neg().reshape(x.shape[0], -1)


def _decoder(m: nn.Module, x: Tensor) -> Tensor:
    return m.conv(F.relu(m.fc(x)).view(-1, 4, 6, 5))


def _two_inputs(m: nn.Module, image: Tensor, extra: Tensor) -> Tensor:
    y = F.relu(m.conv(image)).flatten(1)
    return m.fc(torch.cat((y, m.side(extra)), 1))


def _positions(m: nn.Module, x: Tensor) -> Tensor:
    a, b = m.fc(x).chunk(2, -1)
    c, d = torch.stack((a, b), 1).unbind(1)
    return (c * torch.sigmoid(d))[:, [1, 3]] @ m.out.weight.t() + m.scale.weight


RNN = {"batch_first": True}
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.BatchNorm1d(7), nn.Linear(7, 4)), ((10,),)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="same"),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 6, 3),
            nn.ReLU6(),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(24, 5),
            nn.Softmax(-1),
        ),
        ((3, 9, 8),),
    ),
    "separable": (lambda: nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), _separable(6, 9), _separable(9, 4)), ((1, 11, 10),)),
    "residual": (
        lambda: Fn(
            _residual,
            conv1=nn.Conv2d(4, 8, 3, 2, 1),
            bn1=nn.BatchNorm2d(8),
            conv2=nn.Conv2d(8, 8, 3, padding=1),
            bn2=nn.BatchNorm2d(8),
            short=nn.Conv2d(4, 8, 1, 2),
            fc=nn.Linear(8, 3),
        ),
        ((4, 8, 8),),
    ),
    "squeeze_excite": (
        lambda: Fn(_squeeze_excite, conv=nn.Conv2d(3, 8, 3), down=nn.Linear(8, 2), up=nn.Linear(2, 8)),
        ((3, 7, 9),),
    ),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 8, 7, 2),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Conv1d(8, 8, 5, dilation=2, groups=4),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.AvgPool1d(3, 1, 1),
            nn.Flatten(),
            nn.Linear(40, 3),
        ),
        ((2, 41),),
    ),
    "causal": (
        lambda: Fn(_causal, c1=nn.Conv1d(3, 6, 5), c2=nn.Conv1d(6, 6, 3, dilation=2), fc=nn.Linear(6, 2)),
        ((3, 20),),
    ),
    "crnn": (
        lambda: Fn(
            _crnn,
            conv=nn.Conv2d(1, 4, 3, padding=1),
            bn=nn.BatchNorm2d(4),
            gru=nn.GRU(20, 6, **RNN),
            fc=nn.Linear(6, 3),
        ),
        ((1, 10, 12),),
    ),
    "lstm_last": (lambda: Fn(_last_state, lstm=nn.LSTM(5, 8, **RNN), fc=nn.Linear(8, 3)), ((6, 5),)),
    "stacked": (lambda: Fn(_last_state, lstm=nn.LSTM(5, 8, 2, **RNN), fc=nn.Linear(8, 3)), ((6, 5),)),
    "gru_time_major": (lambda: Fn(_time_major, gru=nn.GRU(5, 8), fc=nn.Linear(16, 3)), ((6, 5),)),
    "sequence": (
        lambda: Fn(
            lambda m, x: m.fc(torch.relu(m.gru(m.inp(x))[0])),
            inp=nn.Linear(5, 4),
            gru=nn.GRU(4, 7, **RNN),
            fc=nn.Linear(7, 3),
        ),
        ((6, 5),),
    ),
    "initial_state": (
        lambda: Fn(_initial, h0=nn.Embedding(1, 8), lstm=nn.LSTM(5, 8, **RNN), fc=nn.Linear(8, 3)),
        ((6, 5),),
    ),
    "mean_time": (
        lambda: Fn(lambda m, x: m.fc(m.lstm(x)[0].mean(1)), lstm=nn.LSTM(5, 8, **RNN), fc=nn.Linear(8, 3)),
        ((6, 5),),
    ),
    "all_layers": (
        lambda: Fn(lambda m, x: m.gru(x)[1].permute(1, 0, 2).flatten(1), gru=nn.GRU(5, 4, 3, bias=False, **RNN)),
        ((6, 5),),
    ),
    "bidirectional": (
        lambda: Fn(
            lambda m, x: m.fc(torch.cat((m.gru(x)[0][:, -1], m.lstm(x)[1][0].transpose(0, 1).flatten(1)), 1)),
            gru=nn.GRU(5, 4, 2, bidirectional=True, **RNN),
            lstm=nn.LSTM(5, 3, bidirectional=True, **RNN),
            fc=nn.Linear(14, 3),
        ),
        ((6, 5),),
    ),
    "projected": (
        lambda: Fn(
            lambda m, x: m.fc(m.b(m.a(x)[0].transpose(0, 1))[0].transpose(0, 1)[:, -1:]),
            a=ProjectedLSTM(5, 8, 2, 3, **RNN),
            b=ProjectedGRU(8, 6, None, 2),
            fc=nn.Linear(6, 3),
        ),
        ((7, 5),),
    ),
    "joint": (
        lambda: Fn(
            lambda m, x: m.fc(m.a(x)[0][:, -1]),
            a=ProjectedLSTM(5, 8, [6, 3], [6, 4], joint=[True, False], bidirectional=True, **RNN),
            fc=nn.Linear(16, 3),
        ),
        ((7, 5),),
    ),
    "branches": (lambda: Fn(_branches, a=nn.Conv2d(2, 3, 3, padding=1), b=nn.Conv2d(2, 4, 1)), ((2, 8, 8),)),
    "functional": (lambda: Fn(_functional, conv=nn.Conv2d(2, 3, (3, 2), (2, 1))), ((2, 9, 8),)),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 6, 4, 2, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 4, (3, 2), (2, 3), (1, 0), (1, 2), groups=2, bias=False),
            nn.ReLU6(),
            nn.ConvTranspose2d(4, 2, 3, 1, 2, dilation=2),
        ),
        ((3, 5, 4),),
    ),
    "transposed_1d": (
        lambda: nn.Sequential(nn.ConvTranspose1d(3, 6, 5, 3, 1, 2), nn.Tanh(), nn.ConvTranspose1d(6, 2, 2, 2)),
        ((3, 9),),
    ),
    "decoder": (lambda: Fn(_decoder, fc=nn.Linear(6, 120), conv=nn.Conv2d(4, 2, 3)), ((6,),)),
    "two_inputs": (
        lambda: Fn(_two_inputs, conv=nn.Conv2d(1, 2, 3), side=nn.Linear(3, 4), fc=nn.Linear(40, 2)),
        ((1, 8, 5), (3,)),
    ),
    "positions": (
        lambda: Fn(_positions, fc=nn.Linear(6, 8), out=nn.Linear(4, 3, bias=False), scale=nn.Linear(3, 1, bias=False)),
        ((5, 6),),
    ),
}


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network with random weights and running statistics, in eval mode, and an example batch of 4."""
    torch.manual_seed(sum(name.encode()))
    make, shapes = NETS[name]
    module = make()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
            layer.running_mean.normal_(std=0.3)
            layer.running_var.uniform_(0.5, 2.0)
    return module.eval(), tuple(torch.randn(4, *shape) for shape in shapes)
