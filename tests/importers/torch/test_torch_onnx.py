"""ONNX files as graphs, by way of the loaded module."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from projgen.importers.onnx import load_onnx
from projgen.importers.spec import example_inputs
from projgen.importers.torch_export import import_module
from projgen.ir.verify import verify
from projgen.passes import run_pipeline
from tests.importers.torch.checks import TOLERANCE, ops, relative_error
from tests.models import zoo

TINY = {
    "ad01_fp32": ["linear"] * 10,
    "kws_ref_model_float32": ["conv2d"] * 9 + ["avg_pool2d", "reshape", "linear", "softmax"],
    "pretrainedResnet": ["conv2d", "conv2d", "conv2d", "add"] * 3 + ["avg_pool2d", "reshape", "linear", "softmax"],
    "vww_96_float": ["conv2d"] * 27 + ["avg_pool2d", "reshape", "linear", "softmax"],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["ds_cnn", "residual", "lstm", "gru_two_layers", "final_state"])
def test_exported_files_give_the_graph_of_the_model(name: str, tmp_path: Path) -> None:
    """The same operators, the same weights, the same axis orders as from the PyTorch model."""
    module, inputs = zoo.build(name)
    torch.onnx.export(module, inputs, tmp_path / "model.onnx", dynamo=False)
    direct = run_pipeline(import_module(module, inputs))
    loaded = run_pipeline(import_module(load_onnx(tmp_path / "model.onnx"), inputs))
    assert relative_error(loaded, module, inputs) <= TOLERANCE
    assert ops(loaded) == ops(direct)
    assert loaded.has_time == direct.has_time
    assert [port.perm for port in loaded.inputs] == [port.perm for port in direct.inputs]


@pytest.mark.parametrize("name", TINY)
def test_mlperf_tiny(name: str) -> None:
    data = os.environ.get("PROJGEN_DATA")
    if not data:
        pytest.skip("PROJGEN_DATA is not set")
    module = load_onnx(Path(data) / "models" / "mlperf_tiny" / "onnx" / f"{name}.onnx")
    inputs = example_inputs(module, batch=3)
    graph = import_module(module, inputs)
    verify(graph)
    canonical = run_pipeline(graph)
    assert relative_error(canonical, module, inputs) <= TOLERANCE
    assert ops(canonical) == TINY[name]
