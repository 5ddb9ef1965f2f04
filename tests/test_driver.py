"""compile(): options, folders, fit, determinism."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from projgen.codegen.output import check_folder
from projgen.driver import compile as compile_model
from projgen.driver import generate
from projgen.errors import FitError, InputError
from projgen.options import CompileOptions, model_name
from projgen.quant.model import QuantizedModel, quantize
from projgen.targets import load_target

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def q() -> QuantizedModel:
    return QuantizedModel.load(GOLDEN / "lstm.qmodel")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_the_files_of_a_compilation(q: QuantizedModel, tmp_path: Path) -> None:
    artifact = compile_model(q, target="cortex-m4", out=tmp_path / "out", name="kws")
    names = {"kws.h", "kws.c", "kws_weights.h", "kws_kernels.h", "kws_test_vectors.h", "kws.json", "kws.qmodel"}
    assert set(contents(tmp_path / "out")) == names | {"main.c", "CMakeLists.txt"}
    assert set(artifact.manifest["files"]) == set(contents(tmp_path / "out"))
    assert artifact.manifest == json.loads((tmp_path / "out" / "kws.json").read_text())
    assert artifact.manifest["hash"] == q.digest()
    assert artifact.target == load_target("cortex-m4")
    assert os.listdir(tmp_path) == ["out"]


def test_a_float_model_is_quantised_on_the_way(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    data = torch.randn(40, 6)
    artifact = compile_model(model, calibration=data, target="host", out=tmp_path / "out")
    assert artifact.manifest["learnables"] == 6 * 8 + 8 + 8 * 3 + 3
    assert artifact.manifest["macs"] == 6 * 8 + 8 * 3
    assert artifact.quantized.digest() == quantize(model, data).digest()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_layer_without_bias_has_no_bias_learnables(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    artifact = compile_model(model, calibration=torch.randn(40, 6) + 1, target="host", out=tmp_path / "out")
    assert artifact.manifest["learnables"] == 6 * 8 + 8 * 3 + 3


def test_the_same_model_and_options_give_the_same_bytes_anywhere(q: QuantizedModel, tmp_path: Path) -> None:
    compile_model(q, target="cortex-m55", out=tmp_path / "a", name="kws")
    first = contents(tmp_path / "a")
    (tmp_path / "elsewhere").mkdir()
    code = (
        "import sys; from projgen.driver import compile; from projgen.quant.model import QuantizedModel;"
        "compile(QuantizedModel.load(sys.argv[1]), target='cortex-m55', out='b', name='kws')"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", code, str(GOLDEN / "lstm.qmodel")]
    subprocess.run(command, cwd=tmp_path / "elsewhere", env=env, check=True)
    assert contents(tmp_path / "elsewhere" / "b") == first
    text = b"".join(v for k, v in first.items() if not k.endswith(".qmodel"))
    assert str(tmp_path).encode() not in text
    assert not re.search(rb"\b20\d\d-\d\d-\d\d\b", text)


def test_options_are_named_when_wrong(q: QuantizedModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for option, value, allowed in (
        ("kernels", "quick", "fast, portable"),
        ("optimise", "size", "speed, ram, flash"),
        ("backend", "rust", "c, cmsis-nn"),
    ):
        with pytest.raises(InputError, match=f"{option} is '{value}'. Allowed: {allowed}. Change it in: {option}"):
            compile_model(q, out=out, **{option: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown target 'cortex-m9'"):
        compile_model(q, target="cortex-m9", out=out)
    with pytest.raises(InputError, match=r"a float model without calibration data.*calibration \(--data\)"):
        compile_model(nn.Linear(3, 2), out=out)
    assert not out.exists()


@pytest.mark.parametrize("name", ["", "2kws", "kws-1", "kw s", "int", "pg_model", "_kws", "ü", "a" * 49, "main"])
def test_names_that_c_can_not_take(name: str, q: QuantizedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't prefix C names and files.*Change it in: name \(--name\)"):
        compile_model(q, out=tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_good_names() -> None:
    assert [model_name(n) for n in ("kws", "K9", "a_b", "net2")] == ["kws", "K9", "a_b", "net2"]


def test_our_folder_is_replaced_and_its_old_files_go(q: QuantizedModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compile_model(q, target="host", out=out, name="old")
    (out / "build").mkdir()
    (out / "report.html").write_text("x")
    compile_model(q, target="host", out=out, name="fresh")
    assert "fresh.c" in contents(out) and "old.c" not in contents(out)
    assert not (out / "build").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_of_others_is_refused_untouched(q: QuantizedModel, tmp_path: Path) -> None:
    out = tmp_path / "src"
    out.mkdir()
    (out / "mine.c").write_text("int x;")
    with pytest.raises(InputError, match=r"holds files that projgen did not write: mine.c\..*out \(-o\)"):
        compile_model(q, target="host", out=out)
    assert os.listdir(out) == ["mine.c"]
    (out / "mine.c").unlink()
    compile_model(q, target="host", out=out)  # an empty folder is fine
    (out / "notes.txt").write_text("keep me")
    for index in range(9):
        (out / f"part{index}.o").write_bytes(b"")
    with pytest.raises(InputError, match=r"did not write: notes.txt, part0.o, .*, part6.o and 2 more\..*in its build/"):
        compile_model(q, target="host", out=out)
    assert (out / "notes.txt").read_text() == "keep me"


def test_a_path_that_can_not_be_a_folder(q: QuantizedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="exists and is no folder"):
        compile_model(q, target="host", out=tmp_path / "file")
    with pytest.raises(InputError, match="can't be written"):
        compile_model(q, target="host", out=tmp_path / "file" / "below")
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_nothing(q: QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "deep" / "out"
    written: list[str] = []
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        written.append(self.name)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left on device"):
        compile_model(q, target="host", out=out)
    assert len(written) == 4
    assert os.listdir(tmp_path) == []


def test_a_failed_replacement_keeps_the_old_folder(
    q: QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    compile_model(q, target="host", out=out, name="old")
    before = contents(out)
    real = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(InputError, match="Input/output error"):
        compile_model(q, target="host", out=out, name="fresh")
    assert contents(out) == before
    assert os.listdir(tmp_path) == ["out"]


def test_relative_folders_are_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_folder(Path("a/../b")) == tmp_path / "b"


def test_a_model_larger_than_the_target_names_both_numbers(q: QuantizedModel, tmp_path: Path) -> None:
    tiny = replace(load_target("cortex-m4"), name="tiny", flash_bytes=100)
    with pytest.raises(FitError, match=r"weights need \d+ bytes of flash, and tiny has 100.*tiny.toml"):
        compile_model(q, target=tiny, out=tmp_path / "out")
    cramped = replace(load_target("cortex-m4"), name="cramped", ram_bytes=8)
    with pytest.raises(FitError, match=r"arena needs \d+ bytes of RAM, and cramped has 8.*--optimise ram"):
        compile_model(q, target=cramped, out=tmp_path / "out")
    assert FitError.exit_code == 3
    assert os.listdir(tmp_path) == []


def test_the_plan_of_files_is_hashable(q: QuantizedModel) -> None:
    plan = generate(q, load_target("host"), CompileOptions("kws"))
    again = generate(q, load_target("host"), CompileOptions("kws"))
    other = generate(q, load_target("host"), CompileOptions("other"))
    assert plan == again and hash(plan) == hash(again) and plan.digest == again.digest != other.digest


def test_strange_layer_names_stay_out_of_the_code(tmp_path: Path) -> None:
    golden = QuantizedModel.load(GOLDEN / "lstm.qmodel").graph
    odd = 'bad */ name\\\n??/ \u00fc "x" /* int y;'
    nodes = [replace(n, name=f"{odd}{i}", source=odd) for i, n in enumerate(golden.nodes)]
    port = replace(golden.inputs[0], name=odd)
    graph = golden.with_(nodes=nodes, inputs=(port,))
    artifact = compile_model(QuantizedModel(graph), target="host", out=tmp_path / "out")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wcomment", "-Wtrigraphs", "-Werror"]
    subprocess.run(["gcc", *flags, "-c", "model.c", "-o", os.devnull], cwd=artifact.directory, check=True)
