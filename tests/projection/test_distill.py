"""distill: it lowers the output error without labels, reproducibly, and leaves its arguments alone."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.errors import InputError
from projgen.projection import distill as distill_module
from projgen.projection.distill import balance_factors
from projgen.projection.layers import ProjectedLSTM


class Steps(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 16, batch_first=batch_first)
        self.fc = nn.Linear(16, 3)
        self.last = (slice(None), -1) if batch_first else (-1,)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][self.last])


def case(name: str) -> tuple[nn.Module, list[Tensor], dict[str, object]]:
    torch.manual_seed(0)
    if name == "mlp":
        model = nn.Sequential(nn.Linear(10, 24), nn.Tanh(), nn.BatchNorm1d(24), nn.Linear(24, 4))
        return model.eval(), list(torch.randn(200, 10).split(32)), {"0": 4, "3": 2}
    if name == "conv":
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(32, 3),
        )  # fmt: skip
        return model.eval(), list(torch.randn(120, 1, 16, 16).split(40)), {"2": (3, 3)}
    sequences = [torch.randn(1, n, 4) for n in torch.randint(5, 12, (120,)).tolist()]
    if name == "time-first":
        return Steps(False), [s.transpose(0, 1) for s in sequences], {"rnn": (2, 4)}
    return Steps(), sequences, {"rnn": (2, 4)}


def error(student: nn.Module, teacher: nn.Module, batches: list[Tensor]) -> float:
    def centred(model: nn.Module) -> Tensor:
        y = torch.cat([model(b) for b in batches])
        return y - y.mean(1, keepdim=True)

    with torch.no_grad():
        return float((centred(student) - centred(teacher)).square().mean() / centred(teacher).var())


@pytest.mark.parametrize("name", ["mlp", "conv", "sequences", "time-first"])
@pytest.mark.parametrize("unpack", [False, True])
def test_it_lowers_the_output_error_and_is_reproducible(name: str, unpack: bool) -> None:
    teacher, data, ranks = case(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        student, _ = projgen.compress(teacher, data, ranks=ranks, method="pca", unpack=unpack, verbosity="off")
    before = copy.deepcopy((student.state_dict(), teacher.state_dict()))
    options = {"steps": 60, "verbosity": "off", "learning_rate": 1e-2}
    trained = projgen.distill(student, teacher, data, seed=3, **options)
    assert error(trained, teacher, data) < 0.7 * error(student, teacher, data)
    again = projgen.distill(student, teacher, data, seed=3, **options)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))
    for module, state in zip((student, teacher), before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
        assert not any(m._forward_hooks for m in module.modules())
    assert [m.training for m in trained.modules()] == [m.training for m in student.modules()]
    assert trained._projgen_inputs == student._projgen_inputs


def test_it_never_returns_something_worse_than_it_got() -> None:
    teacher, data, _ = case("mlp")
    same = projgen.distill(copy.deepcopy(teacher), teacher, data, steps=20, learning_rate=1.0, verbosity="off")
    assert error(same, teacher, data) < 1e-10


def test_epochs_count_passes_and_progress_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    teacher, data, ranks = case("mlp")
    student, _ = projgen.compress(teacher, data, ranks=ranks, verbosity="off")
    projgen.distill(student, teacher, data, epochs=3, batch_size=50, verbosity="iterations", augment=False)
    out = capsys.readouterr().out
    steps = [int(line.split()[1].rstrip(":")) for line in out.splitlines() if line.startswith("step ")]
    assert steps == list(range(1, len(steps) + 1)) and 7 <= len(steps) <= 12  # of 3 * 200 / 50
    assert "Distilled over 200 samples: loss" in out


@pytest.mark.parametrize("name", ["mlp", "sequences"])
def test_balancing_changes_factors_not_products(name: str) -> None:
    teacher, data, ranks = case(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        student, _ = projgen.compress(teacher, data, ranks=ranks, verbosity="off")
    balanced = copy.deepcopy(student)
    balance_factors(balanced)
    torch.testing.assert_close(balanced(data[0]), student(data[0]), rtol=1e-4, atol=1e-4)
    if name == "mlp":
        a, b = balanced[0].network.core.weight, balanced[0].network.input_projector.weight
        torch.testing.assert_close(a.T @ a, b @ b.T, rtol=1e-3, atol=1e-4)


def test_the_rate_is_higher_for_recurrent_layers_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Watched(torch.optim.Adam):
        def __init__(self, parameters: object, lr: float) -> None:
            rates.append(lr)
            super().__init__(parameters, lr=lr)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    for name in ("mlp", "sequences"):
        teacher, data, _ = case(name)
        for options in ({}, {"learning_rate": 0.01}):
            projgen.distill(copy.deepcopy(teacher), teacher, data, steps=2, verbosity="off", **options)
    assert rates == [0.003, 0.01, 0.016, 0.01]


@pytest.mark.parametrize(
    ("second_half", "evaluations"), [((4.0, 3.0, 2.0, 0.9, 0.8, 0.7), 13), ((4.0,) * 6, 12), ((4, 5, 3.9, 4, 4, 4), 13)]
)
def test_only_a_standstill_in_the_second_half_stops_it(
    second_half: tuple[float, ...], evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, *[5.0] * 6, *second_half])
    seen: list[float] = []

    def measured(_: object) -> float:
        seen.append(next(losses))
        return seen[-1]

    monkeypatch.setattr(distill_module._Objective, "measure", measured)
    teacher, data, ranks = case("mlp")
    student, _ = projgen.compress(teacher, data, ranks=ranks, verbosity="off")
    trained = projgen.distill(student, teacher, data, steps=24, verbosity="off")
    assert len(seen) == evaluations
    untrained = torch.allclose(trained(data[0]), student(data[0]), rtol=1e-4, atol=1e-4)  # but for rounding
    assert untrained is (min(second_half) > 1.0)


def test_a_student_that_only_fits_the_samples_is_trained_on_augmented_copies() -> None:
    torch.manual_seed(0)
    teacher, x = nn.Linear(20, 3), torch.randn(8, 20)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.weight += torch.randn(3, 20) @ (torch.eye(20) - torch.linalg.pinv(x) @ x)
    torch.testing.assert_close(student(x), teacher(x), rtol=1e-4, atol=1e-4)
    new = torch.randn(1000, 20)

    def error_of(model: nn.Module) -> float:
        return float((model(new) - teacher(new)).detach().square().mean())

    options = {"steps": 300, "batch_size": 8, "learning_rate": 5e-2, "verbosity": "off"}
    same = projgen.distill(student, teacher, x, augment=False, **options)
    assert error_of(same) == pytest.approx(error_of(student), rel=1e-2)
    assert error_of(projgen.distill(student, teacher, x, **options)) < 0.5 * error_of(student)


def test_arguments_and_data_are_checked() -> None:
    teacher, data, _ = case("mlp")
    for options, text in (
        ({"steps": 0}, r"steps=0\. Allowed: a number above 0"),
        ({"epochs": -1}, "epochs=-1"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
    ):
        with pytest.raises(InputError, match=text):
            projgen.distill(teacher, teacher, data, **options)
    with pytest.raises(InputError, match="the student has no parameter that trains"):
        projgen.distill(copy.deepcopy(teacher).requires_grad_(False), teacher, data)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match=r"samples of 2 different shapes"):
        projgen.distill(model, model, [torch.randn(2, 1, 8, 8), torch.randn(2, 1, 9, 9)])


def test_balancing_keeps_the_shared_factor_of_the_joint_form() -> None:
    torch.manual_seed(0)
    network = ProjectedLSTM(3, 8, 5, 5, joint=True, batch_first=True)
    x, state = torch.randn(2, 6, 3), copy.deepcopy(network.state_dict())
    balanced = copy.deepcopy(network)
    balance_factors(balanced)
    torch.testing.assert_close(balanced(x)[0], network(x)[0], rtol=1e-4, atol=1e-5)
    assert balanced.weight_hh is balanced.weight_ih
    assert not torch.equal(balanced.weight_ih, state["weight_ih"])


def test_hidden_states_of_kept_units_are_compared() -> None:
    teacher, data, _ = case("sequences")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        student, info = projgen.compress(
            teacher, data, learnables_reduction_goal=0.6, prune=True, layer_names=["rnn"], verbosity="off"
        )
    assert info.layers[0].units[1] < 16
    inner = student.rnn.network if isinstance(student.rnn, projgen.ProjectedLayer) else student.rnn
    kept = inner._projgen_kept_units
    assert len(kept) == info.layers[0].units[1] and set(kept) <= set(range(16))

    def gap(model: nn.Module) -> float:
        with torch.no_grad():
            pairs = [(model.rnn(x)[0], teacher.rnn(x)[0][..., list(kept)]) for x in data]
            return sum(float((a - b).square().mean()) for a, b in pairs)

    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    options = {"steps": 150, "verbosity": "off", "learning_rate": 1e-2}
    with_hidden = projgen.distill(student, teacher, data, hidden_weight=10.0, **options)
    assert gap(with_hidden) < gap(projgen.distill(student, teacher, data, hidden_weight=0.0, **options))
