"""Where closed forms are bad guides, the candidate is chosen that a short distillation brings nearest."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import projgen
from projgen.data import as_batches
from projgen.progress import Reporter
from projgen.projection import narrow, rehearse
from projgen.projection.measure import OutputError
from projgen.projection.rehearse import rehearsed

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Entry:
    model: nn.Module
    error: float


def net() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)).eval(), torch.randn(120, 6)


def test_a_candidate_that_learns_beats_one_that_only_looks_better_and_stays_as_it_was() -> None:
    teacher, x = net()
    stuck, apt = copy.deepcopy(teacher), copy.deepcopy(teacher)
    with torch.no_grad():
        for model in (stuck, apt):
            model[2].weight.mul_(-1)
    stuck[0].requires_grad_(False)
    stuck[2].weight.requires_grad_(False)
    error_of = OutputError(teacher, as_batches(x, teacher), CPU)
    before = copy.deepcopy(apt.state_dict())
    entries = [Entry(stuck, 0.1), Entry(apt, 0.9)]
    chosen = rehearsed(teacher, entries, [(x,)], error_of, CPU, Reporter("off"))
    assert chosen is entries[1]
    assert all(torch.equal(value, before[key]) for key, value in apt.state_dict().items())


def test_only_the_eight_of_least_error_take_part() -> None:
    teacher, x = net()
    untrained = [Entry(nn.Linear(6, 4), float(i)) for i in range(8)]
    perfect = Entry(copy.deepcopy(teacher), 9.0)
    error_of = OutputError(teacher, as_batches(x, teacher), CPU)
    assert rehearsed(teacher, [perfect, *untrained], [(x,)], error_of, CPU, Reporter("off")) is not perfect
    nearer = Entry(perfect.model, 3.5)
    assert rehearsed(teacher, [nearer, *untrained], [(x,)], error_of, CPU, Reporter("off")) is nearer


@pytest.mark.parametrize("limit", [0.0, float("inf")])
def test_compress_rehearses_beyond_a_limit_of_the_error_alone(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, x = net()
    calls = []

    def spy(*args: object) -> narrow.Candidate:
        calls.append(args[1])
        return rehearsed(*args)

    monkeypatch.setattr(narrow, "rehearsed", spy)
    monkeypatch.setattr(narrow, "_USABLE", limit)
    small, info = projgen.compress(teacher, x, learnables_reduction_goal=0.6, verbosity="off")
    assert info.learnables_reduction >= 0.6
    assert len(calls) == (limit == 0.0)
    if calls:
        widths = [tuple(layer.outputs for layer in c.layers) for c in calls[0]]
        assert len(set(widths)) == len(widths) > 2
        assert any(torch.equal(small(x), c.model(x)) for c in calls[0])


def test_the_best_three_are_trained_again_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, x = net()
    error_of = OutputError(teacher, as_batches(x, teacher), CPU)
    calls: list[tuple[int, int]] = []
    models = [copy.deepcopy(teacher) for _ in range(10)]
    for rank, model in enumerate(models):
        with torch.no_grad():
            model[2].weight.add_(0.1 * rank)

    def untrained(student: nn.Module, *args: object, steps: int, **options: object) -> nn.Module:
        calls.append((models.index(student), steps))
        if steps == 100:
            return student
        return teacher if student is models[1] else models[9]

    monkeypatch.setattr(rehearse, "distill", untrained)
    entries = [Entry(model, float(rank)) for rank, model in enumerate(models)]
    chosen = rehearsed(teacher, entries, [(x,)], error_of, CPU, Reporter("off"))
    assert calls == [(rank, 100) for rank in range(8)] + [(rank, 300) for rank in range(3)]
    assert chosen is entries[1]
