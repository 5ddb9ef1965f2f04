"""``projgen.save``: the same numbers in onnxruntime and plain torch, factors kept bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.errors import InputError, InputTypeError, UnsupportedError
from projgen.importers.spec import InputSpec, remember_inputs
from projgen.importers.torch_export import import_module
from projgen.projection.layers import (
    ProjectedGRU,
    ProjectedLayer,
    ProjectedLSTM,
    projected_conv,
    projected_linear,
)
from tests.importers.onnx.exporting import export, relative_error, run_onnx, run_torch
from tests.models import ZOO, build

EXACT = 2e-6


class Steps(nn.Module):
    """A recurrent layer and a fully connected one at every step."""

    def __init__(self, rnn: nn.Module, width: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0])


@pytest.mark.parametrize("name", ZOO)
def test_a_dense_model_runs_in_onnxruntime_at_any_batch_and_length(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    path = projgen.save(model, tmp_path / "m.onnx", inputs)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert relative_error(run_onnx(path, inputs), run_torch(model, inputs)) <= EXACT
    _, more = build(name, batch=5, seed=1)
    if ZOO[name].is_sequence:
        more = tuple(torch.cat((x, x[:, :3]), dim=1) for x in more)
        assert proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param == "time"
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert relative_error(run_onnx(path, more), run_torch(model, more)) <= EXACT
    loaded = projgen.load_onnx(path)
    assert relative_error(run_torch(loaded, more), run_torch(model, more)) <= EXACT


def recurrent(kind: type[nn.Module], ranks: Any, **options: Any) -> nn.Module:
    torch.manual_seed(5)
    layer = kind(6, 10, *ranks, **options)
    return Steps(layer, 20 if options.get("bidirectional") else 10).eval()


FORMS = list(product((ProjectedLSTM, ProjectedGRU), ((3, 4), (None, 4), (3, None)), (False, True), (False, True)))


@pytest.mark.parametrize(("kind", "ranks", "bidirectional", "bias"), FORMS)
def test_a_projected_recurrent_layer_keeps_its_factors(
    kind: Any, ranks: Any, bidirectional: bool, bias: bool, tmp_path: Path
) -> None:
    model = recurrent(kind, ranks, batch_first=True, bidirectional=bidirectional, bias=bias)
    path = projgen.save(model, tmp_path / "m.onnx", torch.randn(2, 7, 6))
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [(f.domain, f.name) for f in proto.functions] == [("projgen", kind.__name__)]
    assert not {"LSTM", "GRU"} & {node.op_type for node in proto.graph.node}
    for shape in ((2, 7, 6), (4, 13, 6), (3, 1, 6)):
        x = torch.randn(*shape, generator=torch.Generator().manual_seed(2))
        assert relative_error(run_onnx(path, [x]), run_torch(model, [x])) <= EXACT
    layer = projgen.load_onnx(path).rnn
    assert type(layer) is kind
    assert (layer.input_rank, layer.output_rank) == (model.rnn.input_rank, model.rnn.output_rank)
    state = layer.state_dict()
    for name, tensor in model.rnn.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_directions_and_layers_of_different_ranks_keep_their_factors(tmp_path: Path) -> None:
    model = recurrent(ProjectedLSTM, ([3, None], [None, 4]), batch_first=True, bidirectional=True)
    path = projgen.save(model, tmp_path / "both.onnx", torch.randn(2, 7, 6))
    x = torch.randn(3, 9, 6)
    assert relative_error(run_onnx(path, [x]), run_torch(model, [x])) <= EXACT
    loaded = projgen.load_onnx(path).rnn
    assert (loaded.input_rank, loaded.output_rank) == ((3, None), (None, 4))
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.rnn.state_dict().items())
    stacked = recurrent(ProjectedGRU, ([3, 2], [None, 4]), batch_first=True, num_layers=2)
    path = projgen.save(stacked, tmp_path / "stacked.onnx", torch.randn(2, 7, 6))
    assert relative_error(run_onnx(path, [x]), run_torch(stacked, [x])) <= EXACT
    layers = [m for m in projgen.load_onnx(path).modules() if isinstance(m, ProjectedGRU)]
    assert [(layer.input_rank, layer.output_rank) for layer in layers] == [((3,), (None,)), ((2,), (4,))]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("joint", [True, (True, False)])
def test_a_first_factor_that_both_products_share_stays_shared(joint: Any, folded: bool, tmp_path: Path) -> None:
    """The joint form, its rank above the input's width, its bias one of the gates or of the low-rank vector."""
    both = isinstance(joint, tuple)
    ranks = ([8, 3], [8, 4]) if both else (8, 8)
    fold = (folded, False) if both else folded
    model = recurrent(ProjectedLSTM, ranks, batch_first=True, bidirectional=both, joint=joint, fold_bias=fold)
    path = projgen.save(model, tmp_path / "m.onnx", torch.randn(2, 7, 6))
    onnx.checker.check_model(onnx.load(path), full_check=True)
    x = torch.randn(3, 9, 6)
    assert relative_error(run_onnx(path, [x]), run_torch(model, [x])) <= EXACT
    loaded = projgen.load_onnx(path)
    assert loaded.rnn.weight_hh is loaded.rnn.weight_ih and loaded.rnn.joint == model.rnn.joint
    assert loaded.rnn.fold_bias == model.rnn.fold_bias
    mine, theirs = dict(model.named_parameters()), dict(loaded.named_parameters())
    assert set(mine) == set(theirs) and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    export(model, (x,), path, "torchscript")
    plain = projgen.load_onnx(path)
    (layer,) = (m for m in plain.modules() if isinstance(m, ProjectedLSTM))
    assert layer.weight_hh is layer.weight_ih and torch.equal(layer.weight_ih, model.rnn.weight_ih)


