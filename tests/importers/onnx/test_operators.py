"""Hand-made models, one per operator and form, against onnxruntime, with a batch the file does not state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from projgen.errors import InputError, UnsupportedError
from projgen.importers.onnx import load_onnx
from projgen.importers.onnx.ops import OPERATORS, SUPPORTED
from tests.importers.onnx.building import arr, ints, model, sample
from tests.importers.onnx.exporting import relative_error, run_onnx, run_torch


@dataclass(frozen=True, slots=True)
class Case:
    """One node. shape: of x without the batch. layer: the submodule it must become."""

    op: str
    shape: tuple[int, ...]
    constants: tuple[Any, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    layer: type[nn.Module] | None = None
    opset: int = 17
    outputs: tuple[str, ...] = ("y",)
    inputs: tuple[str, ...] | None = None

    def proto(self, batch: int | str) -> onnx.ModelProto:
        names = {f"c{index}": array for index, array in enumerate(self.constants) if array is not None}
        order = self.inputs or ("x", *(name if name in names else "" for name in _names(len(self.constants))))
        node = helper.make_node(self.op, order, self.outputs, name=f"the/{self.op.lower()}", **self.attrs)
        shown = [name for name in self.outputs if name]
        return model([node], [(batch, *self.shape)], names, shown, self.opset)


def _names(count: int) -> list[str]:
    return [f"c{index}" for index in range(count)]


SAME = {"auto_pad": "SAME_UPPER"}
CASES: dict[str, Case] = {
    "conv2d": Case("Conv", (3, 9, 8), (arr(4, 3, 3, 2), arr(4)), {"strides": [2, 1]}, nn.Conv2d),
    "conv2d_no_bias": Case("Conv", (3, 9, 8), (arr(4, 3, 3, 3),), {"pads": [1, 1, 1, 1]}, nn.Conv2d),
    "conv2d_uneven_pads": Case("Conv", (3, 9, 8), (arr(4, 3, 3, 2), arr(4)), {"pads": [0, 1, 2, 0]}, nn.Conv2d),
    "conv2d_same_upper": Case("Conv", (2, 9, 8), (arr(4, 2, 4, 3),), SAME | {"strides": [2, 3]}, nn.Conv2d),
    "conv2d_same_lower": Case("Conv", (2, 9, 8), (arr(4, 2, 4, 2),), {"auto_pad": "SAME_LOWER"}, nn.Conv2d),
    "conv2d_valid": Case("Conv", (2, 9, 8), (arr(4, 2, 4, 3),), {"auto_pad": "VALID"}, nn.Conv2d),
    "conv2d_dilated_groups": Case(
        "Conv",
        (4, 11, 10),
        (arr(6, 2, 3, 3), arr(6)),
        {"dilations": [2, 3], "group": 2, "pads": [2, 3, 2, 3]},
        nn.Conv2d,
    ),
    "conv2d_depthwise": Case("Conv", (4, 6, 5), (arr(8, 1, 3, 3), arr(8)), {"group": 4}, nn.Conv2d),
    "conv1d": Case("Conv", (3, 17), (arr(5, 3, 4), arr(5)), {"strides": [3], "pads": [2, 2]}, nn.Conv1d),
    "conv1d_uneven": Case("Conv", (3, 17), (arr(5, 3, 4), arr(5)), {"dilations": [2], "pads": [6, 0]}, nn.Conv1d),
    "transposed_2d": Case(
        "ConvTranspose",
        (3, 5, 4),
        (arr(3, 6, 4, 3), arr(6)),
        {"strides": [2, 3], "pads": [1, 0, 1, 0], "output_padding": [1, 2]},
        nn.ConvTranspose2d,
    ),
    "transposed_groups": Case(
        "ConvTranspose", (4, 5, 4), (arr(4, 3, 3, 3),), {"group": 2, "dilations": [2, 1]}, nn.ConvTranspose2d
    ),
    "transposed_cut_at_the_end": Case(
        "ConvTranspose",
        (2, 5, 4),
        (arr(2, 3, 4, 4), arr(3)),
        {"strides": [2, 2], "pads": [0, 1, 3, 1]},
        nn.ConvTranspose2d,
    ),
    "transposed_same_upper": Case("ConvTranspose", (2, 5, 4), (arr(2, 3, 4, 3),), SAME | {"strides": [2, 1]}),
    "transposed_same_lower": Case(
        "ConvTranspose", (2, 5, 4), (arr(2, 3, 4, 3),), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}
    ),
    "transposed_1d": Case(
        "ConvTranspose", (3, 7), (arr(3, 5, 5), arr(5)), {"strides": [3], "pads": [2, 1]}, nn.ConvTranspose1d
    ),
    "gemm": Case("Gemm", (7,), (arr(4, 7), arr(4)), {"transB": 1}, nn.Linear),
    "gemm_scaled": Case("Gemm", (7,), (arr(7, 4), arr(1, 4)), {"alpha": 0.5, "beta": 2.0}, nn.Linear),
    "gemm_scalar_bias": Case("Gemm", (7,), (arr(7, 4), arr(1)), {}, nn.Linear),
    "gemm_no_bias": Case("Gemm", (7,), (arr(7, 4),), {}, nn.Linear),
    "matmul": Case("MatMul", (5, 7), (arr(7, 4),), {}, nn.Linear),
    "batch_norm_2d": Case(
        "BatchNormalization", (3, 4, 5), (arr(3), arr(3), arr(3), abs(arr(3)) + 0.1), {"epsilon": 1e-3}, nn.BatchNorm2d
    ),
    "batch_norm_1d": Case(
        "BatchNormalization", (3, 6), (arr(3), arr(3), arr(3), abs(arr(3)) + 0.1), {}, nn.BatchNorm1d
    ),
    "batch_norm_0d": Case("BatchNormalization", (3,), (arr(3), arr(3), arr(3), abs(arr(3)) + 0.1), {}, nn.BatchNorm1d),
    "relu": Case("Relu", (3, 4), (), {}, nn.ReLU),
    "relu6": Case("Clip", (3, 4), (np.float32(0), np.float32(6)), {}, nn.ReLU6),
    "relu6_opset6": Case("Clip", (3, 4), (), {"min": 0.0, "max": 6.0}, nn.ReLU6, opset=6),
    "clip_relu": Case("Clip", (3, 4), (np.float32(0),), {}, nn.ReLU),
    "clip": Case("Clip", (3, 4), (np.float32(-0.3), np.float32(0.4))),
    "clip_max": Case("Clip", (3, 4), (None, np.float32(0.4))),
    "clip_nothing": Case("Clip", (3, 4)),
    "sigmoid": Case("Sigmoid", (3, 4), (), {}, nn.Sigmoid),
    "tanh": Case("Tanh", (3, 4), (), {}, nn.Tanh),
    "softmax": Case("Softmax", (3, 4), (), {}, nn.Softmax),
    "softmax_axis": Case("Softmax", (3, 4, 2), (), {"axis": 1}, nn.Softmax),
    "softmax_opset11": Case("Softmax", (6,), (), {"axis": 1}, nn.Softmax, opset=11),
    "add_vector": Case("Add", (3, 4), (arr(4),)),
    "add_scalar": Case("Add", (3, 4), (np.float32(0.25),)),
    "add_per_channel": Case("Add", (3, 4, 2), (arr(1, 3, 1, 1),)),
    "sub_constant": Case("Sub", (3, 4), (arr(3, 1),)),
    "sub_from_constant": Case("Sub", (3, 4), (arr(3, 1),), inputs=("c0", "x")),
    "mul_constant": Case("Mul", (3, 4), (arr(3, 1),)),
    "div_constant": Case("Div", (3, 4), (abs(arr(3, 1)) + 0.5,)),
    "max_pool": Case("MaxPool", (3, 9, 8), (), {"kernel_shape": [3, 2], "strides": [2, 2]}, nn.MaxPool2d),
    "max_pool_uneven": Case("MaxPool", (3, 9, 8), (), {"kernel_shape": [3, 2], "pads": [0, 1, 2, 0]}, nn.MaxPool2d),
    "max_pool_ceil": Case(
        "MaxPool", (3, 9, 8), (), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, nn.MaxPool2d
    ),
    "max_pool_same": Case("MaxPool", (3, 9, 8), (), SAME | {"kernel_shape": [2, 2], "strides": [2, 2]}, nn.MaxPool2d),
    "max_pool_dilated": Case("MaxPool", (3, 9, 8), (), {"kernel_shape": [2, 2], "dilations": [2, 3]}, nn.MaxPool2d),
    "max_pool_1d": Case("MaxPool", (3, 10), (), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, nn.MaxPool1d),
    "average_pool": Case("AveragePool", (3, 9, 8), (), {"kernel_shape": [3, 2], "strides": [2, 2]}, nn.AvgPool2d),
    "average_pool_padded": Case("AveragePool", (3, 9, 8), (), {"kernel_shape": [3, 3], "pads": [1] * 4}, nn.AvgPool2d),
    "average_pool_counted": Case(
        "AveragePool",
        (3, 9, 8),
        (),
        {"kernel_shape": [3, 3], "pads": [1, 0, 2, 1], "count_include_pad": 1},
        nn.AvgPool2d,
    ),
    "average_pool_ceil": Case(
        "AveragePool", (3, 9, 8), (), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, nn.AvgPool2d
    ),
    "average_pool_1d": Case("AveragePool", (3, 10), (), {"kernel_shape": [4], "strides": [3]}, nn.AvgPool1d),
    "global_average": Case("GlobalAveragePool", (3, 5, 4), (), {}, nn.AdaptiveAvgPool2d),
    "global_average_1d": Case("GlobalAveragePool", (3, 5), (), {}, nn.AdaptiveAvgPool1d),
    "global_max": Case("GlobalMaxPool", (3, 5, 4), (), {}, nn.AdaptiveMaxPool2d),
    "global_max_1d": Case("GlobalMaxPool", (3, 5), (), {}, nn.AdaptiveMaxPool1d),
    "mean_space": Case("ReduceMean", (3, 5, 4), (), {"axes": [2, 3], "keepdims": 0}),
    "mean_time": Case("ReduceMean", (6, 4), (), {"axes": [-2], "keepdims": 1}),
    "mean_opset18": Case("ReduceMean", (6, 4), (ints(1),), {"keepdims": 0}, opset=18),
    "max_time": Case("ReduceMax", (6, 4), (), {"axes": [1], "keepdims": 0}),
    "pad": Case("Pad", (3, 5, 4), (ints(0, 0, 1, 0, 0, 0, 0, 2),)),
    "pad_value": Case("Pad", (3, 5), (ints(0, 1, 2, 0, 0, 3), np.float32(0.5))),
    "pad_opset10": Case("Pad", (3, 5), (), {"pads": [0, 0, 2, 0, 0, 3], "value": -1.0}, opset=10),
    "pad_axes": Case("Pad", (3, 5), (ints(1, 2), None, ints(-1)), opset=18),
    "gelu": Case("Gelu", (3, 4), (), {}, nn.GELU, opset=20),
    "gelu_tanh": Case("Gelu", (5,), (), {"approximate": "tanh"}, nn.GELU, opset=20),
    "layer_norm": Case("LayerNormalization", (5, 7), (arr(7), arr(7)), {"epsilon": 1e-3}, nn.LayerNorm),
    "layer_norm_no_bias": Case("LayerNormalization", (7,), (arr(7),), {"axis": 1}, nn.LayerNorm),
    "slice": Case("Slice", (9, 5), (ints(1, 1), ints(8, 100), ints(1, 2), ints(2, 1))),
    "slice_last": Case("Slice", (9, 5), (ints(-1), ints(2**63 - 1), ints(1))),
    "slice_opset9": Case("Slice", (9, 5), (), {"starts": [2], "ends": [-1], "axes": [1]}, opset=9),
    "gather_last": Case("Gather", (9, 5), (np.array(-1),), {"axis": 1}),
    "gather_first_kept": Case("Gather", (9, 5), (ints(0),), {"axis": 1}),
    "gather_run": Case("Gather", (9, 5), (ints(2, 3, 4),), {"axis": 1}),
    "gather_last_two": Case("Gather", (9, 5), (ints(-2, -1),), {"axis": 2}),
    "squeeze": Case("Squeeze", (1, 5), (ints(1),)),
    "squeeze_opset11": Case("Squeeze", (5, 1), (), {"axes": [-1]}, opset=11),
    "unsqueeze": Case("Unsqueeze", (4, 5), (ints(1, -1),)),
    "unsqueeze_opset11": Case("Unsqueeze", (4, 5), (), {"axes": [1]}, opset=11),
    "flatten": Case("Flatten", (3, 4, 2)),
    "flatten_axis2": Case("Flatten", (3, 4, 2), (), {"axis": 2}),
    "flatten_axis0": Case("Flatten", (3, 4), (), {"axis": 0}),
    "reshape_copy": Case("Reshape", (3, 4, 2), (ints(0, -1),)),
    "reshape_split": Case("Reshape", (12, 2), (ints(0, 3, 4, -1),)),
    "reshape_merge_batch": Case("Reshape", (3, 4), (ints(-1, 4),)),
    "reshape_across": Case("Reshape", (3, 4), (ints(0, 2, 6),)),
    "transpose": Case("Transpose", (3, 4, 2), (), {"perm": [0, 2, 3, 1]}),
    "transpose_batch": Case("Transpose", (3, 4), (), {"perm": [1, 0, 2]}),
    "identity": Case("Identity", (3, 4)),
    "dropout": Case("Dropout", (3, 4), (np.float32(0.5), np.array(False))),
    "cast": Case("Cast", (3, 4), (), {"to": TensorProto.FLOAT}),
    "cast_like": Case("CastLike", (3, 4), (np.float32(1),)),
    "expand_nothing": Case("Expand", (3, 4), (ints(1, 1, 4),)),
}


@pytest.mark.parametrize("name", CASES)
def test_operator_agrees_with_onnxruntime(name: str) -> None:
    case = CASES[name]
    proto = case.proto("batch")
    loaded = load_onnx(proto)
    x = sample(case.shape, 3)
    assert relative_error(run_torch(loaded, [x]), run_onnx(proto, [x])) <= 1e-5
    if case.layer is not None:
        assert case.layer in {type(layer) for layer in loaded.modules()}
        assert type(loaded.get_submodule(f"the_{case.op.lower()}")) is case.layer
    torch.export.export(loaded, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_operator_with_a_baked_batch_takes_any(name: str, batch: int) -> None:
    case = CASES[name]
    loaded = load_onnx(case.proto(batch))
    x = sample(case.shape, 5)
    assert relative_error(run_torch(loaded, [x]), run_onnx(case.proto("batch"), [x])) <= 1e-5


def test_every_operator_of_the_table_has_a_case_or_its_own_test() -> None:
    elsewhere = {"LSTM", "GRU", "Concat", "Shape", "ConstantOfShape", "Split"}
    assert {case.op for case in CASES.values()} | elsewhere == set(OPERATORS)


def recurrent(kind: str, directions: int, steps: int | str, batch: int | str, **attrs: Any) -> onnx.ModelProto:
    """D=3, H=4, zero initial states of the stated batch where it is a number; outputs Y and Y_h."""
    gates = {"LSTM": 4, "GRU": 3}[kind]
    rng = np.random.default_rng(3)
    shapes = {"W": (gates * 4, 3), "R": (gates * 4, 4), "B": (gates * 8,)}
    constants = {n: (rng.standard_normal((directions, *s)) * 0.5).astype(np.float32) for n, s in shapes.items()}
    inputs = ["x", "W", "R", "B"]
    if isinstance(batch, int):
        constants["zero"] = np.zeros((directions, batch, 4), np.float32)
        inputs += ["", "zero", "zero"] if kind == "LSTM" else ["", "zero"]
    if directions == 2:
        attrs["direction"] = "bidirectional"
    node = helper.make_node(kind, inputs, ["y", "h"], name=kind.lower(), hidden_size=4, **attrs)
    return model([node], [(steps, batch, 3)], constants, ("y", "h"))


@pytest.mark.parametrize("baked", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_operator_agrees_with_onnxruntime(kind: str, directions: int, baked: bool) -> None:
    attrs = {"linear_before_reset": 1} if kind == "GRU" else {}
    loaded = load_onnx(recurrent(kind, directions, "steps", 2 if baked else "batch", **attrs))
    layer = loaded.get_submodule(kind.lower())
    assert type(layer) is getattr(nn, kind) and layer.bidirectional == (directions == 2)
    for steps, batch in ((7, 5), (1, 3)):
        x = torch.randn(steps, batch, 3, generator=torch.Generator().manual_seed(1))
        wanted = run_onnx(recurrent(kind, directions, "steps", "batch", **attrs), [x])
        assert relative_error(run_torch(loaded, [x]), wanted) <= 1e-5


def test_recurrent_state_as_an_input() -> None:
    constants = {"W": arr(1, 16, 3), "R": arr(1, 16, 4)}
    node = helper.make_node("LSTM", ["x", "W", "R", "", "", "x2", "x3"], ["y", "h", "c"], hidden_size=4)
    proto = model([node], [("t", "n", 3), (1, "n", 4), (1, "n", 4)], constants, ("y", "h", "c"))
    inputs = [torch.randn(6, 2, 3), torch.randn(1, 2, 4), torch.randn(1, 2, 4)]
    assert relative_error(run_torch(load_onnx(proto), inputs), run_onnx(proto, inputs)) <= 1e-5


def test_matmul_and_add_become_one_linear_layer() -> None:
    constants = {"w": arr(7, 4), "b": arr(4)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="head"),
        helper.make_node("Add", ["b", "z"], ["y"], name="bias"),
    ]
    proto = model(nodes, [("n", 5, 7)], constants)
    loaded = load_onnx(proto)
    x = torch.randn(2, 5, 7)
    assert relative_error(run_torch(loaded, [x]), run_onnx(proto, [x])) <= 1e-5
    assert torch.equal(loaded.head.bias.detach(), torch.from_numpy(constants["b"]))
    assert [type(layer) for layer in loaded.children()] == [nn.Linear]
    nodes.append(helper.make_node("Mul", ["y", "z"], ["out"], name="both"))  # now z is read twice: no bias of it
    proto = model(nodes, [("n", 5, 7)], constants, ("out",))
    loaded = load_onnx(proto)
    assert loaded.head.bias is None
    assert relative_error(run_torch(loaded, [x]), run_onnx(proto, [x])) <= 1e-5


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul"])
def test_two_tensors_broadcast(operator: str) -> None:
    proto = model([helper.make_node(operator, ["x", "x2"], ["y"])], [("n", 3, 4), ("n", 1, 4)])
    inputs = [torch.randn(2, 3, 4), torch.randn(2, 1, 4)]
    assert relative_error(run_torch(load_onnx(proto), inputs), run_onnx(proto, inputs)) <= 1e-5


def test_concat_of_tensors() -> None:
    proto = model([helper.make_node("Concat", ["x", "x2", "x"], ["y"], axis=-2)], [("n", 3, 4), ("n", 1, 4)])
    inputs = [torch.randn(2, 3, 4), torch.randn(2, 1, 4)]
    assert relative_error(run_torch(load_onnx(proto), inputs), run_onnx(proto, inputs)) == 0.0


def test_shape_arithmetic_of_dynamic_exports_folds() -> None:
    """view(x.size(0), x.size(1) * 2, -1) and a zero tensor of the batch's size, spelled out."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "i0"], ["n"], axis=0),
        helper.make_node("Gather", ["s", "i1"], ["c"], axis=0),
        helper.make_node("Mul", ["c", "two"], ["c2"]),
        helper.make_node("Unsqueeze", ["n", "axis0"], ["n1"]),
        helper.make_node("Unsqueeze", ["c2", "axis0"], ["c1"]),
        helper.make_node("Concat", ["n1", "c1", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Shape", ["r"], ["rs"]),
        helper.make_node("ConstantOfShape", ["rs"], ["zeros"], value=helper.make_tensor("v", 1, [1], [0.5])),
        helper.make_node("Add", ["r", "zeros"], ["y"]),
    ]
    constants = {"i0": np.array(0), "i1": np.array(1), "two": np.array(2), "axis0": ints(0), "minus": ints(-1)}
    proto = model(nodes, [("n", 3, 4)], constants)
    x = torch.randn(5, 3, 4)
    loaded = load_onnx(proto)
    assert relative_error(run_torch(loaded, [x]), run_onnx(proto, [x])) <= 1e-6
    assert "(size, -1, 2)" in loaded.code and loaded.code.count("size(") == 1  # no arithmetic is left


def test_one_layer_used_twice_stays_one_layer() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], name="shared"),
        helper.make_node("Gemm", ["a", "w", "b"], ["y"], name="shared_again"),
    ]
    loaded = load_onnx(model(nodes, [("n", 4)], {"w": arr(4, 4), "b": arr(4)}))
    assert [name for name, layer in loaded.named_modules() if isinstance(layer, nn.Linear)] == ["shared"]


