"""A random network of ResNet-18's size and shape, and the plain work that its closed form can't do without."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from projgen.pca.collect import patches_of

IMAGES: Final = 256
SIZE: Final = 64
BATCH: Final = 64
CLASSES: Final = 10


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if stride == 1 else shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


def resnet() -> nn.Module:
    """11.2 million learnables in twenty convolutions and a linear layer; weights from seed 0."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    width = 64
    for outputs in (64, 128, 256, 512):
        layers += [Block(width, outputs, 1 if outputs == 64 else 2), Block(outputs, outputs, 1)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES)).eval()


def images() -> Tensor:
    """The inputs, from seed 1."""
    return torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@dataclass(slots=True)
class Watch:
    """CPU seconds of this process: what else runs on the machine counts little."""

    seconds: float = 0.0

    def __call__(self, *works: Callable[[], object]) -> None:
        started = time.process_time()
        for work in works:
            work()
        self.seconds += time.process_time() - started


@dataclass(frozen=True, slots=True)
class Plain:
    """CPU seconds of the parts: ``forward`` passes; ``moments``, the covariance products of every layer's input and
    output channels; ``patches``, those of whole convolution patches; ``backward`` passes, one per class;
    ``spectra``, the eigendecompositions of input and output covariances."""

    forward: float
    moments: float
    patches: float
    backward: float
    spectra: float


def _keep(seen: list[tuple[nn.Module, Tensor, Tensor]], m: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
    seen.append((m, args[0], out))


def _passes_back(model: nn.Module, layers: list[nn.Module], batch: Tensor) -> list[Callable[[], object]]:
    """One call per class: the derivatives of its score by every layer's pre-activation."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []
    handles = [m.register_forward_hook(partial(_keep, seen)) for m in layers]
    scores = model(batch)
    for handle in handles:
        handle.remove()
    made = [out for _, _, out in seen]
    return [partial(torch.autograd.grad, scores[:, k].sum(), made, retain_graph=True) for k in range(CLASSES)]


def plain_work(model: nn.Module, x: Tensor) -> Plain:
    """Time each part on the model's own activations, with nothing around it: float32 GEMMs, float64 eigh."""
    watches = [Watch() for _ in range(5)]
    forward, moments, patches, backward, spectra = watches
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def pass_batches() -> None:
        with torch.no_grad():
            for batch in x.split(BATCH):
                model(batch)

    pass_batches()
    forward(pass_batches)
    handles = [m.register_forward_hook(partial(_keep, seen)) for m in layers]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    for layer, read, made in seen:
        for tensor in (read, made) if isinstance(layer, nn.Conv2d) else (read,):
            rows = tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
            moments(partial(torch.matmul, rows.T, rows))
            second = (rows[:1024].T @ rows[:1024]).double()
            spectra(partial(torch.linalg.eigh, second))
        if isinstance(layer, nn.Conv2d):
            for part in read.split(BATCH):
                columns = patches_of(layer, part)[0]
                patches(partial(torch.matmul, columns.T, columns))
    del seen
    for batch in x.split(BATCH):
        backward(*_passes_back(model, layers, batch))
    return Plain(*(watch.seconds for watch in watches))
