"""Files on disk: external data, missing, cut-off and foreign files; the MLPerf Tiny reference models."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from projgen import load_onnx
from projgen.errors import InputError, InputTypeError, UnsupportedError
from tests.importers.onnx.exporting import export, relative_error, run_onnx, run_torch
from tests.models import build

MLPERF = ("ad01_fp32", "kws_ref_model_float32", "pretrainedResnet", "vww_96_float")


@pytest.mark.parametrize("name", MLPERF)
def test_mlperf_tiny_models_agree_with_onnxruntime(name: str) -> None:
    data = os.environ.get("PROJGEN_DATA")
    if not data:
        pytest.skip("PROJGEN_DATA is not set")
    path = Path(data) / "models" / "mlperf_tiny" / "onnx" / f"{name}.onnx"
    loaded = load_onnx(path)
    shape = loaded._projgen_inputs[0].shape
    rows = [torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    wanted = np.concatenate([run_onnx(path, [row])[0] for row in rows])  # the file states a batch of 1
    assert relative_error(run_torch(loaded, [torch.cat(rows)]), [wanted]) <= 1e-5
    assert any(isinstance(layer, nn.Conv2d | nn.Linear) for layer in loaded.modules())


def write_external(folder: Path) -> tuple[Path, torch.nn.Module, tuple[torch.Tensor, ...]]:
    model, inputs = build("mlp")
    path = export(model, inputs, folder / "model.onnx", "dynamo")
    proto = onnx.load(path)
    onnx.save(proto, path, save_as_external_data=True, location="model.bin", size_threshold=0)
    return path, model, inputs


def test_external_data_beside_the_file_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model, inputs = write_external(tmp_path)
    assert relative_error(run_torch(load_onnx(path), inputs), run_torch(model, inputs)) <= 1e-5
    monkeypatch.chdir(tmp_path)
    assert relative_error(run_torch(load_onnx("model.onnx"), inputs), run_torch(model, inputs)) <= 1e-5


def test_external_data_that_is_missing_cut_off_or_elsewhere(tmp_path: Path) -> None:
    path, _, _ = write_external(tmp_path)
    data = tmp_path / "model.bin"
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"external data '.*model\.bin' of '.*model\.onnx' is cut off"):
        load_onnx(path)
    data.unlink()
    with pytest.raises(InputError, match=r"external data '.*model\.bin' of '.*model\.onnx' is missing"):
        load_onnx(path)
    data.write_bytes(whole)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../model.bin"
    (tmp_path / "sub").mkdir()
    onnx.save(proto, tmp_path / "sub" / "model.onnx")
    with pytest.raises(InputError, match="does not lie beside it"):
        load_onnx(tmp_path / "sub" / "model.onnx")


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file '.*absent\.onnx'"):
        load_onnx(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match=rf"'{tmp_path}' is a folder"):
        load_onnx(tmp_path)
    with pytest.raises(InputTypeError, match="a model of type int"):
        load_onnx(3)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    """At any byte: an InputError that names the file, never a crash and never a smaller model."""
    model, inputs = build("lstm_steps")
    whole = export(model, inputs, tmp_path / "whole.onnx", "torchscript").read_bytes()
    assert load_onnx(tmp_path / "whole.onnx") is not None
    path = tmp_path / "cut.onnx"
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.onnx") as caught:
            load_onnx(path)
        assert not isinstance(caught.value, UnsupportedError)


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(range(256)), b"\x08\x08" * 50, b"PK\x03\x04zip"])
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"garbage\.onnx"):
        load_onnx(path)


def graph(nodes: list[onnx.NodeProto], kind: int = TensorProto.FLOAT, **constants: np.ndarray) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def test_a_value_that_nothing_produces_is_named() -> None:
    proto = graph([helper.make_node("Add", ["x", "ghost"], ["y"], name="sum")])
    with pytest.raises(InputError, match=r"Add \(node 'sum'\) reads 'ghost', which nothing before it produces"):
        load_onnx(proto)


def test_a_tensor_whose_data_does_not_fit_its_shape_is_named() -> None:
    proto = graph([helper.make_node("Add", ["x", "b"], ["y"])], b=np.ones(4, np.float32))
    proto.graph.initializer[0].raw_data = b"\x00" * 9
    with pytest.raises(InputError, match="tensor 'b' can't be read"):
        load_onnx(proto)


def test_integer_inputs_and_constant_outputs_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="ONNX input 'x' of type INT64"):
        load_onnx(graph([helper.make_node("Relu", ["x"], ["y"])], TensorProto.INT64))
    with pytest.raises(UnsupportedError, match="ONNX output 'y' does not depend on the data"):
        load_onnx(graph([helper.make_node("Identity", ["b"], ["y"])], b=np.ones(4, np.float32)))


def test_double_precision_models_stay_double() -> None:
    proto = graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], TensorProto.DOUBLE, w=np.ones((4, 2)))
    loaded = load_onnx(proto)
    assert loaded.fc.weight.dtype == torch.float64
    assert loaded(torch.ones(3, 4, dtype=torch.float64)).dtype == torch.float64
