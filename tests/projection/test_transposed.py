"""Transposed convolutions: W Q Q^T against NumPy loops, output factors, select-and-merge, refit, and the way to C."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.pca.counting import count_learnables
from projgen.projection.trace import find_groups


def leading(rows: np.ndarray, rank: int) -> np.ndarray:
    """Q of the uncentred second moment, by SVD of the rows themselves."""
    return np.linalg.svd(rows, full_matrices=False)[2][:rank].T


def scattered(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, layer: Any) -> np.ndarray:
    """What a transposed convolution of x (N, C, H, W) with w (C, O/groups, KH, KW) is: each pixel adds its kernel."""
    n, c, h, width = x.shape
    _, per_group, kh, kw = w.shape
    (sh, sw), (dh, dw), (ph, pw), (eh, ew) = (
        getattr(layer, name) for name in ("stride", "dilation", "padding", "output_padding")
    )
    tall, wide = (h - 1) * sh + dh * (kh - 1) + 1, (width - 1) * sw + dw * (kw - 1) + 1
    y = np.zeros((n, per_group * layer.groups, tall + eh, wide + ew))
    for i, j, u, v, channel in product(range(h), range(width), range(kh), range(kw), range(c)):
        group = channel // (c // layer.groups)
        outs = slice(group * per_group, (group + 1) * per_group)
        y[:, outs, i * sh + u * dh, j * sw + v * dw] += x[:, channel, i, j, None] * w[channel, :, u, v]
    y = y[:, :, ph : tall + eh - ph, pw : wide + ew - pw]
    return y if b is None else y + b[:, None, None]


class Whole(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.parametrize(
    ("layer", "ranks"),
    [
        (nn.ConvTranspose2d(6, 8, 3), (2, 3)),
        (nn.ConvTranspose2d(6, 8, (4, 3), stride=2, padding=1, output_padding=(0, 1)), (2, 3)),
        (nn.ConvTranspose2d(12, 16, 3, stride=(2, 3), padding=(1, 0), groups=2), (2, 3)),
        (nn.ConvTranspose2d(6, 8, 3, stride=2, dilation=(1, 2), bias=False), (None, 3)),
        (nn.ConvTranspose2d(6, 8, 2, stride=2), (2, None)),
    ],
    ids=["plain", "geometry", "groups", "dilated-out", "in"],
)
def test_pca_is_q_and_u_around_w(layer: nn.ConvTranspose2d, ranks: tuple[int | None, int | None]) -> None:
    torch.manual_seed(1)
    model = Whole(copy.deepcopy(layer)).double()
    own = model.layer
    x = torch.randn(3, own.in_channels, 5, 4, dtype=torch.float64) + 0.5
    groups, size_in, size_out = own.groups, own.in_channels // own.groups, own.out_channels // own.groups
    w, b = own.weight.detach().numpy(), None if own.bias is None else own.bias.detach().numpy()
    y = scattered(x.numpy(), w, b, own)
    np.testing.assert_allclose(own(x).detach().numpy(), y, atol=1e-10)
    kept, expected = x.numpy().copy(), np.empty_like(y)
    for g in range(groups):
        ins = slice(g * size_in, (g + 1) * size_in)
        if ranks[0] is not None:
            q = leading(np.moveaxis(kept[:, ins], 1, -1).reshape(-1, size_in), ranks[0])
            kept[:, ins] = np.einsum("cd,ndhw->nchw", q @ q.T, kept[:, ins])
    z = scattered(kept, w, b, own)
    for g in range(groups):
        outs = slice(g * size_out, (g + 1) * size_out)
        expected[:, outs] = z[:, outs]
        if ranks[1] is not None:
            u = leading(np.moveaxis(y[:, outs], 1, -1).reshape(-1, size_out), ranks[1])
            expected[:, outs] = np.einsum("op,nphw->nohw", u @ u.T, z[:, outs])
    projected, info = projgen.compress(model, x, method="pca", ranks={"layer": ranks}, verbosity="off")
    np.testing.assert_allclose(projected(x).detach().numpy(), expected, atol=1e-9)
    got = projected.layer
    assert got.original_class == "torch.nn.modules.conv.ConvTranspose2d"
    assert (got.input_size, got.output_size) == (own.in_channels, own.out_channels)
    assert (got.input_projector_size, got.output_projector_size) == ranks
    assert count_learnables(got) == info.layers[0].learnables_after
    core = got.network.core
    assert isinstance(core, nn.ConvTranspose2d)
    for name in ("stride", "padding", "output_padding", "dilation", "groups"):
        assert getattr(core, name) == getattr(own, name)


def test_one_dimension_and_the_files_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.ConvTranspose1d(8, 6, 5, 3, 1, 2), nn.Tanh(), nn.ConvTranspose1d(6, 2, 4, 2)).eval()
    x = torch.randn(24, 8, 7)
    pca = projgen.NeuronPCA(model, x, verbosity="off")
    assert pca.layer_names == ["0", "2"]
    pca.save(tmp_path / "pca.npz")
    again = projgen.NeuronPCA.load(tmp_path / "pca.npz", model)
    projected, info = projgen.compress(model, again, learnables_reduction_goal=0.4, prune=False, verbosity="off")
    assert info.learnables_reduction >= 0.4
    projgen.save(projected, tmp_path / "net.onnx")
    loaded = projgen.load_onnx(tmp_path / "net.onnx")
    torch.testing.assert_close(loaded(x), projected(x), rtol=1e-4, atol=1e-5)


def test_output_factors_beat_pca_and_improve_with_the_rank() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.ConvTranspose2d(10, 12, 4, 2, 1), nn.ReLU(), nn.Conv2d(12, 3, 3, padding=1), nn.Flatten(), nn.Linear(192, 5)
    ).double()
    x = torch.randn(60, 10, 4, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) + 0.3
    pca = projgen.NeuronPCA(model, x, layer_names=["0"], verbosity="off")
    y = model(x)

    def error(ranks: tuple[int | None, int | None], method: str) -> float:
        made, _ = projgen.compress(model, pca, ranks={"0": ranks}, method=method, verbosity="off")
        return float((made(x) - y).pow(2).mean().detach())

    errors = [error((r, r), "output") for r in (2, 4, 6)]
    assert errors == sorted(errors, reverse=True)
    for r in (2, 4, 6):
        assert error((r, r), "output") < error((r, r), "pca")


class Decoder(nn.Module):
    """A bottleneck and two transposed convolutions: its channels may go, the image's stay."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 16, 4, 2, 1)
        self.norm = nn.BatchNorm2d(16)
        self.each = nn.ConvTranspose2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.ConvTranspose2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.each(torch.relu(self.norm(self.up(torch.relu(self.down(x)))))))


