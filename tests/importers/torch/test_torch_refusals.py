"""What can't be compiled is refused by name: operator, node, module, and what would be accepted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgen.errors import InputError, InputTypeError, UnsupportedError
from projgen.importers.torch_export import import_module, import_program
from tests.importers.torch.nets import Fn

MAP, ROW, SEQUENCE = (3, 8, 8), (6,), (5, 3)


def _gru(**options: object) -> nn.Module:
    return nn.GRU(3, 4, batch_first=True, **options)


def _lstm(**options: object) -> nn.Module:
    return nn.LSTM(3, 4, batch_first=True, **options)


CASES: dict[str, tuple[Callable[..., object], dict[str, nn.Module], tuple[int, ...], str]] = {
    "operator": (lambda m, x: m.act(x), {"act": nn.Mish()}, ROW, r"operator aten\.mish .*module 'act'"),
    "transposed": (lambda m, x: m.up(x), {"up": nn.ConvTranspose3d(2, 2, 3)}, (2, 4, 4, 4),
                   r"conv_transpose3d .*module 'up'"),
    "proj_size": (lambda m, x: m.rnn(x)[0], {"rnn": _lstm(proj_size=2)}, SEQUENCE, "no proj_size"),
    "c_n": (lambda m, x: m.rnn(x)[1][1][0] + 1, {"rnn": _lstm()}, SEQUENCE, "final cell state c_n of an LSTM is used"),
    "c_n returned": (lambda m, x: m.rnn(x)[1][1], {"rnn": _lstm()}, SEQUENCE, "final cell state c_n"),
    "h_n returned": (lambda m, x: m.rnn(x)[1], {"rnn": _gru()}, SEQUENCE, "has the batch as axis 1"),
    "live state": (lambda m, x: m.rnn(x, x[:, :1, :1].expand(-1, 1, 4).transpose(0, 1))[0], {"rnn": _gru()}, SEQUENCE,
                   "aten.expand"),
    "h_0 of data": (lambda m, x: m.rnn(x, m.fc(x[:, 0]).unsqueeze(0))[0], {"rnn": _gru(), "fc": nn.Linear(3, 4)},
                    SEQUENCE, "its h_0 depends on the model's inputs"),
    "time as batch": (lambda m, x: m.rnn(x)[0], {"rnn": nn.GRU(3, 4)}, SEQUENCE, r"batch_first=True"),
    "merged batch": (lambda m, x: m.fc(x.reshape(-1, 3)).softmax(0).view(-1, 5, 2), {"fc": nn.Linear(3, 2)}, SEQUENCE,
                     "the batch is merged with another axis"),
    "batch reduced": (lambda _, x: x - x.mean(0), {}, ROW, "a reduction over the batch"),
    "batch picked": (lambda m, x: m.fc(x) + x[0, :2], {"fc": nn.Linear(6, 2)}, ROW, "picks from the batch"),
    "batch softmax": (lambda _, x: x.softmax(0), {}, ROW, "softmax along the batch"),
    "batch joined": (lambda _, x: torch.cat((x, x), 0).view(2, -1, 6).mean(0), {}, ROW, "joins along the batch"),
    "uneven adaptive": (lambda m, x: m.pool(x), {"pool": nn.AdaptiveAvgPool2d(3)}, MAP, r"\(8, 8\) to \(3, 3\)"),
    "dilated pool": (lambda m, x: m.pool(x), {"pool": nn.MaxPool2d(2, dilation=2)}, MAP, "dilation"),
    "pool indices": (lambda _, x: F.max_pool2d(x, 2, return_indices=True)[1].float(), {}, MAP, "indices of a maximum"),
    "circular": (lambda m, x: m.conv(x), {"conv": nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular")}, MAP,
                 "padding mode 'circular'"),
    "negative pad": (lambda _, x: F.pad(x, (-1, 0)), {}, MAP, "negative padding"),
    "two operands": (lambda _, x: x @ x.transpose(1, 2), {}, SEQUENCE, "scores or weights of attention"),
    "division": (lambda _, x: 1.0 / x, {}, ROW, r"aten\.reciprocal"),
    "batch statistics": (lambda m, x: m.bn(x), {"bn": nn.BatchNorm2d(3, track_running_stats=False)}, MAP, "batch_norm"),
    "live dropout": (lambda _, x: F.dropout(x, 0.5, training=True), {}, ROW, r"aten\.\w*dropout|aten\.bernoulli|rand"),
    "constant output": (lambda _, x: (x + 1, torch.ones(2)), {}, ROW, "output 1 is a constant or an input"),
    "input returned": (lambda _, x: (x + 1, x), {}, ROW, "output 1 is a constant or an input"),
    "control flow": (lambda _, x: x + 1 if x.sum() > 0 else x - 1, {}, ROW, "torch.export can't record Fn"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_by_name(case: str) -> None:
    forward, layers, shape, message = CASES[case]
    with pytest.raises(UnsupportedError, match=f"(?s){message}"):
        import_module(Fn(forward, **layers), (torch.randn(2, *shape),))


def test_the_list_of_supported_operators_is_told() -> None:
    with pytest.raises(UnsupportedError) as caught:
        import_module(nn.Sequential(nn.Linear(3, 4), nn.ELU()), (torch.randn(2, 3),))
    assert caught.value.what == "operator aten.elu (node 'elu') is not supported"
    assert {"linear", "lstm", "gru", "conv2d", "max_pool2d"} <= set(caught.value.allowed.split(", "))
    assert "module '1'" in caught.value.where


def test_a_state_of_its_own_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return x + self.count

    with pytest.raises(UnsupportedError, match="changes the buffer 'count'"):
        import_module(Counting(), (torch.randn(2, 3),))


def test_unusable_examples() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(InputTypeError, match="type int"):
        import_module(layer, (3,))
    with pytest.raises(InputError, match="no example input"):
        import_module(layer, ())
    with pytest.raises(InputError, match=r"shape \(0, 3\)"):
        import_module(layer, (torch.zeros(0, 3),))
    with pytest.raises(UnsupportedError, match=r"torch.int64.*float32 tensors"):
        import_module(Fn(lambda m, x: m.e(x), e=nn.Embedding(5, 3)), (torch.zeros(2, 4, dtype=torch.int64),))


def test_weights_with_nan_are_refused() -> None:
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight, float("nan"))
    with pytest.raises(InputError, match="constant 'w' of node 'fc' holds NaN or infinity"):
        import_module(Fn(lambda m, x: m.fc(x), fc=layer), (torch.randn(2, 3),))


def test_programs_with_other_dynamic_axes_are_refused() -> None:
    shapes = ({0: torch.export.Dim("batch"), 2: torch.export.Dim("width", min=4)},)
    program = torch.export.export(nn.Conv1d(2, 3, 3), (torch.randn(3, 2, 9),), dynamic_shapes=shapes)
    with pytest.raises(UnsupportedError, match="a dynamic axis"):
        import_program(program)


def test_inputs_must_share_the_batch() -> None:
    program = torch.export.export(Fn(lambda _, x, y: x.sum() * y), (torch.randn(2, 3), torch.randn(4, 3)))
    with pytest.raises(InputError, match="the same batch for every input"):
        import_program(program)
