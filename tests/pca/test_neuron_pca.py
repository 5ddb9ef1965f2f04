"""NeuronPCA: spectra, ranges, names, saving and loading, refusals."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import projgen
from projgen.errors import InputError, InputTypeError
from projgen.pca.counting import count_learnables
from projgen.pca.discover import find_layers, owned_copy


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 3, padding=1)
        self.gru = nn.GRU(8, 10, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.gru(self.conv(x).transpose(1, 2))[0][:, -1])


@pytest.fixture(scope="module")
def setup() -> tuple[Net, Tensor, projgen.NeuronPCA]:
    torch.manual_seed(0)
    model, x = Net().double(), torch.randn(50, 6, 9, dtype=torch.float64) + 1
    return model, x, projgen.NeuronPCA(model, x, verbosity="off")


def test_spectra_are_those_of_the_activations(setup: tuple[Net, Tensor, projgen.NeuronPCA]) -> None:
    model, x, pca = setup
    assert pca.layer_names == ["conv", "gru.l0", "gru.l0_reverse", "fc"]
    z = model.conv(x)
    hidden = model.gru(z.transpose(1, 2))[0]
    for values, vectors, rows in (
        (pca.input_eigenvalues["conv"], pca.input_eigenvectors["conv"], x.movedim(1, -1).reshape(-1, 6)),
        (pca.output_eigenvalues["conv"], pca.output_eigenvectors["conv"], z.movedim(1, -1).reshape(-1, 8)),
        (pca.input_eigenvalues["gru.l0"], pca.input_eigenvectors["gru.l0"], z.movedim(1, -1).reshape(-1, 8)),
        (pca.input_eigenvalues["fc"], pca.input_eigenvectors["fc"], hidden[:, -1]),
        (pca.output_eigenvalues["fc"], pca.output_eigenvectors["fc"], model.fc(hidden[:, -1])),
    ):
        data = rows.detach().numpy()
        np.testing.assert_allclose(values, np.linalg.svd(data, compute_uv=False) ** 2 / len(data), rtol=1e-8)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(values)), atol=1e-10)
        np.testing.assert_allclose((vectors * values) @ vectors.T, data.T @ data / len(data), atol=1e-9)
    back = torch.cat((hidden[:, 1:, 10:], torch.zeros(50, 1, 10, dtype=torch.float64)), 1).reshape(-1, 10)
    expected = np.linalg.svd(back.detach().numpy(), compute_uv=False) ** 2 / len(back)
    np.testing.assert_allclose(pca.output_eigenvalues["gru.l0_reverse"], expected, rtol=1e-8)


def test_ranges(setup: tuple[Net, Tensor, projgen.NeuronPCA]) -> None:
    model, _, pca = setup
    total = count_learnables(model)
    smallest = {"conv": 6 + 3 + 8 + 1, "gru": 2 * (30 + 8 + 30 + 10 + 40), "fc": 20 + 4 + 4}
    low, high = pca.learnables_reduction_range
    assert (low, high) == (0.0, pytest.approx(1 - sum(smallest.values()) / total))
    assert 0 < pca.explained_variance_range[0] < pca.explained_variance_range[1] == 1.0


def test_grouped_spectra_are_summed_rank_by_rank() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(8, 12, 3, groups=2)).double()
    x = torch.randn(10, 8, 6, 6, dtype=torch.float64)
    pca = projgen.NeuronPCA(model, x, verbosity="off")
    assert pca.input_eigenvectors["0"].shape == (8, 4) and pca.output_eigenvectors["0"].shape == (12, 6)
    parts = [np.linalg.svd(p.movedim(1, -1).reshape(-1, 4).numpy(), compute_uv=False) ** 2 / 360 for p in x.split(4, 1)]
    np.testing.assert_allclose(pca.input_eigenvalues["0"], parts[0] + parts[1], rtol=1e-10)


@pytest.mark.parametrize("curvature", [True, False])
def test_saved_and_loaded_it_compresses_the_same(
    setup: tuple[Net, Tensor, projgen.NeuronPCA], curvature: bool, tmp_path: Path
) -> None:
    model, x, _ = setup
    pca = projgen.NeuronPCA(model, x, curvature=curvature, verbosity="off")
    pca.save(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fiU" for name in file.files)
    loaded = projgen.NeuronPCA.load(tmp_path / "p.npz", copy.deepcopy(model))
    assert loaded.layer_names == pca.layer_names and loaded.has_curvature is curvature
    for method in ["pca", "output"] if curvature else ["pca"]:
        a, info_a = projgen.compress(model, pca, learnables_reduction_goal=0.5, method=method, verbosity="off")
        b, info_b = projgen.compress(model, loaded, learnables_reduction_goal=0.5, method=method, verbosity="off")
        assert info_a == info_b
        assert torch.equal(a(x), b(x))


def test_moments_alone_are_refused_by_the_output_method(setup: tuple[Net, Tensor, projgen.NeuronPCA]) -> None:
    model, x, _ = setup
    pca = projgen.NeuronPCA(model, x, curvature=False, verbosity="off")
    with pytest.raises(InputError, match=r"holds moments only\. Allowed: .*curvature=True, or method='pca'"):
        projgen.compress(model, pca, verbosity="off")


def test_another_model_is_refused_with_the_difference_named(
    setup: tuple[Net, Tensor, projgen.NeuronPCA], tmp_path: Path
) -> None:
    model, _, pca = setup
    pca.save(tmp_path / "p.npz")
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.fc.weight[0, 0] += 1e-9
    wider = copy.deepcopy(model)
    wider.fc = nn.Linear(20, 5)
    other = nn.Sequential(nn.Linear(3, 3))
    for wrong, text in (
        (changed, "the layers agree, the weights differ"),
        (wider, "layer 'fc': its shape differs"),
        (other, "layer 'conv': the model has no such layer"),
    ):
        with pytest.raises(InputError, match=text):
            projgen.NeuronPCA.load(tmp_path / "p.npz", wrong)
        with pytest.raises(InputError, match=text):
            projgen.compress(wrong, pca, verbosity="off")


def test_files_that_are_no_saved_pca_are_refused(setup: tuple[Net, Tensor, projgen.NeuronPCA], tmp_path: Path) -> None:
    model, _, pca = setup
    with pytest.raises(InputError, match=r"was not found"):
        projgen.NeuronPCA.load(tmp_path / "no.npz", model)
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 cut short")
    np.savez(tmp_path / "o.npz", header=np.array([{"a": 1}], dtype=object))
    for name in ("x.npz", "t.npz", "o.npz"):
        with pytest.raises(InputError, match=r"is not a saved NeuronPCA.*a file that NeuronPCA\.save wrote"):
            projgen.NeuronPCA.load(tmp_path / name, model)
    with pytest.raises(InputError, match=r"file name 'p\.bin'. Allowed: a name ending in \.npz"):
        pca.save(tmp_path / "p.bin")
    with pytest.raises(InputError, match=r"can't be written: No such file"):
        pca.save(tmp_path / "no" / "p.npz")


def test_layer_names_take_wildcards_and_wrong_ones_are_refused(setup: tuple[Net, Tensor, projgen.NeuronPCA]) -> None:
    model, x, pca = setup
    names = projgen.NeuronPCA(model, x, layer_names=["gru*"], curvature=False, verbosity="off").layer_names
    assert names == ["gru.l0", "gru.l0_reverse"]
    _, info = projgen.compress(model, pca, layer_names="gru", explained_variance_goal=0.5, verbosity="off")
    assert info.layer_names == ["gru.l0", "gru.l0_reverse"]
    with pytest.raises(
        InputError, match=r"no layer is called 'lstm'\. Allowed: one of conv, gru\.l0, gru\.l0_reverse, fc"
    ):
        projgen.NeuronPCA(model, x, layer_names="lstm", verbosity="off")
    with pytest.raises(InputError, match=r"the NeuronPCA has no layer called 'lstm'"):
        projgen.compress(model, pca, layer_names="lstm", verbosity="off")


def test_one_shot_iterators_are_enough(setup: tuple[Net, Tensor, projgen.NeuronPCA]) -> None:
    model, x, pca = setup
    once = projgen.NeuronPCA(model, iter(x.split(7)), verbosity="off")
    for name in pca.layer_names:
        np.testing.assert_allclose(once.input_eigenvalues[name], pca.input_eigenvalues[name], rtol=1e-9)


def test_what_cannot_be_projected_says_why() -> None:
    class Odd(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    model = nn.ModuleDict(
        {
            "odd": Odd(4, 4),
            "depthwise": nn.Conv2d(4, 4, 3, groups=4),
            "projected": nn.LSTM(4, 6, proj_size=2),
            "rnn": nn.RNN(4, 4),
            "deconv": nn.ConvTranspose3d(4, 4, 3),
            "lazy": nn.LazyLinear(4),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        }
    )
    reasons = {layer.name: layer.reason for layer in find_layers(model)}
    assert "forward of its own" in reasons["odd"]
    assert "depthwise" in reasons["depthwise"]
    assert "proj_size" in reasons["projected"]
    assert "nn.RNN" in reasons["rnn"] and "ConvTranspose3d" in reasons["deconv"]
    assert "not initialised" in reasons["lazy"] and "reparametrised" in reasons["normed"]
    with pytest.raises(InputError, match=r"layer 'rnn' can't be projected: nn\.RNN is not supported"):
        projgen.NeuronPCA(model, torch.zeros(4, 4), layer_names=["rnn"], verbosity="off")
    with pytest.raises(InputError, match="no layer that can be projected"):
        projgen.NeuronPCA(nn.Sequential(nn.ReLU()), torch.zeros(4, 4), verbosity="off")


def test_tied_weights_are_refused_by_name_and_can_be_left_out() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body, self.head = nn.Embedding(30, 16), nn.Linear(16, 16), nn.Linear(16, 30, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(self.embed(x)))

    x = torch.randint(0, 30, (50, 3))
    with pytest.raises(InputError, match=r"'head' \(with 'embed'\).*leave the others out by naming the layers"):
        projgen.compress(Tied(), x, verbosity="off")
    _, info = projgen.compress(Tied(), x, layer_names=["body"], ranks={"body": 2}, verbosity="off")
    assert info.layer_names == ["body"]


def test_pruned_models_go_in_and_stay_as_they_are() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.ln_structured(model[2], "weight", 0.25, n=2, dim=0)
    x = torch.randn(60, 20)
    model(x).sum().backward()  # leaves non-leaf weights behind, which plain deepcopy refuses
    assert torch.equal(owned_copy(model)(x), model(x))
    projected, info = projgen.compress(model, x, ranks={"0": 4, "2": 2}, verbosity="off")
    assert info.layer_names == ["0", "2"] and hasattr(model[0], "weight_orig")
    assert info.learnables_before == count_learnables(owned_copy(model)) == 20 * 16 + 16 + 16 * 4 + 4
    assert projected(x).shape == (60, 4)


def test_counting_rules() -> None:
    assert count_learnables(nn.LSTM(12, 100)) == 45_200
    assert count_learnables(nn.GRU(12, 64)) == 3 * 64 * (12 + 64) + 4 * 64
    assert count_learnables(nn.GRU(12, 64, bias=False)) == 3 * 64 * (12 + 64)
    assert count_learnables(nn.Conv2d(4, 6, 3, groups=2)) == 6 * 2 * 9 + 6
    assert count_learnables(nn.BatchNorm1d(5)) == 10
    shared = nn.Linear(4, 4)
    assert count_learnables(nn.ModuleList([shared, shared])) == 20


def test_wrong_models_are_refused() -> None:
    with pytest.raises(InputTypeError, match=r"a model of type int\. Allowed: a torch\.nn\.Module or the path"):
        projgen.NeuronPCA(3, torch.zeros(4, 4), verbosity="off")  # type: ignore[arg-type]


def test_summary_is_printed_and_off_prints_nothing(
    setup: tuple[Net, Tensor, projgen.NeuronPCA], capsys: pytest.CaptureFixture[str]
) -> None:
    model, x, _ = setup
    projgen.NeuronPCA(model, x, verbosity="off")
    assert capsys.readouterr() == ("", "")
    projgen.NeuronPCA(model, x)
    assert "Neuron PCA over 50 observations: 4 layers, learnables reduction up to" in capsys.readouterr().out
    projgen.NeuronPCA(model, x, verbosity="steps")
    assert "Gathering moments of 4 layers and curvature" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"verbosity 'loud'\. Allowed: off, summary, steps, iterations"):
        projgen.NeuronPCA(model, x, verbosity="loud")
