"""Branches that meet in a concat as C: written between each other's pixels, byte for byte, or copied alone."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import projgen
from benchmarks.test_networks import measured
from projgen import resources
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel
from projgen.schedule import lower, schedule
from projgen.schedule.lower import Overrides
from projgen.targets import load_target
from tests.chain.support import Part, build, compare, draw, part
from tests.chain.test_mutants_c import forget, survives
from tests.schedule.nets import Branch, branches

CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m55")
NETS: dict[str, list[Branch]] = {
    "two": [("1x1", 3), ("3x3", 5)],
    "even": [("1x1", 8), ("3x3", 16), ("reduced", 4, 8)],
    "nested": [("1x1", 3), [("3x3", 5), ("depthwise",)], ("strip", 2)],
    "mixed": [("1x1", 4), ("input",), ("3x3", 6), ("constant", 2), ("table",)],
    "deep": [("1x1", 8), [[("3x3", 8), ("input",)], ("1x1", 1)], ("reduced", 6, 8)],
}
SHAPES = {"odd": (5, 7, 3), "whole": (8, 8, 8), "pixels": (1, 2, 5), "long": (6, 12, 20)}


@cache
def parts() -> tuple[Part, ...]:
    made = [
        branches(*shape, net, name=f"{name}_{size}", tap=size == "long", tail=size != "pixels")
        for name, net in NETS.items()
        for size, shape in SHAPES.items()
    ]
    made.append(branches(16, 16, 8, [("half", 8), ("half_pool",), ("half1", 5)], name="halved"))
    made.append(branches(5, 7, 11, [("pool",), ("1x1", 2)], name="pooled"))
    return tuple(part(graph, draw(graph, 3), graph.name) for graph in made)


def written_apart(target: str) -> set[str]:
    """Kernels that write a part of some concat in its place."""
    made = (schedule(p.graph, load_target(target), CompileOptions(), Overrides()) for p in parts())
    return {c.choice.kernel for m in made for s in m.segments for c in s.calls if c.choice.pitch}


@pytest.mark.qemu
@pytest.mark.parametrize("target", CORES)
def test_bytes_on_cores(target: str, tmp_path: Path) -> None:
    image = build(parts(), target, tmp_path)
    assert compare(image, parts()).samples == len(parts())


@pytest.mark.parametrize("target", ["host", *CORES])
def test_plain_c_under_sanitizers(target: str, tmp_path: Path) -> None:
    image = build(parts(), "host", tmp_path, favour="ram", generated_for=target, optimise="-O1", sanitize=True)
    assert compare(image, parts()).samples == len(parts())


def test_the_nets_write_apart_by_every_kind_of_kernel() -> None:
    concat = "concat_portable"
    host = {"pointwise_portable", "conv2d_portable", "depthwise_portable", "max_pool2d_portable"}
    assert written_apart("host") == host | {concat}
    assert written_apart("cortex-m3") >= {"conv2d_thumb2", concat}
    m4 = {"pointwise_dsp", "conv2d_dsp", "conv2d_direct_dsp", "winograd1d_dsp", "winograd2d_dsp"}
    m4 |= {"winograd_stride2_dsp", "depthwise_dsp", "max_pool2d_dsp"}
    assert written_apart("cortex-m4") >= m4 | {concat}
    m55 = {"pointwise_mve", "conv2d_mve", "conv2d_mve_gathered", "depthwise_mve", "max_pool2d_mve"}
    assert written_apart("cortex-m55") >= m55 | {concat}


class Module(nn.Module):
    """An inception module: a 1x1, a 3x3 and two 3x3 in a line, each of these after a 1x1, and a pooled branch."""

    def __init__(self, inputs: int, single: int, double: tuple[int, int], triple: tuple[int, int], pooled: int) -> None:
        super().__init__()
        branches = [
            nn.Sequential(_conv(inputs, single, 1)),
            nn.Sequential(_conv(inputs, double[0], 1), _conv(*double, 3)),
            nn.Sequential(_conv(inputs, triple[0], 1), _conv(*triple, 3), _conv(triple[1], triple[1], 3)),
        ]
        if pooled:
            branches.append(nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv(inputs, pooled, 1)))
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.ReLU())


@cache
def inception(pooled: int) -> QuantizedModel:
    """A stem, two modules on maps of 16x16 and a classifier; ``pooled``: channels of the pooled branches (0: none)."""
    torch.manual_seed(0)
    net = nn.Sequential(
        _conv(3, 16, 3, 2),
        Module(16, 8, (8, 16), (4, 8), pooled),
        Module(32 + pooled, 16, (12, 24), (6, 16), pooled),
        nn.AvgPool2d(16),
        nn.Flatten(),
        nn.Linear(56 + pooled, 10),
    )
    return projgen.quantize(net.eval(), torch.rand(8, 3, 32, 32))


SAVED = {  # target: shares of instructions, arena and code that remain of what they are with copies
    "cortex-m4": (0.98, 0.81, 1.2),
    "cortex-m55": (0.89, 0.81, 0.99),
}


@pytest.mark.parametrize("target", SAVED)
@pytest.mark.parametrize("pooled", [0, 8])
def test_no_copy_need_remain_of_an_inception_net(pooled: int, target: str) -> None:
    """All parts can be computed in place; those that are copied all the same make room."""
    graph, cpu = inception(pooled).graph, load_target(target)
    made = {
        "in place": schedule(graph, cpu, CompileOptions(), Overrides()),
        "copied": schedule(graph, cpu, CompileOptions(), Overrides(joined=False)),
        "chosen": schedule(graph, cpu, CompileOptions()),
    }
    copies = {how: [s.inputs for s in m.segments for c in s.calls if c.node.op == "concat"] for how, m in made.items()}
    assert copies["in place"] == []
    assert [len(parts) for parts in copies["copied"]] == [3 + (pooled > 0)] * 2
    assert made["in place"].instructions < made["copied"].instructions
    sizes = {how: m.plan.with_input_bytes for how, m in made.items()}
    assert sum(map(len, copies["chosen"])) <= 2
    assert sizes["chosen"] < min(sizes["in place"], sizes["copied"])


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize("target", SAVED)
def test_what_an_inception_net_saves(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = measured(inception(0), target, "speed", tmp_path / "chosen")
    monkeypatch.setattr(lower, "_parts", lambda *_: {})
    copied = measured(inception(0), target, "speed", tmp_path / "copied")
    instructions, arena, code = SAVED[target]
    assert made.instructions is not None and copied.instructions is not None
    assert made.instructions <= instructions * copied.instructions
    assert made.arena_bytes <= arena * copied.arena_bytes
    assert made.code_bytes <= code * copied.code_bytes


WINOGRAD, POOL = "kernels/conv_dsp_winograd2d.h.j2", "kernels/max_pool_dsp.h.j2"
FAULTS = (  # what, generated for, folder, file, what stands there, what the fault makes of it
    (
        "pixels nearer to each other",
        "host",
        "templates",
        "kernels/pitched_call.h.j2",
        '", " ~ step',
        '", " ~ (step - 1)',
    ),
    (
        "a copy over another part",
        "host",
        "templates",
        "kernels/concat.h.j2",
        "first += p->runs",
        "first += 0 * p->runs",
    ),
    ("last pixels side by side", "cortex-m4", "runtime_c", "src/pg_conv_dsp.h", "i * p->pixel,", "i * bytes,"),
    ("blocks side by side", "cortex-m4", "runtime_c", "src/pg_pointwise_dsp.h", "3 * matrix->pixel", "3 * outputs"),
    (
        "rows nearer",
        "cortex-m4",
        "runtime_c",
        "src/pg_conv2d_direct_dsp.h",
        "(int8_t *)y + bytes",
        "(int8_t *)y + bytes - 1",
    ),
    ("outputs over other parts", "cortex-m4", "templates", WINOGRAD, 'if apart else "pixel"', 'if 0 else "pixel"'),
    ("windows side by side", "cortex-m4", "templates", POOL, "count * {{ pixel }}", "count * {{ channels }}"),
    (
        "steps of MVE",
        "cortex-m55",
        "runtime_c",
        "src/pg_pointwise_mve.h",
        "to + at * p->outputs",
        "to + at * p->inputs",
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "folder", "file", "good", "bad"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_a_fault_in_what_writes_apart_is_found(
    target: str, folder: str, file: str, good: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = tuple(p for p in parts() if p.graph.name in ("even_whole", "two_long", "mixed_odd", "halved", "pooled"))
    copy = tmp_path / folder
    shutil.copytree(getattr(resources, folder)(), copy)
    text = (copy / file).read_text()
    assert good in text
    (copy / file).write_text(text.replace(good, bad))
    monkeypatch.setattr(resources, folder, lambda: copy)
    forget()
    try:
        assert not survives(some, "host", tmp_path / "wrong", generated_for=target)
    finally:
        monkeypatch.undo()
        forget()
