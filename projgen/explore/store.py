"""Files of an exploration: each is written beside its place and moved there when it is complete."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from projgen.errors import InputError
from projgen.explore.records import LevelResult
from projgen.pca.discover import weight_digest
from projgen.pca.neuron_pca import NeuronPCA


def model_digest(model: nn.Module) -> str:
    """Hash of a model's weights and of the kinds of its modules."""
    kinds = [(name, type(module).__qualname__) for name, module in model.named_modules()]
    return _hash(weight_digest(model), kinds)


def data_digest(batches: Iterable[tuple[Tensor, ...]], labels: np.ndarray | None = None) -> str:
    """Hash of inputs, batch by batch, and of labels."""
    digest = hashlib.sha256()
    arrays = (x.detach().cpu().numpy() for batch in batches for x in batch)
    for array in arrays if labels is None else chain(arrays, (labels,)):
        digest.update(f"{array.shape}{array.dtype};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def key_of(**parts: Any) -> str:
    """Hash of everything that a result depends on; the parts must be JSON."""
    return _hash(parts)[:16]


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def finished(folder: Path, name: str, key: str) -> LevelResult | None:
    """The record of a level if it was finished for the same key and its model is still there."""
    path = folder / f"{name}.json"
    try:
        result = LevelResult.from_json(path.read_text())
    except (OSError, ValueError):
        return None
    whole = result.key == key and (not result.model or (folder / result.model).is_file())
    return result if whole else None


def keep(folder: Path, result: LevelResult) -> None:
    """Store the record of a finished level; its model must be in place already."""
    with tempfile.TemporaryDirectory(prefix=".projgen-", dir=folder) as hidden:
        temporary = Path(hidden) / "record.json"
        temporary.write_text(result.to_json())
        temporary.replace(folder / f"{result.name}.json")


def shared_pca(path: Path, model: nn.Module, make: Callable[[], NeuronPCA]) -> bool:
    """See to it that ``path`` holds the neuron PCA of a model: kept if it does, else made and moved into place.

    Args:
        make: called without arguments where a new NeuronPCA is needed.
    Returns:
        Whether the file was there.
    """
    if path.is_file():
        try:
            NeuronPCA.load(path, model)
        except InputError:
            pass
        else:
            return True
    with tempfile.TemporaryDirectory(prefix=".projgen-", dir=path.parent) as hidden:
        temporary = Path(hidden) / path.name
        make().save(temporary)
        temporary.replace(path)
    return False


def open_folder(folder: Path) -> None:
    """Create the folder.

    Raises:
        InputError: it is a file or can't be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".projgen-", dir=folder):
            pass
    except OSError as error:
        raise InputError(f"folder '{folder}' can't be written ({error.strerror})", "a writable folder", "-o") from error
