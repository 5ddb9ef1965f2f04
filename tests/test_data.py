"""Every form of data becomes the same stream of batches; what can't be used is refused by name."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from projgen.data import Batches, as_batches, load_data, place, run_model
from projgen.errors import InputError, InputTypeError, ProjgenError
from projgen.importers.spec import InputSpec, remember_inputs

X = torch.arange(60, dtype=torch.float32).reshape(10, 6)
Y = torch.arange(10)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 2)

    def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        return self.fc(left + right) * scale


def joined(batches: Batches) -> list[Tensor]:
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def one_input_forms(folder: Path) -> dict[str, Any]:
    np.save(folder / "x.npy", X.numpy())
    np.savez(folder / "x.npz", input=X.numpy(), labels=Y.numpy())
    np.savez(folder / "xy.npz", a=X.numpy(), y=Y.numpy())
    return {
        "tensor": X,
        "array": X.numpy(),
        "read-only big-endian array": np.flip(np.flip(X.numpy().astype(">f4"))),
        "tuple": (X,),
        "tuple with labels": (X, Y),
        "list of tensors": list(X.split(3)),
        "list of arrays": [x.numpy() for x in X.split(3)],
        "pairs": [(X[:4], Y[:4]), (X[4:], Y[4:])],
        "list pairs": [[X[:4], Y[:4]], [X[4:], Y[4:]]],
        "dicts": [{"input": X[:4], "extra": Y[:4]}, {"input": X[4:], "extra": Y[4:]}],
        "dicts of another name": [{"x": X[:4], "labels": Y[:4]}, {"x": X[4:], "labels": Y[4:]}],
        "mapping": {"input": X, "labels": Y},
        "loader": DataLoader(TensorDataset(X, Y), batch_size=4),
        "npy": folder / "x.npy",
        "npz": str(folder / "x.npz"),
        "npz in order": folder / "xy.npz",
    }


def test_all_forms_for_one_input_give_the_same_rows_twice(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 2))
    for name, data in one_input_forms(tmp_path).items():
        batches = as_batches(data, model)
        assert not batches.one_shot, name
        for _ in range(2):
            (rows,) = joined(batches)
            assert torch.equal(rows, X), name


def test_all_forms_for_two_inputs(tmp_path: Path) -> None:
    right = X + 1
    np.savez(tmp_path / "d.npz", right=right.numpy(), left=X.numpy())
    forms: dict[str, Any] = {
        "tuple": (X, right),
        "tuple and labels": (X, right, Y),
        "pairs": [(X[:4], right[:4]), (X[4:], right[4:])],
        "nested with labels": [((X, right), Y)],
        "triples": [(X, right, Y)],
        "dicts": [{"right": right, "left": X}],
        "npz by name": tmp_path / "d.npz",
        "mapping in order": {"p": X, "q": right},
    }
    for name, data in forms.items():
        rows = joined(as_batches(data, Two()))
        assert len(rows) == 2 and torch.equal(rows[0], X) and torch.equal(rows[1], right), name


def test_labels_names_counts_and_existing_batches() -> None:
    batches = as_batches({"input": X, "labels": Y.numpy()}, nn.Sequential(nn.Linear(6, 2)), batch_size=4)
    assert (batches.count, batches.length, batches.names) == (10, 3, ("input",))
    assert batches.labels is not None and batches.labels.tolist() == list(range(10))
    assert [len(b[0]) for b in batches] == [4, 4, 2]
    assert as_batches(batches) is batches
    unknown = as_batches((X, Y))
    assert len(joined(unknown)) == 2 and unknown.names == ()


def test_one_shot_iterators_are_known_and_a_second_pass_is_refused() -> None:
    batches = as_batches(iter(X.split(3)))
    assert batches.one_shot
    with pytest.raises(InputError, match=r"the refit needs several passes.*one-shot iterator.*a DataLoader"):
        batches.require_passes("the refit")
    assert torch.equal(joined(batches)[0], X)
    with pytest.raises(InputError, match=r"one-shot iterator that has been read already"):
        next(iter(batches))
    as_batches(X).require_passes("the refit")


class Steps(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


@pytest.mark.parametrize("batch_first", [True, False])
def test_lengths_cut_padded_sequences_into_batches_of_equal_length(batch_first: bool) -> None:
    lengths = np.array([5, 2, 5, 3, 2, 5])
    x = np.arange(6 * 5 * 3, dtype=np.float32).reshape(6, 5, 3)
    for row, length in enumerate(lengths):
        x[row, length:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = as_batches({"x": x, "lengths": lengths}, Steps(), batch_size=2)
        found = [b[0] for b in batches]
    assert [tuple(b.shape) for b in found] == [(2, 2, 3), (1, 3, 3), (2, 5, 3), (1, 5, 3)]
    assert torch.equal(found[0], torch.from_numpy(x[[1, 4], :2]))
    assert batches.lengths is not None and batches.lengths.tolist() == lengths.tolist()


def test_differently_long_sequences_are_batches_of_one() -> None:
    sequences = [np.random.rand(n, 3).astype(np.float32) for n in (4, 2, 7)]
    for batch_first in (True, False):
        shapes = [tuple(b[0].shape) for b in as_batches(sequences, Steps(batch_first))]
        assert shapes == [(1, n, 3) if batch_first else (n, 1, 3) for n in (4, 2, 7)]
    with pytest.raises(InputError, match=r"batch 1 has sequences of 1 step\. Allowed: at least two steps"):
        list(as_batches([np.ones((4, 3)), np.ones((1, 3))], Steps()))


def test_padding_is_warned_of_once_and_moving_sequences_are_not() -> None:
    moving = torch.randn(8, 6, 3)
    padded = moving.clone()
    padded[5, 3:] = 0
    with pytest.warns(UserWarning, match=r"sequences in batch 1 end in constant rows.*'lengths'") as record:
        list(as_batches([moving, padded, padded], Steps()))
    assert len(record) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(as_batches([moving, torch.ones(4, 6, 3)], Steps()))


def test_values_and_sizes_that_spoil_statistics_are_refused() -> None:
    for value, kind in ((float("nan"), "NaN"), (float("inf"), "an infinite value")):
        bad = X.clone()
        bad[7, 2] = value
        with pytest.raises(InputError, match=rf"batch 2 holds {kind}\. Allowed: finite numbers\. Change it in: data"):
            list(as_batches(list(bad.split(3))))
    with pytest.raises(InputError, match=r"the data holds 1 observation\. Allowed: at least two"):
        list(as_batches(X[:1]))
    with pytest.raises(InputError, match=r"the data holds 0 observations"):
        list(as_batches([]))
    with pytest.raises(InputError, match=r"different numbers of observations \(left: 10, right: 9\)"):
        as_batches((X, X[:9]), Two())
    with pytest.raises(InputError, match=r"input 'input' is a single number"):
        as_batches(torch.tensor(3.0), nn.Sequential(nn.Linear(6, 2)))
    with pytest.raises(InputError, match=r"batch 0 is a single number"):
        list(as_batches([torch.tensor(3.0)]))


def test_wrong_shapes_are_named_where_the_model_remembers_its_inputs() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    remember_inputs(model, (InputSpec("image", (None, 4)),))
    assert len(list(as_batches(torch.zeros(4, 3, 4), model))) == 1
    with pytest.raises(InputError, match=r"input 'image' of batch 0 has shape \(4, 3, 5\)\. Allowed: \(any, any, 4\)"):
        list(as_batches(torch.zeros(4, 3, 5), model))
    with pytest.raises(InputError, match=r"has shape \(4, 12\)"):
        list(as_batches(torch.zeros(4, 12), model))


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (7, InputTypeError, r"data of type int\. Allowed: a DataLoader or another iterable"),
        (b"abc", InputTypeError, r"data of type bytes"),
        (("a", "b"), InputTypeError, r"a tuple of str"),
        ((), InputTypeError, r"a tuple of nothing"),
        ((X, X, X), InputError, r"the data has 3 parts\. Allowed: 1 \(input\), or one more for a label"),
        ({"a": X, "b": X}, InputError, r"arrays named 'a', 'b'\. Allowed: one array per model input \(input\)"),
        ({}, InputError, r"arrays named nothing"),
        ([3, 4], InputTypeError, r"batch 0 is a int\. Allowed: a tensor, a tuple or a dict"),
        (np.array(["a", "b"]), InputTypeError, r"input 'input' holds <U1 values\. Allowed: real numbers"),
        (np.ones((3, 6)) * 1j, InputTypeError, r"holds complex128 values"),
        ("x.csv", InputError, r"data file 'x\.csv'\. Allowed: a file ending in \.npz or \.npy"),
        ("none.npz", InputError, r"data file 'none\.npz' was not found"),
    ],
)
def test_wrong_data_is_refused_by_name(data: Any, kind: type[ProjgenError], text: str) -> None:
    with pytest.raises(kind, match=text):
        list(as_batches(data, nn.Sequential(nn.Linear(6, 2))))


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        (np.array([1, 2]), r"'lengths' of shape \(2,\)"),
        (np.array([1.0] * 10), r"'lengths' of shape \(10,\) and type float64\. Allowed: one whole number per"),
        (np.array([0] * 10), r"'lengths' from 0 to 0\. Allowed: 1 to 6"),
        (np.array([7] * 10), r"'lengths' from 7 to 7\. Allowed: 1 to 6"),
    ],
)
def test_wrong_lengths_are_refused(lengths: np.ndarray, text: str) -> None:
    with pytest.raises(InputError, match=text):
        as_batches({"x": X, "lengths": lengths})


def test_names_of_which_only_some_are_inputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return first - second

    with pytest.raises(
        InputError, match=r"'second', 'other'. Allowed: one array per model input \(first, second\), all by"
    ):
        as_batches({"second": X, "other": 2 * X}, Two())
    (batch,) = as_batches({"a": X, "b": 2 * X}, Two())
    torch.testing.assert_close(2 * batch[0], batch[1])


def test_pickled_and_broken_files_are_refused_by_name(tmp_path: Path) -> None:
    objects = np.array([np.zeros(2), np.zeros(3)], dtype=object)
    np.savez(tmp_path / "objects.npz", x=objects)
    np.save(tmp_path / "objects.npy", objects)
    for name in ("objects.npz", "objects.npy"):
        with pytest.raises(InputError, match=rf"'{name}' holds pickled \(object\) arrays, which are never loaded"):
            as_batches(tmp_path / name)
    np.savez(tmp_path / "cut.npz", x=np.zeros(1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:300])
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez_compressed(tmp_path / "deflated.npz", x=np.arange(4000.0))
    whole = bytearray((tmp_path / "deflated.npz").read_bytes())
    whole[200:1200] = bytes(1000)
    (tmp_path / "deflated.npz").write_bytes(whole)
    for name in ("cut.npz", "text.npy", "empty.npy", "deflated.npz"):
        with pytest.raises(InputError, match=rf"data file '{name}' "):
            as_batches(tmp_path / name)


def test_data_named_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("some_data")
    module.x = X  # type: ignore[attr-defined]
    module.inner = types.SimpleNamespace(make=lambda: [X])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_data", module)
    assert load_data("some_data:x") is X
    assert types.FunctionType is type(module.inner.make)
    assert load_data("some_data:inner.make")[0] is X
    assert load_data("folder/d.npz") == Path("folder/d.npz")
    for spec, text in (
        (
            "plain",
            r"data 'plain'\. Allowed: a path ending in \.npz or \.npy, or module:attribute\. Change it in: --data",
        ),
        ("no_such_module_x:a", r"module 'no_such_module_x' was not found"),
        ("some_data:y", r"'some_data' has no 'y'"),
        (":y", r"data ':y'"),
    ):
        with pytest.raises(InputError, match=text):
            load_data(spec)


def test_a_fault_inside_the_named_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_data.py").write_text("import no_such_dependency_x\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency_x"):
        load_data("faulty_data:x")


def test_placing_casts_to_the_models_type_but_keeps_indices() -> None:
    whole = (torch.arange(6).reshape(1, 6), X[:1].double())
    cast = place(whole, nn.Linear(6, 2), torch.device("cpu"))
    assert [x.dtype for x in cast] == [torch.float32, torch.float32]
    kept = place(whole, nn.Embedding(9, 2), torch.device("cpu"))
    assert [x.dtype for x in kept] == [torch.int64, torch.float32]


def test_what_the_model_cannot_run_names_batch_and_shape() -> None:
    with pytest.raises(InputError, match=r"can't run on batch 4 of shape \(10, 6\) float32: .*Change it in: data"):
        run_model(nn.Linear(5, 2), (X,), 4)

    class Refuses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise InputTypeError(f"of its own: {x.dim()}")

    with pytest.raises(InputTypeError, match=r"^of its own: 2\.$"):
        run_model(Refuses(), (X,), 0)


def test_generators_are_read_lazily() -> None:
    seen: list[int] = []

    def endless() -> Iterator[Tensor]:
        while True:
            seen.append(1)
            yield X

    stream = iter(as_batches(endless()))
    next(stream)
    next(stream)
    assert len(seen) == 2
