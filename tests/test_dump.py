"""--dump-ir: one file a stage, as far as the compilation comes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from projgen.driver import compile as compile_model
from projgen.dump import StageFolder
from projgen.errors import FitError, InputError
from projgen.ir.graph import Graph
from projgen.ir.verify import VerifyError
from projgen.passes import PIPELINE, Pass, Step, run_pipeline
from projgen.quant.model import quantize
from tests.passes.graphs import Maker


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3, bias=False)]
    return nn.Sequential(*layers, nn.Linear(3, 5)).eval()


def images() -> torch.Tensor:
    return torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def texts(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted(folder.iterdir())}


def test_every_stage_in_order_and_the_same_again(tmp_path: Path) -> None:
    out, ir = tmp_path / "out", tmp_path / "deep" / "ir"
    for _ in range(2):  # the second run replaces the first one's files
        compile_model(net(), calibration=images(), target="host", out=out, dump_ir=ir)
    found = texts(ir)
    passes = [step.action.name for step in PIPELINE]
    stages = ["import", *passes, "equalise", "quantise", "remove_dead_channels", "schedule"]
    assert list(found) == [f"{i:02d}-{stage}.txt" for i, stage in enumerate(stages)]
    assert "batch_norm(" in found["00-import.txt"]
    assert "batch_norm(" not in found["07-fold_affine.txt"] and "(float)" in found["07-fold_affine.txt"]
    assert "activation=relu" in found[f"{len(PIPELINE):02d}-remove_dead.txt"]
    quantised, scheduled = (found[f"{stages.index(name):02d}-{name}.txt"] for name in ("quantise", "schedule"))
    assert ": int16[3] s=" in quantised and "requant=Requant(" in quantised
    assert scheduled.startswith("schedule model on host\n") and "@arena+" in scheduled
    assert str(tmp_path) not in "".join(found.values())
    again = tmp_path / "again"
    compile_model(net(), calibration=images(), target="host", out=tmp_path / "b", dump_ir=again)
    assert texts(again) == found


def test_a_quantised_model_has_two_stages(tmp_path: Path) -> None:
    q = quantize(net(), images())
    compile_model(q, target="cortex-m4", out=tmp_path / "out", dump_ir=str(tmp_path / "ir"))
    assert list(texts(tmp_path / "ir")) == ["00-quantised.txt", "01-schedule.txt"]


def test_the_dump_changes_no_file_of_the_compilation(tmp_path: Path) -> None:
    q = quantize(net(), images())
    compile_model(q, target="host", out=tmp_path / "a")
    compile_model(q, target="host", out=tmp_path / "b", dump_ir=tmp_path / "ir")
    files = [{p.name: p.read_bytes() for p in (tmp_path / side).iterdir()} for side in "ab"]
    assert files[0] == files[1]


def test_stages_before_a_fault_are_there(tmp_path: Path) -> None:
    def broken(graph: Graph) -> Graph:
        return graph.with_(nodes=reversed(graph.nodes))

    m = Maker(x=(4,))
    graph = m.graph(m.relu("relu", m.linear("fc", "x", 3)))
    folder = StageFolder(tmp_path / "ir", tmp_path / "out")
    with pytest.raises(VerifyError, match="after pass 'reverse'"):
        run_pipeline(graph, [PIPELINE[0], Step(Pass("reverse", broken), "to break it")], folder.graph)
    assert list(texts(tmp_path / "ir")) == ["00-import.txt", "01-remove_dead.txt"]


def test_a_model_that_does_not_fit_has_all_its_stages(tmp_path: Path) -> None:
    torch.manual_seed(0)
    large = nn.Sequential(nn.Linear(600, 600), nn.Linear(600, 600))
    with pytest.raises(FitError):
        compile_model(large, calibration=torch.randn(4, 600), target="cortex-m0", out=tmp_path / "out",
                      dump_ir=tmp_path / "ir")  # fmt: skip
    assert list(texts(tmp_path / "ir"))[-1].endswith("-schedule.txt")


@pytest.mark.parametrize("inside", [".", "ir"])
def test_a_folder_inside_the_output_is_refused(tmp_path: Path, inside: str) -> None:
    with pytest.raises(InputError, match=r"lies in the folder that the C goes to\. Allowed: a folder outside it"):
        StageFolder(tmp_path / "out" / inside, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ir").mkdir()
    (tmp_path / "ir" / "notes.txt").write_text("mine")
    (tmp_path / "ir" / "00-import.txt").write_text("old")
    with pytest.raises(InputError, match=r"holds files that are no dumped stages \(notes\.txt\).*--dump-ir"):
        StageFolder(tmp_path / "ir", tmp_path / "out")
    assert texts(tmp_path / "ir") == {"notes.txt": "mine", "00-import.txt": "old"}
    with pytest.raises(InputError, match="exists and is no folder"):
        StageFolder(tmp_path / "ir" / "notes.txt", tmp_path / "out")
    with pytest.raises(InputError, match=r"can't be written: .*Allowed: a writable folder"):
        StageFolder(tmp_path / "ir" / "notes.txt" / "below", tmp_path / "out")
