"""What was computed before, on disk: trained weights and finished cells, found by what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of results.

    Attributes:
        folder: where. fresh: don't read finished cells (trained weights are read all the same: nothing that is
            measured here changes them).
    """

    folder: Path
    fresh: bool = False

    def weights(self, recipe: Mapping[str, object], seed: int) -> Path:
        """File of the weights that a recipe gives with a seed."""
        return self.folder / "dense" / f"{recipe['net']}-{seed}-{_digest(recipe)}.pt"

    def keep_weights(self, path: Path, model: nn.Module) -> None:
        """Write a model's weights."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        torch.save(model.state_dict(), part)
        part.replace(path)

    def cell(self, recipe: Mapping[str, object]) -> dict[str, Any] | None:
        """A finished cell, or None."""
        path = self._cell(recipe)
        if self.fresh or not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def keep_cell(self, recipe: Mapping[str, object], found: Mapping[str, object]) -> None:
        """Write a finished cell."""
        path = self._cell(recipe)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        part.replace(path)

    def _cell(self, recipe: Mapping[str, object]) -> Path:
        name = "-".join(str(recipe[key]) for key in ("row", "level", "method", "seed"))
        return self.folder / "cells" / f"{name}-{_digest(recipe)}.json"


def _digest(recipe: Mapping[str, object]) -> str:
    text = json.dumps(recipe, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
