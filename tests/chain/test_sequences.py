"""Recurrent models over time: steps equal a run, instructions are affine in the length, and no float is near."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import projgen
from benchmarks.measuring import LENGTHS, counted, slope
from projgen.harness.build import Image
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.ir.graph import Graph
from tests.chain.nets import nets
from tests.chain.support import Part, build, draw, operator_samples, part

LONG = 37
RECURRENT = ("lstm", "gru")


class Tagger(nn.Module):
    """Two recurrent layers and an output at every step."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.rnn = cell(5, 13, num_layers=2, batch_first=True)
        self.fc = nn.Linear(13, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.rnn(x)[0])
        return y


class LastOf(nn.Module):
    """An LSTM and a GRU in turn, read at the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 18, batch_first=True)
        self.gru = nn.GRU(18, 9, batch_first=True)
        self.fc = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.gru(self.lstm(x)[0])[0][:, -1])
        return y


@cache
def graphs() -> dict[str, Graph]:
    """Nets of PyTorch through the whole front, and hand-made ones, by name."""
    torch.manual_seed(5)
    data = [torch.randn(8, 11, 5)]
    modules = {"lstm_tagger": Tagger(nn.LSTM), "gru_tagger": Tagger(nn.GRU), "last": LastOf()}
    made = {name: projgen.quantize(module, data).graph for name, module in modules.items()}
    made["projected_tagger"] = projgen.quantize(
        projgen.compress(modules["lstm_tagger"], data, ranks={"rnn.l0": (3, 4)}, unpack=True, verbosity="off")[0], data
    ).graph
    by_hand = {name: p.graph for name, p in nets().items() if p.graph.has_time and name != "backwards"}
    return made | by_hand


def parts(steps: int) -> list[Part]:
    return [part(g, draw(g, 4, steps, seed=steps), name) for name, g in graphs().items()]


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
def test_steps_equal_a_run_and_every_run_of_the_beginning(target: str, tmp_path: Path) -> None:
    """After step t the output is that of a run over the first t steps, for every t."""
    long = parts(LONG)
    image = build(long, target, tmp_path)
    assert all(model.step for model in image.models)
    stepped = execute(image, [Record(v, m, "step") for m, p in enumerate(long) for v in p.vectors])
    begun = {}
    for steps in (1, 2, 3, 8, 21, LONG):
        records = [Record((v[0][:steps],), m) for m, p in enumerate(long) for v in p.vectors]
        begun[steps] = execute(image, records)
        wanted = [y for p in long for y in part(p.graph, [(v[0][:steps],) for v in p.vectors]).expected]
        for record, found, meant in zip(records, begun[steps], wanted, strict=True):
            name = image.models[record.model].name
            np.testing.assert_array_equal(found.outputs[0].ravel(), meant[0], err_msg=f"{name}, {steps} steps")
    for whole, run in zip(stepped, begun[LONG], strict=True):
        np.testing.assert_array_equal(whole.outputs[0], run.outputs[0])
    for place, run in enumerate(begun[21]):
        if image.models[place // 4].per_step_output:
            np.testing.assert_array_equal(run.outputs[0], begun[LONG][place].outputs[0][:21])


def line_of(image: Image, place: int, graph: Graph, mode: str = "run") -> tuple[int, int]:
    """(instructions per step, instructions once) of a model, the same for any data."""
    sequences = draw(graph, 3, max(LENGTHS), seed=place)
    found = set()
    for whole in sequences:
        records = [Record((whole[0][:t],), place, mode) for t in LENGTHS]  # type: ignore[arg-type]
        found.add(slope(LENGTHS, counted(image, records).totals))
    assert len(found) == 1, f"{graph.name}: instructions depend on the data"
    return found.pop()


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_instructions_are_affine_in_the_length(target: str, tmp_path: Path) -> None:
    names = [name for name in graphs() if "mean" not in name]  # a mean over time divides: data decide how often
    made = [part(graphs()[name], (), name) for name in names]
    image = build(made, target, tmp_path)
    for place, p in enumerate(made):
        per_step, once = line_of(image, place, p.graph)
        assert per_step > 0 and once > 0
        assert {layer.kernel for layer in image.models[place].layers if layer.op in RECURRENT} <= fast(target)


def fast(target: str) -> set[str]:
    return {f"{op}_{'mve' if target == 'cortex-m55' else 'dsp'}" for op in RECURRENT}


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_every_recurrent_sample_is_affine_too(target: str, tmp_path: Path) -> None:
    samples = [s for s in operator_samples() if s.graph.nodes[0].op in RECURRENT]
    made = [part(s.graph, (), s.name) for s in samples]
    image = build(made, target, tmp_path)
    kernels = [model.layers[0].kernel for model in image.models]
    quick = [p for p, kernel in enumerate(kernels) if not kernel.endswith("portable")]  # its memcpy looks at alignments
    assert len(quick) >= 24
    for place in quick:
        (x,) = draw(made[place].graph, 3, max(LENGTHS))[2]
        records = [Record((x[:t],), place) for t in LENGTHS]
        per_step, _ = slope(LENGTHS, counted(image, records).totals)
        assert per_step > 0
