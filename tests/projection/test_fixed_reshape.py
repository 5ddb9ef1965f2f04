"""Networks whose reshapes hold sizes as constants: from files they are narrowed, in users' own code refused by name."""

from __future__ import annotations

import inspect
import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import projgen
from tests.chain.support import build, compare, draw, part
from tests.importers.onnx.exporting import EXPORTERS, export

MLPERF = Path(os.environ.get("PROJGEN_DATA", "")) / "models" / "mlperf_tiny" / "onnx"


class Rows(nn.Module):
    """The number of channels stands in a reshape that adds an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(3, 16, 3), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        return self.fc(y.reshape(-1, 16, 1, 20).mean(dim=(2, 3)))


class Features(nn.Module):
    """Channels times pixels stand in a reshape, and in the one that takes them apart again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16), nn.Linear(16 * 10, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x)).view(-1, 320)
        y = nn.functional.max_pool1d(self.norm(torch.tanh(y).reshape(x.shape[0], 16, 20)), 2)
        return self.fc(torch.sigmoid(y.view(-1, 160)))


class Grid(nn.Module):
    """A row of pixels becomes a map, the map a vector; a second layer reads the first's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv1d(3, 12, 3), nn.Conv2d(12, 8, 3), nn.Linear(8 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x)).view(-1, 12, 4, 5)
        return self.fc(torch.relu(self.second(y)).reshape(-1, 48))


NETS = {"rows": Rows, "features": Features, "grid": Grid}
INPUTS = (3, 22)


def made(name: str, samples: int = 96) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return NETS[name]().eval(), torch.randn(samples, *INPUTS)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETS)
def test_networks_from_files_lose_channels(name: str, exporter: str, tmp_path: Path) -> None:
    model, x = made(name)
    loaded = projgen.load_onnx(export(model, (x[:2],), tmp_path / "net.onnx", exporter))
    assert torch.allclose(loaded(x), model(x), atol=1e-5)
    rows = projgen.analyze(loaded, x).layers
    assert [bool(row.units) for row in rows] == [True] * (len(rows) - 1) + [False]
    small, info = projgen.compress(loaded, x, learnables_reduction_goal=0.5, prune=True, unpack=True, verbosity="off")
    assert all(after < before for before, after in (layer.units for layer in info.layers[:-1]))
    assert info.learnables_reduction >= 0.5 and small(x).shape == (len(x), 4)


@pytest.mark.qemu
def test_narrowed_networks_from_files_on_m4(tmp_path: Path) -> None:
    parts = []
    for name in NETS:
        model, x = made(name)
        loaded = projgen.load_onnx(export(model, (x[:2],), tmp_path / f"{name}.onnx", "torchscript"))
        small, _ = projgen.compress(loaded, x, learnables_reduction_goal=0.5, prune=True, unpack=True, verbosity="off")
        projgen.save(small, tmp_path / f"{name}-small.onnx")
        graph = projgen.quantize(projgen.load_onnx(tmp_path / f"{name}-small.onnx"), x).graph
        parts.append(part(replace(graph, name=name), draw(graph, 4), name))
    assert compare(build(parts, "cortex-m4", tmp_path / "image"), parts).samples == len(NETS)


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize(
    ("name", "shape"),
    [("kws_ref_model_float32", (1, 49, 10)), ("pretrainedResnet", (3, 32, 32)), ("vww_96_float", (3, 96, 96))],
)
def test_mlperf_tiny_models_are_narrowed(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    if not MLPERF.is_dir():
        pytest.skip("PROJGEN_DATA is not set")
    model, x = projgen.load_onnx(MLPERF / f"{name}.onnx"), images(32, shape)
    pca = projgen.NeuronPCA(model, x, verbosity="off")
    small, info = projgen.compress(model, pca, learnables_reduction_goal=0.5, prune=True, unpack=True, verbosity="off")
    assert sum(after < before for before, after in (layer.units for layer in info.layers)) >= 4
    assert info.learnables_reduction >= 0.5 and small(x[:2]).shape == model(x[:2]).shape
    graph = projgen.quantize(small, x[:8]).graph
    parts = [part(replace(graph, name=name), draw(graph, 2), name)]
    assert compare(build(parts, "cortex-m4", tmp_path / "image"), parts).samples == 1


def images(count: int, shape: tuple[int, ...]) -> Tensor:
    """Smooth random images: noise averaged over neighbours."""
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    return 3 * nn.functional.avg_pool2d(noise, 3, 1, 1)


def test_a_constant_in_the_users_own_forward_is_named() -> None:
    """Its code can't be changed, so these channels stay: analyze says which call holds the number, and where."""
    model, x = made("grid")
    rows = {row.name: row for row in projgen.analyze(model, x).layers}
    line = inspect.getsourcelines(Grid.forward)[1] + 1
    assert rows["first"].units == 0 and rows["first"].units_reason == (
        f"view(-1, 12, 4, 5) at {Path(__file__).name}:{line} holds their number as a constant: "
        "write flatten(1), -1 or the input's size"
    )
    assert f"reshape(-1, 48) at {Path(__file__).name}:{line + 1} holds" in rows["second"].units_reason
    assert rows["fc"].units_reason == "the network's outputs never change"
    for prune in (True, "auto"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small, info = projgen.compress(
                model, x, learnables_reduction_goal=0.3, prune=prune, unpack=True, verbosity="off"
            )
        assert small(x).shape == (len(x), 4) and all(
            before == after for before, after in (y.units for y in info.layers)
        )


def test_one_constant_binds_only_the_channels_it_counts() -> None:
    class Half(Grid):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.first(x)).view(x.shape[0], -1, 4, 5)
            return self.fc(torch.relu(self.second(y)).reshape(x.shape[0], 48))

    torch.manual_seed(0)
    model, x = Half().eval(), torch.randn(96, *INPUTS)
    rows = {row.name: row for row in projgen.analyze(model, x).layers}
    assert rows["first"].units == 12 and "48) at" in rows["second"].units_reason
    _, info = projgen.compress(model, x, learnables_reduction_goal=0.4, prune=True, verbosity="off")
    units = {layer.name: layer.units for layer in info.layers}
    assert units["first"][1] < 12 and units["second"] == (8, 8)


def test_other_code_that_counts_channels_is_met_too() -> None:
    class Strict(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y = self[0](x)
            if y.shape[1] != 16:
                raise ValueError("16 channels, please")
            return self[1](torch.relu(y))

    torch.manual_seed(0)
    model = Strict(nn.Linear(8, 16), nn.Linear(16, 4))
    row = projgen.analyze(model, torch.randn(60, 8)).layers[0]
    assert row.units_reason == "the model does not run as before with fewer of them (16 channels, please)"
