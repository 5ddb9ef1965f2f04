"""The measured loss of int8, its limit, and a net that falls off the cliff."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import projgen
from projgen.data import as_batches
from projgen.errors import InputError, Int8LossError
from projgen.quant.loss import Int8Loss, check_limit, expected_cost, in_order
from projgen.quant.model import QuantizedModel, quantize
from projgen.quant.notes import Notes
from projgen.quant.store import from_bytes, to_bytes


class Offset(nn.Module):
    """Class scores from small differences of large hidden values: all of them share ``offset``."""

    def __init__(self, offset: float, outputs: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, outputs)
        with torch.no_grad():
            self.first.bias += offset
            self.second.bias -= self.second.weight.sum(1) * offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(torch.relu(self.first(x)))
        return y


@pytest.fixture(scope="module")
def data() -> torch.Tensor:
    return torch.randn(400, 12, generator=torch.Generator().manual_seed(3))


def measured(model: nn.Module, data: torch.Tensor, **options: object) -> Int8Loss:
    found = quantize(model, data, int8_limit=9.0, **options).notes.int8_loss  # type: ignore[arg-type]
    assert found is not None and found.limit == 9.0
    return found


def outputs(model: nn.Module, data: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        return model(data).numpy(), np.asarray(quantize(model, data)(data))


def test_decisions_of_class_scores(data: torch.Tensor) -> None:
    found = measured(Offset(6.0), data)
    want, got = outputs(Offset(6.0), data)
    changed = float((want.argmax(1) != got.argmax(1)).mean())
    assert changed > 0.0
    assert (found.measure, found.value, found.decisions, found.samples) == ("decisions", changed, changed, 400)
    error = np.sqrt(((got - want) ** 2).sum() / ((want - want.mean(0)) ** 2).sum())
    assert found.error == pytest.approx(error, rel=1e-4)
    assert found.accuracy_float is None and found.accuracy_int8 is None


def test_accuracy_with_labels(data: torch.Tensor) -> None:
    want, got = outputs(Offset(6.0), data)
    labels = want.argmax(1)
    labels[::10] = (labels[::10] + 1) % 4
    found = measured(Offset(6.0), data, labels=torch.from_numpy(labels))
    before, after = (float((y.argmax(1) == labels).mean()) for y in (want, got))
    assert before > after
    assert (found.measure, found.accuracy_float, found.accuracy_int8) == ("accuracy", before, after)
    assert found.value == pytest.approx(before - after)
    assert found.decisions is not None and f"{100 * found.decisions:.2f}% of the decisions changed" in found.text


def brute_force(wanted: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """(estimate from all margins and errors, mean over the seen changes) by loops."""
    powers = np.exp(wanted)
    p = powers / powers.sum(1, keepdims=True)
    costs, seen = [], 0.0
    for i, w in enumerate(wanted):
        c = [p[i, w.argmax()] - p[i, (w + e).argmax()] for e in got - wanted]
        costs.append(sum(c) / len(c))
        seen += (p[i, w.argmax()] - p[i, got[i].argmax()]) / len(wanted)
    return np.mean(costs) + 1.645 * np.std(costs) / len(costs) ** 0.5, seen


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 60), classes=st.integers(2, 6), noise=st.floats(0.0, 2.0), seed=st.integers(0, 999))
def test_the_expected_cost_of_changes(rows: int, classes: int, noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = 2 * rng.standard_normal((rows, classes))
    got = wanted + noise * rng.standard_normal((rows, classes))
    bound, seen = brute_force(wanted, got)
    changes = int((wanted.argmax(1) != got.argmax(1)).sum())
    assert expected_cost(wanted, got) == pytest.approx(max(bound, seen) if changes > 1 else bound, abs=1e-6)
    powers = np.exp(wanted)
    chances = powers / powers.sum(1, keepdims=True)
    assert expected_cost(chances, chances) == 0.0


def test_probabilities_are_taken_as_they_are() -> None:
    wanted = np.tile([[0.6, 0.4]], (50, 1))
    assert expected_cost(wanted, wanted[:, ::-1]) == pytest.approx(0.2)
    assert expected_cost(3 * wanted, 3 * wanted[:, ::-1]) == pytest.approx(np.tanh(0.3), abs=1e-6)


def test_few_changes_that_cost_much_are_refused(data: torch.Tensor) -> None:
    """About one decision in a hundred changes, within the limit; but the net was sure of them."""
    model = Offset(3.5)
    found = measured(model, data)
    assert 0.002 < found.value < 0.02 and found.expected is not None and found.expected < 0.005
    quantize(model, data, int8_limit="auto")
    with torch.no_grad():
        model.second.weight *= 100
        model.second.bias *= 100
    sure = measured(model, data)
    assert sure.value == pytest.approx(found.value, abs=0.005) and sure.expected is not None and sure.expected > 0.005
    with pytest.raises(
        Int8LossError,
        match=r"% of the class decisions on 400 calibration inputs \(expected to cost up to [\d.]+ points of accuracy, "
        r"relative output error .*Allowed: up to 2% and 0\.5 points\. .*--learnables-reduction.*projgen\.distill",
    ):
        quantize(model, data, int8_limit="auto")
    quantize(model, data, int8_limit=0.02)


@pytest.mark.parametrize("outputs", [1, 12])
def test_error_of_what_are_no_class_scores(data: torch.Tensor, outputs: int) -> None:
    """One number, or a reconstruction of the input."""
    found = measured(Offset(1.0, outputs), data)
    assert (found.measure, found.value, found.decisions) == ("error", found.error, None)
    assert 0.0 < found.error < 0.2


def test_error_of_columns_of_unequal_spread(data: torch.Tensor) -> None:
    model = Offset(1.0)
    with torch.no_grad():
        model.second.weight[0] *= 20
    assert measured(model, data).measure == "error"


def test_decisions_at_every_step() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.fc = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.fc(self.rnn(x)[0])
            return y

    x = torch.randn(40, 9, 5, generator=torch.Generator().manual_seed(1))
    want, got = outputs(Tagger(), x)
    found = measured(Tagger(), x)
    assert (found.measure, found.samples) == ("decisions", 40)
    assert found.value == pytest.approx(float((want.argmax(-1) != got.argmax(-1)).mean()))
    with pytest.raises(InputError, match=r"labels for a model whose outputs are .*Allowed: one vector of class scores"):
        measured(Tagger(), x, labels=np.zeros(40, np.int64))


def test_a_net_off_the_cliff_is_refused(data: torch.Tensor, tmp_path: Path) -> None:
    """Its hidden values differ by a few steps of int8 alone: the float net works, the integers guess."""
    with pytest.raises(Int8LossError) as refused:
        projgen.compile(Offset(40.0), calibration=data, target="host", out=tmp_path / "out", int8_limit="auto")
    message = str(refused.value)
    assert refused.value.exit_code == 2
    assert "% of the class decisions on 400 calibration inputs (expected to cost up to 0.5" in message
    assert "Allowed: up to 2% and 0.5 points" in message
    for way in ("--learnables-reduction", "projgen.distill", "int8_limit (--int8-limit)"):
        assert way in message
    assert list(tmp_path.iterdir()) == []
    artifact = projgen.compile(Offset(40.0), calibration=data, target="host", out=tmp_path / "out", int8_limit=1.0)
    noted = artifact.manifest["int8_loss"]
    assert noted["measure"] == "decisions" and 0.1 < noted["value"] == noted["decisions"] and noted["limit"] == 1.0
    projgen.compile(Offset(1.0), calibration=data, target="host", out=tmp_path / "out", int8_limit="auto")


def test_accuracy_and_error_have_limits_of_their_own(data: torch.Tensor) -> None:
    with torch.no_grad():
        labels = Offset(40.0)(data).argmax(1)
    with pytest.raises(Int8LossError, match=r"int8 lowers the accuracy by [\d.]+ points .*Allowed: up to 0\.5 points"):
        quantize(Offset(40.0), data, labels=labels)
    with pytest.raises(Int8LossError, match=r"int8 has a relative output error of 0\.\d+ .*Allowed: up to 0\.2\."):
        quantize(Offset(40.0, 1), data, int8_limit="auto")


def loss(value: float, limit: float, samples: int, measure: str = "decisions") -> Int8Loss:
    return Int8Loss(measure, value, limit, samples, 0.1)  # type: ignore[arg-type]


def test_one_sample_decides_nothing() -> None:
    loss(1 / 50, 0.005, 50).require()
    with pytest.raises(Int8LossError):
        loss(2 / 50, 0.005, 50).require()
    loss(0.005, 0.005, 1000).require()
    with pytest.raises(Int8LossError):
        loss(0.006, 0.005, 1000).require()
    with pytest.raises(Int8LossError):
        loss(0.02, 0.005, 50, "error").require()
    loss(-0.3, 0.005, 10, "accuracy").require()  # more right than the floats


def test_not_measured_unless_asked(data: torch.Tensor) -> None:
    assert quantize(Offset(40.0), data).notes.int8_loss is None
    q = quantize(Offset(1.0), data, int8_limit="auto")
    assert q.digest() == quantize(Offset(1.0), data).digest()
    with pytest.raises(InputError, match=r"quantised already\. Allowed: a float model"):
        projgen.compile(q, target="host", out="never", int8_limit="auto")


@pytest.mark.parametrize("wrong", ["low", -0.1, float("nan")])
def test_what_is_no_limit(wrong: object, data: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"int8_limit=.*Allowed: 'auto' or a number from 0 on"):
        check_limit(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="int8_limit="):
        quantize(Offset(1.0), data, int8_limit=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [np.zeros(399, np.int64), np.zeros((400, 1), np.int64), np.zeros(400)])
def test_labels_that_do_not_belong(wrong: np.ndarray, data: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"labels hold .*Allowed: one class number for each of the 400 calibration"):
        quantize(Offset(1.0), data, labels=wrong)


def test_labels_follow_sequences_sorted_by_length(tmp_path: Path) -> None:
    """Data with lengths comes in batches of equal length; labels are in the file's order."""
    lengths = np.array([5, 3, 5, 4, 3, 5])
    x = np.random.default_rng(0).standard_normal((6, 5, 2)).astype(np.float32)
    file = tmp_path / "data.npz"
    np.savez(file, x=x, lengths=lengths, labels=np.arange(6))
    model = nn.LSTM(2, 3, batch_first=True)
    batches = as_batches(file, model)
    assert in_order(None, batches, 6) is not None
    place = np.concatenate([np.full(len(b[0]), b[0].shape[1]) for b in batches])
    assert lengths[in_order(None, batches, 6)].tolist() == place.tolist()
    assert in_order(np.arange(6) + 10, batches, 6).tolist() == [11, 14, 13, 10, 12, 15]  # type: ignore[union-attr]
    assert in_order(None, as_batches(x, model), 6) is None
    np.savez(file, x=x, labels=np.linspace(0, 1, 6))
    assert in_order(None, as_batches(file, model), 6) is None  # no class numbers


def test_labels_inside_the_data_are_used(data: torch.Tensor, tmp_path: Path) -> None:
    with torch.no_grad():
        labels = Offset(1.0)(data).argmax(1).numpy()
    np.savez(tmp_path / "data.npz", x=data.numpy(), labels=labels)
    found = quantize(Offset(1.0), tmp_path / "data.npz", int8_limit=1.0).notes.int8_loss
    assert found is not None and (found.measure, found.accuracy_float) == ("accuracy", 1.0)


def test_the_loss_is_saved_with_the_model(data: torch.Tensor, tmp_path: Path) -> None:
    q = quantize(Offset(1.0), data, int8_limit="auto")
    assert isinstance(q.notes.int8_loss, Int8Loss)
    q.save(tmp_path / "m.qmodel")
    assert QuantizedModel.load(tmp_path / "m.qmodel").notes == q.notes
    notes = Notes(int8_loss=Int8Loss(**asdict(q.notes.int8_loss)))
    assert from_bytes(to_bytes(q.graph, notes))[1] == notes
