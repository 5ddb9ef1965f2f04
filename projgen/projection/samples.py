"""Calibration data as a pool of single samples: random batches of equal shape, and augmentation without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from projgen.data import InputLayout
from projgen.errors import InputError

_WATCHED = 512

Sample = tuple[Tensor, ...]


def split(batch: tuple[Tensor, ...], layout: InputLayout) -> list[Sample]:
    """The samples of a batch, each without its batch axis."""
    axis = 1 if layout.time_axis == 0 and batch[0].dim() > 1 else 0
    return [tuple(x.select(axis if x.dim() > axis else 0, i) for x in batch) for i in range(batch[0].shape[axis])]


@dataclass(slots=True)
class Pool:
    """All samples, in groups that can be stacked: equal shapes, or sequences of about the same length."""

    samples: list[Sample]
    layout: InputLayout
    batch_size: int
    sequences: bool = field(init=False)

    def __post_init__(self) -> None:
        self.sequences = self.layout.time_axis is not None and self.samples[0][0].dim() == 2
        shapes = {tuple(x.shape for x in s) for s in self.samples}
        if len(shapes) > 1 and not self.sequences:
            raise InputError(
                f"samples of {len(shapes)} different shapes", "samples of one shape, or sequences for an RNN", "data"
            )

    def stream(self, generator: torch.Generator) -> Iterator[tuple[Tensor, ...]]:
        """Endless batches in random order."""
        count = len(self.samples)
        size = min(self.batch_size, count)
        while True:
            order = torch.randperm(count, generator=generator).tolist()
            if self.sequences:  # near neighbours in length, with some disorder
                jitter = torch.rand(count, generator=generator).tolist()
                order.sort(key=lambda i: self.samples[i][0].shape[0] * (1 + 0.2 * jitter[i]))
            starts = torch.randperm(max(1, count // size), generator=generator).tolist()
            for start in starts:
                stop = count if start == count // size - 1 else (start + 1) * size
                yield self.stack([self.samples[i] for i in order[start * size : stop]])

    def stack(self, chosen: list[Sample]) -> tuple[Tensor, ...]:
        """One batch; sequences are cut to the shortest."""
        axis = 1 if self.layout.time_axis == 0 else 0
        batch = []
        for parts in zip(*chosen, strict=True):
            shortest = min(part.shape[0] for part in parts) if self.sequences and parts[0].dim() > 1 else None
            batch.append(torch.stack([part[:shortest] for part in parts], axis if parts[0].dim() > 1 else 0))
        return tuple(batch)

    def watched(self) -> list[tuple[Tensor, ...]]:
        """Evenly spread samples of their own lengths, in batches of equal shape."""
        step = max(1, len(self.samples) // _WATCHED)
        groups: dict[tuple[int, ...], list[Sample]] = {}
        for sample in self.samples[::step]:
            groups.setdefault(tuple(sample[0].shape), []).append(sample)
        return [self.stack(g[i : i + 128]) for g in groups.values() for i in range(0, len(g), 128)]

    def augmented(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Noise of up to a fifth of each channel's deviation, mixing with another sample, shifted images."""
        axis = 1 if self.layout.time_axis == 0 and batch[0].dim() > 2 else 0
        count = batch[0].shape[axis]
        noise, share = torch.rand(count, generator=generator), torch.rand(count, generator=generator) * 0.5
        share = share * (torch.rand(count, generator=generator) < 0.5)
        other = torch.randperm(count, generator=generator)
        return tuple(self._vary(x, axis, noise, share, other, generator) for x in batch)

    def _vary(
        self, x: Tensor, axis: int, noise: Tensor, share: Tensor, other: Tensor, generator: torch.Generator
    ) -> Tensor:
        if not x.is_floating_point() or x.dim() <= axis:
            return x
        view = [1] * x.dim()
        view[axis] = -1
        amount, mix = noise.to(x).view(view), share.to(x).view(view)
        channel = x.dim() - 1 if self.sequences or x.dim() == 2 else 1
        deviation = x.std([d for d in range(x.dim()) if d != channel], correction=0, keepdim=True)
        mixed = (1 - mix) * x + mix * x.index_select(axis, other.to(x.device))
        random = torch.randn(x.shape, generator=generator).to(x)
        varied = mixed + 0.2 * amount * deviation * random
        if x.dim() == 4 and min(x.shape[2:]) >= 16:
            down, right = (int(v) for v in torch.randint(-2, 3, (2,), generator=generator))
            varied = varied.roll((down, right), (2, 3))
        return varied