@pytest.mark.parametrize("folded", [False, True])
def test_a_joint_lstm_of_any_file_compiles_to_the_same_bytes(folded: bool, tmp_path: Path) -> None:
    """From memory, from .onnx (ours and a plain exporter's) and from .pt2."""
    model = recurrent(ProjectedLSTM, (4, 4), batch_first=True, joint=True, fold_bias=folded)
    x = torch.randn(2, 7, 6)
    torch.onnx.export(model, (x,), tmp_path / "plain.onnx", dynamo=True, optimize=False, verbose=False)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "m.pt2")
    ours = projgen.save(model, tmp_path / "m.onnx", x)
    sources = {"memory": model, "ours": ours, "plain": tmp_path / "plain.onnx", "pt2": tmp_path / "m.pt2"}
    quantised = {name: projgen.quantize(source, [x]) for name, source in sources.items()}
    for name, q in quantised.items():
        assert [n.attrs.joint for n in q.graph.nodes if n.op == "lstm"] == [True], name
        assert q.digest() == quantised["memory"].digest(), name
    written = [projgen.compile(quantised[n], target="host", out=tmp_path / n) for n in ("memory", "ours", "pt2")]
    files = ("model.c", "model_kernels.h", "model_weights.h")  # the others hold the names of inputs
    texts = [[(a.directory / name).read_bytes() for name in files] for a in written]
    assert texts[0] == texts[1] == texts[2]
    assert written[0].quantized.digest() == quantised["memory"].digest()


