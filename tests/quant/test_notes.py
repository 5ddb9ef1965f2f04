"""What a quantised model says of itself: saved, loaded, in the manifest, and outside the hash."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import projgen
from projgen.quant.dead_channels import RemovedChannels
from projgen.quant.equalise import Equalised
from projgen.quant.model import QuantizedModel, quantize
from projgen.quant.notes import NONE, Notes
from projgen.quant.store import from_bytes, to_bytes


def unequal() -> nn.Module:
    """A low-rank product whose second factor has large columns for small components."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 4, bias=False), nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
    size = 2.0 ** -torch.arange(4.0)
    with torch.no_grad():
        net[0].weight *= size[:, None] ** 2
        net[1].weight /= size
    return net


@pytest.fixture(scope="module")
def data() -> torch.Tensor:
    return torch.randn(64, 24, generator=torch.Generator().manual_seed(3))


def test_quantize_equalises_by_itself_and_can_be_told_not_to(data: torch.Tensor, tmp_path: Path) -> None:
    stages: list[str] = []
    q = quantize(unequal(), data, on_stage=lambda name, _: stages.append(name))
    assert stages[-3:] == ["equalise", "quantise", "remove_dead_channels"]
    ((layer, name, gain),) = [(e.layer, e.name, e.gain) for e in q.notes.equalised]
    assert layer == "0" and name.startswith("linear") and gain > 1.0
    plain = quantize(unequal(), data, equalise=False)
    assert plain.notes == NONE
    with torch.no_grad():
        want = unequal()(data).numpy()
    errors = [float(((model(data) - want) ** 2).sum()) for model in (q, plain)]
    assert errors[0] < errors[1] * 10 ** (-(gain - 0.5) / 10)
    assert quantize(unequal(), data).digest() == q.digest() != plain.digest()
    q.save(tmp_path / "m.qmodel")
    assert QuantizedModel.load(tmp_path / "m.qmodel").notes == q.notes


def test_quantize_of_a_stream_read_once_is_the_same(data: torch.Tensor) -> None:
    assert quantize(unequal(), iter(data.split(16))).digest() == quantize(unequal(), data).digest()


def test_the_manifest_and_the_command_line_tell(data: torch.Tensor, tmp_path: Path) -> None:
    artifact = projgen.compile(unequal(), calibration=data, target="host", out=tmp_path / "out")
    (entry,) = artifact.manifest["equalised"]
    assert entry == {"layer": "0", "name": entry["name"], "gain": artifact.quantized.notes.equalised[0].gain}
    assert json.loads((tmp_path / "out" / "model.json").read_text())["equalised"] == [entry]


def test_notes_survive_the_file_and_stay_out_of_the_hash(data: torch.Tensor) -> None:
    q = quantize(unequal(), data)
    notes = Notes((RemovedChannels("a", 2, 8),), (Equalised("b", "z_in", 1.25), Equalised("b", "z_out", 0.5)))
    assert from_bytes(to_bytes(q.graph, notes))[1] == notes
    assert from_bytes(to_bytes(q.graph))[1] == NONE
    assert replace(q, notes=notes).digest() == q.digest()
