"""Many levels from one PCA: what is made, what is taken over, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import projgen
from projgen.errors import InputError, InputTypeError, ToolMissingError
from projgen.explore import Exploration, LevelResult, explore, parse_levels
from projgen.explore import run as run_module
from projgen.explore.levels import plan
from projgen.pca.counting import count_learnables
from tests.explore.support import classifier, data, labels_of


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exploration]:
    """Both methods at two levels, with labels and int8, over two processes."""
    folder = tmp_path_factory.mktemp("explored") / "made" / "here"
    model, x = classifier(), data()
    found = explore(
        model, x, levels=[0.5, 0.3], methods=["output", "pca"], labels=labels_of(model, x), quantise=True, jobs=2,
        out=folder, verbosity="off",
    )  # fmt: skip
    return folder, found


def test_each_level_is_a_model_with_the_figures_of_its_record(explored: tuple[Path, Exploration]) -> None:
    folder, found = explored
    assert [r.name for r in found.results] == ["dense", "output-0.3", "output-0.5", "pca-0.3", "pca-0.5"]
    assert found.reused == ()
    x, labels = data(), labels_of(classifier(), data())
    for result in found.results[1:]:
        model = projgen.load_onnx(folder / result.model)
        assert count_learnables(model) == result.learnables
        assert result.learnables_reduction == pytest.approx(1 - result.learnables / 276)
        assert result.learnables_reduction >= result.value
        assert result.accuracy == np.mean(labels_of(model, x) == labels)
        q = projgen.quantize(model, x)
        assert result.int8_accuracy == pytest.approx(np.mean(q(x).argmax(1) == labels), abs=1 / 64)
        assert result.int8_output_error is not None and result.int8_output_error > 0
        assert LevelResult.from_json((folder / f"{result.name}.json").read_text()) == result
    dense = found.results[0]
    assert (dense.learnables, dense.accuracy, dense.output_error, dense.model) == (276, 1.0, 0.0, "")


def test_output_error_is_the_divergence_on_the_calibration_inputs(explored: tuple[Path, Exploration]) -> None:
    folder, found = explored
    x = torch.from_numpy(data())
    for result in found.results[1:]:
        with torch.no_grad():
            y, z = classifier()(x), projgen.load_onnx(folder / result.model)(x)
        p, q = torch.log_softmax(y, 1), torch.log_softmax(z, 1)
        y, z = y - y.mean(1, keepdim=True), z - z.mean(1, keepdim=True)
        error = (p.exp() * (p - q)).sum(1).mean() + (y - z).square().mean() / y.var(correction=0)
        assert result.output_error == pytest.approx(float(error), rel=1e-3)


def test_one_pca_serves_all_and_nothing_half_written_is_left(explored: tuple[Path, Exploration]) -> None:
    folder, found = explored
    names = sorted(p.name for p in folder.iterdir())
    pcas = [n for n in names if n.startswith("pca-") and n.endswith(".npz")]
    assert len(pcas) == 1
    stems = [r.name for r in found.results]
    expected = [*(f"{s}.json" for s in stems), *(f"{s}.onnx" for s in stems[1:])]
    assert names == sorted([*expected, *pcas, "explore.html", "explore.json", "pareto.svg"])


def test_page_plot_and_json_tell_the_same(explored: tuple[Path, Exploration]) -> None:
    folder, found = explored
    page, plot = (folder / "explore.html").read_text(), (folder / "pareto.svg").read_text()
    assert plot.startswith("<svg") and plot in page
    assert not re.search(r"(src|href)=\"(?!#)", page.replace("xlink:href", "href"))
    assert "<script" not in page
    whole = json.loads((folder / "explore.json").read_text())
    assert [r["name"] for r in whole["results"]] == [r.name for r in found.results]
    assert whole["measure"] == "accuracy" and tuple(whole["pareto"]) == found.pareto
    for result in found.results:
        assert f"<td>{result.name}</td><td>{result.learnables:,}</td>" in page
        assert f"<td>{result.accuracy:.4f}</td>" in page


def test_finished_levels_are_taken_over_and_only_the_others_made(
    explored: tuple[Path, Exploration], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = explored
    model, x = classifier(), data()
    kept = {p.name: p.stat().st_mtime_ns for p in folder.glob("output-0.*")}
    (folder / "output-0.5.json").unlink()  # as if interrupted before that level was finished

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the PCA was there")

    monkeypatch.setattr(run_module, "NeuronPCA", refuse)
    found = explore(
        model, x, levels=[0.3, 0.5], labels=labels_of(model, x), quantise=True, jobs=1, backend="threading", out=folder
    )
    assert found.reused == ("dense", "output-0.3")
    assert "Taken over, finished before: dense, output-0.3" in capsys.readouterr().out
    assert (folder / "output-0.3.onnx").stat().st_mtime_ns == kept["output-0.3.onnx"]
    assert (folder / "output-0.5.onnx").stat().st_mtime_ns > kept["output-0.5.onnx"]
    again, was = found.results[2], before.results[2]
    assert replace(again, seconds=0) == replace(was, seconds=0)


@pytest.mark.parametrize("change", ["model", "data", "option", "file"])
def test_results_of_something_else_are_not_taken_over(tmp_path: Path, change: str) -> None:
    model, x = classifier(), data()
    first = explore(model, x, levels=[0.5], closed_form=True, jobs=1, out=tmp_path, verbosity="off")
    again = {"closed_form": True}
    if change == "model":
        with torch.no_grad():
            model[2].bias[0] += 1
    elif change == "data":
        x = x + np.float32(0.5)
    elif change == "option":
        again = {"closed_form": False}
    else:
        (tmp_path / "output-0.5.onnx").unlink()
    second = explore(model, x, levels=[0.5], jobs=1, out=tmp_path, verbosity="off", **again)
    assert second.reused == (("dense",) if change == "file" else ())
    assert (second.results[1].key == first.results[1].key) == (change == "file")


def test_without_labels_the_output_error_judges(tmp_path: Path) -> None:
    found = explore(classifier(), data(), levels=[0.3, 0.6], closed_form=True, jobs=1, out=tmp_path, verbosity="off")
    assert found.measure == "output_error" and found.results[1].accuracy is None
    headings, rows = found.rows()
    assert headings == ["level", "learnables", "fewer", "explained", "error", "best"]
    assert [row[-1] for row in rows] == ["*", "*", "*"]
    assert found.results[1].choice == "predicted"


def test_targets_in_the_data_that_are_no_classes_are_left_alone(tmp_path: Path) -> None:
    given = {"x": data(), "labels": np.zeros(64)}
    found = explore(
        classifier(), given, levels=[0.3], closed_form=True, jobs=1, backend="threading", out=tmp_path, verbosity="off"
    )
    assert found.measure == "output_error" and found.results[0].accuracy is None


def test_the_front_leaves_out_what_another_level_beats() -> None:
    def result(name: str, learnables: int, accuracy: float) -> LevelResult:
        fixed = {"explained_variance": 1.0, "output_error": 0.1, "int8_output_error": None, "int8_accuracy": None}
        rest = {"choice": "", "refit": False, "ranks": {}, "model": "", "seconds": 0.0, "learnables_reduction": 0.0}
        return LevelResult(name, "", "output", "", 0.0, learnables, accuracy=accuracy, **fixed, **rest)

    found = Exploration((result("a", 100, 0.9), result("b", 50, 0.9), result("c", 40, 0.7), result("d", 45, 0.6)), ())
    assert set(found.pareto) == {"b", "c"}


def test_sequences_of_several_lengths_keep_their_labels(tmp_path: Path) -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    model, rng = Sequence(), np.random.default_rng(0)
    x, lengths = rng.normal(size=(40, 9, 3)).astype(np.float32), rng.integers(4, 10, 40)
    with torch.no_grad():
        labels = np.array([int(model(torch.from_numpy(a[None, :n])).argmax()) for a, n in zip(x, lengths, strict=True)])
    assert len(set(labels)) > 1
    given = {"x": x, "lengths": lengths, "labels": labels}
    # the model's class is local to this function: it reaches no other process
    found = explore(
        model, given, levels=[0.2], closed_form=True, backend="threading", jobs=1, out=tmp_path, verbosity="off"
    )
    assert found.results[0].accuracy == 1.0


def test_more_than_possible_is_said_in_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = explore(classifier(), data(), levels=[0.99], methods=["pca"], jobs=1, out=tmp_path)
    assert "is more than the possible" in found.results[1].notes[0]
    assert "pca-0.99: learnables_reduction_goal=0.99 is more than the possible" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"levels": []}, "nothing to explore"),
        ({"levels": [1.0]}, "level 1.0"),
        ({"levels": [0.5], "methods": ["best"]}, "'output' or 'pca'"),
        ({"levels": [0.5], "jobs": 0}, "jobs=0"),
        ({"levels": [0.5], "ending": ".h5"}, r"\.onnx or \.pt2"),
        ({"levels": [0.5], "labels": np.zeros(3, int)}, "3 labels for 64 observations"),
        ({"levels": [0.5], "inputs": data()}, "inputs without labels"),
        ({"levels": [0.5], "layer_names": "nothing*"}, r"no layer is called 'nothing\*'"),
        ({"levels": [0.5], "backend": "mpi"}, "loky, threading, dask, ray"),
    ],
)
def test_wrong_use_is_refused_and_writes_nothing(tmp_path: Path, given: dict[str, object], message: str) -> None:
    folder = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        explore(classifier(), data(), out=folder, verbosity="off", **given)  # type: ignore[arg-type]
    assert not folder.exists()


def test_wrong_types_one_shot_data_and_a_bad_folder_are_refused(tmp_path: Path) -> None:
    model = classifier()
    with pytest.raises(InputTypeError, match="labels of type float64"):
        explore(model, data(), levels=[0.5], labels=np.zeros(64), out=tmp_path / "a", verbosity="off")
    with pytest.raises(InputTypeError, match=r"level '0\.5'"):
        explore(model, data(), levels=["0.5"], out=tmp_path / "a", verbosity="off")  # type: ignore[list-item]
    with pytest.raises(InputError, match="several passes"):
        explore(model, iter([data()]), levels=[0.5], out=tmp_path / "a", verbosity="off")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        explore(model, data(), levels=[0.5], out=tmp_path / "file", verbosity="off")
    with pytest.raises(InputError, match="levels 'a,b'"):
        parse_levels("a,b")
    assert not (tmp_path / "a").exists()


def test_a_missing_back_end_is_a_missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(ToolMissingError, match=r"Ray is not installed.*pip install ray"):
        explore(classifier(), data(), levels=[0.5], backend="ray", out=tmp_path / "out", verbosity="off")
    assert not (tmp_path / "out").exists()


def test_levels_and_methods_appear_once_in_order() -> None:
    names = [level.name for level in plan([0.9, 0.5, 0.5], ["pca", "output", "pca"])]
    assert names == ["pca-0.5", "pca-0.9", "output-0.5", "output-0.9"]


def test_dask_gives_the_same_models(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("dask", "loky")}
    for backend, folder in folders.items():
        explore(
            classifier(), data(), levels=[0.3, 0.5], closed_form=True, jobs=2, backend=backend, out=folder,
            verbosity="off",
        )  # fmt: skip
    for name in ("output-0.3.onnx", "output-0.5.onnx"):
        assert (folders["dask"] / name).read_bytes() == (folders["loky"] / name).read_bytes()


def test_a_budget_is_a_level_too(tmp_path: Path) -> None:
    model, x = classifier(), data()
    text = "instructions=530,target=cortex-m4"
    found = explore(model, x, budgets=[text], out=tmp_path, jobs=1, backend="threading", verbosity="off")
    dense, result = found.results
    assert (result.goal, result.value, result.name) == ("budget", text, "budget-instructions-530-target-cortex-m4")
    assert result.learnables < dense.learnables
    again = explore(model, x, budgets=[text], out=tmp_path, jobs=1, backend="threading", verbosity="off")
    assert set(again.reused) == {"dense", result.name}
    with pytest.raises(InputError, match="budget entry 'flesh=1'"):
        explore(model, x, budgets=["flesh=1"], out=tmp_path / "none", verbosity="off")
    assert not (tmp_path / "none").exists()
