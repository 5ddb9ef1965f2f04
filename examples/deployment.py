"""What the examples share: from a float model to measured, proven C on several targets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import projgen
from projgen.pca.counting import count_learnables
from projgen.report import ModelReport, arena_buffers

Samples = Sequence[npt.NDArray[np.float32]]


def accuracy(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """Share of samples whose largest logit is the label's."""
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def float_logits(model: nn.Module, x: Samples) -> npt.NDArray[Any]:
    """The float model on single samples (sequences may differ in length)."""
    model.eval()
    with torch.no_grad():
        return np.concatenate([model(torch.from_numpy(s[None])).numpy() for s in x])


def deploy(
    model: nn.Module,
    title: str,
    *,
    calibration: list[Tensor],
    test: Samples,
    labels: npt.NDArray[np.int64],
    targets: Sequence[str],
    out: Path,
    name: str,
) -> ModelReport:
    """Quantise, emit, build, run all of ``test`` on each target, compare every byte with the simulator, measure.

    Raises:
        projgen.errors.MismatchError: an output byte differs from the simulator's.
    """
    quantized = projgen.quantize(model, calibration)
    measurements = []
    for target in targets:
        artifact = projgen.compile(
            quantized, target=target, out=out / f"{re.sub(r'[^a-z0-9]+', '_', title).strip('_')}_{target}", name=name
        )
        artifact.build()
        outputs = artifact.verify(list(test))
        measurements.append(artifact.measure(list(test), labels=labels))
    return ModelReport(
        title,
        count_learnables(model),
        accuracy(np.concatenate([np.asarray(o) for o in outputs]), labels),
        tuple(measurements),
        arena_buffers(artifact.manifest),
    )
