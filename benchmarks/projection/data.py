"""The data sets as training and test splits of float tensors; those that are not shipped come from ``PROJGEN_DATA``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from examples import datasets
from projgen.errors import InputError

BATCH = 64
THEO = 4  # the speaker of the spoken digits whom the DS-CNN never hears in training


@dataclass(frozen=True, slots=True)
class Split:
    """Observations in groups of equal shape: ``x[i]`` is (N_i, ...) float32, ``labels[i]`` (N_i) int64."""

    x: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """Observations of all groups."""
        return sum(len(y) for y in self.labels)

    def batches(self, count: int | None = None) -> list[Tensor]:
        """Calibration data: batches of equal shape, without labels, of about ``count`` observations or all."""
        few = self if count is None else self.some(count)
        return [part for group in few.x for part in torch.split(group, BATCH)]

    def some(self, count: int) -> Split:
        """Evenly spread observations of every group, about ``count`` in all."""
        stride = max(1, self.count // count)
        return Split(tuple(x[::stride] for x in self.x), tuple(y[::stride] for y in self.labels))


@dataclass(frozen=True, slots=True)
class Data:
    """A training split, which serves for calibration too, and a test split that only reports read."""

    train: Split
    test: Split


def folder(name: str) -> Path:
    """A data set's folder below ``PROJGEN_DATA``; raises InputError if there is none."""
    path = Path(os.environ.get("PROJGEN_DATA", "")) / name
    if "PROJGEN_DATA" not in os.environ or not path.is_dir():
        raise InputError(f"no data set {name!r}", "a folder that holds it", "the variable PROJGEN_DATA")
    return path


def _load(name: str, file: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(folder(name) / file, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def _split(x: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Split:
    return Split((torch.from_numpy(np.ascontiguousarray(x)),), (torch.from_numpy(labels),))


def _by_length(sequences: datasets.Sequences) -> Split:
    lengths = np.array([len(s) for s in sequences.x])
    groups = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
    x = tuple(torch.from_numpy(np.stack([sequences.x[i] for i in g])) for g in groups)
    return Split(x, tuple(torch.from_numpy(sequences.labels[g]) for g in groups))


def japanese_vowels() -> Data:
    """270 and 370 utterances (T, 12), 9 speakers."""
    train, test = datasets.japanese_vowels()
    return Data(_by_length(train), _by_length(test))


def digits(form: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Data:
    """1,297 and 500 images in the form that a net reads; the division is fixed."""
    x, y = datasets.digits()
    order = np.random.default_rng(0).permutation(len(x))
    x, y = form(x[order]), y[order]
    return Data(_split(x[:1297], y[:1297]), _split(x[1297:], y[1297:]))


def digits_flat() -> Data:
    """Digits as 64 values."""
    return digits(lambda x: x.reshape(len(x), 64))


def digits_rows() -> Data:
    """Digits as sequences of 8 rows."""
    return digits(lambda x: x[:, 0])


def digits_images() -> Data:
    """Digits as images (1, 8, 8)."""
    return digits(lambda x: x)


def _spoken_digits() -> tuple[npt.NDArray[np.float32], dict[str, npt.NDArray[Any]]]:
    archive = _load("fsdd", "fsdd_mfcc.npz")
    return archive["x"].astype(np.float32), archive


def _standardised(x: npt.NDArray[np.float32], test: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Each coefficient with the training clips' mean zero and deviation one."""
    seen = x[~test].reshape(-1, x.shape[-1])
    return np.asarray((x - seen.mean(0)) / seen.std(0), dtype=np.float32)


def spoken_digits() -> Data:
    """2,700 and 300 clips (49, 10) of MFCC; takes 0 to 4 are the test split."""
    x, archive = _spoken_digits()
    test = archive["take"] < 5
    x, y = _standardised(x, test), archive["digit"].astype(np.int64)
    return Data(_split(x[~test], y[~test]), _split(x[test], y[test]))


def spoken_digits_by_speaker() -> Data:
    """2,500 and 500 clips (1, 49, 10) of MFCC; the test speaker is in no training clip."""
    x, archive = _spoken_digits()
    test = archive["speaker"] == THEO
    x, y = _standardised(x, test)[:, None], archive["digit"].astype(np.int64)
    return Data(_split(x[~test], y[~test]), _split(x[test], y[test]))


def heartbeats() -> Data:
    """Beats (1, 200) of two classes, normal and ventricular; no patient is in both splits. One unit is 1 mV."""
    archive = _load("mitbih_beats", "mitbih_beats.npz")
    wanted = [list(archive["classes"]).index(name) for name in ("N", "V")]
    parts = []
    for name in ("train", "test"):
        kept = np.isin(archive[f"y_{name}"], wanted)
        x = archive[f"x_{name}"][kept].astype(np.float32)[:, None] / 200
        parts.append(_split(x, (archive[f"y_{name}"][kept] == wanted[1]).astype(np.int64)))
    return Data(*parts)


@cache
def mnist() -> Data:
    """20,000 training and 10,000 test images (1, 28, 28), 0 to 1."""
    archive = _load("mnist", "mnist.npz")
    parts = [
        _split(
            archive[f"x_{name}"][:20_000, None].astype(np.float32) / 255, archive[f"y_{name}"][:20_000].astype(np.int64)
        )
        for name in ("train", "test")
    ]
    return Data(*parts)
