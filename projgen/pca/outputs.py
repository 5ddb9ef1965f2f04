"""A model's outputs, normalised so that the differences of two models can be compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from projgen.errors import UnsupportedError

_SPREAD_ROWS = 16


class OutputScale:
    """How a model's outputs are normalised so that their differences can be compared.

    One output of scores (its columns spread alike) is centred over its columns, since softmax and argmax ignore
    a common shift; anything else (regression, reconstruction, several outputs) is divided by each column's
    standard deviation. Outputs of a softmax are taken back to scores by their logarithm, which differs from the
    scores before it by that common shift alone. The batches it is calibrated on decide.
    """

    def __init__(self) -> None:
        self._scales: list[Tensor | None] = []
        self._probabilities = False

    def calibrate(self, results: list[Any], inputs: list[tuple[Tensor, ...]], group: Any = None) -> None:
        """Decide from the model's results on some batches; in a process group its first member decides."""
        columns = [columns_of(result) for result in results]
        self._probabilities = len(columns[0]) == 1 and all(_sums_to_one(parts[0]) for parts in columns)
        if self._probabilities:
            columns = [[_logarithm(parts[0])] for parts in columns]
        several, reconstructs = len(columns[0]) > 1, _flatten(results[0])[0].shape == inputs[0][0].shape
        for parts in zip(*columns, strict=True):
            rows = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
            spread = rows.std(0, correction=0)
            alike = len(rows) < _SPREAD_ROWS or float(spread.max()) <= 8.0 * float(spread.min())
            scores = alike and not several and not reconstructs and rows.shape[1] > 1
            floor = max(float(spread.max()) * 1e-3, 1e-12)
            self._scales.append(None if scores else torch.clamp(spread, min=floor))
        if group is not None:
            decided: list[Any] = [self._scales, self._probabilities]
            distributed.broadcast_object_list(decided, group=group, group_src=0)
            self._scales, self._probabilities = decided

    @property
    def scores(self) -> bool:
        """Whether the outputs are taken for class scores."""
        return self._scales == [None]

    def normalise(self, result: Any) -> list[Tensor]:
        """The outputs, features last, normalised."""
        columns = columns_of(result)
        if self._probabilities:
            columns = [_logarithm(x) for x in columns]
        return [
            x - x.mean(-1, keepdim=True) if scale is None else x / scale
            for x, scale in zip(columns, self._scales, strict=True)
        ]


def _sums_to_one(x: Tensor) -> bool:
    return x.shape[-1] > 1 and bool((x >= 0).all() and ((x.sum(-1) - 1).abs() < 1e-3).all())


def _logarithm(x: Tensor) -> Tensor:
    return x.clamp_min(1e-30).log()


def columns_of(result: Any) -> list[Tensor]:
    """The floating-point outputs with their features (classes, channels) on the last axis."""
    tensors = [x for x in _flatten(result) if x.is_floating_point()]
    if not tensors:
        raise UnsupportedError("the model returns no floating-point tensor", "a tensor or a tuple of them")
    return [x.movedim(1, -1) if x.dim() >= 4 else x for x in tensors]


def _flatten(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        return [x for value in result.values() for x in _flatten(value)]
    if isinstance(result, list | tuple):
        return [x for value in result for x in _flatten(value)]
    return []
