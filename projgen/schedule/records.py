"""The scheduled stage: segments in execution order, and where every byte lives.

A segment is what the emitted run function calls once: one kernel over whole values, the loop of a recurrent layer
over a static number of rows, or a chain of convolutions streamed row by row over ring buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph, Node
from projgen.kernels.record import KernelChoice, Table
from projgen.targets import Target

ALIGN: Final = 16  # of every buffer in the arena and every part of the state, in bytes


class Phase(StrEnum):
    """When a segment runs: once (static graphs), at every time step, or after the last step."""

    MAIN = "main"
    STEP = "step"
    TAIL = "tail"


class Kind(StrEnum):
    """How a segment runs its nodes."""

    CALL = "call"  # one kernel call
    LOOP = "loop"  # a recurrent kernel over the rows of a static sequence, its state in scratch
    ROWS = "rows"  # a chain streamed row by row
    ACCUMULATE = "accumulate"  # a mean over time takes one step into its state
    FINISH = "finish"  # ... and divides after the last
    COPY = "copy"  # bytes that already exist go to an output


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One node and the kernel that realises it."""

    node: Node
    choice: KernelChoice


def row_scratch_bytes(choice: KernelChoice) -> int:
    """Scratch that a kernel needs when it works row by row."""
    return choice.scratch_bytes if choice.row_scratch_bytes is None else choice.row_scratch_bytes