def test_layers_of_one_initialiser_share_their_parameter() -> None:
    """In different layers, and with different biases; a transposed use of the same matrix is a parameter of its own."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], name="first", transB=1),
        helper.make_node("Gemm", ["a", "w", "c"], ["d"], name="second", transB=1),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="turned"),
    ]
    proto = model(nodes, [("n", 4)], {"w": arr(4, 4), "b": arr(4), "c": arr(4)})
    x = torch.randn(3, 4)
    loaded = load_onnx(proto)
    assert relative_error(run_torch(loaded, [x]), run_onnx(proto, [x])) <= 1e-6
    assert loaded.second.weight is loaded.first.weight and loaded.second.bias is not loaded.first.bias
    assert loaded.turned.weight is not loaded.first.weight
    kernels = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="narrow"),
        helper.make_node("Conv", ["x", "w"], ["b"], name="wide", dilations=[2], pads=[2, 2]),
        helper.make_node("GlobalAveragePool", ["a"], ["c"]),
        helper.make_node("GlobalAveragePool", ["b"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    convolutions = load_onnx(model(kernels, [("n", 2, 8)], {"w": arr(5, 2, 3)}))
    assert convolutions.wide.weight is convolutions.narrow.weight


def test_a_model_local_function_is_read_in_place() -> None:
    function = helper.make_function(
        "mine",
        "ScaledRelu",
        ["a", "w"],
        ["out"],
        [
            helper.make_node("Mul", ["a", "w"], ["m"]),
            helper.make_node("Relu", ["m"], ["out"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    proto = model([helper.make_node("ScaledRelu", ["x", "w"], ["y"], domain="mine")], [("n", 4)], {"w": arr(4)})
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    proto.functions.append(function)
    x = torch.randn(3, 4)
    assert relative_error(run_torch(load_onnx(proto), [x]), run_onnx(proto, [x])) <= 1e-6


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "unknown": (
        model([helper.make_node("Erf", ["x"], ["y"], name="/encoder/act/Erf")], [("n", 4)]),
        "ONNX operator Erf (node '/encoder/act/Erf' in module 'encoder.act') is not supported",
    ),
    "log_softmax": (
        model([helper.make_node("LogSoftmax", ["x"], ["y"], name="out")], [("n", 4)]),
        "ONNX operator LogSoftmax (node 'out') is not supported",
    ),
    "foreign_domain": (
        model([helper.make_node("Gelu", ["x"], ["y"], name="g", domain="com.microsoft")], [("n", 4)]),
        "ONNX operator com.microsoft::Gelu (node 'g') is not supported",
    ),
    "gru_reset_before": (recurrent("GRU", 1, "t", "n"), "ONNX operator GRU (node 'gru'): with linear_before_reset=0"),
    "lstm_clip": (recurrent("LSTM", 1, "t", "n", clip=1.0), "with clipping of its gates"),
    "lstm_activations": (
        recurrent("LSTM", 1, "t", "n", activations=["Sigmoid", "Relu", "Tanh"]),
        "with activations Sigmoid, Relu, Tanh",
    ),
    "lstm_coupled": (recurrent("LSTM", 1, "t", "n", input_forget=1), "with coupled input and forget gates"),
    "lstm_reverse": (recurrent("LSTM", 1, "t", "n", direction="reverse"), "in direction 'reverse' alone"),
    "conv3d": (
        model([helper.make_node("Conv", ["x", "w"], ["y"], name="c")], [("n", 2, 5, 5, 5)], {"w": arr(2, 2, 3, 3, 3)}),
        "ONNX operator Conv (node 'c'): over 3 spatial axes",
    ),
    "weights_from_data": (
        model([helper.make_node("Conv", ["x", "x2"], ["y"], name="c")], [("n", 2, 5), (3, 2, 2)]),
        "ONNX operator Conv (node 'c'): its weights must be constant",
    ),
    "constant_per_batch": (
        model([helper.make_node("Add", ["x", "b"], ["y"], name="a")], [(2, 3)], {"b": arr(2, 3)}),
        "ONNX operator Add (node 'a'): its constant operand differs along an axis whose length is open",
    ),
    "squeezed_batch": (
        model([helper.make_node("Squeeze", ["x", "i"], ["y"], name="s")], [(1, 3)], {"i": ints(0)}),
        "ONNX operator Squeeze (node 's'): it removes an axis whose length is open, such as the batch",
    ),
    "reflect": (
        model(
            [helper.make_node("Pad", ["x", "p"], ["y"], name="p", mode="reflect")], [("n", 5)], {"p": ints(0, 1, 0, 1)}
        ),
        "ONNX operator Pad (node 'p'): in mode 'reflect'",
    ),
    "embedding": (
        model([helper.make_node("Gather", ["x", "i"], ["y"], name="g", axis=1)], [("n", 5)], {"i": ints(3, 1)}),
        "ONNX operator Gather (node 'g'): its indices are no run of neighbours",
    ),
    "backwards": (
        model(
            [helper.make_node("Slice", ["x", "a", "b", "c", "d"], ["y"], name="s")],
            [("n", 5)],
            {"a": ints(-1), "b": ints(-100), "c": ints(1), "d": ints(-1)},
        ),
        "ONNX operator Slice (node 's'): with step -1",
    ),
    "division_by_data": (
        model([helper.make_node("Div", ["x", "x2"], ["y"], name="d")], [("n", 5), ("n", 5)]),
        "ONNX operator Div (node 'd'): division by a tensor of the data",
    ),
    "training_norm": (
        model(
            [helper.make_node("BatchNormalization", ["x", *"abcd"], ["y", "m", "v"], name="bn", training_mode=1)],
            [("n", 3)],
            {name: np.ones(3, np.float32) for name in "abcd"},
        ),
        "ONNX operator BatchNormalization (node 'bn'): in training mode",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_by_name(name: str) -> None:
    proto, reason = REFUSED[name]
    with pytest.raises(UnsupportedError) as caught:
        load_onnx(proto)
    assert reason in str(caught.value)
    for operator in ("Conv", "LSTM", "projgen::ProjectedGRU", *SUPPORTED):
        assert operator in caught.value.allowed


def test_a_layer_of_the_wrong_width_is_malformed() -> None:
    proto = model([helper.make_node("Gemm", ["x", "w"], ["y"], name="fc")], [("n", 5)], {"w": arr(4, 3)})
    with pytest.raises(InputError, match=r"Gemm \(node 'fc'\) is malformed: its input has 5 features, its weights 4"):
        load_onnx(proto)
