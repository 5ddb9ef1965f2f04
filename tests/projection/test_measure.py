"""Samples that stand for the whole data, and numbers of units near the best one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.data import as_batches
from projgen.pca.neuron_pca import NeuronPCA
from projgen.projection import narrow
from projgen.projection.forecast import Forecasts, forecasts
from projgen.projection.measure import OutputError, samples_of

CPU = torch.device("cpu")


def one_column(batches: list[Tensor], samples: int) -> Tensor:
    model = nn.Linear(1, 2)
    found = samples_of(as_batches(batches, model), model, samples)
    assert all(batch[0].shape[0] <= 64 for batch in found)
    return torch.cat([batch[0] for batch in found]).flatten()


def test_samples_of_data_in_order_come_from_all_of_it_and_are_the_same_again() -> None:
    batches = list(torch.arange(4000.0)[:, None].split(50))
    found = one_column(batches, 400)
    assert len(found) == 400 == len(found.unique())
    assert torch.equal(found, found.sort().values)
    counts = torch.histc(found, 10, 0, 4000)
    assert counts.min() >= 20 and counts.max() <= 60
    assert torch.equal(one_column(batches, 400), found)


@pytest.mark.parametrize("samples", [130, 1000])
def test_few_samples_are_all_taken(samples: int) -> None:
    batches = list(torch.arange(130.0)[:, None].split(7))
    assert torch.equal(one_column(batches, samples), torch.arange(130.0))


def test_sequences_of_several_lengths_stay_apart() -> None:
    model = nn.LSTM(3, 4, batch_first=True)
    data = [torch.full((5, steps, 3), float(steps)) for steps in (6, 9, 6, 9, 7)]
    found = samples_of(as_batches(data, model), model, 20)
    assert sum(batch[0].shape[0] for batch in found) == 20
    assert all(bool((batch[0] == batch[0].shape[1]).all()) for batch in found)
    assert len({batch[0].shape[1] for batch in found}) == len(found) == 3


def test_the_error_of_classes_in_order_is_that_of_all_of_them() -> None:
    torch.manual_seed(0)
    teacher = nn.Linear(4, 3)
    x = torch.cat([torch.randn(1500, 4) + 3 * torch.randn(4) for _ in range(6)])
    student = nn.Linear(4, 3)
    batches = as_batches(x, teacher)
    whole = OutputError(teacher, batches, CPU, samples=10_000)(student)
    assert OutputError(teacher, batches, CPU)(student) == pytest.approx(whole, rel=0.1)


def net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 60), nn.Tanh(), nn.Linear(60, 40), nn.Tanh(), nn.Linear(40, 3)).eval()
    return model, torch.randn(300, 10)


def known(model: nn.Module, x: Tensor) -> Forecasts:
    pca = NeuronPCA(model, x, verbosity="off")
    stats = pca.collected.layers
    return forecasts(model, [s.layer for s in stats.values()], stats, (x[:4],), prune="auto")


def test_near_the_best_are_a_few_units_less_and_more_shared_out_alike() -> None:
    model, x = net()
    found = known(model, x)
    for best in (f for f in found.found if f.start.fraction == 0.5):
        near = found.near(best, {best.units})
        assert near and best.units not in {f.units for f in near}
        assert all(f.equal is best.equal for f in near)
        assert all(abs(f.start.fraction - 0.5) <= 0.041 for f in near)
        if best.equal:
            assert {f.units for f in near} == {(28, 18), (29, 19), (31, 21), (32, 22)}
            assert {f.units for f in found.near(best, {(28, 18)})} == {f.units for f in near} - {(28, 18)}


def test_numbers_of_units_between_the_fractions_are_tried_and_more_samples_decide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = net()
    coarse = {f.units for f in known(model, x).found}
    judged: list[list[narrow.Candidate]] = []

    def spy(teacher: nn.Module, made: list[narrow.Candidate], *rest: object) -> narrow.Candidate:
        judged.append(list(made))
        return real(teacher, made, *rest)

    real = narrow._finest
    monkeypatch.setattr(narrow, "_finest", spy)
    monkeypatch.setattr(narrow, "_USABLE", float("inf"))
    monkeypatch.setattr(narrow, "_CLOSE", 0.0)
    small, info = projgen.compress(model, x, learnables_reduction_goal=0.85, verbosity="off")
    (made,) = judged
    assert {c.forecast.units for c in made} - coarse
    least = min(made, key=lambda c: c.error)
    assert info.output_error == pytest.approx(least.error, rel=1e-6)  # 300 samples: both measures see them all
    assert info.learnables_reduction >= 0.85
    assert any(torch.equal(small(x), c.model(x)) for c in made)
    monkeypatch.setattr(narrow, "_CLOSE", float("inf"))
    projgen.compress(model, x, learnables_reduction_goal=0.85, verbosity="off")
    assert {c.forecast.units for c in judged[1]} <= coarse
