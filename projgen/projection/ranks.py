"""Ranks for a goal: one variance threshold (pca), or one budget shared out by predicted loss (output)."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from projgen.errors import InputError, InputTypeError
from projgen.pca.counting import dense_cost, factored_cost
from projgen.pca.discover import Kind, Layer


class Choice(NamedTuple):
    """Ranks of a layer; None: that projector is left out.

    joint: an LSTM whose two products share a factor; folded: and whose bias comes through that factor too.
    shared: a Linear layer that reads a hidden state through the RNN's own projector; ``joint`` and ``folded`` then
    say of which form that is. separable: a convolution whose input projector spans the kernel's rows and whose core
    its columns.
    """

    r_in: int | None
    r_out: int | None
    joint: bool = False
    shared: bool = False
    separable: bool = False
    folded: bool = False

    @property
    def form(self) -> str:
        """How the two products of an RNN cell are factored: "separate", "joint" or "folded"."""
        return "folded" if self.folded else "joint" if self.joint else "separate"


DENSE = Choice(None, None)
T = TypeVar("T")
_TIE = 1e-12
_FOLD_MARGIN = (1.1, 1e-3)
_PAIRS = 10


def rated(error: float, choices: Iterable[Choice]) -> float:
    """An error as it counts against others: more with a folded bias, which saves nothing but learnables.

    As integers the bias is one per gate again: at equal learnables the folded form is larger on a target.
    """
    share, least = _FOLD_MARGIN
    return share * error + least if any(choice.folded for choice in choices) else error


@dataclass(frozen=True, slots=True)
class Spectra:
    """Eigenvalues (descending) of what a layer reads and of what it emits."""

    layer: Layer
    read: np.ndarray
    emitted: np.ndarray


def smallest_rank(eigenvalues: np.ndarray, goal: float) -> int:
    """Smallest r >= 1 whose leading eigenvalues explain the proportion ``goal`` of their sum."""
    total = float(eigenvalues.sum())
    if total <= 0.0:
        return 1
    shares = np.cumsum(eigenvalues) / total
    return min(int(np.searchsorted(shares, min(goal, shares[-1]) - _TIE)) + 1, len(eigenvalues))


def useful(layer: Layer, r_in: int | None, r_out: int | None, *, core_bias: bool = False) -> Choice:
    """The same ranks without projectors of full rank, and without factors that cost more than they replace."""
    if r_in is not None and r_in >= layer.inputs:
        r_in = None
    width = layer.hidden or layer.outputs
    if layer.kind is Kind.LINEAR or (r_out is not None and r_out >= width):
        r_out = None
    if layer.hidden:
        if r_in is not None and r_in * (layer.outputs + layer.inputs) >= layer.outputs * layer.inputs:
            r_in = None
        if r_out is not None and r_out * (layer.outputs + width) >= layer.outputs * width:
            r_out = None
        return Choice(r_in, r_out)
    if factored_cost(layer, r_in, r_out, core_bias=core_bias and r_out is not None) >= dense_cost(layer):
        return DENSE
    return Choice(r_in, r_out)


def threshold_ranks(spectra: list[Spectra], goal: float) -> dict[str, Choice]:
    """Ranks where each activation tensor keeps the proportion ``goal`` of its variance."""
    ranks = {}
    for s in spectra:
        r_in = smallest_rank(s.read, goal)
        r_out = None if s.layer.kind is Kind.LINEAR else smallest_rank(s.emitted, goal)
        ranks[s.layer.name] = useful(s.layer, r_in, r_out, core_bias=True)
    return ranks


def output_cost(layer: Layer, choice: Choice) -> int:
    """Learnables of a layer projected by ``method="output"``."""
    joint, folded = (flag and layer.hidden > 0 for flag in (choice.joint, choice.folded))
    forms = {"joint": joint, "folded": folded, "shared": choice.shared, "separable": choice.separable}
    return factored_cost(layer, choice.r_in, choice.r_out, **forms)


def pca_cost(layer: Layer, choice: Choice) -> int:
    """Learnables of a layer projected by ``method="pca"``."""
    return factored_cost(layer, choice.r_in, choice.r_out, core_bias=choice.r_out is not None)


def threshold_for_reduction(spectra: list[Spectra], removal: int) -> float:
    """Largest variance threshold at which at least ``removal`` learnables go; 0 if none does."""

    def removed(goal: float) -> int:
        ranks = threshold_ranks(spectra, goal)
        return sum(dense_cost(s.layer) - pca_cost(s.layer, ranks[s.layer.name]) for s in spectra)

    steps = [0.0, 1.0]
    for s in spectra:
        for values in (s.read, s.emitted):
            if len(values) and values.sum() > 0:
                steps.extend((np.cumsum(values) / values.sum()).tolist())
    candidates = sorted({min(max(step, 0.0), 1.0) for step in steps})
    low, high = 0, len(candidates) - 1
    while low < high:  # removal falls as the threshold rises
        middle = (low + high + 1) // 2
        low, high = (middle, high) if removed(candidates[middle]) >= removal else (low, middle - 1)
    return candidates[low]


def given_ranks(layers: list[Layer], ranks: Mapping[str, Any]) -> dict[str, Choice]:
    """User's ranks per layer name: r, (r_in, r_out) or None; names may be wildcards or whole RNNs."""
    if not isinstance(ranks, Mapping):
        raise InputTypeError(
            f"ranks of type {type(ranks).__name__}", "a dict {layer: r} or {layer: (r_in, r_out)}", "ranks"
        )
    chosen: dict[str, Choice] = {layer.name: DENSE for layer in layers}
    for pattern, value in ranks.items():
        matches = [x for x in layers if fnmatch.fnmatchcase(x.name, str(pattern)) or x.module_name == pattern]
        if not matches:
            names = ", ".join(layer.name for layer in layers)
            raise InputError(
                f"ranks for {pattern!r}, which is none of the layers to project", f"one of {names}", "ranks"
            )
        for layer in matches:
            chosen[layer.name] = _checked(layer, value)
    return chosen