@pytest.fixture(scope="module")
def decoder() -> tuple[Decoder, Tensor]:
    torch.manual_seed(4)
    model = Decoder().eval()
    model.norm.running_var.fill_(0.2)
    basis = torch.randn(6, 3, 8, 8)
    return model, (torch.randn(80, 6) @ basis.flatten(1)).reshape(80, 3, 8, 8)


def test_channels_go_through_transposed_layers(decoder: tuple[Decoder, Tensor]) -> None:
    model, x = decoder
    groups = {tuple(g.producers): g for g in find_groups(model, (x[:2],))}
    assert groups["down",].reason == groups["up",].reason == ""
    assert groups["up",].followers == ["norm", "each"]
    assert [c.module for c in groups["up",].consumers] == ["last"]
    assert "outputs never change" in groups["last",].reason


@pytest.mark.parametrize("prune", [True, False])
def test_goals_with_data_reach_a_smaller_error_than_pca(decoder: tuple[Decoder, Tensor], prune: bool) -> None:
    model, x = decoder
    y = model(x)
    small, info = projgen.compress(model, x, learnables_reduction_goal=0.7, prune=prune, verbosity="off")
    assert info.learnables_reduction >= 0.7
    assert info.learnables_after == count_learnables(small)
    assert any(layer.units[1] < layer.units[0] for layer in info.layers) == prune
    theirs, _ = projgen.compress(model, x, learnables_reduction_goal=0.7, method="pca", verbosity="off")
    with torch.no_grad():
        ours, pca = (float((net(x) - y).pow(2).mean()) for net in (small, theirs))
    assert ours < 0.7 * pca


def test_compressed_quantised_and_compiled(decoder: tuple[Decoder, Tensor], tmp_path: Path) -> None:
    model, x = decoder
    small, _ = projgen.compress(
        model, x, ranks={"down": (None, 6), "up": (6, 6)}, prune=False, unpack=True, verbosity="off"
    )
    q = projgen.quantize(small, x)
    assert sum(n.op == "conv_transpose2d" for n in q.graph.nodes) == 3
    y = small(x).detach().numpy()
    assert np.abs(q(x.numpy()) - y).std() < 0.05 * y.std()
    integers = np.random.default_rng(0).integers(-128, 128, (3, 3, 8, 8)).astype(np.int8)
    for target in ("host", "cortex-m4"):
        artifact = projgen.compile(q, target=target, out=tmp_path / target)
        artifact.build()
        assert np.array_equal(artifact.run_int(integers), q.run_int(integers))
