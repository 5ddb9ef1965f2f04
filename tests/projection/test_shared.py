"""A linear layer that shares the output projector of the RNN whose hidden state it reads, from choice to C."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import projgen
from projgen.pca.counting import count_learnables
from projgen.pca.discover import find_layers
from projgen.pca.moments import MomentSummary
from projgen.pca.neuron_pca import LayerStats, NeuronPCA
from projgen.projection.closed_form import regularised, shared_factors, shared_tails
from projgen.projection.distill import balance_factors
from projgen.projection.factors import DenseWeights, HiddenState, LinearFactors
from projgen.projection.layers import ProjectedLayer
from projgen.projection.options import Weighting
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE, Choice, output_cost
from projgen.projection.search import realise
from projgen.projection.shared import SharedProjector, shared_readers, tied_pairs
from projgen.projection.trace import find_groups
from tests.importers.onnx.exporting import export

READS = ("last", "mean", "h_n", "every")


class Net(nn.Module):
    """The recurrent weights and the reader see the hidden state through the same four directions."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], read: str = "last") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.fc, self.read = kind(6, 24, batch_first=True), nn.Linear(24, 40), read
        self.drop = nn.Dropout(0.2)
        seen = torch.randn(4, 24)
        rows = self.rnn.weight_hh_l0.shape[0]
        with torch.no_grad():
            self.rnn.weight_hh_l0.copy_(torch.randn(rows, 4) @ seen / 10)
            self.fc.weight.copy_(torch.randn(40, 4) @ seen / 5)

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.rnn(x)
        if self.read == "h_n":
            return self.fc((state[0] if isinstance(state, tuple) else state)[-1])
        return self.fc(self.drop({"last": y[:, -1], "mean": y.mean(1), "every": y}[self.read]))


KINDS = (nn.LSTM, nn.GRU)
DATA = torch.randn(60, 8, 6, generator=torch.Generator().manual_seed(1))


def compressed(kind: type[nn.LSTM] | type[nn.GRU], read: str = "last", goal: float = 0.65) -> tuple[nn.Module, ...]:
    model = Net(kind, read).eval()
    small, info = projgen.compress(model, DATA, learnables_reduction_goal=goal, prune=False, verbosity="off")
    return model, small, info


def random_problem(seed: int, width: int, outputs: int, rank: int) -> tuple[DenseWeights, LayerStats, np.ndarray]:
    rng = np.random.default_rng(seed)
    draws, pull = rng.normal(size=(width, width)), rng.normal(size=(outputs, outputs))
    moments = MomentSummary(100, rng.normal(size=width), draws @ draws.T)
    (layer,) = find_layers(nn.Sequential(nn.Linear(width, outputs)))
    stats = LayerStats(layer, 100, (moments,), curvature={"z": pull @ pull.T})
    dense = DenseWeights(rng.normal(size=(outputs, width)), None, rng.normal(size=outputs), None)
    return dense, stats, rng.normal(size=(rank, width))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), width=st.integers(2, 8), outputs=st.integers(1, 6), data=st.data())
def test_the_factor_behind_a_given_projector_is_the_brute_force_optimum(
    seed: int, width: int, outputs: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(1, width))
    dense, stats, b = random_problem(seed, width, outputs, rank)
    c = stats.inputs[0].covariance
    c = c + 1e-3 * np.trace(c) / width * np.eye(width)
    g = regularised(stats.curvature["z"], outputs)
    root_c, root_g = np.linalg.cholesky(c), np.linalg.cholesky(g)
    tails = shared_tails(dense, stats, b)
    for r in range(1, rank + 1):
        system = np.kron(root_g.T, (b[:r] @ root_c).T)  # rows: G^1/2 A B C^1/2, A row by row
        wanted = (root_g.T @ dense.weight @ root_c).ravel()
        best, *_ = np.linalg.lstsq(system, wanted, rcond=None)
        optimum = float(np.square(system @ best - wanted).sum())
        assert tails[r] == pytest.approx(optimum, rel=1e-7, abs=1e-9 * tails[0])
        factors = shared_factors(dense, stats, b[:r], HiddenState("rnn", 0))
        gap = dense.weight - factors.a @ factors.b
        assert np.trace(g @ gap @ c @ gap.T) == pytest.approx(optimum, rel=1e-7, abs=1e-9 * tails[0])
        mean = stats.inputs[0].mean
        np.testing.assert_allclose(
            factors.a @ (b[:r] @ mean) + factors.bias, dense.weight @ mean + dense.bias, atol=1e-9
        )
    assert (np.diff(tails) <= 1e-9 * tails[0]).all()


