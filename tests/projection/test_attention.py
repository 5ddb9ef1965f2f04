"""Projections of attention: W Q Q^T against NumPy, both methods, cross-attention, files, and what stays whole."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.pca.counting import count_learnables


def leading(rows: np.ndarray, rank: int) -> np.ndarray:
    """Q of the uncentred second moment, by SVD of the rows themselves."""
    return np.linalg.svd(rows, full_matrices=False)[2][:rank].T


class Encoder(nn.Module):
    """A post-norm encoder of torch's own layers, classified by its mean."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(x).mean(1))


class Cross(nn.Module):
    """Queries that are learned, keys and values of other widths, then attention between the results and the input."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, 12))
        self.first = nn.MultiheadAttention(12, 3, kdim=10, vdim=7, batch_first=True)
        self.up = nn.Linear(10, 12)
        self.second = nn.MultiheadAttention(12, 2, batch_first=True)
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self.queries.expand(len(x), -1, -1), x, x[..., :7], need_weights=False)[0]
        memory = self.up(x)
        return self.out(self.second(y, memory, memory, need_weights=False)[0].mean(1))


def rows(count: int, width: int, length: int = 6) -> Tensor:
    """Sequences with more and less important directions."""
    torch.manual_seed(7)
    return torch.randn(count, length, width) @ (torch.randn(width, width) * torch.logspace(0, -1.5, width)[:, None])


def test_pca_is_w_q_qt_in_front_and_behind() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.MultiheadAttention(8, 2, batch_first=True)).double().eval()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = model[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x, x, x)[0]

    net, x = Net(), rows(20, 8).double()
    projected, info = projgen.compress(
        net, x, method="pca", ranks={"attn.in_proj": 3, "attn.out_proj": 2}, verbosity="off"
    )
    w, b = net.attn.in_proj_weight.detach().numpy(), net.attn.in_proj_bias.detach().numpy()
    q = leading(x.reshape(-1, 8).numpy(), 3)

    def attended(matrix: np.ndarray) -> np.ndarray:
        parts = np.split(x.numpy() @ matrix.T + b, 3, -1)
        heads = [p.reshape(20, 6, 2, 4).transpose(0, 2, 1, 3) for p in parts]
        scores = np.exp(heads[0] @ heads[1].transpose(0, 1, 3, 2) / 2.0)
        weights = scores / scores.sum(-1, keepdims=True)
        return (weights @ heads[2]).transpose(0, 2, 1, 3).reshape(20, 6, 8)

    u = leading(attended(w).reshape(-1, 8), 2)
    out, bias = net.attn.out_proj.weight.detach().numpy(), net.attn.out_proj.bias.detach().numpy()
    expected = attended(w @ q @ q.T) @ u @ u.T @ out.T + bias
    np.testing.assert_allclose(projected(x).detach().numpy(), expected, atol=1e-9)
    layer = projected.attn.in_proj
    assert isinstance(layer, projgen.ProjectedLayer)
    assert (layer.name, layer.input_size, layer.output_size, layer.input_projector_size) == ("attn.in_proj", 8, 24, 3)
    assert [d.learnables_after for d in info.layers] == [3 * (24 + 8) + 24, 2 * 16 + 8]
    assert count_learnables(projected) == info.learnables_after
    assert type(net.attn) is nn.MultiheadAttention


@pytest.fixture(scope="module")
def encoder() -> tuple[Encoder, Tensor]:
    torch.manual_seed(1)
    model = Encoder().eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 0.5, 0.2)
    return model, rows(160, 16)


def test_goals_names_and_analysis(encoder: tuple[Encoder, Tensor]) -> None:
    model, x = encoder
    analysis = projgen.analyze(model, x)
    eligible = [layer.name for layer in analysis.layers if layer.eligible]
    for index in (0, 1):
        prefix = f"encoder.layers.{index}"
        parts = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
        assert {f"{prefix}.{part}" for part in parts} <= set(eligible)
    with torch.no_grad():
        y = model(x)
        errors = {}
        for method in ("pca", "output"):
            small, info = projgen.compress(
                model, x, method=method, learnables_reduction_goal=0.25, layer_names="*self_attn*", prune=False,
                verbosity="off",
            )  # fmt: skip
            assert all("self_attn" in name for name in info.layer_names)
            errors[method] = float((small(x) - y).pow(2).mean())
    assert errors["output"] < 0.5 * errors["pca"]


def test_files_run_elsewhere(encoder: tuple[Encoder, Tensor], tmp_path: Path) -> None:
    model, x = encoder
    ranks = {"*in_proj": 5, "*out_proj": 4, "*linear2": 6}
    small, _ = projgen.compress(model, x, ranks=ranks, verbosity="off")
    unpacked = projgen.unpack_projected_layers(small)
    assert not any(isinstance(m, projgen.ProjectedLayer) for m in unpacked.modules())
    with torch.no_grad():
        y = small(x[:5])
        torch.testing.assert_close(unpacked(x[:5]), y)
        projgen.save(small, tmp_path / "net.onnx")
        projgen.save(small, tmp_path / "net.pt2")
        torch.testing.assert_close(torch.export.load(tmp_path / "net.pt2").module()(x[:5]), y)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: x[:5].numpy()})
    np.testing.assert_allclose(found, y.numpy(), atol=1e-5)
    copied = copy.deepcopy(small)
    copied.load_state_dict(small.state_dict())
    copied.train()(x[:4]).sum().backward()
    grads = [p.grad for n, p in copied.named_parameters() if "self_attn" in n]
    assert grads and all(g is not None and bool(g.abs().sum() > 0) for g in grads if g is None or g.dim() == 2)


def test_padding_masks_reach_the_projected_encoder(encoder: tuple[Encoder, Tensor]) -> None:
    model, x = encoder
    layers = copy.deepcopy(model.encoder)
    layers.use_nested_tensor = True

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = layers

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.zeros(x.shape[:2], dtype=torch.bool)
            mask[:, 4:] = x[:, 4:, 0] > 0
            return self.encoder(x, src_key_padding_mask=mask)[:, :4].mean(1)

    net = Masked().eval()
    small, _ = projgen.compress(net, x, ranks={"*0.self_attn.out_proj": 7}, verbosity="off", method="pca")
    with torch.no_grad():
        y = net(x)
        assert float((small(x) - y).pow(2).mean()) < 0.1 * float((y - y.mean(0)).pow(2).mean())


def test_cross_attention_and_separate_projections() -> None:
    torch.manual_seed(3)
    net, x = Cross().eval(), rows(150, 10)
    pca = projgen.NeuronPCA(net, x, verbosity="off")
    assert pca.layer_names == [
        "first.q_proj", "first.k_proj", "first.v_proj", "first.out_proj", "up", "second.in_proj", "second.out_proj",
        "out",
    ]  # fmt: skip
    with torch.no_grad():
        y = net(x)
        size = float((y - y.mean(0)).pow(2).mean())
        previous = float("inf")
        for rank in (2, 4, 8):
            ranks = {"first.*_proj": min(rank, 4), "second.in_proj": rank}
            small, _ = projgen.compress(net, pca, ranks=ranks, verbosity="off")
            error = float((small(x) - y).pow(2).mean())
            assert error < previous
            previous = error
        assert previous < 0.05 * size


def test_an_attention_without_projected_layers_stays_what_it_was(encoder: tuple[Encoder, Tensor]) -> None:
    model, x = encoder
    small, _ = projgen.compress(model, x, ranks={"fc": 2}, verbosity="off")
    assert type(small.encoder.layers[0].self_attn) is nn.MultiheadAttention
    mixed, _ = projgen.compress(model, x, ranks={"encoder.layers.0.linear2": 3}, verbosity="off")
    assert type(mixed.encoder.layers[0].self_attn) is not nn.MultiheadAttention  # its fused call reads the weights
    assert type(mixed.encoder.layers[1].self_attn) is nn.MultiheadAttention
    with torch.no_grad():
        assert bool(torch.isfinite(mixed(x)).all())
