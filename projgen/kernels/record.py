"""What a kernel is: how one operator is realised in C on a target, with its own weight packing and layouts.

A kernel realises the integer meaning of its operator byte for byte; the lowering only chooses among equals.

Calling convention of the C function (all tables and constants sit in the parameter struct):

* ``void KERNEL(const KERNEL_params *p, const T *x0, [const T *x1, ...] T *y, void *scratch)`` for one whole
  operator; the scratch argument is absent where ``scratch_bytes`` is 0; a kernel without parameters drops p;
* recurrent: ``void KERNEL(const KERNEL_params *p, void *state, const T *x_t, T *y_t, void *scratch)`` is one
  time step and ``void KERNEL_reset(const KERNEL_params *p, void *state)`` sets the initial state;
* mean over time: ``KERNEL_reset(p, state)``, ``KERNEL(p, state, x_t)`` once a step, and after the last one
  ``KERNEL_finish(p, state, int32_t steps, y)``;
* row by row: ``void ROW_FUNCTION(const KERNEL_params *p, const T *const *rows, [const int8_t *residual,] T *y,
  void *scratch)`` computes ``rows`` output rows, which lie one after the other like those of the residual, from one
  pointer to each input row under them (dilation and stride resolved; a pad row is filled with the zero point). The
  residual's rows may be y.

Pixels of a map (its last axis) lie side by side. Those of an output may lie ``pitch`` bytes apart instead, between the
channels of other maps, which the kernel must leave alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.targets import Target

Array = npt.NDArray[Any]


class Layout(Protocol):
    """A reversible order of constants: ``unpack(pack(c)) == c`` for every legal c (a property test)."""

    def pack(self, constants: Mapping[str, Array]) -> Array:
        """The emitted table from the canonical constants, by role."""

    def unpack(self, table: Array) -> Mapping[str, Array]:
        """The canonical constants, by role, from the emitted table."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One constant array of the weights header.

    ``name`` is its suffix ("weights", "bias", "stream"), ``roles`` the operator constants it holds, ``data`` the
    packed integers whose dtype is the C type; ``layout`` is the inverse that the interpreter reads through.
    """

    name: str
    roles: tuple[str, ...]
    layout: Layout
    data: Array
    comment: str = ""


@dataclass(frozen=True, slots=True)
class TableRef:
    """A parameter field that points at one of the kernel's tables."""

    table: str


Field = int | TableRef | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Emitted code: a template under ``templates/kernels/`` rendered once per distinct (template, parameters).

    ``function`` is the C name it defines; ``parameters`` are all it may see.
    """

    template: str
    function: str
    parameters: tuple[tuple[str, int | str | tuple[int, ...]], ...]


def _none(_pitch: int) -> KernelChoice | None:
    """The kernels whose output pixels always lie side by side."""
    return None


@dataclass(frozen=True, slots=True, eq=False)
class KernelChoice:
    """A kernel applied to one node on one target.

    Attributes:
        kernel: record name, shown in reports ("linear_portable", "lstm_dsp").
        function: the C function called.
        struct: C type of its parameter struct ("" for none).
        fields: the struct's initialisers by field name.
        tables: constant tables, in emission order.
        sources: files of ``runtime_c/src`` to include, in order.
        blocks: emitted blocks to include after the sources.
        scratch_bytes, state_bytes: exact; scratch is 16-byte aligned, lives only during the call.
        in_place: input roles whose buffer the output may overwrite.
        instructions: predicted for one call (one step).
        row_function: the C function for rows of a streamed segment ("" where there is none), with the same struct.
        rows: output rows that one call of it computes; the map's height is a multiple.
        row_instructions: predicted for a whole map row by row (0: as for one call).
        row_scratch_bytes: scratch of the row function (None: the same).
        library_functions: what it calls of the back end's library.
        pitch: bytes from one output pixel to the next; 0: they lie side by side.
        pitched: the same kernel for such a pitch (equal calls give the same object), or None where it has no such form.
    """

    kernel: str
    function: str
    struct: str
    fields: Mapping[str, Field]
    tables: tuple[Table, ...]
    sources: tuple[str, ...]
    instructions: float
    blocks: tuple[Block, ...] = ()
    scratch_bytes: int = 0
    state_bytes: int = 0
    in_place: frozenset[str] = field(default_factory=frozenset)
    row_function: str = ""
    rows: int = 1
    row_instructions: float = 0.0
    row_scratch_bytes: int | None = None
    library_functions: tuple[str, ...] = ()
    pitch: int = 0
    pitched: Callable[[int], KernelChoice | None] = _none


@dataclass(frozen=True, slots=True)
class KernelDef:
    """One way to realise one operator. ``isa``: features the target must have (empty: portable C99).

    ``apply`` returns None where the kernel does not fit the node (shape, range, alignment).
    """

    name: str
    op: str
    isa: frozenset[str]
    apply: Callable[[Graph, Node, Target], KernelChoice | None]
