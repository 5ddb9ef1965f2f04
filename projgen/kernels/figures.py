"""What each family of fast kernels costs at its best: fits of hand-made kernels, to hold the emitted ones against.

Instructions of whole layers on Cortex-M4 (M7 and M33 execute the same) and M55: borders, requantisation, stores and
loops included; gcc -O2 around assembly blocks. They are measured figures and no predictions: those that choose kernels
(``KernelChoice.instructions``) are fitted on what is emitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from projgen.ir.attrs import AvgPool2d, Conv2d, Gru, Lstm, MaxPool2d
from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType, TensorType


@dataclass(frozen=True, slots=True)
class Map:
    """A layer over a map: kernel, stride, input channels that an output reads, and how many values and outputs.

    ``around``: values of the padded map for each output position and channel.
    """

    kernel: tuple[int, int]
    stride: int
    channels: int
    inputs: int
    outputs: int
    around: float

    def up_to(self, multiple: int) -> int:
        """Channels rounded up."""
        return -(-self.channels // multiple) * multiple


Fit = Callable[[Map], float | None]

# (kernel, input channels, stride): instructions per multiplication of the first layers measured.
_STEMS_DSP: Final = {((3, 3), 3, 1): 1.196, ((3, 3), 3, 2): 1.218, ((10, 4), 1, 2): 0.973}
_STEMS_MVE: Final = {((3, 3), 3, 1): 0.272, ((3, 3), 3, 2): 0.319, ((10, 4), 1, 2): 0.234}
_FEWEST: Final = 8  # channels from which a fit holds


def _conv(slopes: tuple[float, float], rest: float, multiple: int) -> Fit:
    """A 3x3 convolution, per output ``slope * channels + rest``, the slope by stride."""

    def fit(m: Map) -> float | None:
        if m.kernel != (3, 3) or m.stride not in (1, 2) or m.channels < _FEWEST:
            return None
        return m.outputs * (slopes[m.stride - 1] * m.up_to(multiple) + rest)

    return fit


def _per_output(slope: float, rest: float, multiple: int, per_input: float = 0.0) -> Fit:
    """``slope * channels + rest`` an output and ``per_input`` an input value."""

    def fit(m: Map) -> float | None:
        if m.channels < _FEWEST:
            return None
        return m.outputs * (slope * m.up_to(multiple) + rest) + per_input * m.inputs

    return fit


def _depthwise(stride1: tuple[float, float], stride2: tuple[float, float]) -> Fit:
    """A 3x3 depthwise layer: an output's instructions and those of each value of the padded map, by stride."""

    def fit(m: Map) -> float | None:
        if m.kernel != (3, 3) or m.channels != 1 or m.stride not in (1, 2):
            return None
        output, value = stride1 if m.stride == 1 else stride2
        return m.outputs * (output + value * m.around)

    return fit


_MAPS: Final[Mapping[str, Fit]] = {
    "conv2d_dsp": _conv((6.94, 7.5), 5.6, 4),
    "conv2d_dsp_looped": _conv((7.22, 7.78), 5.6, 4),
    "winograd1d_dsp": _per_output(3.75, 9.0, 4, 2.25),
    "winograd1d_dsp_looped": _per_output(3.75, 9.0, 4, 2.25),
    "winograd2d_dsp": _per_output(2.5, 12.0, 4, 7.5),
    "winograd2d_dsp_looped": _per_output(2.5, 16.9, 4, 7.5),
    "winograd_stride2_dsp": _per_output(4.69, 7.0, 4, 1.4),
    "winograd_stride2_dsp_looped": _per_output(4.69, 11.0, 4, 1.4),
    "pointwise_dsp": _per_output(0.7083, 6.5, 4, 1.4),
    "pointwise_dsp_looped": _per_output(0.7283, 7.5, 4, 1.4),
    "linear_pixels_dsp": _per_output(0.7083, 6.5, 4, 1.4),
    "linear_pixels_dsp_looped": _per_output(0.7283, 7.5, 4, 1.4),
    "linear_dsp": _per_output(0.875, 8.0, 4),
    "linear_dsp_looped": _per_output(0.89, 8.0, 4),
    "depthwise_dsp": _depthwise((11.5, 1.75), (16.0, 1.75)),
    "depthwise_rows_dsp": _depthwise((11.5, 1.75), (16.0, 1.75)),
    "conv2d_mve": _conv((0.84375, 0.914), 4.1, 16),
    "conv2d_mve_gathered": _conv((0.84375, 0.914), 4.1, 16),
    "pointwise_mve": _per_output(0.109375, 3.0, 16),
    "linear_mve": _per_output(0.134, 2.45, 16),
    "depthwise_mve": _depthwise((1.2, 2.6), (-10.0, 4.4)),
    "depthwise_rows_mve": _depthwise((1.2, 2.6), (-10.0, 4.4)),
}
_RESIDUAL: Final = 2.0  # instructions an output more where a DSP kernel starts from a residual


