"""The joint LSTM whose bias is folded into the low-rank vector: optimum, choice, training, unpacking, counting."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import projgen
from projgen.errors import InputError
from projgen.pca.counting import count_learnables, dense_cost
from projgen.pca.discover import find_layers
from projgen.pca.moments import MomentSummary
from projgen.pca.neuron_pca import LayerStats, NeuronPCA
from projgen.projection.closed_form import output_factors, output_regressions, regularised
from projgen.projection.distill import balance_factors
from projgen.projection.factors import CellFactors, DenseWeights, cost_of, dense_weights
from projgen.projection.forecast import predictions
from projgen.projection.options import Weighting
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE, Choice, output_cost
from projgen.projection.recurrent import ProjectedGRU, ProjectedLSTM
from projgen.projection.search import realise
from projgen.projection.shared import shared_readers
from projgen.projection.trace import find_groups


class Net(nn.Module):
    """All that the gates see, their bias included, comes through three directions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.fc = nn.LSTM(5, 16, batch_first=True), nn.Linear(16, 12)
        first, second = torch.randn(64, 3), torch.randn(3, 22) / 3
        with torch.no_grad():
            product = first @ second
            self.rnn.weight_ih_l0.copy_(product[:, :5])
            self.rnn.weight_hh_l0.copy_(product[:, 5:21])
            self.rnn.bias_ih_l0.copy_(product[:, 21])
            self.rnn.bias_hh_l0.zero_()
            self.fc.weight.copy_(torch.randn(12, 3) @ second[:, 5:21])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


DATA = torch.randn(60, 8, 5, generator=torch.Generator().manual_seed(1))


def random_problem(seed: int, inputs: int, hidden: int) -> tuple[DenseWeights, LayerStats]:
    rng = np.random.default_rng(seed)
    width = inputs + hidden
    draws, pull = rng.normal(size=(width, width + 3)), rng.normal(size=(4 * hidden, 4 * hidden))
    moments = MomentSummary(100, rng.normal(size=width), draws @ draws.T / width)
    (layer,) = find_layers(nn.LSTM(inputs, hidden))
    stats = LayerStats(layer, 100, (moments,), curvature={"z": pull @ pull.T})
    w, r = rng.normal(size=(4 * hidden, inputs)), rng.normal(size=(4 * hidden, hidden))
    return DenseWeights(w, r, rng.normal(size=4 * hidden), None), stats


def folded(rank: int) -> Choice:
    return Choice(rank, rank, joint=True, folded=True)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), inputs=st.integers(1, 5), hidden=st.integers(1, 4), data=st.data())
def test_the_folded_form_reaches_the_optimum_over_inputs_state_and_one(
    seed: int, inputs: int, hidden: int, data: st.DataObject
) -> None:
    dense, stats = random_problem(seed, inputs, hidden)
    rank = data.draw(st.integers(1, min(4 * hidden, inputs + hidden + 1)))
    solved = output_regressions(dense, stats)
    factors = output_factors(dense, stats, solved, folded(rank))
    assert isinstance(factors, CellFactors) and factors.joint and factors.bias_ih is None
    a, gap = factors.weight_ih, np.empty((4 * hidden, inputs + hidden + 1))
    gap[:, :inputs] = dense.weight - a @ factors.input_projector.T
    gap[:, inputs:-1] = dense.hidden - a @ factors.output_projector.T
    gap[:, -1] = dense.bias - a @ factors.projector_bias
    mean, spread = stats.inputs[0].mean, stats.inputs[0].covariance
    g = regularised(stats.curvature["z"], 4 * hidden)
    # The mean of e' G e over e = gap [v; 1]: that of v's spread, plus that of its mean.
    error = np.trace(g @ gap[:, :-1] @ spread @ gap[:, :-1].T)
    at_mean = gap @ np.append(mean, 1.0)
    error += at_mean @ g @ at_mean
    # Eckart-Young where both weights are the identity: [v; 1] = root [unit vectors; 1].
    root = np.zeros((inputs + hidden + 1,) * 2)
    root[:-1, :-1], root[:-1, -1], root[-1, -1] = np.linalg.cholesky(spread), mean, 1.0
    m = np.column_stack((dense.weight, dense.hidden, dense.bias))
    values = np.linalg.svd(np.linalg.cholesky(g).T @ m @ root, compute_uv=False) ** 2
    optimum = values[rank:].sum()
    assert error == pytest.approx(optimum, rel=1e-9, abs=1e-9 * values.sum())
    assert solved[3].tails[rank] == pytest.approx(optimum, rel=1e-9, abs=1e-9 * values.sum())