def test_directions_that_repeat_earlier_ones_explain_nothing_more() -> None:
    dense, stats, b = random_problem(3, 6, 4, 3)
    tails = shared_tails(dense, stats, np.concatenate((b, b[:1] + b[1:2])))
    assert tails[4] == pytest.approx(tails[3])


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", KINDS)
def test_sharing_is_chosen_where_it_costs_no_error_and_counted_once(kind: type[nn.LSTM], read: str) -> None:
    model, small, info = compressed(kind, read)
    fc = next(d for d in info.layers if d.name == "fc")
    assert fc.shared and not fc.joint
    rank = fc.ranks[0]
    assert fc.learnables_after == 40 * rank + 40
    assert info.learnables_after == count_learnables(small)
    assert sum(d.learnables_after for d in info.layers) == info.learnables_after
    assert small.fc.network.input_projector.weight is small.rnn.network.output_projector
    assert small.fc.input_projector_size == rank
    torch.testing.assert_close(small(DATA), model(DATA), rtol=0.05, atol=0.05 * float(model(DATA).std()))
    assert "shared" in str(info.__rich__().columns[3]._cells)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tie_survives_unpacking_copying_and_state_dicts(kind: type[nn.LSTM]) -> None:
    _, small, info = compressed(kind)
    plain = projgen.unpack_projected_layers(small)
    for network in (plain, copy.deepcopy(small), copy.deepcopy(plain), small.double().float()):
        (pair,) = tied_pairs(network)
        assert pair.projector.weight is pair.rnn.output_projector
        assert count_learnables(network) == info.learnables_after
        torch.testing.assert_close(network(DATA), small(DATA))
    other = copy.deepcopy(small)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(small.state_dict())
    torch.testing.assert_close(other(DATA), small(DATA))


@pytest.mark.parametrize("kind", KINDS)
def test_distillation_trains_the_one_parameter(kind: type[nn.LSTM]) -> None:
    model, small, info = compressed(kind)
    for start in (small, projgen.unpack_projected_layers(small)):
        tuned = projgen.distill(start, model, DATA, steps=40, verbosity="off")
        (before,), (after,) = tied_pairs(start), tied_pairs(tuned)
        assert after.projector.weight is after.rnn.output_projector
        assert not torch.equal(after.projector.weight, before.projector.weight)
        assert count_learnables(tuned) == info.learnables_after


