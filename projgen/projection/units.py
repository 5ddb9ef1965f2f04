"""Which groups of units may lose some: what the trace left open, the statistics, and a trial run with fewer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from projgen.data import input_layout
from projgen.projection.measure import evaluating
from projgen.projection.merge import Ranking, narrowed
from projgen.projection.trace import Group

_RESHAPES = {"view", "reshape", "unflatten"}
_TORCH = str(Path(torch.__file__).parent)
_FAULTS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)


def trial_inputs(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Two to four observations to trace the model with (a batch of one would be taken for a constant)."""
    axis = 1 if input_layout(model).time_axis == 0 else 0
    few = tuple(x.narrow(axis, 0, min(4, x.shape[axis])) if x.dim() > axis else x for x in batch)
    return few if few[0].shape[axis] > 1 else tuple(torch.cat((x, x), axis) for x in few)


def settle(
    model: nn.Module,
    groups: list[Group],
    known: set[tuple[str, int]],
    allowed: set[str],
    inputs: tuple[Tensor, ...],
) -> None:
    """Write into each traced group why its units must stay, where they must.

    Args:
        groups: as traced; their ``reason`` is filled in.
        known: modules and cells with statistics. allowed: names of the modules that may lose units.
        inputs: what the model is run with, whole and narrower.
    """
    mark(groups, known, allowed)
    _try_narrower(model, groups, inputs)
    _mark_whole_rnns(groups)


def mark(groups: list[Group], known: set[tuple[str, int]], allowed: set[str]) -> None:
    """Why units must stay, as far as it is known without running the model."""
    for group in groups:
        unknown = [c.module for c in group.consumers if (c.module, c.cell) not in known]
        barred = [name for name in group.producers if name not in allowed]
        if group.reason:
            continue
        if barred:
            group.reason = f"layer {barred[0]!r}, which makes them, may not be changed"
        elif unknown:
            group.reason = f"layer {unknown[0]!r}, which reads them, can't be narrowed"
        elif not group.consumers:
            group.reason = "nothing reads them"
    _mark_whole_rnns(groups)


def _mark_whole_rnns(groups: list[Group]) -> None:
    """Every cell of an RNN keeps its units if one must: all are equally wide."""
    changed = True
    while changed:
        changed = False
        bound = {name for group in groups if group.reason for name in group.cells}
        for group in groups:
            if not group.reason and bound & set(group.cells):
                group.reason, changed = "another cell of the same RNN keeps its units", True


def _try_narrower(model: nn.Module, groups: list[Group], inputs: tuple[Tensor, ...]) -> None:
    """Run the model with one unit less in every group: its forward may hold a number of channels as a constant."""
    free = [group for group in groups if not group.reason and group.size > 1]
    if not free:
        return
    whole = _run(model, inputs)
    if not _fault(model, free, inputs, whole):
        return
    good: list[Group] = []
    for together in _by_rnn(free):
        fault = _fault(model, [*good, *together], inputs, whole)
        if fault:
            together[0].reason = fault
        else:
            good += together


def _by_rnn(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups, those of one RNN's cells together."""
    found: list[list[Group]] = []
    for group in groups:
        mine = next((other for other in found if any(set(group.cells) & set(g.cells) for g in other)), None)
        if mine is None:
            found.append([group])
        else:
            mine.append(group)
    return found


@dataclass(slots=True)
class _Reshape:
    """A call that changes a shape: its text, its place in the source, the shapes before and after (None: it failed)."""

    text: str
    place: str
    before: tuple[int, ...]
    after: tuple[int, ...] | None = None


@dataclass(slots=True)
class _Run:
    """What a run of the model did. ``outputs``: their shapes. ``error``: what stopped it, else empty."""

    reshapes: list[_Reshape]
    outputs: list[tuple[int, ...]] = field(default_factory=list)
    error: str = ""


class _Recorder(TorchFunctionMode):
    """Notes every reshape that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Reshape] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        name = getattr(function, "__name__", "")
        if name not in _RESHAPES or not args or not isinstance(args[0], Tensor):
            return function(*args, **named)
        sizes = [value for value in (*args[1:], *named.values()) if not isinstance(value, torch.dtype)]
        flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
        call = _Reshape(f"{name}({', '.join(map(str, flat))})", _place(), tuple(args[0].shape))
        self.calls.append(call)
        result = function(*args, **named)
        call.after = tuple(result.shape)
        return result


def _place() -> str:
    """File and line of the model's code that is running; empty for code without a file."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    file = Path("" if frame is None else frame.f_code.co_filename)
    return f"{file.name}:{frame.f_lineno}" if frame is not None and file.is_file() else ""


def _run(model: nn.Module, inputs: tuple[Tensor, ...]) -> _Run:
    recorder = _Recorder()
    with evaluating(model), torch.no_grad():
        try:
            with recorder:
                result = model(*inputs)
        except _FAULTS as error:
            return _Run(recorder.calls, error=str(error).partition("\n")[0] or type(error).__name__)
    return _Run(recorder.calls, [tuple(y.shape) for y in _tensors(result)])


def _fault(model: nn.Module, groups: Sequence[Group], inputs: tuple[Tensor, ...], whole: _Run) -> str:
    """Why the model does not run as before when every group loses a unit; empty if it does."""
    less = _run(narrowed(model, [(_any_order(group), np.arange(group.size - 1)) for group in groups]), inputs)
    if not less.error and less.outputs == whole.outputs:
        return ""
    for before, after in zip(whole.reshapes, less.reshapes, strict=False):
        is_fixed = before.text == after.text and before.before != after.before
        if is_fixed and before.after and (after.after is None or after.after[:1] != before.after[:1]):
            where = f" at {before.place}" if before.place else ""
            return f"{before.text}{where} holds their number as a constant: write flatten(1), -1 or the input's size"
    what = less.error or f"its outputs' shapes become {less.outputs}"
    return f"the model does not run as before with fewer of them ({what})"


def _any_order(group: Group) -> Ranking:
    """The units in their own order, as if they were independent of each other."""
    covariances = (np.eye(group.size),) * len(group.consumers)
    return Ranking(group, np.arange(group.size), np.zeros(group.size + 1), covariances)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = list(value.values()) if isinstance(value, dict) else value
    return [y for part in parts for y in _tensors(part)] if isinstance(parts, tuple | list) else []
