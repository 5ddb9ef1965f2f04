"""The C program as plain data: all that a template may see. Texts are names, numbers and comments, never C code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LayerKind = Literal["call", "loop", "rows", "accumulate", "finish"]


@dataclass(frozen=True, slots=True)
class CPort:
    """An input or output of the interface. ``suffix`` is "" for the only one, else "_0", "_1", ...

    ``size`` counts elements (of one step where ``over_time``); ``scale`` is the decimal text of a float32.
    """

    suffix: str
    name: str
    ctype: str
    size: int
    scale: str
    zero_point: int
    low: int
    high: int
    shape: tuple[str, ...]
    layout: str
    over_time: bool
    offset: int  # inputs: place in an arena with the input inside


@dataclass(frozen=True, slots=True)
class CTable:
    """A constant array; ``rows`` are the lines of its initialiser, ``packed`` marks words that hold several numbers."""

    symbol: str
    ctype: str
    length: int
    rows: tuple[tuple[int, ...], ...]
    packed: bool
    comment: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class CField:
    """An initialiser of a parameter struct: a symbol, a number, a list of numbers or named numbers, line by line."""

    name: str
    symbol: str = ""
    numbers: tuple[int, ...] = ()
    is_list: bool = False
    lines: tuple[tuple[tuple[str, int], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class CCall:
    """A kernel call: function names, the parameter struct ("" for none) and whether it takes scratch."""

    function: str
    row_function: str
    struct: str
    params: str
    fields: tuple[CField, ...]
    scratch: bool


@dataclass(frozen=True, slots=True)
class CRing:
    """Rows that a stage reads or writes, in elements. ``depth`` 0: they lie in a whole map.

    ``name`` is the pointer to the first, ``pad`` that to the pad row ("" where none is read); ``producer`` the stage
    that makes the rows (-1: none).
    """

    name: str
    ctype: str
    producer: int
    height: int
    row: int
    depth: int
    stride: int
    kernel: int
    step: int
    dilation: int
    pad_top: int
    pad_bottom: int
    span: int
    pad: str
    pad_value: int
    lag: int


@dataclass(frozen=True, slots=True)
class CStage:
    """One call of a streamed segment: what it reads, ``rows`` output rows at a time, and where these go."""

    window: CRing
    residual: CRing | None
    output: CRing
    rows: int

    @property
    def feeds(self) -> tuple[CRing, ...]:
        return (self.window,) if self.residual is None else (self.window, self.residual)


@dataclass(frozen=True, slots=True)
class CPad:
    """A pad row: ``count`` elements of ``value``."""

    name: str
    value: int
    count: int
    wide: bool


@dataclass(frozen=True, slots=True)
class CArg:
    """A pointer parameter of a function and what a caller passes: ``value`` plus ``offset`` elements, or ``offset``
    bytes into the arena or state."""

    name: str
    ctype: str
    const: bool
    base: Literal["value", "arena", "state"]
    value: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class CLayer:
    """One layer function. ``kind`` is the segment's."""

    index: int
    function: str
    kind: LayerKind
    comment: tuple[str, ...]
    calls: tuple[CCall, ...]
    arguments: tuple[CArg, ...]
    state_offset: int = 0
    rows: int = 0
    row_in: int = 0
    row_out: int = 0
    reverse: bool = False
    state_bytes: int = 0  # of a loop: how much of its scratch is state
    stages: tuple[CStage, ...] = ()
    pads: tuple[CPad, ...] = ()
    owns_params: bool = True
    in_place: bool = False
    lead: int = 0  # bytes from the output to the map it is written over

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arguments, as the kernel call takes them."""
        return tuple(a.name for a in self.arguments)

    @property
    def inputs(self) -> tuple[CArg, ...]:
        return tuple(a for a in self.arguments if a.const)


@dataclass(frozen=True, slots=True)
class CCopy:
    """Bytes copied to an output by the run function."""

    target: str
    source: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CLocal:
    """A typed pointer into the arena, declared by the function that uses it."""

    name: str
    ctype: str
    offset: int
    bytes: int
    what: str


@dataclass(frozen=True, slots=True)
class CBody:
    """What one function of the schedule runs: locals, then layers and copies in order.

    ``parameters`` are what it needs of its caller: the state, inputs, outputs and the arena, in this order.
    """

    locals: tuple[CLocal, ...]
    steps: tuple[CLayer | CCopy, ...]
    parameters: tuple[CArg, ...]

    @property
    def uses_arena(self) -> bool:
        return any(a.base == "arena" for a in self.parameters)


@dataclass(frozen=True, slots=True)
class CInit:
    """One part of the state that ``reset`` sets."""

    function: str
    params: str
    offset: int


@dataclass(frozen=True, slots=True)
class CVectors:
    """Test vectors: integers in and out, one entry a vector, one tuple a port."""

    steps: tuple[int, ...]
    inputs: tuple[CTable, ...]
    outputs: tuple[CTable, ...]


@dataclass(frozen=True, slots=True)
class CLibrary:
    """CMSIS-NN as a model uses it: its release, the macros it is compiled with, its sources below its folder."""

    version: str
    defines: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CProgram:
    """A whole model."""

    name: str
    macro: str
    generator: str
    hash: str
    options: tuple[tuple[str, str], ...]
    target: str
    is_sequence: bool
    is_backward: bool
    step_absent: str  # why a sequence model has no step function; "" where it has one
    inputs: tuple[CPort, ...]
    outputs: tuple[CPort, ...]
    arena_bytes: int
    arena_with_input_bytes: int
    arena_lower_bound: int
    arena_align: int
    state_bytes: int
    state_offset: int  # of the state inside the arena of run_sequence
    counter_offset: int | None
    arena_map: tuple[CLocal, ...]
    tables: tuple[CTable, ...]
    layers: tuple[CLayer, ...]
    main: CBody | None
    step: CBody | None
    tail: CBody | None
    resets: tuple[CInit, ...]
    sources: tuple[tuple[str, str], ...]  # file name and its text without includes of other parts
    blocks: tuple[tuple[str, str], ...]  # function and rendered text
    macs: int
    weight_bytes: int
    vectors: CVectors
    library: CLibrary | None  # None where the model calls none
