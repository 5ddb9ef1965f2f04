"""Models of one node with a chosen kernel, built for a target and compared with the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from projgen.codegen import manifest as manifests
from projgen.codegen.build import build_program
from projgen.codegen.emit import emit
from projgen.codegen.output import write_folder
from projgen.codegen.vectors import test_vectors as vectors_of
from projgen.harness.build import Image, build_image
from projgen.harness.counting import count_image
from projgen.harness.records import Record
from projgen.harness.run import run_image
from projgen.ir.attrs import Conv2d
from projgen.ir.interpreter import run_integer
from projgen.kernels.record import KernelChoice
from projgen.kernels.render import render_block
from projgen.ops import conv
from projgen.ops.record import Sample
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel
from projgen.quant.store import to_bytes
from projgen.schedule import schedule
from projgen.schedule.choose import candidates, choose
from projgen.schedule.lower import Overrides
from projgen.targets import load_target


def extreme(sample: Sample, magnitude: int = 127) -> Sample:
    """The same node with weights of +-magnitude, a row of one sign first, and multipliers that still fit."""
    graph, node = sample.graph, sample.graph.nodes[-1]
    w, m = graph.values[node.inputs["w"]], graph.values[node.inputs["m"]]
    assert w.data is not None and m.data is not None
    largest = int(np.abs(w.data).max())
    data = np.where(w.data < 0, -magnitude, magnitude).astype(np.int8)
    data[0] = magnitude
    scaled = (m.data.astype(np.int64) * largest // magnitude & ~3).astype(np.int32)
    values = (replace(w, data=data), replace(m, data=scaled))
    return replace(sample, name=f"{sample.name} of {magnitude}", graph=graph.with_(values=values))


def after_int16(sample: Sample) -> Sample:
    """The sample's convolution of an int16 map behind a pointwise one that makes the map, so that its range is known.

    Kernels are still chosen for the sample's own node, the last one.
    """
    graph, node = sample.graph, sample.graph.nodes[-1]
    x = graph.arg(node, "x").type
    made = conv.sample(f"{sample.name} source", (*x.step_shape[:2], 5), x.step_shape[2], (1, 1), Conv2d(), y=x.dtype)
    source = made.graph.nodes[0]
    names = {v: f"source.{v}" for v in made.graph.values}
    names[source.output] = node.inputs["x"]
    first = replace(source, name="source", inputs={r: names[v] for r, v in source.inputs.items()}, output=names["y"])
    values = {names[v.name]: replace(v, name=names[v.name]) for v in made.graph.values.values()}
    values[first.output] = graph.values[first.output]  # one type on both sides
    ports = tuple(replace(p, value=names[p.value]) for p in made.graph.inputs)
    joined = graph.with_(nodes=(first, node), values=values.values(), inputs=ports)
    return replace(sample, graph=joined, inputs=made.inputs)


def choice_of(sample: Sample, kernel: str, target: str = "cortex-m4") -> KernelChoice | None:
    """What ``kernel`` makes of the sample's node; None where it does not fit."""
    found = candidates(sample.graph, sample.graph.nodes[-1], load_target(target), "fast")
    return next((c for c in found if c.kernel == kernel), None)


def chosen(sample: Sample, target: str = "cortex-m4", optimise: str = "speed") -> KernelChoice:
    """The kernel that a compilation takes."""
    options = CompileOptions.checked("model", "c", "fast", optimise)
    return choose(sample.graph, sample.graph.nodes[-1], load_target(target), "fast", options.optimise)


def write(sample: Sample, choice: KernelChoice, target: str, folder: Path, name: str) -> Path:
    """The folder of C for a sample's graph with ``choice`` for its node."""
    options, graph = CompileOptions.checked(name, "c", "fast", "speed"), sample.graph
    planned = schedule(graph, load_target(target), options, Overrides({graph.nodes[-1].name: choice}))
    digest = QuantizedModel(graph).digest()
    program = build_program(planned, options, digest, render_block, vectors_of(graph, name, digest))
    extra = {
        f"{name}.json": manifests.to_bytes(manifests.manifest(planned, options, digest)),
        f"{name}.qmodel": to_bytes(graph),
    }
    write_folder(emit(program, extra), folder / name)
    return folder / name


def build(
    work: Sequence[tuple[Sample, KernelChoice]],
    target: str,
    folder: Path,
    *,
    optimise: str = "-O2",
    compiler: str = "gcc",
    sanitize: bool = False,
) -> Image:
    """One image of all samples, in order."""
    models = [write(s, c, target, folder, f"m{i}") for i, (s, c) in enumerate(work)]
    return build_image(
        models,
        load_target(target),
        folder / "build",
        optimise=optimise,
        compiler="clang" if compiler == "clang" else "gcc",
        sanitize=sanitize,
    )


def records(samples: Sequence[Sample]) -> list[Record]:
    """All inputs of all samples, of the image's models in order."""
    return [
        Record(tuple(x[i] for x in s.inputs), model=m, misalign=0)
        for m, s in enumerate(samples)
        for i in range(len(s.inputs[0]))
    ]


def differing(image: Image, samples: Sequence[Sample]) -> dict[str, int]:
    """Bytes that differ from the interpreter's, by sample; empty where none does."""
    outputs = iter(run_image(image, records(samples)))
    wrong = {}
    for sample in samples:
        expected = run_integer(sample.graph, sample.inputs)[0]
        bad = sum(int((np.asarray(next(outputs)).reshape(-1) != y.reshape(-1)).sum()) for y in expected)
        if bad:
            wrong[sample.name] = bad
    return wrong


EVERY_BUILD = pytest.mark.parametrize(
    ("compiler", "optimise"), [("gcc", "-O0"), ("gcc", "-O2"), ("gcc", "-O3"), ("gcc", "-Os"), ("clang", "-O2")]
)


def check(todo: Sequence[tuple[Sample, KernelChoice]], target: str, folder: Path, **options: Any) -> None:
    """Build all with their kernels and compare every byte."""
    assert differing(build(todo, target, folder, **options), [s for s, _ in todo]) == {}


def instructions(image: Image, samples: Sequence[Sample]) -> list[int]:
    """Counted instructions of each sample's first input; accesses the core faults at are refused."""
    first = [Record(tuple(x[0] for x in s.inputs), model=m) for m, s in enumerate(samples)]
    counts = count_image(image, first)
    assert counts is not None
    return list(counts.totals)
