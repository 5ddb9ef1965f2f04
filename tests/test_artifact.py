"""Artifacts: the C on its target against the simulator, in every form of input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from projgen.artifact import Artifact
from projgen.driver import compile as compile_model
from projgen.errors import InputError, InputTypeError, MismatchError
from projgen.harness.measurement import Measurement
from projgen.quant.model import QuantizedModel
from tests.codegen.test_c import two_inputs

GOLDEN = Path(__file__).parent / "golden"
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    q = QuantizedModel.load(GOLDEN / "lstm.qmodel")
    return compile_model(q, target="host", out=tmp_path_factory.mktemp("lstm") / "out", name="lstm")


@pytest.fixture(scope="module")
def conv(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    q = QuantizedModel.load(GOLDEN / "conv.qmodel")
    return compile_model(q, target="host", out=tmp_path_factory.mktemp("conv") / "out", name="conv", optimise="ram")


def test_run_is_the_quantised_model(conv: Artifact) -> None:
    x = RNG.normal(size=(5, 1, 10, 10)).astype(np.float32)
    y = conv.run(x)
    assert isinstance(y, np.ndarray) and y.shape == (5, 5) and y.dtype == np.float32
    np.testing.assert_array_equal(y, conv.quantized(x))
    np.testing.assert_array_equal(conv.verify(x), y)
    q = conv.quantized.quantize_input(x)
    np.testing.assert_array_equal(conv.run_int(q), conv.quantized.run_int(q))


def test_sequences_of_different_lengths(lstm: Artifact) -> None:
    batches = [RNG.normal(size=(n, t, 3)).astype(np.float32) for n, t in ((1, 4), (3, 1), (1, 11), (2, 4))]
    found = lstm.verify(batches)
    assert isinstance(found, list)
    for x, y in zip(batches, found, strict=True):
        np.testing.assert_array_equal(y, lstm.quantized(x))
    single = [x[0] for x in batches]  # without the batch axis
    for x, y in zip(single, lstm.run(single), strict=True):
        np.testing.assert_array_equal(y, lstm.quantized(x[None]))
    labelled = [(x, np.zeros(len(x))) for x in batches]
    assert len(lstm.run(labelled)) == 4


def test_step_mode_gives_the_bytes_of_a_run(lstm: Artifact) -> None:
    x = RNG.integers(-128, 128, (2, 7, 3)).astype(np.int8)
    np.testing.assert_array_equal(lstm.run_int(x, mode="step"), lstm.run_int(x))


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    artifact = compile_model(QuantizedModel(two_inputs()), target="host", out=tmp_path / "out")
    a, b = (RNG.integers(-128, 128, (4, 5)).astype(np.int8) for _ in range(2))
    meant = artifact.quantized.run_int(a, b)
    for given in ((a, b), {"in0": a, "in1": b}, {"in1": b, "in0": a}):
        for y, m in zip(artifact.run_int(given), meant, strict=True):
            np.testing.assert_array_equal(y, m)
    with pytest.raises(InputError, match=r"1 inputs. Allowed: 2: in0, in1"):
        artifact.run_int(a)
    with pytest.raises(InputError, match="no input named in1"):
        artifact.run_int({"in0": a})


def test_files(lstm: Artifact, tmp_path: Path) -> None:
    padded = RNG.normal(size=(4, 9, 3)).astype(np.float32)
    lengths = np.array([9, 2, 5, 2])
    np.savez(tmp_path / "x.npz", x=padded, lengths=lengths, labels=np.zeros(4, int))
    found = lstm.run(tmp_path / "x.npz")
    for i, y in enumerate(found):  # in the file's order
        np.testing.assert_array_equal(y, lstm.quantized(padded[i : i + 1, : lengths[i]]))
    np.save(tmp_path / "x.npy", padded)
    np.testing.assert_array_equal(lstm.run(str(tmp_path / "x.npy")), lstm.quantized(padded))
    with pytest.raises(InputError, match="was not found"):
        lstm.run(tmp_path / "none.npz")
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="never loaded"):
        lstm.run(tmp_path / "pickled.npz")
    np.savez(tmp_path / "two.npz", a=padded, b=padded)
    with pytest.raises(InputError, match=r"arrays named 'a', 'b'. Allowed: one array per model input \(x\)"):
        lstm.run(tmp_path / "two.npz")
    for lengths, text in (
        ([9, 2], "one whole number per observation"),
        ([9, 2, 5, 10], "from 2 to 10"),
        ([0] * 4, "1 to 9"),
    ):
        np.savez(tmp_path / "lengths.npz", x=padded, lengths=np.array(lengths))
        with pytest.raises(InputError, match=f"'lengths' .*{text}"):
            lstm.run(tmp_path / "lengths.npz")


def test_lengths_for_a_model_without_time(conv: Artifact, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1, 10, 10), np.float32), lengths=np.array([1, 2]))
    with pytest.raises(InputError, match="no time axis"):
        conv.run(tmp_path / "x.npz")


def test_inputs_that_do_not_fit(conv: Artifact) -> None:
    with pytest.raises(InputError, match="N x 1 x 10 x 10"):
        conv.run(np.zeros((2, 1, 10, 9), np.float32))
    with pytest.raises(InputError, match="NaN"):
        conv.run(np.full((1, 1, 10, 10), np.nan, np.float32))
    with pytest.raises(InputError, match="integers of int8"):
        conv.run_int(np.full((1, 1, 10, 10), 300))
    with pytest.raises(InputTypeError, match="inputs of type int"):
        conv.run(3)
    with pytest.raises(InputError, match="the list of inputs is empty"):
        conv.run([])


def test_a_difference_is_reported_with_its_place(tmp_path: Path) -> None:
    q = QuantizedModel.load(GOLDEN / "conv.qmodel")
    artifact = compile_model(q, target="host", out=tmp_path / "out", name="conv")
    source = artifact.directory / "conv_weights.h"
    text = source.read_text()
    place = text.index("fc_bias[")
    brace = text.index("{", place) + 1
    source.write_text(f"{text[:brace]} 90000 + {text[brace:].lstrip()}")
    x = RNG.normal(size=(3, 1, 10, 10)).astype(np.float32)
    with pytest.raises(MismatchError, match=r"C on host and the simulator differ in \d+ of 15 integers.*instead of"):
        artifact.verify(x)
    assert MismatchError.exit_code == 5


def test_build_writes_what_the_compiler_decided(lstm: Artifact) -> None:
    image = lstm.build()
    assert image.elf.is_relative_to(lstm.directory / "build")
    result = Measurement.from_json((lstm.directory / "build" / "measurement.json").read_text())
    assert result.weight_bytes == lstm.manifest["weight_bytes"]
    assert result.arena_bytes == lstm.manifest["arena_bytes"]
    assert result.code_bytes > 0 and result.stack_bytes > 0
    assert [layer.name for layer in result.layers] == ["lstm", "fc", "(control)"]


def test_measure_counts_layers_and_accuracy(conv: Artifact) -> None:
    x = RNG.normal(size=(4, 1, 10, 10)).astype(np.float32)
    labels = conv.quantized(x).argmax(axis=1)
    result = conv.measure(x, labels=labels)
    assert result.accuracy == 1.0
    assert conv.measure(x, labels=(labels + 1) % 5).accuracy == 0.0
    if result.instructions is not None:
        assert sum(layer.instructions or 0 for layer in result.layers) == result.instructions
        assert all(layer.instructions for layer in result.layers)


@pytest.mark.qemu
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55", "cortex-a53"])
def test_another_target_lowers_the_same_model_again(conv: Artifact, lstm: Artifact, target: str) -> None:
    for artifact, x in ((conv, RNG.normal(size=(2, 1, 10, 10))), (lstm, RNG.normal(size=(2, 6, 3)))):
        other = Artifact.open(artifact.directory, target=target)
        assert other.target.name == other.manifest["target"] == target
        assert other.manifest["hash"] == artifact.manifest["hash"]
        assert other.manifest["options"] == artifact.manifest["options"]
        np.testing.assert_array_equal(other.verify(x.astype(np.float32)), artifact.run(x.astype(np.float32)))


def test_opening(conv: Artifact, tmp_path: Path) -> None:
    same = Artifact.open(conv.directory)
    assert same.directory == conv.directory and same.manifest == conv.manifest
    assert Artifact.open(conv.directory, target="host").directory == conv.directory
    with pytest.raises(InputError, match="is no folder"):
        Artifact.open(tmp_path / "none")
    with pytest.raises(InputError, match="no manifest"):
        Artifact.open(tmp_path)
    with pytest.raises(InputError, match="unknown target"):
        Artifact.open(conv.directory, target="cortex-m99")


def test_the_manifest_is_complete(conv: Artifact) -> None:
    m = conv.manifest
    assert m["inputs"][0] | {"offset": 0} == {
        "name": "x",
        "shape": [1, 10, 10],
        "layout": "HWC",
        "perm": [1, 2, 0],
        "size": 100,
        "element": "int8",
        "over_time": False,
        "scale": pytest.approx(0.02866, rel=1e-3),
        "zero_point": 10,
        "offset": 0,
    }
    assert m["interface"] == {
        "kind": "run",
        "element": "int8",
        "step": False,
        "step_absent_reason": "the model has no time axis",
        "per_step_output": False,
    }
    assert m["weight_bytes"] == sum(layer["weight_bytes"] for layer in m["layers"])
    assert m["macs"] == sum(layer["macs"] for layer in m["layers"])
    assert m["arena_bytes"] == max(b["offset"] + b["bytes"] for b in m["arena_map"] if b["role"] != "input")
    assert m["arena_lower_bound"] <= m["arena_bytes"] <= m["arena_with_input_bytes"]
    source = (conv.directory / "conv.c").read_text()
    assert all(f"void {layer['function']}(" in source for layer in m["layers"])
    header = (conv.directory / "conv.h").read_text()
    for macro, key in (
        ("ARENA_BYTES", "arena_bytes"),
        ("INPUT_OFFSET", "input_offset"),
        ("STATE_BYTES", "state_bytes"),
    ):
        assert f"#define CONV_{macro} {m[key]}\n" in header
    assert json.loads((conv.directory / "conv.json").read_text()) == m


def test_equal_constants_are_stored_once(tmp_path: Path) -> None:
    """A network whose layers share their weights: smaller by these, the same bytes out, every user named."""
    torch.manual_seed(0)
    first, second = nn.Linear(24, 24), nn.Linear(24, 24)
    apart = nn.Sequential(first, nn.ReLU(), second)
    x = torch.randn(64, 24)
    alone = compile_model(apart, calibration=x, target="host", out=tmp_path / "apart", name="net")
    second.weight = first.weight
    tied = compile_model(apart, calibration=x, target="host", out=tmp_path / "tied", name="net")
    assert tied.manifest["weight_bytes"] == alone.manifest["weight_bytes"] - 24 * 24
    assert [layer["weight_bytes"] for layer in tied.manifest["layers"]] == [24 * 24 + 2 * 96, 2 * 96]
    text = (tied.directory / "net_weights.h").read_text()
    assert "/* 0: weights [outputs][inputs] and 2: weights [outputs][inputs]; 576 values" in text
    assert text.count("static const int8_t") == 1
    tied.verify(x[:8].numpy())
