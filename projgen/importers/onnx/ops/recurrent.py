"""LSTM and GRU, and the same with factored weights (the functions ``projgen::ProjectedLSTM`` and ``...GRU``)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from projgen.importers.onnx.build import Build, Call, Handler
from projgen.importers.onnx.values import Activation, Array, Const, Factors, Filled, Value, tensor
from projgen.projection.layers import ProjectedGRU, ProjectedLSTM
from projgen.projection.recurrent import CELL_WEIGHTS

DOMAIN = "projgen"
# Position in ONNX's row blocks (LSTM: i, o, f, c; GRU: z, r, h) of each gate in PyTorch's order.
TO_TORCH = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
_PROJECTORS = ("input_projector", "output_projector", "projector_bias")
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}


@dataclass(frozen=True, slots=True)
class Cell:
    """One direction of a layer, rows in PyTorch's gate order; a projector of None means a dense matrix.

    Shapes: weight_ih (gates*H, r_i or D), input_projector (D, r_i), weight_hh (gates*H, r_o or H),
    output_projector (H, r_o), bias_ih and bias_hh (gates*H), or projector_bias (r), which the first factor multiplies.
    """

    weight_ih: Array
    input_projector: Array | None
    weight_hh: Array
    output_projector: Array | None
    bias_ih: Array | None
    bias_hh: Array | None
    projector_bias: Array | None = None

    @property
    def input_size(self) -> int:
        return int(self.weight_ih.shape[1] if self.input_projector is None else self.input_projector.shape[0])

    @property
    def is_factored(self) -> bool:
        return self.input_projector is not None or self.output_projector is not None

    @property
    def is_joint(self) -> bool:
        """Whether both products share their first factor."""
        both = self.input_projector is not None and self.output_projector is not None
        return both and np.array_equal(self.weight_ih, self.weight_hh)


def reordered(array: Array, order: Sequence[int]) -> Array:
    """``array`` with its row blocks, one per gate, in another order."""
    blocks = array.reshape(len(order), -1, *array.shape[1:])
    return np.ascontiguousarray(blocks[list(order)].reshape(array.shape))


def _standard(kind: str, build: Build, call: Call) -> Sequence[Value]:
    """The ONNX operator: inputs X, W, R, B, sequence_lens, initial_h and, for LSTM, initial_c and P."""
    order = TO_TORCH[kind]
    weights, recurrent = call.needed(1, "weights"), call.needed(2, "recurrent weights")
    bias = call.const(3, "bias")
    direction = call.attribute("direction", "forward")
    if direction == "reverse":
        raise call.refusal("in direction 'reverse' alone; 'forward' and 'bidirectional' are supported")
    directions = 2 if direction == "bidirectional" else 1
    if weights.array.ndim != 3 or weights.shape[0] != directions or recurrent.array.ndim != 3:
        raise call.fault(f"weights of shape {weights.shape} for {directions} direction(s)")
    rows = weights.shape[1]
    cells = []
    for index in range(directions):
        ih, input_projector = _matrix(weights, index, order)
        hh, output_projector = _matrix(recurrent, index, order)
        halves = None if bias is None else (bias.array[index, :rows], bias.array[index, rows:])
        biases = [None, None] if halves is None else [reordered(half, order) for half in halves]
        cells.append(Cell(ih, input_projector, hh, output_projector, biases[0], biases[1]))
    _check_plain(kind, call)
    state = [call.given(5), call.given(6)] if kind == "LSTM" else [call.given(5)]
    return _emit(kind, build, call, cells, call.activation(0), state, batch_first=bool(call.attribute("layout", 0)))


def _matrix(value: Const, index: int, order: Sequence[int]) -> tuple[Array, Array | None]:
    factors: Factors | None = value.factors[index] if value.factors else None
    if factors is None:
        return reordered(value.array[index], order), None
    return reordered(factors.left, order), np.ascontiguousarray(factors.right.T)


def _check_plain(kind: str, call: Call) -> None:
    """Refuse the options of ONNX's operators that PyTorch's layers don't have."""
    if kind == "GRU" and not call.attribute("linear_before_reset", 0):
        raise call.refusal(
            "with linear_before_reset=0 the reset gate acts before the recurrent product; PyTorch's GRU applies it "
            "after (linear_before_reset=1), and these give different numbers"
        )
    names = tuple(call.attribute("activations", ())) or _ACTIVATIONS[kind]
    if len(names) % len(_ACTIVATIONS[kind]) or names != _ACTIVATIONS[kind] * (len(names) // len(_ACTIVATIONS[kind])):
        raise call.refusal(f"with activations {', '.join(names)}; {', '.join(_ACTIVATIONS[kind])} are supported")
    if call.attribute("clip", None) is not None:
        raise call.refusal("with clipping of its gates")
    if call.attribute("input_forget", 0):
        raise call.refusal("with coupled input and forget gates")
    peepholes = call.const(7, "peephole weights") if kind == "LSTM" else None
    if peepholes is not None and bool(peepholes.array.any()):
        raise call.refusal("with peephole weights")
    lengths = call.const(4, "sequence lengths")
    steps = call.activation(0).shape[1 if call.attribute("layout", 0) else 0]
    if lengths is not None and not bool((lengths.array == steps).all()):
        raise call.refusal("with sequence lengths shorter than the data")


def _projected(kind: str, build: Build, call: Call) -> Sequence[Value]:
    """Our function: the inputs are told apart by the names of its parameters."""
    given = dict(zip(call.parameters, call.inputs, strict=False))
    order = TO_TORCH[kind]
    positions = {name: index for index, name in enumerate(call.parameters)}

    def constant(name: str) -> Array | None:
        value = call.const(positions[name], name) if name in positions else None
        return None if value is None else value.array

    cells = []
    for suffix in ("", "_reverse"):
        weight, recurrent, bias = (constant(name + suffix) for name in ("W", "R", "B"))
        if weight is None:
            if suffix:
                break
            raise call.fault("its weights are missing")
        recurrent = weight if recurrent is None else recurrent
        b_ih, b_hh = (None, None) if bias is None else (reordered(half, order) for half in np.split(bias, 2))
        q_in, q_out, folded = (constant(f"{name}{suffix}") for name in _PROJECTORS)
        cells.append(Cell(reordered(weight, order), q_in, reordered(recurrent, order), q_out, b_ih, b_hh, folded))
    state = [given.get("initial_h"), given.get("initial_c")] if kind == "LSTM" else [given.get("initial_h")]
    return _emit(kind, build, call, cells, call.activation(positions.get("X", 0)), state, batch_first=False)


def _emit(
    kind: str,
    build: Build,
    call: Call,
    cells: list[Cell],
    x: Activation,
    state: list[Value | None],
    *,
    batch_first: bool,
) -> Sequence[Value]:
    """The layer and its three (GRU: two) ONNX outputs.

    batch_first: the file's layout, (batch, time, ...) instead of ONNX's usual (time, batch, ...).
    """
    by_batch = x.view if batch_first else x.view.permute((1, 0, 2))
    torch_first = by_batch.is_plain or not x.view.is_plain or batch_first
    source = Activation(by_batch if torch_first else x.view, x.dtype)
    if source.shape[2] != cells[0].input_size:
        raise call.fault(f"its input has {source.shape[2]} features, its weights {cells[0].input_size}")
    layer = _layer(kind, cells, batch_first=torch_first, dtype=x.dtype)
    arguments = (build.real(source), *_states(kind, build, call, state, batch_first))
    result = build.layer(call.name, layer, *arguments, key=(*call.sharing, torch_first))
    made = build.layers[result]
    if isinstance(made, ProjectedLSTM | ProjectedGRU):
        found = [made.cell_tensor("output_projector", index) for index in range(len(cells))]
        build.projectors += [q for q in found if isinstance(q, nn.Parameter)]
    hidden, directions = layer.hidden_size, len(cells)
    batch, steps = by_batch.shape[:2]
    y = build.call(operator.getitem, result, 0)
    shape = (batch, steps) if torch_first else (steps, batch)
    output = build.activation(y, (*shape, directions * hidden), x.dtype)
    split = output.view.reshape((*shape, directions, hidden))
    assert split is not None
    file_order = (1, 2, 0, 3) if torch_first else (0, 2, 1, 3)
    values: list[Value] = [Activation(split if batch_first else split.permute(file_order), x.dtype)]
    for index in range(1, min(len(call.used), 3)):
        if not call.used[index]:
            values.append(output)
        else:
            values.append(_final(kind, build, result, index, (directions, batch, hidden), x.dtype, batch_first))
    return values


def _final(
    kind: str, build: Build, result: fx.Node, index: int, shape: tuple[Any, ...], dtype: torch.dtype, batch_first: bool
) -> Activation:
    node = build.call(operator.getitem, result, 1)
    if kind == "LSTM":
        node = build.call(operator.getitem, node, index - 1)
    if shape[0] == 1:
        last = build.activation(build.call(torch.select, node, 0, -1), shape[1:], dtype)
        return Activation(last.view.insert([1 if batch_first else 0]), dtype)
    value = build.activation(node, shape, dtype)
    return Activation(value.view.permute((1, 0, 2)), dtype) if batch_first else value


def _states(kind: str, build: Build, call: Call, state: list[Value | None], batch_first: bool) -> list[Any]:
    """Arguments for the initial state: none where it is zero, whatever batch the file baked into it."""
    moving = [value for value in state if isinstance(value, Activation)]
    for value in state:
        elements = value.array if isinstance(value, Const) else value.value if isinstance(value, Filled) else 0
        if np.any(elements):
            raise call.refusal("with a constant initial state other than zero")
    if not moving:
        return []
    if len(moving) < len(state):
        raise call.refusal("with one initial state given and the other left at zero")
    views = [value.view.permute((1, 0, 2)) if batch_first else value.view for value in moving]
    nodes = [build.real(Activation(view, moving[0].dtype)) for view in views]
    return [tuple(nodes)] if kind == "LSTM" else nodes


def _layer(kind: str, cells: list[Cell], *, batch_first: bool, dtype: torch.dtype) -> Any:
    hidden = cells[0].weight_ih.shape[0] // len(TO_TORCH[kind])
    options: dict[str, Any] = {
        "batch_first": batch_first,
        "bidirectional": len(cells) == 2,
        "bias": cells[0].bias_ih is not None or cells[0].projector_bias is not None,
        "dtype": dtype,
    }
    if not any(cell.is_factored for cell in cells):
        dense = (nn.LSTM if kind == "LSTM" else nn.GRU)(cells[0].input_size, hidden, **options)
        for cell, suffix in zip(cells, ("_l0", "_l0_reverse"), strict=False):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                _fill(getattr(dense, name + suffix, None), getattr(cell, name))
        return dense
    ranks = [[None if p is None else p.shape[1] for p in (c.input_projector, c.output_projector)] for c in cells]
    options["joint"] = [kind == "LSTM" and cell.is_joint for cell in cells]
    options["fold_bias"] = [cell.projector_bias is not None for cell in cells]
    layer = (ProjectedLSTM if kind == "LSTM" else ProjectedGRU)(
        cells[0].input_size, hidden, [r[0] for r in ranks], [r[1] for r in ranks], **options
    )
    for index, cell in enumerate(cells):
        for name in (*CELL_WEIGHTS, "projector_bias"):
            _fill(layer.cell_tensor(name, index), getattr(cell, name))
        _fill_biases(kind, layer, index, cell)
    return layer


def _fill_biases(kind: str, layer: ProjectedLSTM | ProjectedGRU, index: int, cell: Cell) -> None:
    """One trainable vector per gate: what the file splits in two is added, except where a gate needs both."""
    if cell.bias_ih is None or cell.bias_hh is None:
        return
    if kind == "LSTM":
        _fill(layer.cell_tensor("bias_ih", index), cell.bias_ih + cell.bias_hh)
        return
    reset = 2 * layer.hidden_size
    merged = np.concatenate((cell.bias_ih[:reset] + cell.bias_hh[:reset], cell.bias_ih[reset:]))
    _fill(layer.cell_tensor("bias_ih", index), merged)
    _fill(layer.cell_tensor("bias_hn", index), cell.bias_hh[reset:])


def _fill(target: torch.Tensor | None, array: Array | None) -> None:
    if target is not None and array is not None:
        with torch.no_grad():
            target.copy_(tensor(array))


OPERATORS: dict[str, Handler] = {"GRU": partial(_standard, "GRU"), "LSTM": partial(_standard, "LSTM")}
FUNCTIONS: dict[str, Callable[[Build, Call], Sequence[Value]]] = {
    "ProjectedGRU": partial(_projected, "GRU"),
    "ProjectedLSTM": partial(_projected, "LSTM"),
}