@pytest.mark.parametrize("kind", KINDS)
def test_balancing_changes_the_factors_and_not_the_function(kind: type[nn.LSTM]) -> None:
    _, small, _ = compressed(kind)
    balanced = copy.deepcopy(small)
    balance_factors(balanced)
    (before,), (after,) = tied_pairs(small), tied_pairs(balanced)
    assert not torch.allclose(after.core.weight, before.core.weight)
    torch.testing.assert_close(balanced(DATA), small(DATA), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_layer_goes_through_files_and_back(kind: type[nn.LSTM], packed: bool, tmp_path: Path) -> None:
    _, small, info = compressed(kind, "mean")
    saved = small if packed else projgen.unpack_projected_layers(small)
    for name in ("small.onnx", "small.pt2"):
        projgen.save(saved, tmp_path / name)
    assert [list(i.dims) for i in onnx.load(tmp_path / "small.onnx").graph.initializer].count([24, 4]) == 1
    back = projgen.load_onnx(tmp_path / "small.onnx")
    torch.testing.assert_close(back(DATA), small(DATA), rtol=1e-4, atol=1e-5)
    (pair,) = tied_pairs(back)
    assert pair.projector.weight is pair.rnn.output_projector
    assert count_learnables(back) == info.learnables_after
    program = torch.export.load(tmp_path / "small.pt2").module()
    torch.testing.assert_close(program(DATA), small(DATA), rtol=1e-4, atol=1e-5)
    tuned = projgen.distill(back, Net(kind, "mean").eval(), DATA, steps=20, verbosity="off")
    (after,) = tied_pairs(tuned)
    assert after.projector.weight is after.rnn.output_projector
    assert not torch.equal(after.projector.weight, pair.projector.weight)


def test_the_tie_is_found_where_another_exporter_keeps_the_product(tmp_path: Path) -> None:
    _, small, _ = compressed(nn.LSTM)
    path = export(projgen.unpack_projected_layers(small), (DATA[:2],), tmp_path / "small.onnx", "torchscript")
    back = projgen.load_onnx(path)
    torch.testing.assert_close(back(DATA), small(DATA), rtol=1e-4, atol=1e-5)
    (pair,) = tied_pairs(back)
    assert pair.projector.weight is pair.rnn.output_projector


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_projector_is_the_same_constants_from_every_file(kind: type[nn.LSTM], tmp_path: Path) -> None:
    """Both files and the network itself give the same C, in which equal arrays are stored once."""
    _, small, info = compressed(kind, "mean")
    small = projgen.unpack_projected_layers(small)
    texts = []
    for name in ("small.onnx", "small.pt2", ""):
        if name:
            projgen.save(small, tmp_path / name)
        model = tmp_path / name if name else small
        out = tmp_path / f"out{len(texts)}"
        artifact = projgen.compile(
            model, calibration=DATA, target="cortex-m4", out=out, name="shared", kernels="portable"
        )
        texts.append({f: (out / f).read_bytes() for f in ("shared.h", "shared.c", "shared_weights.h", "shared.json")})
    assert texts[0] == texts[1] == texts[2]
    weights = texts[0]["shared_weights.h"].decode()
    assert "rnn: recurrent_factor [rank][units] and fc.input_projector: weights [outputs][inputs]; 96" in weights
    assert weights.count("static const int8_t") == 4  # w, r, the projector, the reader's other factor
    assert artifact.manifest["learnables"] == info.learnables_after
    reader = next(layer for layer in artifact.manifest["layers"] if layer["source"] == "fc.input_projector")
    assert reader["weight_bytes"] == 4 * 4 + 4 * 4  # biases and multipliers


def low_rank_pair(q: projgen.QuantizedModel) -> None:
    """The shared reader is two products with an int16 value between, its projector a constant."""
    first, second = (node for node in q.graph.nodes if node.op == "linear")
    assert second.inputs["x"] == first.output
    assert q.graph.type(first.output).dtype.name == "INT16"


@pytest.mark.qemu
@pytest.mark.parametrize("kernels", ["fast", "portable"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_layer_in_c_gives_the_simulators_bytes_on_an_m4(
    kind: type[nn.LSTM], kernels: str, tmp_path: Path
) -> None:
    _, small, _ = compressed(kind, "last")
    q = projgen.quantize(projgen.unpack_projected_layers(small), DATA)
    low_rank_pair(q)
    artifact = projgen.compile(q, target="cortex-m4", out=tmp_path / "out", name="shared", kernels=kernels)
    artifact.verify(DATA[:4].numpy())


def test_the_search_can_force_or_forbid_sharing_and_predicts_its_loss() -> None:
    model = Net(nn.LSTM).eval()
    pca = NeuronPCA(model, DATA, verbosity="off")
    stats = pca.collected.layers
    layers = [s.layer for s in stats.values()]
    readers = shared_readers(find_groups(model, (DATA[:2],)), layers)
    assert readers == {"fc": "rnn"}
    work = Predictor(model, stats, layers, readers)
    assert work.cells_with_readers == {"rnn"}
    forced = work.for_removal(2500, {"rnn": Weighting(shared=True)})
    forbidden = work.for_removal(2500, {"rnn": Weighting(shared=False)})
    assert forced["fc"].shared and forced["fc"].r_in == forced["rnn"].r_out
    assert not forbidden["fc"].shared
    assert min(work.removed(forced), work.removed(forbidden)) >= 2500
    for joint in (False, True):
        chosen = {"rnn": Choice(2, 2, joint), "fc": Choice(2, None, joint, shared=True)}
        network = realise(work, model, layers, chosen)
        assert output_cost(layers[1], chosen["fc"]) == 40 * 2 + 40
        assert work.removed(chosen) == count_learnables(model) - count_learnables(network)
        assert work.loss(chosen) > work.loss({**chosen, "fc": DENSE}) > 0
        assert 0 < work.explained(layers[1], chosen["fc"]) <= 1


def test_readers_of_more_than_one_cell_or_through_a_reshape_share_nothing() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.GRU(4, 6, batch_first=True, bidirectional=True), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.rnn(x)[0][:, -1])

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.GRU(4, 6, batch_first=True), nn.Linear(30, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.rnn(x)[0].transpose(1, 2).flatten(1))

    for net in (Two(), Blocks()):
        groups = find_groups(net.eval(), (torch.randn(2, 5, 4),))
        assert groups and shared_readers(groups, find_layers(net)) == {}


def test_a_shared_projector_is_a_linear_map_by_the_transposed_weight() -> None:
    projector = SharedProjector(5, 2)
    with torch.no_grad():
        projector.weight.copy_(torch.arange(10.0).reshape(5, 2))
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(projector(x), x @ projector.weight)
    assert repr(projector) == "SharedProjector(5, 2)"
    assert isinstance(LinearFactors(np.eye(2), np.eye(2), None).shared, type(None))
    assert not list(tied_pairs(nn.Sequential(projector)))
    assert issubclass(ProjectedLayer, nn.Module)
