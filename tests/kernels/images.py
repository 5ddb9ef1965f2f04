"""Many one-operator graphs in one image: merged into few models, generated, built, run on a target, compared.

This is the whole chain behind the quantised graph: lowering, memory plan, emitted run functions, harness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from projgen.codegen.output import write_folder
from projgen.driver import generate
from projgen.harness.build import Image, build_image
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.ir.graph import Array, Graph, Node, Port, Stage, Value
from projgen.ir.interpreter import run_integer
from projgen.ops.record import Sample
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel
from projgen.targets import load_target

TENSORS = 8  # inputs, and outputs, that the test driver takes


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """Graphs side by side in one: inputs and outputs in the samples' order."""

    graph: Graph
    samples: tuple[Sample, ...]

    def inputs(self, batch: int) -> tuple[Array, ...]:
        """Vectors ``batch`` of every sample; a sample with fewer starts again."""
        return tuple(x[batch % len(x)] for s in self.samples for x in s.inputs)

    @property
    def alignment(self) -> int:
        """Bytes that inputs and outputs must be a multiple of."""
        g = self.graph
        return max(g.type(p.value).dtype.bytes for p in (*g.inputs, *g.outputs))

    @property
    def batches(self) -> int:
        return max(len(s.inputs[0]) for s in self.samples)


def merge(parts: Sequence[Sample], name: str) -> Merged:
    """One graph of all; the names of each sample get a prefix."""
    nodes: list[Node] = []
    values: list[Value] = []
    ports: dict[str, list[Port]] = {"in": [], "out": []}
    for i, sample in enumerate(parts):
        g = sample.graph
        name_of = {v: f"s{i}_{v}" for v in g.values}
        for node in g.nodes:
            inputs = {role: name_of[v] for role, v in node.inputs.items()}
            nodes.append(replace(node, name=f"s{i}_{node.name}", inputs=inputs, output=name_of[node.output]))
        values += [replace(v, name=name_of[v.name]) for v in g.values.values()]
        ports["in"] += [replace(p, value=name_of[p.value], name=f"s{i}_{p.name}") for p in g.inputs]
        ports["out"] += [replace(p, value=name_of[p.value], name=f"s{i}_{p.name}") for p in g.outputs]
    by_name = {v.name: v for v in values}
    graph = Graph(name, Stage.QUANTISED, tuple(ports["in"]), tuple(ports["out"]), tuple(nodes), by_name)
    return Merged(graph, tuple(parts))


def kind(sample: Sample) -> tuple[bool, bool]:
    """(has a time axis, gives an output every step): graphs of one kind can be merged."""
    g = sample.graph
    return g.has_time, any(g.type(p.value).has_time for p in g.outputs)


def merged(made: Iterable[Sample]) -> list[Merged]:
    """Graphs of one kind and of equally many steps together, as many as one model's tensors allow."""
    groups: dict[Any, list[list[Sample]]] = {}
    for sample in made:
        steps = sample.inputs[0].shape[1] if sample.graph.has_time else 0
        chunks = groups.setdefault((*kind(sample), steps), [[]])
        if sum(len(s.inputs) for s in (*chunks[-1], sample)) > TENSORS:
            chunks.append([])
        chunks[-1].append(sample)
    return [merge(chunk, f"m{i}") for i, chunk in enumerate(c for g in groups.values() for c in g)]


def build(models: Sequence[Merged], target: str, kernels: str, folder: Path, **options: Any) -> Image:
    """Generated folders, and one image of all."""
    machine = load_target(target)
    folders = []
    for i, model in enumerate(models):
        chosen = CompileOptions.checked(f"m{i}", "c", kernels, "speed")
        out = folder / f"m{i}"
        write_folder(generate(QuantizedModel(model.graph), machine, chosen), out)
        folders.append(out)
    return build_image(folders, machine, folder / "image", **options)


def compare(models: Sequence[Merged], image: Image) -> int:
    """Run every vector and compare every byte; returns the number of vectors times graphs."""
    records, wanted = [], []
    for i, model in enumerate(models):
        for batch in range(model.batches):
            inputs = model.inputs(batch)
            records.append(Record(inputs, model=i, misalign=batch % 3 * model.alignment))
            wanted.append(run_integer(model.graph, [x[None] for x in inputs]))
    results = execute(image, records)
    assert len(results) == len(wanted)
    compared = 0
    for record, result, outputs in zip(records, results, wanted, strict=True):
        ports = models[record.model].graph.outputs
        for port, actual, expected in zip(ports, result.outputs, outputs, strict=True):
            label = f"{port.value} of {models[record.model].graph.name}"
            np.testing.assert_array_equal(actual.ravel(), expected.ravel(), err_msg=label)
            compared += 1
    return compared
