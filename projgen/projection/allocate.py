"""How many units each group keeps: one fraction for all, or a number of its own where its units cost and matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from projgen.projection.factors import Array
from projgen.projection.merge import Ranking

_STEPS = 60


@dataclass(frozen=True, slots=True)
class _Class:
    """Groups that keep equally many units, because they are cells of one RNN.

    ``loss[k - 1]``: predicted loss of their merges with k units kept. ``price``: learnables of one unit.
    """

    members: list[int]
    size: int
    loss: Array
    price: float

    def best(self, worth: float) -> int:
        """The number of units of least loss plus price, a learnable being worth so much loss."""
        return 1 + int(np.argmin(self.loss + worth * self.price * np.arange(1, self.size + 1)))


def allocations(
    model: nn.Module, rankings: Sequence[Ranking], fractions: Sequence[float], block: int = 1
) -> Iterator[tuple[float, tuple[int, ...], bool]]:
    """Numbers of units to try: an equal share of all groups, and a share of each by predicted loss.

    The latter keeps of each group as many units as lower the sum of the merges' predicted losses most, for units
    of about the same total of learnables: where one learnable brings the same everywhere.

    Returns:
        (fraction, units kept per group, whether all groups keep that share).
    Args:
        rankings: of the groups. fractions: of the units, or of their learnables.
        block: how many units the kernels of a target take at a time: the nearest multiple of it is kept, since more
            within a block cost nothing there.
    """
    classes = _classes(model, rankings)
    seen: set[tuple[int, ...]] = set()
    for fraction in fractions:
        equal = [_whole_blocks(max(1, round(fraction * c.size)), c.size, block) for c in classes]
        budget = sum(k * c.price for k, c in zip(equal, classes, strict=True))
        tried = [equal]
        if len(classes) > 1:
            apart = zip(_cheapest(classes, budget), classes, strict=True)
            tried.append([_whole_blocks(k, c.size, block) for k, c in apart])
        for counts in tried:
            sizes = [0] * len(rankings)
            for count, c in zip(counts, classes, strict=True):
                for member in c.members:
                    sizes[member] = count
            if tuple(sizes) not in seen and any(k < c.size for k, c in zip(counts, classes, strict=True)):
                seen.add(tuple(sizes))
                yield fraction, tuple(sizes), counts is equal


def _whole_blocks(count: int, size: int, block: int) -> int:
    """The nearest multiple of ``block`` to a number of units of a group; fewer than one block stay as they are."""
    return count if count < block else min(size, (count + block // 2) // block * block)


def _cheapest(classes: list[_Class], budget: float) -> list[int]:
    """Units per class within a budget of learnables, by bisection of what a learnable is worth."""

    def counts(worth: float) -> list[int]:
        return [c.best(worth) for c in classes]

    low, high = 0.0, max(float(c.loss[0]) / c.price for c in classes) + 1e-300  # at high one unit each is best
    for _ in range(_STEPS):
        middle = (low + high) / 2 if low == 0.0 else (low * high) ** 0.5
        price = sum(k * c.price for k, c in zip(counts(middle), classes, strict=True))
        low, high = (low, middle) if price <= budget else (middle, high)
    return counts(high)


def _classes(model: nn.Module, rankings: Sequence[Ranking]) -> list[_Class]:
    found: list[list[int]] = []
    modules: list[set[str]] = []
    for index, ranking in enumerate(rankings):
        names, members = set(ranking.group.cells), [index]
        for position in [i for i, known in enumerate(modules) if known & names][::-1]:
            names |= modules.pop(position)
            members = found.pop(position) + members
        found.append(members)
        modules.append(names)
    return [
        _Class(
            members,
            rankings[members[0]].group.size,
            np.sum([rankings[i].left[1:] for i in members], 0),
            sum(_price(model, rankings[i]) for i in members),
        )
        for members in found
    ]


def _price(model: nn.Module, ranking: Ranking) -> float:
    """Learnables that one unit of a group carries in its producers' rows and its consumers' columns."""
    group = ranking.group
    total = 0.0
    for name in (*group.producers, *group.followers):
        module = model.get_submodule(name)
        cell = module._all_weights[group.cells.get(name, 0)] if isinstance(module, nn.LSTM | nn.GRU) else None
        parameters = dict(module.named_parameters(recurse=False))
        total += sum(parameters[key].numel() for key in cell or parameters)
    for consumer in group.consumers:
        module = model.get_submodule(consumer.module)
        if isinstance(module, nn.LSTM | nn.GRU):
            weight = module.get_parameter(module._all_weights[consumer.cell][1 if consumer.recurrent else 0])
            total += weight.shape[0] * group.size
        else:
            width = getattr(module, "in_features" if isinstance(module, nn.Linear) else "in_channels")
            total += module.get_parameter("weight").numel() * group.size * consumer.block / width
    return total / group.size