@dataclass(frozen=True, slots=True)
class Ring:
    """The rows of a value that a stage of a streamed segment can still see.

    Row r of the map lies in slot ``r % depth`` at ``slot * stride`` bytes. Rows outside the map are the pad row, one
    row of ``pad_value``. With ``depth`` 0 the stage reads the rows of a whole map where it lies; nothing is copied.

    Attributes:
        value: the map the rows belong to.
        producer: the stage that makes the rows; -1 where the map exists as a whole.
        height: rows of that map; ``row_bytes`` each, elements of ``itemsize`` bytes.
        kernel, step, dilation: rows that one call reads, rows from one output row to the next, rows between taps.
        pad_top, pad_bottom: rows of padding the stage reads above and below the map.
        lag: output rows that the stage stays behind its producer's newest row.
    """

    value: str
    producer: int
    height: int
    row_bytes: int
    itemsize: int
    depth: int
    stride: int
    kernel: int
    step: int
    dilation: int
    pad_top: int
    pad_bottom: int
    pad_value: int
    lag: int

    @property
    def span(self) -> int:
        """Rows from the first that a call reads to its last, both included."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def padded(self) -> bool:
        return self.pad_top > 0 or self.pad_bottom > 0

    @property
    def ring_bytes(self) -> int:
        return self.depth * self.stride

    def reads(self, row: int) -> tuple[int, ...]:
        """Rows read by the call that computes output row ``row`` first; some may lie outside the map."""
        top = row * self.step - self.pad_top
        return tuple(top + tap * self.dilation for tap in range(self.kernel))

    def needed(self, row: int) -> int:
        """Rows of the map that must exist before output row ``row`` can be computed."""
        return max(0, min(self.height, row * self.step - self.pad_top + self.span))


@dataclass(frozen=True, slots=True)
class Stage:
    """One call of a streamed segment: ``rows`` output rows at a time.

    Attributes:
        window: the rows under its windows.
        residual: the rows that join its sums, in the order of its output rows.
    """

    window: Ring
    residual: Ring | None
    rows: int

    @property
    def feeds(self) -> tuple[Ring, ...]:
        return (self.window,) if self.residual is None else (self.window, self.residual)


@dataclass(frozen=True, slots=True)
class Pad:
    """A row of one value that stands for rows outside of maps; stages whose padding has the same value share it."""

    value: int
    itemsize: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One entry of the schedule.

    ``inputs`` are the activations read (each once, in the kernel's order), ``output`` the value written ("" for an
    accumulation). ``stages`` has one entry per call of a streamed segment. ``in_place`` names the inputs whose
    buffer the output may take over, and how many bytes it must start before them (0: at the same address).
    ``last_only``: a loop that keeps one row of its output, the last computed; ``repeats``: its rows. ``copy_to``: the
    output a copy goes to. ``held``: parts of a Concat that are in their places already; it copies its ``inputs``.
    """

    index: int
    name: str
    kind: Kind
    phase: Phase
    calls: tuple[Call, ...]
    inputs: tuple[str, ...]
    output: str
    in_place: Mapping[str, int] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    last_only: bool = False
    repeats: int = 1
    copy_to: int = -1
    held: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_place", MappingProxyType(dict(self.in_place)))

    @property
    def rings(self) -> tuple[Ring, ...]:
        """Rings with memory of their own, in the order of the stages that read them."""
        return tuple(r for s in self.stages for r in s.feeds if r.depth)

    @property
    def pads(self) -> tuple[Pad, ...]:
        """The pad rows of a streamed segment."""
        found: dict[tuple[int, int], int] = {}
        for ring in (s.window for s in self.stages):
            if ring.padded:
                key = (ring.pad_value, ring.itemsize)
                found[key] = max(found.get(key, 0), ring.row_bytes)
        return tuple(Pad(value, itemsize, size) for (value, itemsize), size in found.items())

    def pad_of(self, ring: Ring) -> int:
        """Which of ``pads`` a padded ring reads."""
        keys = [(p.value, p.itemsize) for p in self.pads]
        return keys.index((ring.pad_value, ring.itemsize))

    @property
    def loop_state_bytes(self) -> int:
        """Start of the scratch that holds the state of a loop, rounded up to ``ALIGN``."""
        return -(-self.calls[0].choice.state_bytes // ALIGN) * ALIGN if self.kind is Kind.LOOP else 0

    @property
    def scratch_bytes(self) -> int:
        """Scratch of the kernels; calls of one segment run one after the other and share it."""
        if self.kind is Kind.ROWS:
            return max(row_scratch_bytes(c.choice) for c in self.calls)
        return self.loop_state_bytes + max((c.choice.scratch_bytes for c in self.calls), default=0)

    @property
    def instructions(self) -> float:
        """Predicted for one run of the segment (one step in the step phase)."""
        if self.kind is Kind.ROWS:
            return sum(c.choice.row_instructions or c.choice.instructions for c in self.calls)
        return self.repeats * sum(c.choice.instructions for c in self.calls)


@dataclass(frozen=True, slots=True)
class View:
    """A value that is ``offset`` bytes into another value's buffer.

    ``pitch``: bytes from one of its pixels (its last axis) to the next, where other channels lie between them: it is a
    part of a Concat along the channels. 0: its bytes lie side by side.
    """

    root: str
    offset: int = 0
    pitch: int = 0


def spread(nbytes: int, pixel: int, pitch: int) -> npt.NDArray[np.intp]:
    """Places of the bytes of pixels that lie ``pitch`` bytes apart, or side by side (0), from the first on."""
    if not pitch:
        return np.arange(nbytes)
    return np.add.outer(np.arange(nbytes // pixel) * pitch, np.arange(pixel)).reshape(-1)


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """Segments before memory is planned.

    ``views`` maps every activation to the buffer that holds its bytes (itself, for a buffer's owner; the output of a
    Concat is a buffer into which several segments write its parts, those along its channels between each other's
    pixels); ``direct`` maps buffers written straight to the caller's memory to their output port; ``one_row`` holds the
    outputs of loops that keep only the row computed last.
    """

    graph: Graph
    target: Target
    segments: tuple[Segment, ...]
    views: Mapping[str, View]
    direct: Mapping[str, int]
    one_row: frozenset[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", MappingProxyType(dict(self.views)))
        object.__setattr__(self, "direct", MappingProxyType(dict(self.direct)))

    @property
    def is_sequence(self) -> bool:
        return self.graph.has_time

    @property
    def is_backward(self) -> bool:
        """Whether the steps run from the last to the first."""
        nodes = [c.node for s in self.segments if s.phase is Phase.STEP for c in s.calls]
        return any(isinstance(n.attrs, Lstm | Gru) and n.attrs.reverse for n in nodes)

    def bytes(self, root: str) -> int:
        """Bytes of a value's own buffer: the whole map, one step, or the one row that a loop keeps."""
        t = self.graph.type(root)
        return t.nbytes // int(t.shape[0]) if root in self.one_row else t.nbytes

    def kept(self, value: str) -> int:
        """Bytes of a value that exist: all, those of one step, or the one row that a loop keeps."""
        return self.bytes(value) if value in self.one_row else self.graph.type(value).nbytes

    def pixel_bytes(self, value: str) -> int:
        """Bytes of a value's last axis."""
        t = self.graph.type(value)
        return t.step_shape[-1] * t.dtype.bytes if t.step_shape else t.nbytes

    def extent(self, value: str) -> tuple[str, int, int]:
        """The buffer that holds a value, its first byte there and the one behind its last."""
        view, size = self.views[value], self.kept(value)
        if view.pitch:
            size += (size // self.pixel_bytes(value) - 1) * (view.pitch - self.pixel_bytes(value))
        return view.root, view.offset, view.offset + size

    def written(self, segment: Segment) -> list[tuple[str, int, int]]:
        """Extents of what a segment writes: not of the parts of a Concat that are held, as far as they are whole."""
        root, low, high = self.extent(segment.output)
        there = sorted(self.extent(v)[1:] for v in segment.held if not self.views[v].pitch)
        edges = [low, *(edge for extent in there for edge in extent), high]
        return [(root, a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]

    def places(self, value: str) -> npt.NDArray[np.intp]:
        """Of each byte of a value its place in the buffer that holds it."""
        view = self.views[value]
        return view.offset + spread(self.kept(value), self.pixel_bytes(value), view.pitch)

    def input_port(self, root: str) -> int | None:
        """Number of the graph input that ``root`` is, or None."""
        return next((i for i, p in enumerate(self.graph.inputs) if p.value == root), None)


Overlay = tuple[str, str, int]
Role = Literal["value", "input", "scratch", "ring", "pad", "state"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A region of the arena, and the segments (inclusive) over which its bytes must stay untouched."""

    name: str
    role: Role
    bytes: int
    first: int
    last: int
    offset: int = -1

    @property
    def end(self) -> int:
        return self.offset + self.bytes


@dataclass(frozen=True, slots=True)
class ArenaPlan:
    """Where everything lies.

    Attributes:
        buffers: regions inside ``arena_bytes``.
        inputs: where each graph input may lie in an arena of ``with_input_bytes``; the run may then overwrite it.
        overlays: (new, old, lead): buffers that may share bytes as ``new`` is written in place over ``old``, ``lead``
            bytes before it.
        lower_bound: most bytes live at once; no plan of these segments can be smaller.
        state_offsets: part of each recurrent node in the state, by node name.
        counter_offset: where the state counts steps (int32) for a mean over time; None where nothing needs it.
    """

    buffers: tuple[Buffer, ...]
    inputs: tuple[Buffer, ...]
    overlays: frozenset[Overlay]
    arena_bytes: int
    with_input_bytes: int
    lower_bound: int
    state_offsets: Mapping[str, int]
    counter_offset: int | None
    state_bytes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "state_offsets", MappingProxyType(dict(self.state_offsets)))

    def __getitem__(self, name: str) -> Buffer:
        return next(b for b in self.buffers if b.name == name)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value's first byte is: in the arena, in the caller's input, or in the caller's output."""

    base: Literal["arena", "input", "output"]
    index: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A table of a segment's call."""

    segment: Segment
    stage: int
    table: Table


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The scheduled stage: what runs when, and where its bytes are."""

    lowered: Lowered
    plan: ArenaPlan

    @property
    def graph(self) -> Graph:
        return self.lowered.graph

    @property
    def target(self) -> Target:
        return self.lowered.target

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.lowered.segments

    def stored(self) -> tuple[tuple[Reader, ...], ...]:
        """The emitted constant arrays, each with all that read it: tables of equal type and elements are one array."""
        found: dict[tuple[str, bytes], list[Reader]] = {}
        done: set[int] = set()
        for segment in self.segments:
            for stage, call in enumerate(segment.calls):
                for table in () if id(call) in done else call.choice.tables:
                    key = table.data.dtype.name, table.data.tobytes()
                    found.setdefault(key, []).append(Reader(segment, stage, table))
                done.add(id(call))
        return tuple(map(tuple, found.values()))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all emitted constant arrays."""
        return sum(readers[0].table.data.nbytes for readers in self.stored())

    @property
    def instructions(self) -> float:
        """Predicted for one run, or one step and the tail of a sequence model."""
        return sum(s.instructions for s in self.segments)

    def place(self, value: str) -> Place:
        """Where the bytes of an activation are."""
        view = self.lowered.views[value]
        port = self.lowered.input_port(view.root)
        if port is not None:
            return Place("input", port, view.offset)
        if view.root in self.lowered.direct:
            return Place("output", self.lowered.direct[view.root], view.offset)
        return Place("arena", 0, self.plan[view.root].offset + view.offset)
