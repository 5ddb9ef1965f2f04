from __future__ import annotations

import pytest
import torch
from torch import nn

import projgen
from projgen.budget.predict import predict
from projgen.budget.restore import _dense, restore_dense
from projgen.projection.layers import ProjectedLayer, unpack_projected_layers
from projgen.targets import load_target


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.rnn = kind(6, 20, batch_first=True)
        self.fc = nn.Linear(20, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(self.rnn(x)[0][:, -1]))


def test_a_slower_layer_is_dense_again() -> None:
    """At three quarters of its channels, a Winograd convolution beats its triple, which has fewer learnables."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)).eval()
    x = torch.randn(32, 16, 8, 8)
    found, info = projgen.compress(model, x, ranks={"0": (13, 13), "2": (4, 4)}, verbosity="off")
    assert info.layer_names == ["0", "2"]
    target = load_target("cortex-m4")
    assert restore_dense(found, model, target, x.numpy()) == ["0"]
    assert isinstance(found[0], nn.Conv2d) and isinstance(found[2], ProjectedLayer)
    assert torch.equal(found[0].weight, model[0].weight)
    before, after = (predict(unpack_projected_layers(m), target, x.numpy()) for m in (model, found))
    assert after.instructions < before.instructions


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_the_product_of_narrowed_factors(kind: type[nn.LSTM] | type[nn.GRU]) -> None:
    torch.manual_seed(1)
    model = Recurrent(kind).eval()
    x = torch.randn(40, 5, 6)
    found, _ = projgen.compress(model, x, ranks={"rnn": (3, 4), "fc": 2}, verbosity="off")
    for name in ("rnn", "fc"):
        layer = found.get_submodule(name)
        assert isinstance(layer, ProjectedLayer)
        other = kind(7, 21, batch_first=True) if name == "rnn" else nn.Linear(9, 9)
        dense = _dense(layer, other)  # the original had other sizes
        assert type(dense) is type(other)
        y = x if name == "rnn" else torch.randn(8, 20)
        got, wanted = dense(y), layer(y)
        torch.testing.assert_close(got[0] if name == "rnn" else got, wanted[0] if name == "rnn" else wanted)


def test_the_product_of_a_convolution() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1)).eval()
    x = torch.randn(20, 6, 9, 9)
    found, _ = projgen.compress(model, x, ranks={"0": (3, 4)}, verbosity="off")
    layer = found[0]
    assert isinstance(layer, ProjectedLayer)
    dense = _dense(layer, nn.Conv2d(7, 9, 3))
    assert isinstance(dense, nn.Conv2d)
    torch.testing.assert_close(dense(x), layer(x))
