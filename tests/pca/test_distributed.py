"""Moments and curvature over a process group equal those of one process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn

from projgen.pca.neuron_pca import NeuronPCA


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn, self.fc = nn.Conv1d(4, 6, 3), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(torch.tanh(self.conv(x)).transpose(1, 2))[0][:, -1])


def setup() -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    # float64: the processes' kernels may round apart in the last bit, which float32 would show.
    return Net().double(), [torch.randn(64, 4, 9, dtype=torch.float64) + 3 for _ in range(4)]


def member(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        torch.set_num_threads(1)
        model, batches = setup()
        pca = NeuronPCA(model, batches[rank::2], process_group=distributed.group.WORLD, verbosity="off")
        pca.save(Path(folder) / f"{rank}.npz")
    finally:
        distributed.destroy_process_group()
    # What is left is the interpreter's end, where gloo's threads now and then abort a process that has finished.
    os._exit(0)


def test_two_processes_give_the_moments_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(member, args=(str(tmp_path),), nprocs=2)
    model, batches = setup()
    # The same batches, the first of them giving the shift.
    one = NeuronPCA(model, batches, verbosity="off")
    for rank in range(2):
        two = NeuronPCA.load(tmp_path / f"{rank}.npz", model)
        assert two.collected.samples == 256
        np.testing.assert_allclose(two.collected.output_variance, one.collected.output_variance, rtol=1e-12)
        for name, stats in one.collected.layers.items():
            other = two.collected.layers[name]
            for part in ("inputs", "outputs", "patches"):
                for a, b in zip(getattr(stats, part), getattr(other, part), strict=True):
                    assert a.rows == b.rows
                    scale = np.abs(a.covariance).max()
                    np.testing.assert_allclose(b.covariance, a.covariance, atol=1e-12 * scale, rtol=0)
                    np.testing.assert_allclose(b.mean, a.mean, atol=1e-12 * np.abs(a.mean).max(), rtol=0)
            for key, g in stats.curvature.items():
                np.testing.assert_allclose(other.curvature[key], g, atol=1e-12 * np.abs(g).max(), rtol=0)
