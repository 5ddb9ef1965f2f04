"""The manifest NAME.json: what a program needs to know of a compiled model without reading its C."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Any, Final

import numpy as np

import projgen
from projgen.codegen.build import layout, library_use, step_absent, user_shape
from projgen.codegen.emit import file_names
from projgen.codegen.layers import Namer, macs, ranks
from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node, Port
from projgen.ir.numerics import GruNumerics, LstmNumerics, MatrixNumerics
from projgen.ir.types import Quant
from projgen.kernels.figures import figure
from projgen.options import CompileOptions
from projgen.quant.notes import NONE, Notes
from projgen.schedule.records import Kind, Schedule, Segment

SCHEMA: Final = 1


def manifest(schedule: Schedule, options: CompileOptions, digest: str, notes: Notes = NONE) -> dict[str, Any]:
    """The manifest's contents; every number is exact, nothing depends on a compiler, a path or the time."""
    graph, plan = schedule.graph, schedule.plan
    absent = step_absent(schedule)
    library = library_use(schedule, options)
    sizes: Counter[int] = Counter()
    for readers in schedule.stored():
        sizes[readers[0].segment.index] += readers[0].table.data.nbytes
    rows = [_layer(schedule, options.name, s, sizes[s.index]) for s in schedule.segments if s.kind is not Kind.COPY]
    return {
        "schema": SCHEMA,
        "projgen": projgen.__version__,
        "name": options.name,
        "hash": digest,
        "options": {"kernels": options.kernels, "optimise": options.optimise, "backend": options.backend},
        **({} if library is None else {"cmsis_nn": asdict(library)}),
        "target": schedule.target.name,
        "files": sorted([*file_names(options.name), f"{options.name}.json", f"{options.name}.qmodel"]),
        "interface": {
            "kind": "sequence" if graph.has_time else "run",
            "element": graph.type(graph.inputs[0].value).dtype.value,
            "step": not absent,
            "step_absent_reason": absent or None,
            "per_step_output": graph.type(graph.outputs[0].value).has_time,
        },
        "inputs": [_port(graph, p) | {"offset": plan.inputs[i].offset} for i, p in enumerate(graph.inputs)],
        "outputs": [_port(graph, p) for p in graph.outputs],
        "macs": sum(macs(graph, n) for n in graph.nodes),
        "learnables": total_learnables(graph),
        "weight_bytes": schedule.weight_bytes,
        "arena_bytes": plan.arena_bytes,
        "arena_with_input_bytes": plan.with_input_bytes,
        "input_offset": plan.inputs[0].offset,
        "state_bytes": plan.state_bytes,
        "arena_lower_bound": plan.lower_bound,
        "arena_map": [
            {"name": b.name, "role": b.role, "offset": b.offset, "bytes": b.bytes, "first": b.first, "last": b.last}
            for b in (*plan.buffers, *plan.inputs)
        ],
        "layers": rows,
        "segments": [
            {
                "index": s.index,
                "name": s.name,
                "kind": s.kind.value,
                "phase": s.phase.value,
                "nodes": [c.node.name for c in s.calls],
                "in_place": any(new == s.output for new, *_ in plan.overlays),
                "rings": [{"value": r.value, "rows": r.depth, "bytes": r.ring_bytes, "lag": r.lag} for r in s.rings],
            }
            for s in schedule.segments
        ],
        "ranks": {row["source"]: row["ranks"] for row in rows if row["ranks"]},
        "removed_channels": [asdict(r) for r in notes.removed_channels],
        "equalised": [asdict(e) for e in notes.equalised],
        "int8_loss": None if notes.int8_loss is None else asdict(notes.int8_loss),
        "predicted_instructions": round(schedule.instructions),
    }


def to_bytes(contents: dict[str, Any]) -> bytes:
    """The file's bytes."""
    return (json.dumps(contents, indent=1, allow_nan=False) + "\n").encode()


