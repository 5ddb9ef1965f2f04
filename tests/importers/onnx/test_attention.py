"""Attention as both exporters write it: the module gives the same results, and is one operator for the compiler."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

import projgen
from projgen.errors import UnsupportedError
from projgen.importers.onnx import load_onnx
from projgen.importers.torch_export import import_module
from projgen.passes import run_pipeline
from tests.importers.onnx.exporting import EXPORTERS, export, relative_error, run_onnx, run_torch
from tests.importers.torch import checks
from tests.importers.torch.test_torch_attention import Two, build

NAMES = ("self", "weights", "time first", "cross", "by hand", "heads by hand", "merged by hand", "encoder")


BAKED = ("merged by hand", "torchscript", True)  # PyTorch's exporter bakes the batch in, though asked not to
CASES = [case for case in product(NAMES, EXPORTERS, (True, False)) if case != BAKED]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "exporter", "is_open"), CASES)
def test_exported(name: str, exporter: str, is_open: bool, tmp_path: Path) -> None:
    model, inputs = build(name)
    path = export(model, inputs, tmp_path / "net.onnx", exporter, is_batch_open=is_open)
    loaded = load_onnx(path)
    assert relative_error(run_torch(loaded, inputs), run_onnx(path, inputs)) <= 1e-5
    graph = run_pipeline(import_module(loaded, inputs))
    assert checks.relative_error(graph, model, inputs) <= checks.TOLERANCE
    assert checks.ops(graph).count("attention") == 1
    assert not {"mul", "softmax", "transpose", "slice", "select"} & set(checks.ops(graph))


@pytest.mark.parametrize("name", ["self", "weights", "cross"])
def test_saved(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    loaded = load_onnx(projgen.save(model, tmp_path / "net.onnx", inputs))
    graph = run_pipeline(import_module(loaded, inputs))
    assert checks.relative_error(graph, model, inputs) <= checks.TOLERANCE
    assert checks.ops(graph).count("attention") == 1


@pytest.mark.filterwarnings("ignore")
def test_a_product_over_the_batch_is_refused(tmp_path: Path) -> None:
    model = Two(lambda _, x, y: x @ y.transpose(1, 2)[:1])
    path = export(model, (torch.randn(3, 4, 5), torch.randn(3, 6, 5)), tmp_path / "net.onnx", "dynamo")
    with pytest.raises(
        UnsupportedError, match=r"MatMul .*: two tensors of the data whose axes before the last two differ"
    ):
        load_onnx(path)
