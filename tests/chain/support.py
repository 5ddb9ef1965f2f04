"""What the chain's tests share: quantised graphs to many-model images, and every output byte against the simulator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from projgen import ops
from projgen.codegen.output import write_folder
from projgen.driver import generate
from projgen.harness.build import Compiler, Image, build_image
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Array, Graph, Node, Port, Stage, Value
from projgen.ir.interpreter import run_integer
from projgen.ops.record import Sample
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel
from projgen.targets import Target, load_target

TENSORS = 8  # inputs, and outputs, of one model that the test driver takes
CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")

Vector = tuple[Array, ...]  # one sample's inputs in the IR's layout, no batch axis


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One model of an image: a graph, its inputs, and what the simulator makes of them.

    ``samples`` are the names of the graphs merged in it; ``ports`` tells to which of them each output belongs.
    """

    graph: Graph
    vectors: tuple[Vector, ...]
    expected: tuple[tuple[Array, ...], ...]
    samples: tuple[str, ...]
    ports: tuple[str, ...]

    @property
    def alignment(self) -> int:
        """Bytes that inputs and outputs must be a multiple of."""
        g = self.graph
        return max(g.type(p.value).dtype.bytes for p in (*g.inputs, *g.outputs))


def part(graph: Graph, vectors: Iterable[Vector], label: str = "") -> Part:
    """A graph alone."""
    given = tuple(vectors)
    return Part(graph, given, _simulate(graph, given), (label or graph.name,), (label or graph.name,) * TENSORS)


def _simulate(graph: Graph, vectors: Sequence[Vector]) -> tuple[tuple[Array, ...], ...]:
    return tuple(
        tuple(y[0].ravel() for y in run_integer(graph, [np.asarray(x)[None] for x in vector])) for vector in vectors
    )


def operator_samples() -> list[Sample]:
    """Every sample of every operator that exists in a quantised graph."""
    return [sample for op in ops.registry().values() if op.integer is not None for sample in op.samples()]


@cache
def operator_parts() -> tuple[Part, ...]:
    """All operator samples, merged into as few models as the driver's number of tensors allows."""
    return tuple(merge_all(operator_samples()))


def merge_all(samples: Iterable[Sample]) -> list[Part]:
    """Samples of one kind (steps, direction of time, outputs over time) side by side in shared models."""
    groups: dict[Any, list[list[Sample]]] = {}
    for sample in samples:
        chunks = groups.setdefault(_kind(sample), [[]])
        if sum(len(s.inputs) for s in (*chunks[-1], sample)) > TENSORS:
            chunks.append([])
        chunks[-1].append(sample)
    return [_merge(chunk, f"m{i}") for i, chunk in enumerate(c for g in groups.values() for c in g)]


def _kind(sample: Sample) -> tuple[object, ...]:
    g = sample.graph
    backwards = any(isinstance(n.attrs, Lstm | Gru) and n.attrs.reverse for n in g.nodes)
    steps = sample.inputs[0].shape[1] if g.has_time else 0
    return steps, backwards, any(g.type(p.value).has_time for p in g.outputs)


def _merge(samples: Sequence[Sample], name: str) -> Part:
    """One graph of all; a sample with fewer vectors than others starts again."""
    nodes: list[Node] = []
    values: list[Value] = []
    inputs: list[Port] = []
    outputs: list[Port] = []
    owners: list[str] = []
    for i, sample in enumerate(samples):
        g = sample.graph
        for node in g.nodes:
            roles = {role: f"s{i}_{v}" for role, v in node.inputs.items()}
            nodes.append(replace(node, name=f"s{i}_{node.name}", inputs=roles, output=f"s{i}_{node.output}"))
        values += [replace(v, name=f"s{i}_{v.name}") for v in g.values.values()]
        inputs += [replace(p, value=f"s{i}_{p.value}", name=f"s{i}_{p.name}") for p in g.inputs]
        outputs += [replace(p, value=f"s{i}_{p.value}", name=f"s{i}_{p.name}") for p in g.outputs]
        owners += [sample.name] * len(g.outputs)
    by_name = {v.name: v for v in values}
    graph = Graph(name, Stage.QUANTISED, tuple(inputs), tuple(outputs), tuple(nodes), by_name)
    batch = max(len(s.inputs[0]) for s in samples)
    vectors = tuple(tuple(x[k % len(x)] for s in samples for x in s.inputs) for k in range(batch))
    return Part(graph, vectors, _simulate(graph, vectors), tuple(s.name for s in samples), tuple(owners))


