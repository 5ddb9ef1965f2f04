"""Projected layers as modules: values, state dicts, copies, pickles, exports, unpacking, sizes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from projgen.errors import InputError
from projgen.projection.layers import (
    ProjectedGRU,
    ProjectedLayer,
    ProjectedLSTM,
    projected_conv,
    projected_linear,
    unpack_projected_layers,
)

Recurrent = ProjectedLSTM | ProjectedGRU


def wrap(network: nn.Module) -> ProjectedLayer:
    return ProjectedLayer(
        network, name="layer", original_class="torch.nn.X", learnables_reduction=0.5, input_size=3, output_size=5,
        input_projector_size=2, output_projector_size=None,
    )  # fmt: skip


def dense_of(projected: Recurrent) -> nn.LSTM | nn.GRU:
    kind = nn.LSTM if isinstance(projected, ProjectedLSTM) else nn.GRU
    dense = kind(
        projected.input_size, projected.hidden_size, projected.num_layers, batch_first=projected.batch_first,
        bidirectional=projected.bidirectional, bias=projected.bias,
    )  # fmt: skip
    flat = [value.detach() for value in projected.dense_weights()]
    names = [name for names in dense._all_weights for name in names]
    dense.load_state_dict(dict(zip(names, flat, strict=True)))
    return dense


@pytest.mark.parametrize("kind", [ProjectedLSTM, ProjectedGRU])
@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        ((2, 3), {}),
        ((None, 3), {"batch_first": True}),
        ((2, None), {"bias": False}),
        (([2, None, 1, 4], [None, 3, 2, 1]), {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ],
    ids=["both", "hidden", "input-nobias", "stacked-bidirectional"],
)
def test_a_projected_rnn_is_the_dense_one_with_the_product_weights(
    kind: type[Recurrent], ranks: tuple[object, object], options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    projected = kind(3, 5, *ranks, **options)
    dense = dense_of(projected)
    x = torch.randn(4, 6, 3)
    torch.testing.assert_close(projected(x)[0], dense(x)[0])
    cells, batch = len(dense._all_weights), 4 if projected.batch_first else 6
    h = torch.randn(cells, batch, 5)
    state = (h, h.flip(0)) if kind is ProjectedLSTM else h
    got, expected = projected(x, state), dense(x, state)
    torch.testing.assert_close(got, expected)
    single = (h[:, 0], h[:, 1]) if kind is ProjectedLSTM else h[:, 0]
    torch.testing.assert_close(projected(x[0], single), dense(x[0], single))


def test_learnables_of_the_lstm_12_100_at_8_and_7() -> None:
    network = ProjectedLSTM(12, 100, 8, 7)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    assert shapes == {
        "weight_ih": (400, 8), "input_projector": (12, 8), "weight_hh": (400, 7), "output_projector": (100, 7),
        "bias_ih": (400,),
    }  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == 7196


def test_the_joint_form_shares_one_factor_through_copies_files_and_training() -> None:
    torch.manual_seed(0)
    network = ProjectedLSTM(3, 5, 2, 2, joint=True, batch_first=True)
    assert network.weight_hh is network.weight_ih
    assert sum(p.numel() for p in network.parameters()) == 2 * (20 + 3 + 5) + 20
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(network(x)[0], dense_of(network)(x)[0])
    twin = pickle.loads(pickle.dumps(copy.deepcopy(network)))
    assert twin.weight_hh is twin.weight_ih
    twin.weight_ih.data.zero_()
    twin.load_state_dict(network.state_dict())
    torch.testing.assert_close(twin(x), network(x))
    assert twin.double().weight_hh is twin.weight_ih
    program = torch.export.export(network.eval(), (x,))
    torch.testing.assert_close(program.module()(x)[0], network(x)[0])
    with pytest.raises(
        InputError, match=r"a joint cell of ranks \(2, 3\)\. Allowed: an LSTM cell with two equal ranks"
    ):
        ProjectedLSTM(3, 5, 2, 3, joint=True)
    with pytest.raises(InputError, match="an LSTM cell with two equal ranks"):
        ProjectedGRU(3, 5, 2, 2, joint=True)


def test_wrong_ranks_and_shapes_are_named() -> None:
    with pytest.raises(InputError, match=r"rank 13 for input_projector of cell l0\. Allowed: 1 to 12"):
        ProjectedLSTM(12, 100, 13, 7)
    with pytest.raises(InputError, match=r"3 values of input_rank were given for 2 cells"):
        ProjectedGRU(12, 8, [1, 2, 3], 2, num_layers=2)
    with pytest.raises(InputError, match=r"input of shape \(2, 4, 11\)"):
        ProjectedLSTM(12, 100, 8, 7, batch_first=True)(torch.zeros(2, 4, 11))


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    factors = (torch.randn(4, 1, 3, 3), torch.randn(2, 2), torch.randn(6, 2))
    return {
        "linear": (projected_linear(torch.randn(5, 2), torch.randn(2, 3), torch.randn(5)), torch.randn(2, 3)),
        "conv": (projected_conv(conv, *factors, bias=torch.randn(6)), torch.randn(2, 4, 8, 8)),
        "lstm": (ProjectedLSTM(3, 5, 2, 2, batch_first=True), torch.randn(2, 4, 3)),
        "gru": (ProjectedGRU(3, 5, 2, 2, batch_first=True, bidirectional=True), torch.randn(2, 4, 3)),
    }


@pytest.mark.parametrize("name", ["linear", "conv", "lstm", "gru"])
def test_round_trips_copies_and_training(name: str) -> None:
    network, x = networks()[name]
    layer = wrap(network)
    expected = layer(x)
    other = wrap(copy.deepcopy(network))
    for parameter in other.parameters():
        parameter.data.normal_()
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), expected)
        assert twin.input_projector_size == 2 and twin.name == "layer"
    loss = (expected if isinstance(expected, Tensor) else expected[0]).square().sum()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in layer.parameters())


class Exported(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.layer = wrap(network)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if isinstance(y, Tensor) else y[0]


def test_exported_programs_run_in_a_fresh_process_without_projgen(tmp_path: Path) -> None:
    for name, (network, x) in networks().items():
        model = Exported(network).eval()
        program = torch.export.export(model, (x,))
        targets = [str(node.target) for node in program.graph.nodes]
        if name in {"lstm", "gru"}:
            assert targets.count(f"aten.{name}.input") == 1
        torch.export.save(program, tmp_path / f"{name}.pt2")
        torch.save((x, model(x)), tmp_path / f"{name}.pt")
    code = (
        "import sys, torch\n"
        "for name in ('linear', 'conv', 'lstm', 'gru'):\n"
        "    m = torch.export.load(name + '.pt2').module(); x, y = torch.load(name + '.pt')\n"
        "    torch.testing.assert_close(m(x), y)\n"
        "assert 'projgen' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_unpacking_replaces_every_layer_and_leaves_the_model_alone() -> None:
    network, x = networks()["lstm"]
    model = nn.ModuleDict({"a": wrap(network), "inner": nn.Sequential(wrap(nn.Sequential(nn.Linear(3, 5))))})
    model._projgen_inputs = ("kept",)
    unpacked = unpack_projected_layers(model)
    assert not any(isinstance(m, ProjectedLayer) for m in unpacked.modules())
    assert isinstance(unpacked["a"], ProjectedLSTM)
    assert isinstance(unpacked["inner"][0], nn.Sequential)
    assert unpacked._projgen_inputs == ("kept",)
    torch.testing.assert_close(unpacked["a"](x), model["a"](x))
    assert isinstance(model["a"], ProjectedLayer)
    root = wrap(network)
    root._projgen_inputs = ("root",)
    assert unpack_projected_layers(root)._projgen_inputs == ("root",)
    plain = nn.Linear(2, 2)
    assert unpack_projected_layers(plain) is not plain


def test_attributes_of_the_network_are_reached_and_missing_ones_refused() -> None:
    layer = wrap(ProjectedLSTM(3, 5, 2, 2, num_layers=2))
    assert (layer.hidden_size, layer.num_layers, layer.input_rank) == (5, 2, (2, 2))
    layer.flatten_parameters()
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = layer.no_such_thing
    assert "input_projector_size=2" in repr(layer)