def _port(graph: Graph, port: Port) -> dict[str, Any]:
    t = graph.type(port.value)
    quant = t.quant or Quant(1.0)
    return {
        "name": port.name,
        "shape": list(user_shape(graph, port)),
        "layout": layout(graph, port),
        "perm": list(port.perm),
        "size": t.elements,
        "element": t.dtype.value,
        "over_time": t.has_time,
        "scale": float(np.float32(quant.scale)),
        "zero_point": quant.zero_point,
    }


def _layer(schedule: Schedule, prefix: str, segment: Segment, weight_bytes: int) -> dict[str, Any]:
    """A row of the table of layers: one emitted function."""
    graph = schedule.graph
    nodes = [c.node for c in segment.calls]
    finish = segment.kind is Kind.FINISH
    found = [r for n in nodes for r in ranks(graph, n)]
    return {
        "index": segment.index,
        "name": segment.name,
        "op": "+".join(n.op for n in nodes),
        "source": "+".join(n.source or n.name for n in nodes),
        "function": Namer(schedule, prefix).layer(segment),
        "kernel": "+".join(c.choice.kernel for c in segment.calls),
        "phase": segment.phase.value,
        "macs": 0 if finish else sum(macs(graph, n) for n in nodes),
        "weight_bytes": weight_bytes,
        "predicted_instructions": round(segment.instructions),
        "reference_instructions": _reference(graph, segment),
        "ranks": found,
    }


def total_learnables(graph: Graph) -> int:
    """Learnables of all nodes; an output projector of a recurrent node that a linear node uses too counts once."""
    projectors = [graph.data(n, "q_out") for n in graph.nodes if "q_out" in n.inputs]
    shared = [
        graph.data(n, "w").size
        for n in graph.nodes
        if n.op == "linear" and any(np.array_equal(graph.data(n, "w"), q) for q in projectors)
    ]
    return sum(learnables(graph, n) for n in graph.nodes) - sum(shared)


def _reference(graph: Graph, segment: Segment) -> int | None:
    """What the best kernels of these families were measured to execute; None where one of them never was."""
    found = [figure(graph, c.node, c.choice.kernel) for c in segment.calls]
    known = [n for n in found if n is not None]
    return round(segment.repeats * sum(known)) if known and len(known) == len(found) else None


def learnables(graph: Graph, node: Node) -> int:
    """Parameters that training changes: weights, factors and biases (one vector per gate).

    A bias that only holds the folded input zero point is none. Multipliers are no learnables.
    """
    weights = [graph.data(node, r).size for r in ("w", "r", "q_in", "q_out") if r in node.inputs]
    if not weights:
        return 0
    total = sum(int(w) for w in weights)
    bias = graph.data(node, "b").astype(np.int64)
    hidden = graph.data(node, "b_hn").astype(np.int64) if "b_hn" in node.inputs else np.zeros(0, np.int64)
    if np.any(bias + _folded(graph, node)) or np.any(hidden):
        total += bias.size + hidden.size
    return total


def _folded(graph: Graph, node: Node) -> np.ndarray[Any, np.dtype[np.int64]]:
    """What the input's zero point took off each bias."""
    w = graph.data(node, "w").astype(np.int64)
    sums = w.reshape(len(w), -1).sum(axis=1)
    n = node.numerics
    if isinstance(n, MatrixNumerics):
        residual = graph.arg(node, "residual").type.quant if "residual" in node.inputs else None
        added = residual.zero_point * graph.data(node, "f").astype(np.int64) if residual is not None else 0
        return np.asarray(n.input_zero_point * sums + added)
    if isinstance(n, LstmNumerics | GruNumerics) and isinstance(node.attrs, Lstm | Gru):
        zero = 0 if node.attrs.input_projected else n.input_zero_point
        return np.asarray((zero * sums) << max(n.k, 0))
    return np.zeros(len(w), np.int64)
