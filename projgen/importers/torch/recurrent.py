"""LSTM and GRU layers, dense or projected: each layer and direction becomes a node of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from projgen.importers.torch.context import Call, Handler, Importer, Operand, Refused, Stack, Tracked, as_array
from projgen.ir import attrs as ir
from projgen.ir.graph import Array

_TRANSPOSES = ("t", "transpose", "permute", "numpy_T", "mT")


@dataclass(frozen=True, slots=True)
class _Cell:
    """Parameters of one layer and direction: W (or W' and q_in), R (or R' and q_out), the two biases."""

    w: Array
    r: Array
    b_ih: Array
    b_hh: Array
    q_in: Array | None
    q_out: Array | None

    @property
    def is_joint(self) -> bool:
        """Whether both products share their first factor; the GRU's candidate gate needs its two apart."""
        return self.q_in is not None and self.q_out is not None and np.array_equal(self.w, self.r)

    @property
    def factors(self) -> dict[str, Array]:
        return {role: q for role, q in (("q_in", self.q_in), ("q_out", self.q_out)) if q is not None}


def _factors(imp: Importer, call: Call, given: object) -> tuple[Array, Array | None]:
    """A weight as (W, None), or as (W', Q) where the program computes it as W' @ Q^T."""
    node = given if isinstance(given, torch.fx.Node) else None
    value = imp.env[node] if node is not None else given
    if not isinstance(value, torch.Tensor):
        raise call.refused("its weights depend on the model's inputs", "parameters as weights")
    if node is not None and _aten(node) in {"matmul", "mm"}:
        left, right = node.args[:2]
        if isinstance(left, torch.fx.Node) and isinstance(right, torch.fx.Node) and _aten(right) in _TRANSPOSES:
            return as_array(imp.env[left]), as_array(imp.env[right].T)
    return as_array(value), None


def _aten(node: torch.fx.Node) -> str:
    return str(node.target).split(".")[1] if isinstance(node.target, torch._ops.OpOverload) else ""


def _cells(imp: Importer, call: Call) -> list[_Cell]:
    if call.args["train"] and call.args["dropout"]:
        raise call.refused("dropout that is active at inference", "eval mode")
    nodes: Any = call.node.args[2]
    biases = bool(call.args["has_biases"])
    per_cell = 4 if biases else 2
    count = _count(call)
    if not isinstance(nodes, list | tuple) or len(nodes) != count * per_cell:
        raise call.refused("an RNN whose parameters are not (weights, biases) per layer", "no proj_size")
    cells = []
    for i in range(count):
        own = nodes[i * per_cell : (i + 1) * per_cell]
        w, q_in = _factors(imp, call, own[0])
        r, q_out = _factors(imp, call, own[1])
        zero = np.zeros(w.shape[0], np.float32)
        b_ih, b_hh = (as_array(imp.env[bias]) for bias in own[2:]) if biases else (zero, zero)
        cells.append(_Cell(w, r, b_ih, b_hh, q_in, q_out))
    return cells


def _directions(call: Call) -> int:
    return 2 if call.args["bidirectional"] else 1


def _count(call: Call) -> int:
    return int(call.args["num_layers"]) * _directions(call)


def _initial(call: Call, given: Operand, what: str) -> list[Array | None]:
    """The initial state of each cell, None for zeros."""
    if not isinstance(given, torch.Tensor):
        raise call.refused(f"its {what} depends on the model's inputs", "zeros or a constant as initial state")
    states = as_array(given)
    first = states.take([0], axis=1)
    if not np.array_equal(states, np.broadcast_to(first, states.shape)):
        raise call.refused(f"its {what} differs along the batch", "one initial state for all samples")
    return [None if not first[i].any() else first[i, 0] for i in range(_count(call))]


def _sequence(imp: Importer, call: Call) -> tuple[Tracked, int]:
    """The input as (T, F) and its torch time axis."""
    x = call.activation("input")
    batch = 0 if call.args["batch_first"] else 1
    if x.rank != 3 or x.batch != batch:
        raise call.refused(
            f"its input has {x.rank} axes with the batch as axis {x.batch}",
            f"3 axes with the batch as axis {batch}" + ("" if batch == 0 else " (or batch_first=True)"),
        )
    return imp.ordered(call, x, x.plain), 1 - batch


