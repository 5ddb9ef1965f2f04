"""Test vectors of a compiled model: fixed pseudo-random integers, and what the integer meaning gives for them."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from projgen.codegen.layers import lines
from projgen.codegen.names import CTYPES, comment
from projgen.codegen.program import CTable, CVectors
from projgen.ir.graph import Array, Graph, Port
from projgen.ir.interpreter import run_integer

_MOST_ELEMENTS: Final = 20_000  # of one input over all vectors: the header stays readable
_MOST_VECTORS: Final = 4
_STEPS: Final = (1, 3, 8)


def test_vectors(graph: Graph, name: str, digest: str) -> CVectors:
    """A few vectors over the inputs' whole range, the same on every machine.

    Args:
        digest: hash of the quantised model: seeds the inputs.
    """
    drawn = drawn_inputs(graph, digest)
    inputs: list[list[Array]] = [[] for _ in graph.inputs]
    outputs: list[list[Array]] = [[] for _ in graph.outputs]
    for vector in drawn:
        for k, x in enumerate(vector):
            inputs[k].append(x.reshape(-1))
        for k, y in enumerate(run_integer(graph, [x[None] for x in vector])):
            outputs[k].append(y[0].reshape(-1))
    timed = next((k for k, p in enumerate(graph.inputs) if graph.type(p.value).has_time), None)
    steps = tuple(1 if timed is None else len(vector[timed]) for vector in drawn)
    return CVectors(
        steps,
        tuple(_table(graph, graph.inputs, k, f"{name}_test_input", v) for k, v in enumerate(inputs)),
        tuple(_table(graph, graph.outputs, k, f"{name}_test_output", v) for k, v in enumerate(outputs)),
    )


def drawn_inputs(graph: Graph, digest: str) -> list[tuple[Array, ...]]:
    """The vectors' inputs, in the IR's layout without a batch axis."""
    largest = max(graph.type(p.value).elements for p in graph.inputs)
    count = max(1, min(_MOST_VECTORS, _MOST_ELEMENTS // largest))
    steps = _STEPS[:count] if graph.has_time else (1,) * count
    return [
        tuple(_draw(graph, p, length, f"{digest}/{i}/{k}") for k, p in enumerate(graph.inputs))
        for i, length in enumerate(steps)
    ]


def _draw(graph: Graph, port: Port, steps: int, seed: str) -> Array:
    t = graph.type(port.value)
    shape = (steps, *t.step_shape) if t.has_time else t.step_shape
    size = int(np.prod(shape, dtype=np.int64))
    raw = hashlib.shake_256(seed.encode()).digest(size * t.dtype.bytes)
    return np.frombuffer(raw, dtype=np.dtype(t.dtype.value).newbyteorder("<")).astype(t.dtype.value).reshape(shape)


def _table(graph: Graph, ports: tuple[Port, ...], k: int, symbol: str, parts: list[Array]) -> CTable:
    t = graph.type(ports[k].value)
    data = np.concatenate(parts)
    return CTable(
        symbol=symbol if len(ports) == 1 else f"{symbol}_{k}",
        ctype=CTYPES[t.dtype],
        length=data.size,
        rows=lines([int(v) for v in data], 20 if t.dtype.bytes == 1 else 14),
        packed=False,
        comment=comment(f"{len(parts)} vectors of {ports[k].name!r}"),
        low=int(data.min()),
        high=int(data.max()),
    )