def test_full_rank_reproduces_the_layer() -> None:
    torch.manual_seed(3)
    lstm = nn.LSTM(3, 4, batch_first=True).double()
    x = torch.randn(6, 9, 3, dtype=torch.float64)
    stats = NeuronPCA(lstm, x, verbosity="off").collected.layers["lstm"]
    dense = dense_weights(lstm, replace(stats.layer, module_name=""))
    factors = output_factors(dense, stats, output_regressions(dense, stats), folded(8))
    network = ProjectedLSTM(3, 4, 8, 8, joint=True, fold_bias=True, batch_first=True, dtype=torch.float64)
    for name in ("weight_ih", "input_projector", "output_projector", "projector_bias"):
        network.get_parameter(name).data.copy_(torch.as_tensor(getattr(factors, name)))
    torch.testing.assert_close(network(x)[0], lstm(x)[0], rtol=0, atol=1e-10)


def test_the_folded_form_is_on_offer_for_less_and_shared_and_counted_as_stored() -> None:
    model = Net().eval()
    stats = NeuronPCA(model, DATA, verbosity="off").collected.layers
    layers = [s.layer for s in stats.values()]
    work = Predictor(model, stats, layers, shared_readers(find_groups(model, (DATA[:2],)), layers))
    joint, bent = Choice(3, 3, joint=True), {"rnn": Weighting(form="folded", shared=True)}
    assert output_cost(layers[0], folded(3)) == 3 * (64 + 5 + 16 + 1)
    assert output_cost(layers[0], joint) == 3 * (64 + 5 + 16) + 64
    for rank in (1, 2, 4):  # a bias of its own can't do worse than one that comes through the factor
        alone = {"rnn": folded(rank), "fc": DENSE}
        assert work.loss(alone) >= work.loss({**alone, "rnn": Choice(rank, rank, joint=True)}) * (1 - 1e-9)
    cell, reader = folded(3), Choice(3, None, joint=True, shared=True, folded=True)
    chosen = work.for_removal(dense_cost(layers[0]) + dense_cost(layers[1]) - 306, bent)
    assert chosen == {"rnn": cell, "fc": reader}
    small = realise(work, model, layers, chosen)
    assert count_learnables(small) == 3 * 86 + 12 * 3 + 12
    assert small.fc.network.input_projector.weight is small.rnn.network.output_projector
    assert cost_of(layers[0], work.factors(layers[0], cell)) == 3 * 86
    torch.testing.assert_close(small(DATA), model(DATA), rtol=1e-3, atol=1e-3)
    best, unfolded = predictions(work, work.removed(chosen))
    assert best["rnn"].folded and not unfolded["rnn"].folded
    assert work.removed(unfolded) >= work.removed(chosen) and work.loss(unfolded) > work.loss(best)
    without = Predictor(model, stats, layers, {"fc": "rnn"}, fold=False)
    assert predictions(without, work.removed(chosen)) == [unfolded]


def test_compress_takes_the_form_where_it_costs_less_and_says_so() -> None:
    model = Net().eval()
    small, info = projgen.compress(model, DATA, learnables_reduction_goal=0.805, prune=False, verbosity="off")
    rnn = next(d for d in info.layers if d.name == "rnn")
    assert (rnn.joint, rnn.folded, rnn.ranks) == (True, True, (3, 3))
    assert rnn.learnables_after == 3 * 86
    assert info.learnables_after == count_learnables(small)
    (row,) = (i for i, d in enumerate(info.layers) if d is rnn)
    assert list(info.__rich__().columns[3].cells)[row] == "3, 3 joint folded"
    plain = projgen.unpack_projected_layers(small)
    assert isinstance(plain.rnn, ProjectedLSTM) and plain.rnn.fold_bias == (True,)
    torch.testing.assert_close(plain(DATA), small(DATA), rtol=0, atol=0)


