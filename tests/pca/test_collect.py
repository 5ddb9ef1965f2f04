"""What the one pass gathers, against brute force: positions, patches, hidden states, curvature."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgen.errors import InputError, UnsupportedError
from projgen.pca.collect import Collected, collect
from projgen.pca.convolution import patches_of
from projgen.pca.discover import choose_layers, owned_copy


def gather(model: nn.Module, batches: list[tuple[Tensor, ...]], *, curvature: bool = True) -> Collected:
    own = owned_copy(model).eval().requires_grad_(False)
    return collect(own, choose_layers(model, None), batches, curvature=curvature, device=torch.device("cpu"))


def uncentred(rows: Tensor) -> np.ndarray:
    return (rows.T @ rows / len(rows)).detach().numpy()


def centred_scores(y: Tensor) -> Tensor:
    return y - y.mean(-1, keepdim=True)


class Sequence(nn.Module):
    def __init__(self, rnn: nn.Module, width: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(("layers", "both"), [(1, False), (2, True)])
@pytest.mark.parametrize("bias", [True, False])
def test_cells_see_inputs_and_the_hidden_state_fed_back(
    kind: type[nn.LSTM | nn.GRU], layers: int, both: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    rnn = kind(3, 5, num_layers=layers, bidirectional=both, batch_first=True, bias=bias)
    model = Sequence(rnn, 10 if both else 5).double().eval()
    x = torch.randn(6, 7, 3, dtype=torch.float64)
    found = gather(model, [(x[:4],), (x[4:],)])
    assert found.samples == 6
    first = kind(3, 5, batch_first=True, bias=bias).double()
    first.load_state_dict({n: p for n, p in rnn.state_dict().items() if n.removesuffix("_l0") + "_l0" == n})
    hidden = first(x)[0]
    previous = torch.cat((torch.zeros(6, 1, 5, dtype=torch.float64), hidden[:, :-1]), 1)
    expected = uncentred(torch.cat((x, previous), -1).reshape(42, 8))
    name = "rnn" if layers == 1 else "rnn.l0"
    np.testing.assert_allclose(found.layers[name].inputs[0].second, expected, atol=1e-12)
    fc = found.layers["fc"].inputs[0]
    np.testing.assert_allclose(fc.second, uncentred(rnn(x)[0][:, -1]), atol=1e-12)


def lstm_cell(z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = z.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def test_lstm_curvature_equals_autograd_on_an_unrolled_cell() -> None:
    torch.manual_seed(1)
    model = Sequence(nn.LSTM(3, 5, batch_first=True), 5).double()
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    rnn = model.rnn
    h = c = torch.zeros(6, 5, dtype=torch.float64)
    zs = []
    for step in range(4):
        z = x[:, step] @ rnn.weight_ih_l0.T + h @ rnn.weight_hh_l0.T + rnn.bias_ih_l0 + rnn.bias_hh_l0
        zs.append(z)
        h, c = lstm_cell(z, c)
    y = centred_scores(model.fc(h))
    expected = np.zeros((20, 20))
    for k in range(4):
        grads = torch.cat(torch.autograd.grad(y[:, k].sum(), zs, retain_graph=True))
        expected += (grads.T @ grads).numpy() / 4 / len(grads)
    found = gather(model, [(x[:2],), (x[2:],)]).layers["rnn"].curvature["z"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_gru_curvature_of_both_sides_equals_autograd() -> None:
    torch.manual_seed(2)
    model = Sequence(nn.GRU(3, 5, batch_first=True), 5).double()
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    rnn = model.rnn
    h = torch.zeros(6, 5, dtype=torch.float64)
    xs, hs = [], []
    for step in range(4):
        zx = x[:, step] @ rnn.weight_ih_l0.T + rnn.bias_ih_l0
        zh = h @ rnn.weight_hh_l0.T + rnn.bias_hh_l0
        xs.append(zx)
        hs.append(zh)
        r = torch.sigmoid(zx[:, :5] + zh[:, :5])
        u = torch.sigmoid(zx[:, 5:10] + zh[:, 5:10])
        h = (1 - u) * torch.tanh(zx[:, 10:] + r * zh[:, 10:]) + u * h
    y = centred_scores(model.fc(h))
    found = gather(model, [(x,)]).layers["rnn"].curvature
    for key, zs in (("x", xs), ("h", hs)):
        expected = np.zeros((15, 15))
        for k in range(4):
            grads = torch.cat(torch.autograd.grad(y[:, k].sum(), zs, retain_graph=True))
            expected += (grads.T @ grads).numpy() / 4 / len(grads)
        np.testing.assert_allclose(found[key], expected, rtol=1e-9, atol=1e-15)


class ConvNet(nn.Module):
    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


def test_conv_curvature_and_moments_equal_brute_force_also_before_an_in_place_relu() -> None:
    torch.manual_seed(3)
    model = ConvNet().double()
    x = torch.randn(5, 4, 7, 7, dtype=torch.float64)
    z = model.conv(x)
    y = centred_scores(model.fc(F.relu(z).mean((2, 3))))
    stats = gather(model, [(x[:3],), (x[3:],)]).layers["conv"]
    for group in range(2):
        rows = slice(3 * group, 3 * group + 3)
        expected = np.zeros((3, 3))
        for k in range(3):
            grad = torch.autograd.grad(y[:, k].sum(), z, retain_graph=True)[0][:, rows]
            flat = grad.permute(0, 2, 3, 1).reshape(-1, 3)
            expected += (flat.T @ flat).numpy() / 3 / len(flat)
        np.testing.assert_allclose(stats.curvature["z"][group], expected, rtol=1e-9, atol=1e-15)
        channels = x[:, 2 * group : 2 * group + 2].permute(0, 2, 3, 1).reshape(-1, 2)
        np.testing.assert_allclose(stats.inputs[group].second, uncentred(channels), atol=1e-12)
        np.testing.assert_allclose(
            stats.outputs[group].second, uncentred(z[:, rows].permute(0, 2, 3, 1).reshape(-1, 3)), atol=1e-12
        )


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular", "replicate"])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2), groups=2),
        nn.Conv2d(3, 2, 3, padding="same", dilation=2),
        nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2),
        nn.Conv1d(4, 6, 4, padding="same", groups=2),
    ],
    ids=["2d-groups", "2d-same", "1d", "1d-same-groups"],
)
def test_patches_times_the_weight_are_the_convolution(conv: nn.Conv1d | nn.Conv2d, mode: str) -> None:
    conv = copy.deepcopy(conv).double()
    conv.padding_mode = mode
    x = torch.randn(2, conv.in_channels, *((9,) * len(conv.kernel_size)), dtype=torch.float64)
    patches = patches_of(conv, x)
    weight = conv.weight.reshape(conv.groups, conv.out_channels // conv.groups, -1)
    bias = conv.bias.reshape(conv.groups, 1, -1)
    product = patches @ weight.transpose(1, 2) + bias  # (g, N*P, O/g)
    expected = conv(x).flatten(2).permute(1, 0, 2).reshape(conv.groups, conv.out_channels // conv.groups, -1)
    torch.testing.assert_close(product.transpose(1, 2), expected, rtol=1e-10, atol=1e-10)


def test_random_directions_agree_with_the_exact_curvature_in_expectation() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 20)).double()
    x = torch.randn(4000, 6, dtype=torch.float64)
    z = model[0](x)
    y = centred_scores(model[2](torch.tanh(z)))
    expected = np.zeros((8, 8))
    for k in range(20):
        grad = torch.autograd.grad(y[:, k].sum(), z, retain_graph=True)[0]
        expected += (grad.T @ grad).numpy() / 20 / len(grad)
    found = gather(model, [(part,) for part in x.split(500)]).layers["0"].curvature["z"]
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_outputs_that_are_no_scores_are_standardised() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 2)).double()
    with torch.no_grad():
        model[0].weight[1] *= 1000
    x = torch.randn(500, 6, dtype=torch.float64)
    curvature = gather(model, [(x,)]).layers["0"].curvature["z"]
    spread = model[0](x).std(0, correction=0).detach().numpy()
    np.testing.assert_allclose(curvature, np.diag(1 / spread**2) / 2, rtol=1e-9)


def test_outputs_of_a_softmax_count_as_the_scores_before_it() -> None:
    torch.manual_seed(6)
    scores = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4)).double()
    for parameter in scores.parameters():
        parameter.data *= 3
    x = torch.randn(100, 6, dtype=torch.float64)
    through = nn.Sequential(*scores, nn.Softmax(1))
    one, two = (gather(model, [(x,)]) for model in (scores, through))
    for name in ("0", "2"):
        np.testing.assert_allclose(
            two.layers[name].curvature["z"], one.layers[name].curvature["z"], rtol=1e-7, atol=1e-12
        )
    assert two.output_variance == pytest.approx(one.output_variance)


def test_packed_sequences_and_uncalled_layers_are_refused() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2]), batch_first=True)
            return self.rnn(packed)[1][0]

    with pytest.raises(UnsupportedError, match=r"packed sequence.*batches of equal length"):
        gather(Packed(), [(torch.randn(2, 4, 3),)])

    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with pytest.raises(InputError, match=r"never reached layer 'spare'.*leave others out of layer_names"):
        gather(Spare(), [(torch.randn(2, 3),)])