def figure(graph: Graph, node: Node, kernel: str) -> float | None:
    """Instructions of one call (one time step) as measured on the best kernel of this family; None where none was.

    Args:
        kernel: the record's name (``KernelChoice.kernel``).
    """
    x = graph.arg(node, "x").type if "x" in node.inputs else None
    if isinstance(node.attrs, Lstm):
        return _lstm(graph, node, kernel)
    if isinstance(node.attrs, Gru):
        return _gru(graph, node, kernel)
    if kernel == "add_dsp":
        return 7.0 * graph.type(node.output).elements
    if x is None or x.dtype is not DType.INT8:
        return None
    if kernel == "max_pool2d_dsp" and isinstance(node.attrs, MaxPool2d) and node.attrs.kernel == (2, 2):
        return 2.58 * graph.type(node.output).elements
    if kernel == "avg_pool2d_dsp" and isinstance(node.attrs, AvgPool2d) and node.attrs.kernel == x.step_shape[:2]:
        return 0.73 * x.elements + 220.0
    name = kernel.replace("_residual", "")
    fit = _MAPS.get(name)
    if fit is None or (name != kernel and not name.endswith(("_dsp", "_dsp_looped"))):
        return None
    made = _map(graph, node, x)
    stem = (_STEMS_MVE if "_mve" in name else _STEMS_DSP).get((made.kernel, made.channels, made.stride))
    if stem is not None and isinstance(node.attrs, Conv2d) and node.attrs.groups == 1:
        return stem * made.outputs * made.channels * math.prod(made.kernel)
    found = fit(made)
    return None if found is None else found + _RESIDUAL * made.outputs * (name != kernel)


def _map(graph: Graph, node: Node, x: TensorType) -> Map:
    """The sizes of a convolution or a fully connected layer."""
    out, w = graph.type(node.output), graph.data(node, "w").shape
    if not isinstance(node.attrs, Conv2d):
        return Map((1, 1), 1, int(w[-1]), x.elements, out.elements, 1.0)
    height, width, channels = x.step_shape
    top, bottom, left, right = node.attrs.padding
    around = (height + top + bottom) * (width + left + right) * channels / out.elements
    return Map((int(w[1]), int(w[2])), node.attrs.stride[0], int(w[3]), x.elements, out.elements, around)


def _eights(n: int) -> int:
    return -(-n // 8)


def _columns(graph: Graph, node: Node) -> tuple[int, list[tuple[int, int]]]:
    """Columns of the gates, and (rows, columns) of the factors before them; those of a joint layer are one."""
    columns = sum(int(graph.data(node, r).shape[1]) for r in ("w", "r") if r in node.inputs)
    shapes = [graph.data(node, r).shape for r in ("q_in", "q_out") if r in node.inputs]
    factors = [(int(s[0]), int(s[1])) for s in shapes]
    if isinstance(node.attrs, Lstm) and node.attrs.joint:
        factors = [(factors[0][0], sum(width for _, width in factors))]
    return columns, factors


def _lstm(graph: Graph, node: Node, kernel: str) -> float | None:
    units = node.attrs.hidden if isinstance(node.attrs, Lstm) else 0
    columns, factors = _columns(graph, node)
    if kernel == "lstm_dsp":
        gates = units * (45.0 + 14 * -(-columns // 4))
        return gates + 60 + sum(-(-rows // 4) * (14 * -(-width // 4) + 24.0) for rows, width in factors)
    if kernel == "lstm_mve":
        vectors = _eights(columns) if factors else -(-columns // 16)
        gates = _eights(units) * (90.0 + 68 * vectors)
        return gates + 60 + sum(_eights(rows) * (17 * -(-width // 16) + 22.0) for rows, width in factors)
    return None


def _gru(graph: Graph, node: Node, kernel: str) -> float | None:
    """Dense layers on the DSP cores alone were measured."""
    columns, factors = _columns(graph, node)
    if kernel != "gru_dsp" or factors or not isinstance(node.attrs, Gru):
        return None
    return node.attrs.hidden * (36.0 + 10.5 * -(-columns // 4)) + 60
