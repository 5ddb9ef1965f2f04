"""Small training loops of the examples: seconds on two cores, fixed seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


def batches_of_equal_length(x: Sequence[npt.NDArray[np.float32]]) -> list[Tensor]:
    """Sequences grouped by length, each group one (N, T, F) tensor: nothing is padded."""
    lengths = sorted({len(s) for s in x})
    return [torch.from_numpy(np.stack([s for s in x if len(s) == length])) for length in lengths]


def train(
    loss_of_batch: Callable[[npt.NDArray[np.int64]], Tensor],
    parameters: Iterator[nn.Parameter],
    samples: int,
    *,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
) -> None:
    """Adam with a one-cycle rate; ``loss_of_batch`` maps sample indices to a scalar loss."""
    weights = list(parameters)
    generator = np.random.default_rng(seed)
    steps = -(-samples // batch) * epochs
    optimizer = torch.optim.Adam(weights, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        order = generator.permutation(samples)
        for start in range(0, samples, batch):
            optimizer.zero_grad()
            loss_of_batch(order[start : start + batch]).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