def _checked(layer: Layer, value: Any) -> Choice:
    limits = (layer.inputs, 0 if layer.kind is Kind.LINEAR else layer.hidden or layer.outputs)
    if value is None:
        return DENSE
    if isinstance(value, tuple | list):
        parts = tuple(value) + (None,) * (len(value) == 1)
        if len(parts) != 2:
            raise InputError(f"ranks {value!r} for layer {layer.name!r}", "r, (r_in, r_out) or None", "ranks")
    else:
        _check_rank(layer, value, max(limits))
        parts = tuple(min(value, limit) or None for limit in limits)
    for rank, limit in zip(parts, limits, strict=True):
        if rank is not None:
            _check_rank(layer, rank, limit)
    choice = useful(layer, *parts)
    expected = tuple(None if rank == limit else rank for rank, limit in zip(parts, limits, strict=True))
    if choice[:2] != expected:
        warnings.warn(
            f"ranks {value!r} of layer {layer.name!r} would cost more learnables than the dense weights: "
            f"it gets {choice[:2]}, None meaning dense",
            stacklevel=2,
        )
    return choice


def _check_rank(layer: Layer, rank: Any, limit: int) -> None:
    if not isinstance(rank, int) or isinstance(rank, bool):
        raise InputTypeError(f"rank {rank!r} for layer {layer.name!r}", "whole numbers or None", "ranks")
    if not limit:
        raise InputError(f"an output rank for the fully connected layer {layer.name!r}", "r or (r, None)", "ranks")
    if not 1 <= rank <= limit:
        raise InputError(f"rank {rank} for layer {layer.name!r}", f"1 to {limit}", "ranks")


@dataclass(frozen=True, slots=True)
class Options(Generic[T]):
    """What a layer can become: parallel arrays of cost (learnables), error (predicted loss) and choices.

    A choice is that of one layer, or of several whose choices hang together.
    """

    layer: Layer
    cost: np.ndarray
    error: np.ndarray
    choices: tuple[T, ...]


