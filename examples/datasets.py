"""The data the examples ship: Japanese Vowels (Kudo, Toyama, Shimbo 1999) and the UCI handwritten digits."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True, slots=True)
class Sequences:
    """Utterances of several lengths: ``x[i]`` is (T_i, 12) float32, ``labels[i]`` the speaker, 0 to 8."""

    x: tuple[npt.NDArray[np.float32], ...]
    labels: npt.NDArray[np.int64]


def _read_ts(path: Path) -> Sequences:
    """The sktime text format: channels split by ":", values by ",", the class label last."""
    lines = path.read_text().splitlines()
    rows = lines[lines.index("@data") + 1 :]
    x, labels = [], []
    for row in rows:
        *channels, label = row.split(":")
        x.append(np.array([[float(v) for v in c.split(",")] for c in channels], dtype=np.float32).T.copy())
        labels.append(int(label) - 1)
    return Sequences(tuple(x), np.array(labels))


def japanese_vowels() -> tuple[Sequences, Sequences]:
    """(training, test): 270 and 370 utterances of 9 speakers, 12 cepstral channels, 7 to 29 steps."""
    folder = DATA / "japanese_vowels"
    return _read_ts(folder / "JapaneseVowels_TRAIN.ts"), _read_ts(folder / "JapaneseVowels_TEST.ts")


def digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """1,797 images (N, 1, 8, 8), values 0 to 1, and their labels."""
    with gzip.open(DATA / "digits" / "digits.csv.gz", "rt") as stream:
        rows = np.array([[float(v) for v in row] for row in csv.reader(stream)], dtype=np.float32)
    return rows[:, :64].reshape(-1, 1, 8, 8) / 16, rows[:, 64].astype(np.int64)
