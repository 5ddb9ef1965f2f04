"""Models of the zoo through both PyTorch exporters: same numbers, ordinary layers, any batch."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from projgen.importers.onnx import load_onnx
from projgen.importers.spec import InputSpec, example_inputs
from tests.importers.onnx.exporting import EXPORTERS, export, relative_error, run_onnx, run_torch
from tests.models import ZOO, build

TOLERANCE = 1e-5
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU, nn.BatchNorm1d, nn.BatchNorm2d)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


def exported(name: str, exporter: str, folder: Path) -> tuple[nn.Module, tuple[torch.Tensor, ...], Path]:
    """A model of the zoo, its inputs and its file, written once for all tests."""
    model, inputs = build(name)
    path = folder / f"{name}_{exporter}.onnx"
    if not path.exists():
        export(model, inputs, path, exporter)
    return model, inputs, path


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ZOO)
def test_an_exported_model_loads_with_the_same_numbers(name: str, exporter: str, folder: Path) -> None:
    model, inputs, path = exported(name, exporter, folder)
    loaded = load_onnx(path)
    assert relative_error(run_torch(loaded, inputs), run_torch(model, inputs)) <= TOLERANCE
    assert relative_error(run_torch(loaded, inputs), run_onnx(path, inputs)) <= TOLERANCE
    _, more = build(name, batch=5, seed=1)
    assert relative_error(run_torch(loaded, more), run_torch(model, more)) <= TOLERANCE
    assert [spec.shape for spec in loaded._projgen_inputs] == list(ZOO[name].shapes)


BAKED = [(name, 1) for name in ZOO] + [(name, 2) for name in ("cnn2d", "lstm", "gru_two_layers", "lstm_bidirectional")]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(("name", "batch"), BAKED)
def test_a_baked_batch_does_not_bind(name: str, batch: int, exporter: str, folder: Path) -> None:
    model, inputs = build(name, batch=batch)
    path = export(model, inputs, folder / f"{name}_{exporter}_{batch}.onnx", exporter, is_batch_open=False)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == batch
    loaded = load_onnx(path)
    _, more = build(name, batch=5, seed=1)
    assert relative_error(run_torch(loaded, more), run_torch(model, more)) <= TOLERANCE


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ZOO)
def test_layers_survive_as_ordinary_modules(name: str, exporter: str, folder: Path) -> None:
    model, _, path = exported(name, exporter, folder)
    loaded = load_onnx(path)

    def census(module: nn.Module) -> dict[str, int]:
        counts: dict[str, int] = {}
        for layer in module.modules():
            if isinstance(layer, LAYERS):
                kind = type(layer).__name__
                counts[kind] = counts.get(kind, 0) + getattr(layer, "num_layers", 1)
        return {kind: count for kind, count in counts.items() if not kind.startswith("BatchNorm")}

    assert census(loaded) == census(model)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ZOO)
def test_a_loaded_model_exports_copies_and_pickles(name: str, exporter: str, folder: Path) -> None:
    model, inputs, path = exported(name, exporter, folder)
    loaded = load_onnx(path)
    wanted = run_torch(model, inputs)
    batch = torch.export.Dim("batch")
    program = torch.export.export(loaded, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
    assert relative_error(run_torch(program.module(), inputs), wanted) <= TOLERANCE
    for twin in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert relative_error(run_torch(twin, inputs), wanted) <= TOLERANCE
        assert twin._projgen_inputs == loaded._projgen_inputs
        assert all(isinstance(spec, InputSpec) for spec in twin._projgen_inputs)
        examples = example_inputs(twin, batch=3)
        assert [tuple(x.shape) for x in examples] == [(3, *shape) for shape in ZOO[name].shapes]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_layers_are_named_after_modules_or_renamed_nodes(exporter: str, folder: Path) -> None:
    model, inputs, path = exported("ds_cnn", exporter, folder)
    names = {name for name, layer in load_onnx(path).named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    assert names == {"conv", "depthwise", "pointwise", "fc"}
    proto = onnx.load(path)
    for index, node in enumerate(proto.graph.node):
        node.name = f"layer {index}/{node.op_type}"
    for value in proto.graph.node:
        for names_of in (value.input, value.output):
            for place, text in enumerate(names_of):
                if text and text not in {"input_0", proto.graph.output[0].name}:
                    names_of[place] = f"renamed/{text}"
    for initializer in proto.graph.initializer:
        initializer.name = f"renamed/{initializer.name}"
    del proto.graph.value_info[:]
    renamed = load_onnx(proto)
    assert relative_error(run_torch(renamed, inputs), run_torch(model, inputs)) <= TOLERANCE
    first = next(i for i, node in enumerate(proto.graph.node) if node.op_type == "Conv")
    assert f"layer_{first}_Conv" in dict(renamed.named_modules())


def test_recurrent_layers_come_without_transposes(folder: Path) -> None:
    for name in ("lstm", "gru_two_layers", "lstm_bidirectional", "final_state"):
        for exporter in EXPORTERS:
            loaded = load_onnx(exported(name, exporter, folder)[2])
            assert "transpose" not in loaded.code and "permute" not in loaded.code, (name, exporter)
            assert "reshape" not in loaded.code, (name, exporter)


def test_training_moves_the_weights(folder: Path) -> None:
    _, inputs, path = exported("lstm", "dynamo", folder)
    loaded = load_onnx(path)
    loaded(*inputs).square().sum().backward()
    gradients = {name: p.grad for name, p in loaded.named_parameters()}
    assert {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "fc.weight"} <= set(gradients)
    assert all(g is not None and bool(torch.isfinite(g).all()) and float(g.abs().max()) > 0 for g in gradients.values())