def test_no_bias_means_nothing_to_fold() -> None:
    lstm = nn.LSTM(4, 6, bias=False, batch_first=True)
    stats = NeuronPCA(lstm, torch.randn(30, 5, 4), verbosity="off").collected.layers
    work = Predictor(lstm, stats, [s.layer for s in stats.values()])
    assert len(output_regressions(dense_weights(lstm, stats["lstm"].layer), stats["lstm"])) == 3
    assert work.for_removal(40, {"lstm": Weighting(form="folded")}) == work.for_removal(40)


def test_the_layer_copies_loads_and_exports_with_its_folded_bias() -> None:
    torch.manual_seed(0)
    network = ProjectedLSTM(3, 5, 2, 2, joint=True, fold_bias=True, batch_first=True).eval()
    assert {name: tuple(p.shape) for name, p in network.named_parameters()} == {
        "weight_ih": (20, 2), "input_projector": (3, 2), "output_projector": (5, 2), "projector_bias": (2,),
    }  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == 2 * (20 + 3 + 5 + 1)
    assert "joint=True, fold_bias=True" in repr(network)
    x, h, c = torch.randn(2, 4, 3), torch.zeros(5), torch.zeros(5)
    low = network.input_projector.T @ x[0, 0] + network.output_projector.T @ h + network.projector_bias
    i, _, g, o = (network.weight_ih @ low).chunk(4)
    c = torch.sigmoid(i) * torch.tanh(g)
    torch.testing.assert_close(network(x)[0][0, 0], torch.sigmoid(o) * torch.tanh(c))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(network)))
    twin.projector_bias.data.zero_()
    assert not torch.equal(twin(x)[0], network(x)[0])
    twin.load_state_dict(network.state_dict())
    torch.testing.assert_close(twin(x), network(x), rtol=0, atol=0)
    program = torch.export.export(network, (x,))
    torch.testing.assert_close(program.module()(x)[0], network(x)[0])


def test_a_bias_is_folded_in_joint_cells_only() -> None:
    for cell, options in ((ProjectedLSTM, {}), (ProjectedLSTM, {"joint": True, "bias": False}), (ProjectedGRU, {})):
        with pytest.raises(InputError, match=r"a folded bias of cell l0\. Allowed: in a joint cell with bias"):
            cell(3, 5, 2, 2, fold_bias=True, **options)
    ProjectedLSTM(3, 5, 9, 9, joint=True, fold_bias=True)
    with pytest.raises(InputError, match=r"rank 10 for input_projector of cell l0\. Allowed: 1 to 9"):
        ProjectedLSTM(3, 5, 10, 10, joint=True, fold_bias=True)


def test_balancing_and_distillation_take_the_folded_bias_along() -> None:
    model = Net().eval()
    student = copy.deepcopy(model)
    torch.manual_seed(2)
    student.rnn = ProjectedLSTM(5, 16, 3, 3, joint=True, fold_bias=True, batch_first=True)
    balanced = copy.deepcopy(student)
    balance_factors(balanced)
    torch.testing.assert_close(balanced(DATA), student(DATA), rtol=1e-4, atol=1e-5)
    rnn = balanced.rnn
    columns = torch.cat((rnn.input_projector, rnn.output_projector, rnn.projector_bias[None]))
    left, right = (torch.linalg.svdvals(m) for m in (balanced.rnn.weight_ih, columns))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    trained = projgen.distill(student, model, DATA, steps=60, verbosity="off")
    assert not torch.equal(trained.rnn.projector_bias, balanced.rnn.projector_bias)
    wanted = model(DATA)
    before, after = ((wanted - net(DATA)).square().mean() for net in (student, trained))
    assert after < 0.5 * before
    assert count_learnables(trained) == 3 * 86 + 12 * 17
