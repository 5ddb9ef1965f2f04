"""Select and merge: which units may go, that nothing is lost where nothing need be, and the refit after it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import projgen
from projgen.data import as_batches
from projgen.pca.counting import count_learnables
from projgen.pca.discover import find_layers
from projgen.pca.neuron_pca import NeuronPCA
from projgen.projection.forecast import unit_rankings
from projgen.projection.merge import narrowed, narrowed_stats, rank_units
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE
from projgen.projection.refit import refitted
from projgen.projection.trace import Consumer, Group, find_groups


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.depth = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8)
        self.inner, self.back = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 8, 1)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x) + x)
        x = x + self.back(F.relu(self.inner(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.depth(x), 2), 1))


class ConvGru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru, self.fc = nn.Conv1d(3, 10, 3), nn.GRU(10, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gru(torch.relu(self.conv(x)).transpose(1, 2))[0].mean(1))


class Branches(nn.Module):
    """One layer with two consumers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(6, 16), nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.d(torch.relu(self.b(h)) * torch.sigmoid(self.c(h)))


class Unknown(nn.Module):
    """A layer whose units an operator mixes that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cumsum(self.a(x), 1)
        return self.c(torch.relu(self.b(h)))


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(4, 14, batch_first=True), nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(4, 14, num_layers=2, batch_first=True), nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


class Both(nn.Module):
    """Two layers in both directions, read in one of the usual ways."""

    def __init__(self, read: str = "states") -> None:
        super().__init__()
        self.gru = nn.GRU(4, 10, num_layers=2, batch_first=True, bidirectional=True)
        self.fc, self.read = nn.Linear(20, 3), read

    def forward(self, x: Tensor) -> Tensor:
        y, h = self.gru(x)
        if self.read == "states":
            return self.fc(torch.cat((h[-2], h[-1]), 1))
        if self.read == "halves":
            return self.fc(torch.cat((y[:, -1, :10], y[:, 0, 10:]), -1))
        return self.fc(y.mean(1))


CASES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (40, 2, 8, 8)),
    "conv-gru": (ConvGru, (40, 3, 12)),
    "branches": (Branches, (200, 6)),
    "unknown": (Unknown, (200, 6)),
    "lstm": (Lstm, (60, 9, 4)),
    "stacked": (Stacked, (60, 9, 4)),
    "both-directions": (Both, (60, 9, 4)),
}


def case(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    kind, shape = CASES[name]
    model = kind().double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model, torch.randn(shape, dtype=torch.float64)


def test_groups_of_a_residual_net_share_channels_through_sums_norms_and_depthwise_layers() -> None:
    model, x = case("residual")
    groups = {tuple(sorted(g.producers)): g for g in find_groups(model, (x[:2],))}
    stream = groups["back", "first", "second"]
    assert stream.reason == "" and stream.size == 8
    assert sorted(stream.followers) == ["depth", "norm"]
    assert set(stream.consumers) == {Consumer("second"), Consumer("inner"), Consumer("fc", 4)}
    assert groups["inner",].consumers == [Consumer("back")]
    assert groups["fc",].reason == "the network's outputs never change"


def test_groups_of_recurrent_nets_and_of_two_consumers() -> None:
    model, x = case("conv-gru")
    groups = {g.producers[0]: g for g in find_groups(model, (x[:2],))}
    assert groups["conv"].consumers == [Consumer("gru")]
    assert groups["gru"].consumers == [Consumer("gru", recurrent=True), Consumer("fc")]
    model, x = case("branches")
    groups = {g.producers[0]: g for g in find_groups(model, (x[:2],))}
    assert groups["a"].consumers == [Consumer("b"), Consumer("c")]
    assert sorted(groups["b"].producers) == ["b", "c"] and groups["b"].consumers == [Consumer("d")]


def test_groups_of_stacked_and_bidirectional_rnns_are_those_of_their_cells() -> None:
    model, x = case("stacked")
    groups = {g.cells.get("lstm", -1): g for g in find_groups(model, (x[:2],))}
    assert groups[0].consumers == [Consumer("lstm", recurrent=True), Consumer("lstm", cell=1)]
    assert groups[1].consumers == [Consumer("lstm", recurrent=True, cell=1), Consumer("fc")]
    for read in ("states", "halves", "mean"):
        groups = {g.cells.get("gru", -1): g for g in find_groups(Both(read).eval(), (x[:2].float(),))}
        for cell, own in groups.items():
            if cell < 0:
                continue
            first = Consumer("gru", recurrent=True, cell=cell)
            if cell < 2:
                wanted = [first, *(Consumer("gru", cell=reader, offset=10 * cell) for reader in (2, 3))]
            else:
                wanted = [first, Consumer("fc", offset=10 * (cell - 2))]
            assert own.consumers == wanted and not own.reason and own.producers == ["gru"]


@pytest.mark.parametrize("reader", ["parts", "odd", "all states", "outputs"])
def test_cells_read_in_an_unknown_way_keep_the_whole_rnn(reader: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 6, num_layers=2, batch_first=True)
            self.fc = nn.Linear(3 if reader == "parts" else 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y, h = self.rnn(x)
            if reader == "outputs":
                return y
            if reader == "all states":
                return self.fc(h.sum(0))
            return self.fc(y[:, -1, :3] if reader == "parts" else torch.cat((y[:, -1, 3:], y[:, -1, :3]), 1))

    torch.manual_seed(0)
    net = Net().eval()
    groups = {g.cells["rnn"]: g for g in find_groups(net, (torch.randn(2, 5, 4),)) if g.cells}
    assert groups[1].reason
    assert rankings_of(net, torch.randn(40, 5, 4)) == []


def test_units_with_an_unknown_reader_stay() -> None:
    model, x = case("unknown")
    groups = {g.producers[0]: g for g in find_groups(model, (x[:2],))}
    assert groups["a"].reason == "operator cumsum is not known to treat them one by one"
    assert groups["b"].reason == ""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(torch.relu(self.a(x)))))

    assert all("more than once" in g.reason or "outputs" in g.reason for g in find_groups(Twice(), (x[:2].float(),)))


@pytest.mark.parametrize("reader", ["state", "cell", "layer_norm", "grouped", "concat", "softmax"])
def test_readers_that_mix_or_expose_units_fix_them(reader: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.LSTM(4, 6, batch_first=True), nn.Linear(12 if reader == "concat" else 6, 3)
            self.first, self.conv = nn.Linear(4, 6), nn.Conv1d(6, 6, 1, groups=3)

        def forward(self, x: Tensor) -> Tensor:
            out, (_, c) = self.rnn(x)
            h = out[:, -1]
            if reader == "state":
                h0 = self.first(x[:, 0]).unsqueeze(0)
                h = self.rnn(x, (h0, torch.zeros_like(h0)))[0][:, -1]
            elif reader == "cell":
                h = h + c[0]
            elif reader == "layer_norm":
                h = F.layer_norm(h, (6,))
            elif reader == "grouped":
                h = self.conv(h.unsqueeze(-1)).squeeze(-1)
            elif reader == "concat":
                h = torch.cat((h, h), 1)
            elif reader == "softmax":
                h = torch.softmax(h, 1)
            return self.fc(h)

    groups = [g for g in find_groups(Net().eval(), (torch.randn(2, 5, 4),)) if "rnn" in g.producers]
    assert groups and all(g.reason for g in groups)


def rankings_of(model: nn.Module, x: Tensor) -> list[object]:
    pca = NeuronPCA(model, x, verbosity="off")
    names = {s.layer.module_name for s in pca.collected.layers.values()}
    return unit_rankings(model, pca.collected.layers, names, find_groups(model, (x[:2],)))


@pytest.mark.parametrize("name", list(CASES))
def test_keeping_all_units_is_the_identity(name: str) -> None:
    model, x = case(name)
    rankings = rankings_of(model, x)
    assert rankings
    same = narrowed(model, [(r, np.arange(r.group.size)) for r in rankings])
    torch.testing.assert_close(same(x), model(x), rtol=1e-8, atol=1e-8)
    for ranking in rankings:
        assert sorted(ranking.order) == list(range(ranking.group.size))
        assert (np.diff(ranking.left) <= 1e-9 * ranking.left[0]).all() and ranking.left[-1] <= 1e-5 * ranking.left[0]


@pytest.mark.parametrize("name", list(CASES))
def test_fewer_units_keep_the_interfaces_and_the_predicted_order(name: str) -> None:
    model, x = case(name)
    rankings = rankings_of(model, x)
    errors = []
    for keep in (0.75, 0.5, 0.25):
        kept = [(r, np.sort(r.order[: max(1, int(keep * r.group.size))])) for r in rankings]
        small = narrowed(model, kept)
        assert small(x).shape == model(x).shape
        assert count_learnables(small) < count_learnables(model)
        for ranking, chosen in kept:
            for producer in ranking.group.producers:
                module = small.get_submodule(producer)
                rows = module.hidden_size if isinstance(module, nn.LSTM | nn.GRU) else module.weight.shape[0]
                assert rows == len(chosen)
        errors.append((small(x) - model(x)).square().mean().item())
    assert errors[0] < errors[2]
    worst = [(r, np.sort(r.order[::-1][: max(1, r.group.size // 2)])) for r in rankings]
    assert errors[1] < (narrowed(model, worst)(x) - model(x)).square().mean().item()


def test_a_duplicated_and_a_dead_unit_go_at_no_loss() -> None:
    model, x = case("branches")
    with torch.no_grad():
        model.a.weight[5], model.a.bias[5] = model.a.weight[2], model.a.bias[2]
        model.a.weight[9], model.a.bias[9] = 0, 0
    (ranking,) = [r for r in rankings_of(model, x) if r.group.producers == ["a"]]
    assert set(ranking.order[-2:]) in ({2, 9}, {5, 9})
    small = narrowed(model, [(ranking, np.sort(ranking.order[:-2]))])
    assert small.a.out_features == 14
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_duplicated_lstm_unit_goes_at_no_loss() -> None:
    model, x = case("lstm")
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            value = getattr(model.lstm, name)
            value[7::14] = value[3::14].clone()
    (ranking,) = rankings_of(model, x)
    assert int(ranking.order[-1]) in (3, 7)
    small = narrowed(model, [(ranking, np.sort(ranking.order[:-1]))])
    assert small.lstm.hidden_size == 13
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["stacked", "both-directions"])
def test_each_cell_of_an_rnn_loses_its_own_duplicated_or_dead_units_at_no_loss(name: str) -> None:
    model, x = case(name)
    rnn = model.lstm if name == "stacked" else model.gru
    hidden, wanted = rnn.hidden_size, {}
    with torch.no_grad():
        for cell, names in enumerate(rnn._all_weights):
            for value in (getattr(rnn, n) for n in names):
                value[5 + cell :: hidden] = value[2 + cell :: hidden].clone()
                value[0::hidden] = 0
            wanted[cell] = ({0, 5 + cell}, {0, 2 + cell})
    rankings = rankings_of(model, x)
    assert sorted(next(iter(r.group.cells.values())) for r in rankings) == sorted(wanted)
    for ranking in rankings:
        assert set(ranking.order[-2:].tolist()) in wanted[next(iter(ranking.group.cells.values()))]
    small = narrowed(model, [(r, np.sort(r.order[:-2])) for r in rankings])
    kept = small.lstm if name == "stacked" else small.gru
    assert kept.hidden_size == hidden - 2 and kept.num_layers == 2
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)
    states = kept(x)[0], rnn(x)[0][..., list(kept._projgen_kept_units)]
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-4)


def test_the_predicted_loss_of_merging_is_the_output_error_of_a_linear_reader() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4)).double()
    x = torch.randn(4000, 6, dtype=torch.float64)
    (ranking,) = rankings_of(model, x)
    for keep in (3, 6):
        small = narrowed(model, [(ranking, np.sort(ranking.order[:keep]))])
        gap = small(x) - model(x)
        measured = (gap - gap.mean(1, keepdim=True)).square().mean().item()
        assert ranking.left[keep] == pytest.approx(measured, rel=1e-3)


def test_missing_statistics_leave_a_group_alone() -> None:
    model, _ = case("branches")
    assert rank_units(Group(16, ["a"], [], [Consumer("b")]), model, {}) is None


def test_refit_of_a_dense_layer_is_least_squares_on_what_now_reaches_it() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4)).double()
    x = torch.randn(500, 6, dtype=torch.float64)
    pca = NeuronPCA(model, x, verbosity="off")
    (ranking,) = unit_rankings(model, pca.collected.layers, {"0"}, find_groups(model, (x[:2],)))
    chosen = np.sort(ranking.order[:5])
    small = narrowed(model, [(ranking, chosen)])
    after = NeuronPCA(small, x, verbosity="off")
    layers = [s.layer for s in after.collected.layers.values()]
    work = Predictor(small, after.collected.layers, layers)
    result = refitted(
        model, small, layers, {"0": DENSE, "2": DENSE}, work, after.collected.layers, {"0": chosen},
        as_batches(x), torch.device("cpu"),
    )  # fmt: skip
    features = torch.cat((torch.tanh(small[0](x)), torch.ones(500, 1, dtype=torch.float64)), 1)
    solution = torch.linalg.lstsq(features, model(x)).solution
    torch.testing.assert_close(result(x), features @ solution, rtol=1e-3, atol=1e-3)
    before = (small(x) - model(x)).square().mean()
    assert (result(x) - model(x)).square().mean() < before
    assert not torch.equal(result[2].weight, small[2].weight)


@pytest.mark.parametrize("name", ["residual", "conv-gru", "lstm", "branches", "stacked", "both-directions"])
def test_compress_with_select_and_merge_beats_projection_alone_at_the_same_size(name: str) -> None:
    model, x = case(name)
    model, x = model.float(), x.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"learnables_reduction_goal": 0.6, "verbosity": "off"}
        auto, info = projgen.compress(model, x, **options)
        alone, plain = projgen.compress(model, x, prune=False, **options)
        forced, narrow = projgen.compress(model, x, prune=True, **options)
    assert info.output_error <= plain.output_error and info.output_error <= narrow.output_error
    for network, record in ((auto, info), (alone, plain), (forced, narrow)):
        assert record.learnables_reduction >= 0.6
        assert record.learnables_after == count_learnables(network)
        assert network(x).shape == model(x).shape
        assert sum(d.learnables_after for d in record.layers) <= record.learnables_after
        assert record.choice == "measured"
        for layer in network.modules():
            if isinstance(layer, projgen.ProjectedLayer):
                cells = [d for d in record.layers if d.name == layer.name or d.name.startswith(f"{layer.name}.l")]
                counts = [sum(d.learnables_after for d in cells), sum(d.learnables_before for d in cells)]
                assert layer.learnables_reduction == pytest.approx(1 - counts[0] / counts[1])
    assert all(d.units[0] == d.units[1] for d in plain.layers)
    assert any(d.units[1] < d.units[0] for d in narrow.layers)
    unpacked = projgen.unpack_projected_layers(auto)
    torch.testing.assert_close(unpacked.eval()(x), auto.eval()(x))


def test_only_named_layers_lose_units_and_their_readers_are_narrowed() -> None:
    model, x = case("conv-gru")
    model, x = model.float(), x.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small, info = projgen.compress(
            model, x, layer_names=["gru"], learnables_reduction_goal=0.5, prune=True, verbosity="off"
        )
    (gru,) = info.layers
    assert gru.name == "gru" and gru.units[1] < 12
    assert isinstance(small.conv, nn.Conv1d) and small.conv.out_channels == 10
    assert isinstance(small.fc, nn.Linear) and small.fc.in_features == gru.units[1]


def test_a_model_without_units_that_may_go_is_only_projected_with_a_warning() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(12, 10)), torch.randn(80, 12)
    with pytest.warns(UserWarning, match="no unit or channel can go from this model at this size"):
        _, info = projgen.compress(model, x, learnables_reduction_goal=0.4, prune=True, verbosity="off")
    assert info.learnables_reduction >= 0.4 and info.layers[0].units == (10, 10)


def test_goals_beyond_the_reach_are_clipped_with_a_warning() -> None:
    model, x = case("lstm")
    model, x = model.float(), x.float()
    with pytest.warns(UserWarning, match=r"learnables_reduction_goal=0\.999 is more than the possible 0\.9\d+"):
        _, info = projgen.compress(model, x, learnables_reduction_goal=0.999, verbosity="off")
    assert info.learnables_reduction > 0.9
    pca = NeuronPCA(model, x, verbosity="off")
    with pytest.warns(UserWarning, match="is more than the possible"):
        _, again = projgen.compress(model, pca, learnables_reduction_goal=0.999, verbosity="off")
    assert again.learnables_after == info.learnables_after and again.choice == "predicted"


@pytest.mark.parametrize("name", ["residual", "conv-gru", "lstm", "branches"])
def test_stored_moments_of_a_narrowed_net_are_those_of_the_kept_features(name: str) -> None:
    model, x = case(name)
    pca = NeuronPCA(model, x, verbosity="off")
    rankings = rankings_of(model, x)
    kept = [(r, np.sort(r.order[: max(1, r.group.size // 2)])) for r in rankings]
    small = narrowed(model, kept)
    layers = [layer for layer in find_layers(small) if layer.kind is not None]
    stats = narrowed_stats(pca.collected.layers, layers, kept)
    chosen = {producer: index for r, index in kept for producer in r.group.producers}
    for layer in layers:
        found, rows = stats[layer.name], chosen.get(layer.module_name)
        assert found.inputs[0].mean.shape == (layer.inputs + layer.hidden,)
        for key, g in found.curvature.items():
            assert g.shape[-2:] == (layer.outputs, layer.outputs)
            if rows is not None and not layer.hidden and layer.groups == 1:
                whole = pca.collected.layers[layer.name].curvature[key]
                np.testing.assert_array_equal(g, whole[..., rows[:, None], rows])
        assert all(p.mean.shape == (layer.inputs * layer.taps,) for p in found.patches)
    if name == "branches":
        features = torch.tanh(model.a(x))[:, chosen["a"]]
        np.testing.assert_allclose(stats["b"].inputs[0].mean, features.mean(0).detach(), atol=1e-10)
    if name == "lstm":
        units = chosen["lstm"]
        out = model.lstm(x)[0]
        back = torch.cat((torch.zeros(60, 1, 14, dtype=torch.float64), out[:, :-1]), 1)[..., units]
        np.testing.assert_allclose(stats["lstm"].inputs[0].mean[4:], back.mean((0, 1)).detach(), atol=1e-10)


def test_a_neuron_pca_alone_selects_and_merges_by_predicted_loss() -> None:
    model, x = case("lstm")
    model, x = model.float(), x.float()
    pca = NeuronPCA(model, x, verbosity="off")
    small, info = projgen.compress(model, pca, learnables_reduction_goal=0.7, prune=True, verbosity="off")
    _, alone = projgen.compress(model, pca, learnables_reduction_goal=0.7, prune=False, verbosity="off")
    assert info.choice == alone.choice == "predicted" and info.output_error is None
    assert info.layers[0].units[1] < 14 and alone.layers[0].units == (14, 14)
    assert info.learnables_after == count_learnables(small) and info.learnables_reduction >= 0.7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["residual", "conv-gru", "lstm"])
def test_cuda_models_stay_on_their_device(name: str) -> None:
    model, x = case(name)
    model = model.float().cuda()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small, info = projgen.compress(model, x.float(), learnables_reduction_goal=0.6, verbosity="off")
        trained = projgen.distill(small, model, x.float(), steps=5, verbosity="off")
    assert info.learnables_reduction >= 0.6
    assert {p.device.type for p in (*small.parameters(), *trained.parameters())} == {"cuda"}
    assert small(x.float().cuda()).shape == model(x.float().cuda()).shape
