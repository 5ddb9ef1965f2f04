"""QuantizedModel and projgen.quantize: running, saving, hashing, accuracy on digits, errors."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import projgen
from projgen.errors import InputError, InputTypeError, UnsupportedError
from projgen.ir.attrs import Add, Conv2d, Linear, Reshape, Softmax
from projgen.ir.graph import Graph, Port, Value
from projgen.ir.types import DType, Quant, TensorType
from projgen.quant.boundary import dequantise_output, quantise_input
from projgen.quant.calibrate import calibrate
from projgen.quant.model import QuantizedModel
from projgen.quant.quantise import quantise
from projgen.quant.store import from_bytes, to_bytes
from tests.quant.build import Builder, normal


def float_graph() -> Graph:
    net = Builder(x=(4, 5, 3), side=(6,))
    net.add("conv2d", "c", Conv2d(padding=(1, 1, 0, 2), activation="relu"), x="x", w=normal(2, 3, 3, 3))
    net.add("reshape", "f", Reshape((40,)), x="c")
    net.add("linear", "l", Linear(), x="f", w=normal(6, 40, seed=1), b=normal(6, seed=2))
    net.add("add", "s", Add(), a="l", b="side")
    net.add("softmax", "y", Softmax(), x="s")
    image, side = net.ports
    return net.graph("s", "y", inputs=(Port(image.value, "image", (1, 2, 0)), side))


def inputs(n: int = 30, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return normal(n, 3, 4, 5, seed=seed), normal(n, 6, seed=seed + 1)


@pytest.fixture(scope="module")
def model() -> QuantizedModel:
    graph = float_graph()
    return QuantizedModel(quantise(graph, calibrate(graph, [inputs()])))


def test_inputs_in_every_form(model: QuantizedModel) -> None:
    image, side = inputs(5)
    first = model(image, side)
    assert isinstance(first, tuple)
    assert [y.shape for y in first] == [(5, 6), (5, 6)]
    assert all(y.dtype == np.float32 for y in first)
    for again in (
        model((image, side)),
        model({"side": side, "image": image}),
        model(torch.tensor(image), torch.tensor(side, requires_grad=True)),
        model.dequantize_output(model.run_int(*model.quantize_input(image, side))),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_sample_does_not_depend_on_its_batch(model: QuantizedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model.run_int(*model.quantize_input(*inputs(9)))
    monkeypatch.setattr("projgen.quant.model._CHUNK_ELEMENTS", 130)
    parts = model.run_int(*model.quantize_input(*inputs(9)))
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert whole[0].dtype == np.int8


def test_errors_name_the_input(model: QuantizedModel) -> None:
    image, side = inputs(2)
    for given, error, message in (
        ((image,), InputError, "1 inputs were given. Allowed: 2: image, side."),
        ((image[:, :2], side), InputError, "input 'image' has shape (2, 2, 4, 5). Allowed: N x 3 x 4 x 5."),
        ((image * np.nan, side), InputError, "input 'image' holds NaN"),
        ((np.array([["a"]]), side), InputTypeError, "input 'image' holds <U1"),
        (({"image": image, "other": side},), InputError, "inputs named image, other. Allowed: image, side."),
        ((image[:1], side), InputError, "the inputs have batches of [1, 2]"),
    ):
        with pytest.raises(error) as caught:
            model(*given)
        assert message in str(caught.value)
    with pytest.raises(InputError, match=r"input 'image' holds 300\.\.300"):
        model.run_int(np.full((1, 3, 4, 5), 300), np.zeros((1, 6), np.int8))
    with pytest.raises(InputError, match="input 'image' holds float32"):
        model.run_int(image, side)


def test_saved_and_loaded_it_is_the_same(model: QuantizedModel, tmp_path: Path) -> None:
    first, second = tmp_path / "a.qmodel", tmp_path / "b.qmodel"
    model.save(first)
    loaded = QuantizedModel.load(first)
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert loaded.digest() == model.digest()
    assert all(np.array_equal(a, b) for a, b in zip(model(*inputs(7)), loaded(*inputs(7)), strict=True))
    assert loaded.graph.nodes == model.graph.nodes
    assert {n: v.type for n, v in loaded.graph.values.items()} == {n: v.type for n, v in model.graph.values.items()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.qmodel", "b.qmodel"]
    with zipfile.ZipFile(first) as archive:
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.namelist()[0] == "graph.json"


def test_quantising_twice_gives_the_same_bytes() -> None:
    graph = float_graph()
    assert to_bytes(quantise(graph, calibrate(graph, [inputs()]))) == to_bytes(
        quantise(float_graph(), calibrate(float_graph(), [inputs()]))
    )


def renamed(graph: Graph) -> Graph:
    """The same graph under other names, its constants in another order."""
    new = {name: f"z{len(name)}_{i}" for i, name in enumerate(reversed(list(graph.values)))}
    from dataclasses import replace

    nodes = [
        replace(
            n,
            name=f"other_{i}",
            source="elsewhere",
            output=new[n.output],
            inputs={r: new[v] for r, v in n.inputs.items()},
        )
        for i, n in enumerate(graph.nodes)
    ]
    ports = [tuple(Port(new[p.value], p.name + "_", p.perm) for p in side) for side in (graph.inputs, graph.outputs)]
    values = {new[v.name]: Value(new[v.name], v.type, v.data) for v in reversed(list(graph.values.values()))}
    return Graph("renamed", graph.stage, *ports, tuple(nodes), values)


def test_the_hash_is_of_the_meaning_alone(model: QuantizedModel) -> None:
    from dataclasses import replace

    assert QuantizedModel(renamed(model.graph)).digest() == model.digest()
    node = model.graph.nodes[2]
    changed = model.graph.data(node, "w").copy()
    changed[0, 0] += 1
    value = model.graph.arg(node, "w")
    other = model.graph.with_(values=[Value(value.name, value.type, changed)])
    assert QuantizedModel(other).digest() != model.digest()
    t = model.graph.type("s")
    assert t.quant is not None
    moved = model.graph.with_(values=[Value("s", replace(t, quant=Quant(t.quant.scale, t.quant.zero_point + 1)))])
    assert QuantizedModel(moved).digest() != model.digest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[: len(b) // 2], "is damaged or no quantised model"),
        (lambda b: b[:5], "is damaged or no quantised model"),
        (lambda b: b.replace(b'"op": "softmax"', b'"op": "sofimax"'), "unknown operator 'sofimax'"),
        (lambda b: b.replace(b'"version": 1', b'"version": 9'), "version 9"),
        (lambda b: b.replace(b'"is": "Softmax"', b'"is": "Saftmax"'), "is damaged or no quantised model"),
        (lambda b: b.replace(b'"int8"', b'"int9"'), "is damaged or no quantised model"),
    ],
)
def test_damaged_files(model: QuantizedModel, tmp_path: Path, damage: object, message: str) -> None:
    path = tmp_path / "m.qmodel"
    data = to_bytes(model.graph)
    path.write_bytes(rewritten(data, damage))
    with pytest.raises(InputError) as caught:
        QuantizedModel.load(path)
    assert message in str(caught.value)


def rewritten(data: bytes, damage: object) -> bytes:
    """The archive with its graph.json damaged; a damage that leaves graph.json alone applies to the whole file."""
    import io

    assert callable(damage)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    changed = damage(members["graph.json"])
    if len(changed) < len(members["graph.json"]) // 2 + 1:
        return damage(data)
    assert changed != members["graph.json"]
    members["graph.json"] = changed
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_missing_file_and_a_missing_folder(model: QuantizedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.qmodel can't be read: No such file"):
        QuantizedModel.load(tmp_path / "nothing.qmodel")
    with pytest.raises(InputError, match=r"can't be written: No such file or directory"):
        model.save(tmp_path / "no" / "m.qmodel")


def test_a_saved_model_that_could_overflow_is_refused(model: QuantizedModel, tmp_path: Path) -> None:
    value = model.graph.arg(model.graph.nodes[2], "b")
    bias = np.full_like(model.graph.constant(value.name), 2**31 - 1)
    QuantizedModel(model.graph.with_(values=[Value(value.name, value.type, bias)])).save(tmp_path / "m")
    with pytest.raises(UnsupportedError, match="the int32 accumulator of output"):
        QuantizedModel.load(tmp_path / "m")


def test_the_file_needs_no_pickle(model: QuantizedModel) -> None:
    assert from_bytes(to_bytes(model.graph))[0].name == model.graph.name
    assert b"pickle" not in to_bytes(model.graph)


T8 = TensorType((1,), DType.INT8, Quant(0.5, 3))


def test_quantise_input_rounds_halves_away_and_saturates() -> None:
    x = np.array([0.0, 0.25, -0.25, 0.2499, 0.75, -0.75, 1e30, -1e30, np.inf, -np.inf, 61.9, 62.2], np.float32)
    assert quantise_input(x, T8).tolist() == [3, 4, 2, 3, 5, 1, 127, -128, 127, -128, 127, 127]
    # just below a half: adding .5 first would round up in float32
    assert quantise_input(np.array([np.nextafter(np.float32(0.25), np.float32(0))]), T8).tolist() == [3]
    wide = TensorType((1,), DType.INT16, Quant(2.0**-10, 0))
    assert quantise_input(np.array([31.9990234375, 32.0, -33.0]), wide).tolist() == [32767, 32767, -32768]


def test_quantise_input_divides_in_float32() -> None:
    """2.95 / 0.1 is 29.5 in float32 and 29.4999... in float64."""
    t = TensorType((1,), DType.INT8, Quant(float(np.float32(0.1)), 0))
    rng = np.random.default_rng(0)
    x = rng.uniform(-12, 12, 5000).astype(np.float32)
    want = [int(np.floor(abs(float(v / np.float32(0.1))) + 0.5)) * (1 if v >= 0 else -1) for v in x]
    assert quantise_input(x, t).tolist() == np.clip(want, -128, 127).tolist()


def test_dequantise_is_exact_in_float32() -> None:
    assert dequantise_output(np.array([-128, 3, 127], np.int8), T8).tolist() == [-65.5, 0.0, 62.0]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 8x8 digits of PROJGEN_DATA; without it, ten blurred random prototypes with noise."""
    path = Path(os.environ.get("PROJGEN_DATA", "")) / "digits" / "digits.csv.gz"
    if path.is_file():
        with gzip.open(path) as file:
            rows = np.loadtxt(file, delimiter=",")
        return (rows[:, :64].reshape(-1, 1, 8, 8) / 16).astype(np.float32), rows[:, 64].astype(np.int64)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1797)
    prototypes = rng.random((10, 1, 8, 8))
    return np.clip(prototypes[labels] + 0.15 * rng.standard_normal((1797, 1, 8, 8)), 0, 1).astype(np.float32), labels


