"""Bad input: the right exit code, one clear message that says what, what is allowed and where, and nothing left."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli.conftest import Result, projgen_process


def refused(result: Result, code: int, *texts: str) -> None:
    """One message on stderr, no traceback, all of ``texts`` in it."""
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    flat = " ".join(result.err.split())
    for text in texts:
        assert text in flat, f"{text!r} not in {flat!r}"


def compile_to(out: Path, model: Path, data: Path, target: object = "host") -> tuple[object, ...]:
    return ("compile", model, "--data", data, "-t", target, "-o", out)


def test_missing_model_file(projgen, small: Path, tmp_path: Path) -> None:
    result = projgen(*compile_to(tmp_path / "out", tmp_path / "none.onnx", small / "data.npz"))
    refused(result, 2, "none.onnx", "there is no file")
    assert not (tmp_path / "out").exists()


def test_truncated_onnx(projgen, small: Path, tmp_path: Path) -> None:
    whole = (small / "net.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    result = projgen(*compile_to(tmp_path / "out", tmp_path / "cut.onnx", small / "data.npz"))
    refused(result, 2, "cut.onnx")
    assert not (tmp_path / "out").exists()


def test_truncated_pt2(projgen, small: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt2").write_bytes(b"PK\x03\x04 nothing")
    result = projgen(*compile_to(tmp_path / "out", tmp_path / "cut.pt2", small / "data.npz"))
    refused(result, 2, "cut.pt2", "torch.export")


def test_unsupported_operator_is_named_with_its_node(projgen, small: Path, tmp_path: Path) -> None:
    node = helper.make_node("Det", ["x"], ["y"], name="the_determinant")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, tmp_path / "det.onnx")
    result = projgen(*compile_to(tmp_path / "out", tmp_path / "det.onnx", small / "data.npz"))
    refused(result, 2, "Det", "the_determinant", "Conv", "Gemm")


def test_nan_in_the_data(projgen, small: Path, tmp_path: Path) -> None:
    x = np.zeros((8, 12), np.float32)
    x[3, 4] = np.nan
    np.savez(tmp_path / "nan.npz", x=x)
    result = projgen(*compile_to(tmp_path / "out", small / "net.onnx", tmp_path / "nan.npz"))
    refused(result, 2, "NaN")
    assert not (tmp_path / "out").exists()


def test_wrong_shape_in_the_data(projgen, small: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", x=np.zeros((8, 11), np.float32))
    result = projgen(*compile_to(tmp_path / "out", small / "net.onnx", tmp_path / "wrong.npz"))
    refused(result, 2, "11", "12")
    assert not (tmp_path / "out").exists()


def test_pickled_arrays(projgen, small: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    result = projgen(*compile_to(tmp_path / "out", small / "net.onnx", tmp_path / "pickle.npy"))
    refused(result, 2, "pickle")


def test_one_observation(projgen, small: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 12), np.float32))
    out = tmp_path / "small.onnx"
    result = projgen("compress", small / "net.onnx", "--data", tmp_path / "one.npz", "--ranks", "0=2", "-o", out)
    refused(result, 2, "observation")
    assert not out.exists()


def test_unknown_target_lists_the_known(projgen, small: Path, tmp_path: Path) -> None:
    result = projgen(*compile_to(tmp_path / "out", small / "net.onnx", small / "data.npz", "cortex-m99"))
    refused(result, 2, "cortex-m99", "cortex-m4", "cortex-m55")


def test_output_folder_not_writable(small: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("a file where a folder should be")
    args = ["compile", small / "net.onnx", "--data", small / "data.npz", "-t", "host", "-o", blocker / "out"]
    result = projgen_process(*args)
    refused(result, 2, str(blocker))
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir()
        locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
        refused(projgen_process(*args[:-1], locked / "out"), 2, str(locked))


def test_a_folder_of_somebody_else_is_not_overwritten(projgen, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("do not lose me")
    result = projgen(*compile_to(out, small / "net.onnx", small / "data.npz"))
    refused(result, 2, "mine")
    assert (out / "thesis.txt").read_text() == "do not lose me"


def test_cross_compiler_missing(small: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    arguments = compile_to(tmp_path / "out", small / "net.onnx", small / "data.npz", "cortex-m4")
    done = projgen_process(*arguments, env=environment)
    assert done.code == 0, done.err  # generation needs no compiler
    result = projgen_process(
        "run", tmp_path / "out", "--inputs", small / "data.npz", "-o", tmp_path / "y.npz", env=environment
    )
    refused(result, 4, "arm-none-eabi-gcc", "apt-get install")
    assert not (tmp_path / "y.npz").exists()


def test_model_larger_than_the_flash(projgen, small: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text('base = "cortex-m4"\nname = "tiny"\nflash = 200\n')
    arguments = compile_to(tmp_path / "out", small / "net.onnx", small / "data.npz", tmp_path / "tiny.toml")
    result = projgen(*arguments)
    refused(result, 3, "200", "flash")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--no-such-flag", "--optimise=fastest", "--kernels=magic"])
def test_wrong_flags(projgen, small: Path, tmp_path: Path, flag: str) -> None:
    result = projgen(*compile_to(tmp_path / "out", small / "net.onnx", small / "data.npz"), flag)
    refused(result, 2, flag.split("=", 1)[0])


def test_two_goals(projgen, small: Path, tmp_path: Path) -> None:
    result = projgen(
        "compress", small / "net.onnx", "--data", small / "data.npz", "--ranks", "0=2",
        "--explained-variance", "0.9", "-o", tmp_path / "x.onnx",
    )  # fmt: skip
    refused(result, 2, "ranks", "explained_variance_goal")


def test_bad_rank_entry(projgen, small: Path, tmp_path: Path) -> None:
    result = projgen(
        "compress", small / "net.onnx", "--data", small / "data.npz", "--ranks", "fc=big", "-o", tmp_path / "x.onnx"
    )
    refused(result, 2, "fc=big", "LAYER=R_IN:R_OUT", "--ranks")


def test_bad_c_name(projgen, small: Path, tmp_path: Path) -> None:
    result = projgen(*compile_to(tmp_path / "out", small / "net.onnx", small / "data.npz"), "--name", "9 lives")
    refused(result, 2, "9 lives")


def test_model_attribute_that_does_not_exist(projgen, small: Path, tmp_path: Path) -> None:
    result = projgen("analyze", "collections:NoSuchNet", "--data", small / "data.npz")
    refused(result, 2, "NoSuchNet", "module:attribute")


@pytest.mark.parametrize("option", [["--layers", "0"], ["--method", "pca"]])
def test_how_to_compress_without_a_goal(projgen, small: Path, tmp_path: Path, option: list[str]) -> None:
    result = projgen(*compile_to(tmp_path / "out", small / "net.onnx", small / "data.npz"), *option)
    refused(result, 2, f"{option[0]} without a goal", "--learnables-reduction")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def compiled(projgen, small: Path, tmp_path: Path) -> Path:
    done = projgen(*compile_to(tmp_path / "compiled", small / "net.onnx", small / "data.npz"))
    assert done.code == 0, done.err
    return tmp_path / "compiled"


def test_an_output_without_a_folder_costs_no_work(projgen, small: Path, compiled: Path, tmp_path: Path) -> None:
    nowhere, data = tmp_path / "nowhere", small / "data.npz"
    for result, option in (
        (projgen("compress", small / "net.onnx", "--data", data, "--ranks", "0=2", "-o", nowhere / "x.onnx"), "-o"),
        (projgen("run", compiled, "--inputs", data, "-o", nowhere / "y.npz"), "-o"),
        (projgen("bench", compiled, "--json", nowhere / "f.json"), "--json"),
    ):
        refused(result, 2, f"there is no folder {nowhere}", f"Change it in: {option}")
        assert not result.out
    assert not (compiled / "build").exists()


def test_broken_inputs_and_labels(projgen, small: Path, compiled: Path, tmp_path: Path) -> None:
    data = small / "data.npz"
    (tmp_path / "cut.npz").write_bytes(data.read_bytes()[:1000])
    result = projgen("run", compiled, "--inputs", tmp_path / "cut.npz", "-o", tmp_path / "y.npz")
    refused(result, 2, "cut.npz", "can't be read", "a whole .npz or .npy")
    refused(projgen("bench", compiled, "--inputs", data, "--labels", data), 2, "arrays named x", "--labels")
    np.save(tmp_path / "from_one.npy", np.load(small / "labels.npy") + 1)
    result = projgen("bench", compiled, "--inputs", data, "--labels", tmp_path / "from_one.npy")
    refused(result, 2, "for 4 classes", "0 to 3", "--labels")
    assert not (tmp_path / "y.npz").exists()


def test_an_internal_fault_exits_one(small: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import projgen.driver\n"
        "def broken(*args, **kwargs):\n    raise ZeroDivisionError('injected')\n"
        "projgen.driver.compile = broken\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.pathsep.join(sys.path[:1])}"}
    arguments = compile_to(tmp_path / "out", small / "net.onnx", small / "data.npz")
    result = projgen_process(*arguments, env=environment)
    assert result.code == 1, result.err
    assert "ZeroDivisionError" in result.err and "report it" in result.err
    assert not (tmp_path / "out").exists()
