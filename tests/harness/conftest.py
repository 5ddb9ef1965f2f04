"""Model folders written by hand, and copies of them with one thing changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures"

Mutate = Callable[..., Path]


@pytest.fixture
def pair() -> Path:
    """Two fully connected layers, 8 -> 16 -> 64, that share one kernel."""
    return FIXTURES / "pair"


@pytest.fixture
def leak() -> Path:
    """Leaky integrators over time, with step."""
    return FIXTURES / "leak"


@pytest.fixture
def mutate(tmp_path: Path) -> Mutate:
    """Copy a fixture, replacing texts in its C; every text must be there."""

    def copy(source: Path, changes: Mapping[str, str], name: str = "mutant") -> Path:
        folder = tmp_path / name
        shutil.copytree(source, folder)
        for old, new in changes.items():
            found = [p for p in folder.iterdir() if p.suffix in (".c", ".h", ".json") and old in p.read_text()]
            assert found, f"{old!r} is nowhere in {source}"
            for path in found:
                path.write_text(path.read_text().replace(old, new))
        return folder

    return copy


def pair_weights() -> tuple[np.ndarray, np.ndarray]:
    """The fixture's two weight tables, read from its header: (16, 8) and (64, 16)."""
    text = (FIXTURES / "pair" / "pair_weights.h").read_text()
    tables = [part.split("}")[0] for part in text.split("= {")[1:]]
    values = [np.array([int(v) for v in t.replace("\n", " ").split(",") if v.strip()]) for t in tables]
    return values[0].reshape(16, 8), values[1].reshape(64, 16)


def pair_reference(x: np.ndarray) -> np.ndarray:
    """What ``pair_run`` must give, in NumPy."""
    for weights in pair_weights():
        x = np.clip((weights @ x.astype(np.int64) + np.arange(len(weights))) >> 4, -128, 127)
    return x.astype(np.int8)


def leak_reference(x: np.ndarray) -> np.ndarray:
    """What ``leak_run_sequence`` must give, in NumPy."""
    sums = np.zeros(4, np.int64)
    outputs = []
    for row in x.astype(np.int64):
        sums = sums + 64 * row - (sums >> 2)
        outputs.append(np.clip(sums >> 6, -128, 127))
    return np.array(outputs, np.int8)