@pytest.mark.parametrize("exporter", ["plain", "torchscript"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [ProjectedLSTM, ProjectedGRU])
def test_a_product_of_initialisers_is_found_in_other_exporters_files(
    kind: Any, bidirectional: bool, exporter: str, tmp_path: Path
) -> None:
    model = recurrent(kind, (3, 4), batch_first=True, bidirectional=bidirectional)
    x = torch.randn(2, 7, 6)
    path = tmp_path / "m.onnx"
    if exporter == "plain":
        torch.onnx.export(model, (x,), path, dynamo=True, optimize=False, verbose=False)
    else:
        export(model, (x,), path, exporter)
    assert "projgen" not in {item.domain for item in onnx.load(path).opset_import}
    loaded = projgen.load_onnx(path)
    assert relative_error(run_torch(loaded, [x]), run_torch(model, [x])) <= 1e-5
    (layer,) = (m for m in loaded.modules() if isinstance(m, kind))
    for name, tensor in model.rnn.named_parameters():
        if "bias" not in name:
            assert torch.equal(tensor, dict(layer.named_parameters())[name]), name


def test_projected_linear_and_conv_layers_stay_thin(tmp_path: Path) -> None:
    torch.manual_seed(1)
    dense = nn.Conv2d(8, 12, 3, stride=2, padding=1, dilation=2, groups=2)
    conv = projected_conv(dense, torch.randn(6, 2, 3, 3), torch.randn(4, 4), torch.randn(12, 3), bias=torch.randn(12))
    linear = projected_linear(torch.randn(5, 3), torch.randn(3, 12), torch.randn(5))
    wrapped = ProjectedLayer(
        linear,
        name="fc",
        original_class="torch.nn.modules.linear.Linear",
        learnables_reduction=0.1,
        input_size=12,
        output_size=5,
        input_projector_size=3,
        output_projector_size=None,
    )
    model = nn.Sequential()
    model.add_module("conv", conv)
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", wrapped)
    model.eval()
    x = torch.randn(3, 8, 11, 9)
    path = projgen.save(model, tmp_path / "m.onnx", x)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Conv") == 3 and operators.count("Gemm") == 2
    assert relative_error(run_onnx(path, [x]), run_torch(model, [x])) <= EXACT
    loaded = projgen.load_onnx(path)
    mine, theirs = dict(model.named_parameters()), dict(loaded.named_parameters())
    assert set(mine) == set(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def test_saving_what_was_loaded_needs_no_example_and_changes_nothing(tmp_path: Path) -> None:
    model, inputs = build("lstm")
    first = projgen.save(model, tmp_path / "first.onnx", inputs)
    loaded = projgen.load_onnx(first)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    loaded.train()
    second = projgen.save(loaded, tmp_path / "second.onnx")
    assert loaded.training and all(torch.equal(t, before[n]) for n, t in loaded.state_dict().items())
    again = projgen.load_onnx(second).state_dict()
    assert list(again) == list(before) and all(torch.equal(t, again[n]) for n, t in before.items())
    assert [item.name for item in onnx.load(second).graph.input] == ["input"]
    assert second.read_bytes() == projgen.save(loaded, tmp_path / "third.onnx").read_bytes()


@pytest.mark.parametrize("name", ["mlp", "cnn2d", "ds_cnn", "residual", "lstm", "gru_two_layers", "lstm_bidirectional"])
def test_the_graph_that_is_compiled_is_the_same_from_the_file(name: str, tmp_path: Path) -> None:
    """Same operators under the same names, so that a saved model gives the same C."""
    model, inputs = build(name)
    loaded = projgen.load_onnx(projgen.save(model, tmp_path / "m.onnx", inputs))

    def listed(module: nn.Module) -> list[tuple[str, str]]:
        return [(node.op, node.name) for node in import_module(module, inputs).nodes]

    assert listed(loaded) == listed(model)


def test_batch_norm_is_kept_and_no_path_of_this_machine_is_written(tmp_path: Path) -> None:
    model, inputs = build("ds_cnn")
    path = projgen.save(model, tmp_path / "m.onnx", inputs)
    nodes = onnx.load(path).graph.node
    assert [node.name for node in nodes if node.op_type == "BatchNormalization"] == ["bn", "bn1"]
    assert [node.name for node in nodes if node.op_type == "Conv"] == ["conv", "depthwise", "pointwise"]
    other = projgen.save(model, tmp_path / "m.pt2", inputs)
    for content in (path.read_bytes(), other.read_bytes()):
        assert str(Path(__file__).parent).encode() not in content and str(tmp_path).encode() not in content


PLAIN_TORCH = """
import json, sys, torch
program = torch.export.load(sys.argv[1])
module = program.module()
result = module(*torch.load(sys.argv[2]))
result = result if isinstance(result, tuple) else (result,)
shapes = {name: list(t.shape) for name, t in program.state_dict.items()}
forbidden = [name for name in sys.modules if name.split(".")[0] == "projgen"]
print(json.dumps([[r.tolist() for r in result], shapes, forbidden]))
"""


@pytest.mark.parametrize("name", ["lstm", "residual", "projected"])
def test_pt2_runs_in_a_fresh_process_with_torch_alone(name: str, tmp_path: Path) -> None:
    if name == "projected":
        model, inputs, more = (
            recurrent(ProjectedLSTM, (3, 4), batch_first=True),
            torch.randn(1, 7, 6),
            torch.randn(5, 7, 6),
        )
    else:
        model, (inputs,) = build(name)
        _, (more,) = build(name, batch=5, seed=1)
    path = projgen.save(model, tmp_path / "m.pt2", inputs)
    torch.save((more,), tmp_path / "x.pt")
    command = [sys.executable, "-I", "-c", PLAIN_TORCH, str(path), str(tmp_path / "x.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    outputs, shapes, forbidden = json.loads(done.stdout)
    assert forbidden == []
    assert relative_error([np.array(o, np.float32) for o in outputs], run_torch(model, [more])) <= EXACT
    assert shapes == {key: list(tensor.shape) for key, tensor in model.state_dict().items()}


def test_recurrent_layers_stay_whole_in_pt2(tmp_path: Path) -> None:
    model = recurrent(ProjectedGRU, (3, 4), batch_first=True)
    path = projgen.save(model, tmp_path / "m.pt2", torch.randn(2, 7, 6))
    targets = [str(node.target) for node in torch.export.load(path).graph.nodes]
    assert targets.count("aten.gru.input") == 1 and targets.count("aten.matmul.default") == 2


def test_the_batch_of_one_of_an_example_does_not_bind(tmp_path: Path) -> None:
    model, _ = build("cnn2d")
    path = projgen.save(model, tmp_path / "m.onnx", torch.randn(1, 1, 10, 8))
    _, more = build("cnn2d", batch=5)
    assert relative_error(run_onnx(path, more), run_torch(model, more)) <= EXACT


def test_several_inputs_keep_their_names(tmp_path: Path) -> None:
    model, inputs = build("two_inputs")
    remember_inputs(model, (InputSpec("left", (7,)), InputSpec("right", (5,))))
    path = projgen.save(model, tmp_path / "m.onnx")
    assert [item.name for item in onnx.load(path).graph.input] == ["left", "right"]
    assert relative_error(run_onnx(path, inputs), run_torch(model, inputs)) <= EXACT


def test_wrong_use_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    model, (x,) = build("mlp")
    with pytest.raises(InputError, match=r"has the ending '\.txt'.*\.onnx or \.pt2"):
        projgen.save(model, tmp_path / "m.txt", x)
    with pytest.raises(InputError, match="does not remember its input shapes, and no example is given"):
        projgen.save(model, tmp_path / "m.onnx")
    with pytest.raises(InputTypeError, match="a model of type str"):
        projgen.save("model", tmp_path / "m.onnx", x)
    with pytest.raises(InputTypeError, match="an example of type str"):
        projgen.save(model, tmp_path / "m.onnx", "x")
    with pytest.raises(InputError, match=r"an example of shape \(20,\)"):
        projgen.save(model, tmp_path / "m.onnx", torch.randn(20))
    with pytest.raises(InputError, match="there is no folder"):
        projgen.save(model, tmp_path / "absent" / "m.onnx", x)
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        projgen.save(model, tmp_path / "m.onnx", x)
    for ending in ("pt2", "onnx"):
        with pytest.raises(InputError, match="the model does not run on the example"):
            projgen.save(model, tmp_path / f"n.{ending}", torch.randn(2, 19))
    assert [item.name for item in tmp_path.iterdir()] == ["m.onnx"]


class Fixed(nn.Module):
    """Works for a batch of 2 only."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1) * 2


@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_model_tied_to_its_batch_is_refused(ending: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="can't be exported with an open batch"):
        projgen.save(Fixed(), tmp_path / f"m.{ending}", torch.randn(2, 3))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x,) = build("mlp")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    for ending in ("onnx", "pt2"):
        with pytest.raises(InputError, match=r"can't be written \(Permission denied\)"):
            projgen.save(model, tmp_path / f"m.{ending}", x)
    assert not list(tmp_path.iterdir())