def _run(
    imp: Importer,
    call: Call,
    op: str,
    gate_inputs: Callable[[_Cell], dict[str, Array]],
    states: list[dict[str, Array]],
) -> tuple[Tracked, Stack]:
    """The layers one after the other. Returns the last one's output and h_n."""
    x, time = _sequence(imp, call)
    directions = _directions(call)
    cells = list(zip(_cells(imp, call), states, strict=True))
    finals: list[Callable[[], Tracked]] = []
    for layer in range(len(cells) // directions):
        outputs = []
        for reverse, (cell, state) in enumerate(cells[layer * directions : (layer + 1) * directions]):
            suffix = f".l{layer}" + ("_reverse" if reverse else "") if len(cells) > 1 else ""
            constants = {**gate_inputs(cell), **cell.factors, **state}
            value = _emit(imp, call, op, cell, {"x": x.value, **constants}, suffix, bool(reverse))
            outputs.append(value)
            finals.append(partial(_final, imp, call, value, x.order.index(time), 0 if reverse else -1))
        if directions == 2:
            joined = {f"x{i}": value for i, value in enumerate(outputs)}
            outputs = [imp.emit(call, "concat", ir.Concat(1), joined, f"{call.base}.l{layer}.joined")]
        x = Tracked(outputs[0], x.order, x.batch)
    return x, Stack(tuple(finals))


def _emit(
    imp: Importer, call: Call, op: str, cell: _Cell, inputs: dict[str, str | Array], suffix: str, reverse: bool
) -> str:
    """The node of one cell; its inputs in the operator's order."""
    roles = ("x", "w", "r", "b", "b_hn", "q_in", "q_out", "h0", "c0")
    given = {**inputs, "w": cell.w, "r": cell.r}
    flags = (cell.q_in is not None, cell.q_out is not None, "h0" in inputs, reverse)
    attrs: ir.Lstm | ir.Gru
    if op == "lstm":
        attrs = ir.Lstm(cell.w.shape[0] // 4, *flags, joint=cell.is_joint)
        if attrs.joint:
            del given["r"]
    else:
        attrs = ir.Gru(cell.w.shape[0] // 3, *flags)
    return imp.emit(call, op, attrs, {role: given[role] for role in roles if role in given}, call.base + suffix)


def _final(imp: Importer, call: Call, value: str, time: int, step: int) -> Tracked:
    """The state after the last step that was run, (batch, H)."""
    return Tracked(imp.emit(call, "select", ir.Select(time, step), {"x": value}, f"{value}.last"), (1,), 0)


def lstm(imp: Importer, call: Call) -> Operand:
    h0, c0 = (_initial(call, s, what) for s, what in zip(call.args["hx"], ("h_0", "c_0"), strict=True))
    cells_hidden = _cells(imp, call)
    states: list[dict[str, Array]] = []
    for cell, h, c in zip(cells_hidden, h0, c0, strict=True):
        zeros = np.zeros(cell.w.shape[0] // 4, np.float32)
        given = h is not None or c is not None
        states.append({"h0": zeros if h is None else h, "c0": zeros if c is None else c} if given else {})
    y, h_n = _run(imp, call, "lstm", lambda cell: {"b": cell.b_ih + cell.b_hh}, states)
    return (y, h_n, Refused("the final cell state c_n of an LSTM is used", "the output sequence and h_n"))


def gru(imp: Importer, call: Call) -> Operand:
    h0 = _initial(call, call.args["hx"], "h_0")

    def biases(cell: _Cell) -> dict[str, Array]:
        hidden = cell.w.shape[0] // 3
        merged = cell.b_ih.copy()
        merged[: 2 * hidden] += cell.b_hh[: 2 * hidden]
        return {"b": merged, "b_hn": cell.b_hh[2 * hidden :]}

    return _run(imp, call, "gru", biases, [{} if h is None else {"h0": h} for h in h0])


HANDLERS: dict[str, Handler] = {"lstm": lstm, "gru": gru}
