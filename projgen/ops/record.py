"""What an operator is: one record with its shape rule, its float and integer meaning, its cost and its samples.

An operator can't be registered without them; the tests find every operator through ``samples``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.ir.types import Quant, TensorType
from projgen.quant.scope import Quantised, QuantScope, Stats

Array = npt.NDArray[Any]
Args = Mapping[str, Array]  # role -> array; activations carry the batch as axis 0, constants do not
Types = Mapping[str, TensorType]  # role -> type


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of one inference (of one step where the node has a time axis)."""

    macs: int
    elements: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """A small quantised one-operator graph with extreme and ordinary int inputs, run through the whole chain."""

    name: str
    graph: Graph
    inputs: tuple[Array, ...]  # one per graph input: (N, ...) or (N, T, ...) in the IR's layout, integers


@dataclass(frozen=True, slots=True)
class OpDef:
    """One operator.

    Attributes:
        name: its name in ``Node.op``.
        attrs: class of ``Node.attrs``.
        infer: shape rule, (attrs, input types by role) -> output type; raises ``InputError``.
        reference: float meaning, (attrs, arrays by role) -> array; batch first; float64 or float32 in, same out.
        integer: exact integer meaning, (node, arrays by role) -> array of the output's integers (int64 inside).
            None for operators that no longer exist after canonicalisation.
        oracle: (graph, node, arrays by role) -> float64 array in units of the output's LSB, computed from the
            dequantised operands without the integer arithmetic: the integer meaning stays within 1 LSB of it.
        output_quant: (attrs, quantised input types by role, stats of the output) -> the output's affine map; None for
            the general calibrated int8 range. Pass-through operators return their input's.
        quantise: (scope, float node) -> Quantised; None for operators that no longer exist after canonicalisation.
        cost: (attrs, input types by role, output type) -> Cost.
        samples: quantised graphs of this operator for the differential tests.
        prove: (quantised graph, node) -> None; refuses by name a node whose accumulators could overflow. None where
            nothing can.
        view: the output is the input's bytes under another shape; nothing is executed.
    """

    name: str
    attrs: type
    infer: Callable[[Any, Types], TensorType]
    reference: Callable[[Any, Args], Array]
    integer: Callable[[Node, Args], Array] | None
    oracle: Callable[[Graph, Node, Args], Array] | None
    output_quant: Callable[[Any, Types, Stats], Quant] | None
    quantise: Callable[[QuantScope, Node], Quantised] | None
    cost: Callable[[Any, Types, TensorType], Cost]
    samples: Callable[[], Iterable[Sample]]
    view: bool = False
    prove: Callable[[Graph, Node], None] | None = None