def pareto(layer: Layer, cost: np.ndarray, error: np.ndarray, choices: Sequence[T]) -> Options[T]:
    """The options no other one beats in both cost and error, cheapest first."""
    order = np.lexsort((error, cost))
    best = np.minimum.accumulate(error[order])
    front = order[np.concatenate(([True], best[1:] < best[:-1]))]
    return Options(layer, cost[front], error[front], tuple(choices[i] for i in front))


def knapsack(options: list[Options[T]], budget: int, limit: int = 20_000) -> dict[str, T]:
    """One option per layer with the least sum of errors within a budget of learnables.

    Fronts are merged layer by layer, without what exceeds the budget even if all later layers take their cheapest
    option. Above ``limit`` points they are thinned to the best of equal cost slots: exact as long as few costs are
    useful, else within the width of the slots.
    """
    costs, errors = np.zeros(1, dtype=np.int64), np.zeros(1)
    trail: list[tuple[np.ndarray, np.ndarray]] = []
    rest = sum(int(option.cost[0]) for option in options)
    for option in options:
        rest -= int(option.cost[0])
        top = max(budget - rest, int(costs[0] + option.cost[0]))
        merge = _merged_in_slots if len(costs) * len(option.cost) > _PAIRS * limit else _merged
        previous, index = merge(costs, errors, option, top, limit)
        costs, errors = costs[previous] + option.cost[index], errors[previous] + option.error[index]
        trail.append((previous, index))
    fitting = np.flatnonzero(costs <= budget)
    position = int(fitting[-1]) if len(fitting) else 0
    chosen: dict[str, T] = {}
    for option, (previous, index) in zip(reversed(options), reversed(trail), strict=True):
        chosen[option.layer.name] = option.choices[index[position]]
        position = int(previous[position])
    return chosen


def _merged(
    costs: np.ndarray, errors: np.ndarray, option: Options[T], top: int, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The front of all sums of a front and a layer's up to a cost: (indices into the front, into the options)."""
    total = (costs[:, None] + option.cost[None]).ravel()
    loss = (errors[:, None] + option.error[None]).ravel()
    within = np.flatnonzero(total <= top)
    order = within[np.lexsort((loss[within], total[within]))]
    front = order[_falling(loss[order])]
    if len(front) > limit:
        slots = np.linspace(total[front[0]], total[front[-1]], limit)
        front = front[np.unique(np.searchsorted(total[front], slots, side="right") - 1)]
    previous, index = np.divmod(front, len(option.cost))
    return previous, index


def _merged_in_slots(
    costs: np.ndarray, errors: np.ndarray, option: Options[T], top: int, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The same, with the least loss of each of ``limit`` slots of cost: no list of all sums is made or sorted."""
    least = int(costs[0] + option.cost[0])
    highest = min(top, int(costs[-1] + option.cost[-1]))
    best, previous, index = np.full(limit, np.inf), np.zeros(limit, np.int64), np.zeros(limit, np.int64)
    for position, (cost, error) in enumerate(zip(option.cost.tolist(), option.error.tolist(), strict=True)):
        count = int(np.searchsorted(costs, top - cost, side="right"))
        slots = (costs[:count] + (cost - least)) * (limit - 1) // max(highest - least, 1)
        loss = errors[:count] + error
        better = np.flatnonzero(loss < best[slots])
        taken = slots[better]  # of several in one slot the last is assigned, which along a front has the least loss
        best[taken], previous[taken], index[taken] = loss[better], better, position
    filled = np.flatnonzero(np.isfinite(best))
    front = filled[_falling(best[filled])]
    return previous[front], index[front]


def _falling(loss: np.ndarray) -> np.ndarray:
    """Which entries are lower than all before them."""
    return np.concatenate(([True], loss[1:] < np.minimum.accumulate(loss)[:-1]))


def explained_options(options: list[Options[Choice]], baseline: Mapping[str, float], goal: float) -> dict[str, Choice]:
    """Per layer the cheapest option whose error leaves the proportion ``goal`` of its output explained."""
    chosen = {}
    for option in options:
        allowed = (1.0 - goal) * baseline[option.layer.name] * (1 + _TIE)
        fitting = np.flatnonzero(option.error <= allowed)
        chosen[option.layer.name] = option.choices[int(fitting[0])] if len(fitting) else DENSE
    return chosen