def test_accuracy_on_digits_stays_within_a_point() -> None:
    x, y = digits()
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.ReLU6(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
        nn.Softmax(-1),
    )
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(25):
        for rows in torch.randperm(1200).split(64):
            loss = nn.functional.nll_loss(torch.log(net(torch.tensor(x[rows])) + 1e-9), torch.tensor(y[rows]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval()
    before = {name: p.clone() for name, p in net.state_dict().items()}
    model = projgen.quantize(net, x[:400])
    assert all(torch.equal(before[name], p) for name, p in net.state_dict().items())
    with torch.no_grad():
        expected = net(torch.tensor(x[1200:])).numpy()
    found = model(x[1200:])
    truth = y[1200:]
    accuracy = float((expected.argmax(1) == truth).mean())
    assert accuracy > 0.9
    assert float((found.argmax(1) == truth).mean()) >= accuracy - 0.01
    assert np.abs(found - expected).mean() < 0.01
    assert projgen.quantize(net, x[:400]).digest() == model.digest()


def test_quantize_reads_a_one_shot_iterator_once() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    x = torch.tensor(normal(40, 6))
    one_shot = projgen.quantize(net, iter(list(x.split(10))))
    assert one_shot.digest() == projgen.quantize(net, list(x.split(10))).digest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": "int4"}, "activations='int4'. Allowed: 'int8'"),
        ({"weights": "int16"}, "weights='int16'. Allowed: 'int8'"),
        ({"calibration": np.full((4, 6), np.nan, np.float32)}, "NaN"),
        ({"calibration": []}, "the data holds 0 observations"),
        ({"model": 7}, "a model of type int"),
    ],
)
def test_quantize_errors(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"model": nn.Linear(6, 3), "calibration": normal(4, 6)} | change
    with pytest.raises((InputError, InputTypeError)) as caught:
        projgen.quantize(**arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_loading_and_running_needs_neither_torch_nor_a_compiler(model: QuantizedModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m.qmodel")
    image, side = inputs(3)
    np.savez(tmp_path / "x.npz", image=image, side=side, y=model(image, side)[1])
    code = (
        "import sys, numpy as np, projgen\n"
        "m = projgen.QuantizedModel.load('m.qmodel'); d = np.load('x.npz')\n"
        "assert np.array_equal(m(d['image'], d['side'])[1], d['y'])\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(projgen.__file__).parents[1]
    environment = {"PATH": "", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