def write(
    parts: Sequence[Part], target: str | Target, kernels: str, folder: Path, optimise: str = "speed"
) -> list[Path]:
    """The generated folders ``m0``, ``m1``, ... of all parts."""
    machine = target if isinstance(target, Target) else load_target(target)
    folders = []
    for i, one in enumerate(parts):
        options = CompileOptions.checked(f"m{i}", "c", kernels, optimise)
        write_folder(generate(QuantizedModel(one.graph), machine, options), folder / f"m{i}")
        folders.append(folder / f"m{i}")
    return folders


def build(
    parts: Sequence[Part],
    target: str,
    folder: Path,
    *,
    kernels: str = "fast",
    generated_for: str = "",
    favour: str = "speed",
    compiler: Compiler = "gcc",
    **options: Any,
) -> Image:
    """One image of all parts; ``generated_for`` another target than it is built for, favouring speed or ram."""
    folders = write(parts, generated_for or target, kernels, folder, favour)
    return build_image(folders, load_target(target), folder / "image", compiler=compiler, **options)


@dataclass(frozen=True, slots=True)
class Compared:
    """What agreed, byte for byte."""

    samples: int
    runs: int
    bytes: int


def compare(image: Image, parts: Sequence[Part]) -> Compared:
    """Run every vector at several alignments, step by step too and inside the arena where the model has that.

    Raises:
        AssertionError: an output differs from the simulator's; it names the sample and the target.
    """
    records: list[Record] = []
    wanted: list[tuple[Array, ...]] = []
    for m, one in enumerate(parts):
        model = image.models[m]
        for k, (vector, outputs) in enumerate(zip(one.vectors, one.expected, strict=True)):
            ways = [Record(vector, model=m, misalign=k % 3 * one.alignment)]
            ways += [Record(vector, model=m, mode="step")] if model.step else []
            ways += [Record(vector, model=m, input_in_arena=True)] if model.input_in_arena else []
            records += ways
            wanted += [outputs] * len(ways)
    results = execute(image, records)
    assert len(results) == len(wanted)
    total = 0
    for record, result, outputs in zip(records, results, wanted, strict=True):
        one = parts[record.model]
        for owner, found, meant in zip(one.ports, result.outputs, outputs, strict=False):
            how = "step by step" if record.mode == "step" else "in the arena" if record.input_in_arena else "run"
            label = f"{owner} on {image.target.name} {image.optimise} ({how})"
            np.testing.assert_array_equal(np.asarray(found).ravel(), meant, err_msg=label)
            total += meant.nbytes
        assert len(result.outputs) == len(outputs)
    return Compared(len({s for one in parts for s in one.samples}), len(records), total)


def draw(graph: Graph, count: int, steps: int = 5, seed: int = 0) -> list[Vector]:
    """Vectors over the whole range of every input; the first two all at the lowest and highest value."""
    rng = np.random.default_rng(seed)
    made: list[Vector] = []
    for k in range(count):
        vector = []
        for port in graph.inputs:
            t = graph.type(port.value)
            shape = tuple(steps if d == "T" else int(d) for d in t.shape)
            x = rng.integers(t.dtype.low, t.dtype.high + 1, shape)
            if k < 2:
                x = np.full(shape, (t.dtype.low, t.dtype.high)[k])
            vector.append(x.astype(t.dtype.value))
        made.append(tuple(vector))
    return made
