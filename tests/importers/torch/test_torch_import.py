"""torch.export programs as graphs: meaning, structure, names, factored weights, saved programs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from projgen.errors import InputError
from projgen.importers.torch_export import import_module, import_program
from projgen.ir.printer import print_graph
from projgen.ir.verify import verify
from projgen.passes import run_pipeline
from projgen.projection.layers import ProjectedLayer, ProjectedLSTM, projected_linear, unpack_projected_layers
from tests.importers.torch.checks import TOLERANCE, ops, relative_error
from tests.importers.torch.nets import NETS, Fn, build
from tests.models import zoo

CANONICAL = {
    "mlp": "linear linear",
    "cnn": "conv2d max_pool2d conv2d reshape linear softmax",
    "separable": "conv2d conv2d conv2d conv2d conv2d",
    "residual": "conv2d conv2d conv2d add avg_pool2d reshape linear",
    "squeeze_excite": "conv2d avg_pool2d reshape linear linear unary reshape mul max_pool2d reshape",
    "conv1d": "reshape conv2d conv2d max_pool2d avg_pool2d reshape linear",
    "causal": "reshape conv2d conv2d add avg_pool2d reshape linear",
    "crnn": "conv2d max_pool2d transpose reshape gru select linear",
    "lstm_last": "lstm select linear",
    "stacked": "lstm lstm select linear",
    "gru_time_major": "gru select concat linear",
    "sequence": "linear gru unary linear",
    "initial_state": "lstm linear softmax",
    "mean_time": "lstm mean_time linear",
    "projected": "lstm gru select reshape linear",
    "joint": "lstm lstm concat select linear",
    "all_layers": "gru gru gru select select select reshape reshape reshape concat reshape",
    "functional": "conv2d unary max_pool2d slice slice unary add transpose reshape",
    "positions": "linear linear reshape reshape concat select select unary mul slice linear",
    "bidirectional": "gru gru concat gru gru concat select lstm lstm select select reshape reshape concat reshape "
    "concat linear",
    "branches": "conv2d conv2d max_pool2d avg_pool2d concat",
    "decoder": "linear reshape conv2d",
    "transposed": "conv_transpose2d conv_transpose2d conv_transpose2d",
    "transposed_1d": "reshape conv_transpose2d unary conv_transpose2d reshape",
    "two_inputs": "conv2d linear reshape concat linear",
}
SEQUENCES = {
    "lstm_last",
    "stacked",
    "gru_time_major",
    "sequence",
    "initial_state",
    "mean_time",
    "all_layers",
    "projected",
}


@pytest.mark.parametrize("name", NETS)
def test_equals_torch_before_and_after_the_passes(name: str) -> None:
    module, inputs = build(name)
    graph = import_module(module, tuple(x[:1] for x in inputs))
    verify(graph)
    assert relative_error(graph, module, inputs) <= TOLERANCE
    canonical = run_pipeline(graph)
    assert relative_error(canonical, module, inputs) <= TOLERANCE
    assert canonical.has_time == (name in SEQUENCES)
    assert ops(canonical) == CANONICAL[name].split()


@pytest.mark.parametrize("name", zoo.ZOO)
def test_model_zoo(name: str) -> None:
    module, inputs = zoo.build(name)
    canonical = run_pipeline(import_module(module, inputs))
    assert relative_error(canonical, module, inputs) <= TOLERANCE
    assert canonical.has_time == (zoo.ZOO[name].is_sequence and name != "lstm_bidirectional")


@pytest.mark.parametrize("name", sorted(SEQUENCES))
def test_any_number_of_steps(name: str) -> None:
    module, inputs = build(name)
    canonical = run_pipeline(import_module(module, inputs))
    for steps in (1, 2, 13):
        other = torch.randn(3, steps, inputs[0].shape[2])
        assert relative_error(canonical, module, (other,)) <= TOLERANCE


def test_a_length_that_matters_stays_fixed() -> None:
    """Flattened steps, a convolution along time, a chosen step, late values read early keep the static shape."""
    rnn = {"lstm": nn.LSTM(3, 4, batch_first=True)}
    forms = (
        Fn(lambda m, x: m.fc(m.lstm(x)[0].flatten(1)), fc=nn.Linear(20, 2), **rnn),
        Fn(lambda m, x: m.lstm(m.conv(x.transpose(1, 2)).transpose(1, 2))[0], conv=nn.Conv1d(3, 3, 2), **rnn),
        Fn(lambda m, x: m.lstm(x)[0][:, 4], **rnn),
        Fn(lambda m, x: m.lstm(x)[0].amax(1), **rnn),
        Fn(lambda m, x: (m.lstm(x)[0], m.lstm(x)[0][:, -1]), **rnn),
        Fn(lambda m, x: m.lstm(x)[0] + m.lstm(x)[0].mean(1, keepdim=True), **rnn),
    )
    for module in forms:
        x = torch.randn(2, 5, 3)
        canonical = run_pipeline(import_module(module.eval(), (x,)))
        assert not canonical.has_time
        assert relative_error(canonical, module, (x,)) <= TOLERANCE


def test_a_static_mean_over_steps_is_pooling() -> None:
    module, x = Fn(lambda m, x: m.fc(x).mean(1), fc=nn.Linear(3, 4)).eval(), torch.randn(2, 5, 3)
    canonical = run_pipeline(import_module(module, (x,)))
    assert ops(canonical) == ["linear", "reshape", "avg_pool2d", "reshape"]
    assert relative_error(canonical, module, (x,)) <= TOLERANCE


def test_inputs_of_two_lengths_keep_them() -> None:
    module = Fn(
        lambda m, x, y: torch.cat((m.a(x)[0][:, -1], m.b(y)[0][:, -1]), 1),
        a=nn.GRU(3, 4, batch_first=True), b=nn.GRU(3, 4, batch_first=True),
    ).eval()  # fmt: skip
    assert not run_pipeline(import_module(module, (torch.randn(2, 5, 3), torch.randn(2, 7, 3)))).has_time
    assert run_pipeline(import_module(module, (torch.randn(2, 5, 3), torch.randn(2, 5, 3)))).has_time


def test_names_come_from_the_modules() -> None:
    module, inputs = build("residual")
    names = [node.name for node in run_pipeline(import_module(module, inputs)).nodes]
    assert names[:4] == ["conv1", "conv2", "short", "add"]
    module, inputs = build("stacked")
    graph = import_module(module, inputs)
    assert [(n.name, n.source) for n in graph.nodes[:2]] == [("lstm.l0", "lstm"), ("lstm.l1", "lstm")]
    module, inputs = build("cnn")
    names = [node.name for node in run_pipeline(import_module(module, inputs)).nodes]
    assert names == ["conv2d_0", "max_pool2d_3", "conv2d_4", "linear_8.flat", "linear_8", "softmax_9"]


@pytest.mark.parametrize("name", ["cnn", "separable", "functional"])
def test_names_are_distinct_c_identifiers(name: str) -> None:
    module, inputs = build(name)
    graph = run_pipeline(import_module(module, inputs))
    plain = [re.sub(r"\W", "_", value) for value in graph.values]
    assert len(set(plain)) == len(plain)
    assert all(re.fullmatch(r"[A-Za-z_]\w*", text) for text in plain)


def test_the_same_module_gives_the_same_graph_whatever_the_batch() -> None:
    module, inputs = build("residual")
    graphs = [run_pipeline(import_module(module, tuple(x[:n] for x in inputs))) for n in (1, 4)]
    assert print_graph(graphs[0]) == print_graph(graphs[1])
    for name, value in graphs[0].values.items():
        if value.data is not None:
            assert np.array_equal(value.data, graphs[1].constant(name))


def test_the_module_is_left_alone() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True)).double().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    import_module(module, (torch.randn(1, 1, 5, 5, dtype=torch.float64),))
    assert module.training
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in module.state_dict().items())


def test_factors_of_a_projected_rnn_are_kept() -> None:
    layer = ProjectedLSTM(5, 8, 2, 3, batch_first=True).eval()
    graph = import_module(Fn(lambda m, x: m.rnn(x)[0], rnn=layer), (torch.randn(2, 4, 5),))
    (node,) = graph.nodes
    assert node.name == "rnn"
    assert node.attrs.input_projected
    assert node.attrs.recurrent_projected
    for role, parameter in (
        ("w", layer.weight_ih), ("q_in", layer.input_projector),
        ("r", layer.weight_hh), ("q_out", layer.output_projector),
    ):  # fmt: skip
        assert np.array_equal(graph.data(node, role), parameter.detach().numpy())


def test_a_shared_first_factor_makes_a_joint_lstm() -> None:
    module, inputs = build("joint")
    joint, separate, *_ = import_module(module, inputs).nodes
    graph = import_module(module, inputs)
    assert joint.attrs.joint and set(joint.inputs) == {"x", "w", "b", "q_in", "q_out"}
    assert not separate.attrs.joint and separate.inputs["r"]
    for role, parameter in (("w", "weight_ih"), ("q_in", "input_projector"), ("q_out", "output_projector")):
        assert np.array_equal(graph.data(joint, role), module.a.get_parameter(parameter).detach().numpy())


def test_a_folded_bias_becomes_that_of_the_gates() -> None:
    layer = ProjectedLSTM(5, 8, 3, 3, joint=True, fold_bias=True, batch_first=True).eval()
    graph = import_module(Fn(lambda m, x: m.rnn(x)[0], rnn=layer), (torch.randn(2, 4, 5),))
    (node,) = graph.nodes
    assert node.attrs.joint and set(node.inputs) == {"x", "w", "b", "q_in", "q_out"}
    gates = layer.weight_ih.double() @ layer.projector_bias.double()
    np.testing.assert_allclose(graph.data(node, "b"), gates.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_a_projected_layer_is_named_like_its_unpacked_form() -> None:
    core = projected_linear(torch.randn(4, 2), torch.randn(2, 5), torch.randn(4))
    layer = ProjectedLayer(
        core, name="fc", original_class="Linear", learnables_reduction=0.1, input_size=5, output_size=4,
        input_projector_size=2, output_projector_size=None,
    )  # fmt: skip
    model = Fn(lambda m, x: m.fc(x), fc=layer)
    x = (torch.randn(2, 5),)
    packed, unpacked = (print_graph(import_module(m, x)) for m in (model, unpack_projected_layers(model)))
    assert packed == unpacked
    assert "fc.input_projector = linear" in packed


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["residual", "projected", "joint", "initial_state", "functional"])
def test_saved_programs(name: str, dynamic: bool, tmp_path: Path) -> None:
    """A .pt2 file, its batch fixed or dynamic, gives the graph of the module itself."""
    module, inputs = build(name)
    shapes = {"inputs": tuple({0: torch.export.Dim("batch")} for _ in inputs)} if dynamic else None
    torch.export.save(torch.export.export(module, inputs, dynamic_shapes=shapes), tmp_path / "model.pt2")
    graph = import_program(torch.export.load(tmp_path / "model.pt2"))
    assert relative_error(graph, module, inputs) <= TOLERANCE
    saved, direct = run_pipeline(graph), run_pipeline(import_module(module, inputs))
    assert saved.outputs == direct.outputs
    assert ops(saved) == ops(direct)
    for name_, value in direct.values.items():
        if value.data is not None:
            assert np.array_equal(saved.constant(name_), value.data)


def test_a_program_of_one_sample_is_refused() -> None:
    program = torch.export.export(nn.Linear(3, 2), (torch.randn(1, 3),))
    with pytest.raises(InputError, match=r"a fixed batch of 1 .* Allowed: a batch of 2 or more, or a dynamic one"):
        import_program(program)


def test_constant_initial_states() -> None:
    module, inputs = build("initial_state")
    (node,) = [n for n in import_module(module, inputs).nodes if n.op == "lstm"]
    assert node.attrs.initial_state
    zeros = Fn(lambda m, x: m.gru(x, torch.zeros(1, x.size(0), 4))[0], gru=nn.GRU(3, 4, batch_first=True))
    (node,) = import_module(zeros, (torch.randn(2, 5, 3),)).nodes
    assert not node.attrs.initial_state


def test_layouts_cost_no_transpose() -> None:
    """Channels-last inputs and torch's own order are both taken over by the ports."""
    conv = nn.Conv2d(3, 4, 3)
    first = run_pipeline(
        import_module(Fn(lambda m, x: m.conv(F.pad(x, (1, 1))), conv=conv), (torch.randn(2, 3, 6, 7),))
    )
    assert (ops(first), first.inputs[0].perm, first.outputs[0].perm) == (["conv2d"], (1, 2, 0), (1, 2, 0))
    last = Fn(lambda m, x: m.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), conv=conv)
    last_graph = run_pipeline(import_module(last, (torch.randn(2, 6, 7, 3),)))
    assert (ops(last_graph), last_graph.inputs[0].perm, last_graph.outputs[0].perm) == (
        ["conv2d"],
        (0, 1, 2),
        (0, 1, 2),
    )
