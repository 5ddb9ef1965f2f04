"""Attributes of every operator of the IR, one frozen record each. Layouts are channels-last, no batch axis.

The roles of a node's inputs are stated with each record; weights are constants. In the quantised stage the
same record stands beside a ``numerics`` record (``projgen.ir.numerics``) and the constants are integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from projgen.ir.types import ADDED

Activation = Literal["none", "relu", "relu6"]
UnaryKind = Literal["relu", "relu6", "sigmoid", "tanh", "gelu", "gelu_tanh", "clip"]


@dataclass(frozen=True, slots=True)
class Linear:
    """y[..., n] = sum_k w[n, k] x[..., k] + b[n]. Inputs: x (..., K), w (N, K), b (N,)."""

    activation: Activation = "none"


@dataclass(frozen=True, slots=True)
class Conv2d:
    """2-D cross-correlation. Inputs: x (H, W, C), w (O, KH, KW, C/groups), b (O,). A 1-D convolution has H = 1."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Activation = "none"


@dataclass(frozen=True, slots=True)
class ConvTranspose2d:
    """The transpose of a cross-correlation: each pixel adds its multiple of the kernel to the output, ``stride`` apart.

    Inputs: x (H, W, C), w (O, KH, KW, C/groups), b (O,). ``padding`` is cut off the output's borders, then
    ``output_padding`` rows and columns are added at the bottom and the right. A 1-D one has H = 1.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    output_padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Activation = "none"


@dataclass(frozen=True, slots=True)
class Lstm:
    """One layer, one direction, gates i, f, g, o, as torch.nn.LSTM. Output y (T, H).

    Inputs: x (T, D), w (4H, D) or (4H, r_in), r (4H, H) or (4H, r_out), b (4H,) = b_ih + b_hh;
    q_in (D, r_in) if ``input_projected``; q_out (H, r_out) if ``recurrent_projected``;
    h0 (H,), c0 (H,) if ``initial_state``. ``joint``, with both projected: w multiplies the one sum
    q_in^T x + q_out^T h of equal ranks, and there is no r.
    """

    hidden: int
    input_projected: bool = False
    recurrent_projected: bool = False
    initial_state: bool = False
    reverse: bool = False
    joint: bool = field(default=False, metadata=ADDED)


@dataclass(frozen=True, slots=True)
class Gru:
    """One layer, one direction, gates r, z, n, reset after the recurrent product, as torch.nn.GRU. Output y (T, H).

    Inputs: x (T, D), w (3H, D | r_in), r (3H, H | r_out), b (3H,) = b_ih + b_hh for r and z, b_in for n;
    b_hn (H,); q_in (D, r_in), q_out (H, r_out), h0 (H,) as flagged.
    """

    hidden: int
    input_projected: bool = False
    recurrent_projected: bool = False
    initial_state: bool = False
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Inference form over the last axis. Inputs: x (..., C), mean, variance, gamma, beta (C,)."""

    epsilon: float


@dataclass(frozen=True, slots=True)
class Unary:
    """An element-wise function. Input: x. ``low`` and ``high`` bound ``clip`` only."""

    kind: UnaryKind
    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True, slots=True)
class Add:
    """Element-wise sum. Inputs: a, b; b broadcasts against a (NumPy's rule, same rank)."""

    activation: Activation = "none"


@dataclass(frozen=True, slots=True)
class Mul:
    """Element-wise product. Inputs: a, b; b broadcasts against a (NumPy's rule, same rank)."""

    activation: Activation = "none"


@dataclass(frozen=True, slots=True)
class MaxPool2d:
    """Input: x (H, W, C). Padding never wins."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right


@dataclass(frozen=True, slots=True)
class AvgPool2d:
    """Input: x (H, W, C). Global and adaptive pooling become this with the right kernel."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    count_include_pad: bool = True


@dataclass(frozen=True, slots=True)
class MeanTime:
    """Mean over a symbolic time axis. Input: x (T, F); output (F,)."""


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over the last axis. Input: x (..., N)."""


@dataclass(frozen=True, slots=True)
class Attention:
    """y[t, h] = sum_s softmax_s(scale q[t, h] . k[s, h]) v[s, h]. Inputs: q (T, H, D), k (S, H, D), v (S, H, E).

    Output (T, H, E); every axis is static.
    """

    scale: float


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + epsilon) gamma + beta over the last axis. Inputs: x (..., N), gamma, beta (N,)."""

    epsilon: float


@dataclass(frozen=True, slots=True)
class Pad:
    """Constant padding. Input: x; ``amounts`` holds (before, after) per axis."""

    amounts: tuple[tuple[int, int], ...]
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Slice:
    """x[start:stop:step] along one static axis, 0 <= start < stop <= size. Input: x."""

    axis: int
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Select:
    """x[index] along ``axis``, which disappears. Input: x. On a symbolic time axis only index -1, the last step."""

    axis: int
    index: int


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same elements in row-major order under another static shape; costs nothing. Input: x."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transpose:
    """Axes permuted as numpy.transpose. Input: x."""

    perm: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    """Joined along ``axis``. Inputs: x0, x1, ..."""

    axis: int


@dataclass(frozen=True, slots=True)
class Lut:
    """Quantised stage only: y = table[x + 128], any int8 -> int8 function (activations, rescaling).

    Inputs: x int8, table (256,) int8. ``function`` names what the table holds, for the reader.
    """

    function: str


Attrs = (
    Linear
    | Conv2d
    | ConvTranspose2d
    | Lstm
    | Gru
    | BatchNorm
    | Unary
    | Add
    | Mul
    | MaxPool2d
    | AvgPool2d
    | MeanTime
    | Softmax
    | Attention
    | LayerNorm
    | Pad
    | Slice
    | Select
    | Reshape
    | Transpose
    | Concat
    | Lut
)
