"""Reading label files and writing output files for the commands."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from projgen.errors import InputError

if TYPE_CHECKING:
    from projgen.artifact import Artifact
    from projgen.data import Batches


def load_labels(path: Path) -> npt.NDArray[np.int64]:
    """Class numbers (N,) from a ``.npy`` file.

    Raises:
        InputError: no such file, pickled objects, or not a vector of integers.
    """
    if not path.is_file():
        raise InputError(f"label file {path} does not exist", "a .npy file of class numbers", "--labels")
    try:
        labels = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{path} can't be read: {error}", "a .npy file of class numbers, no pickle", "--labels"
        ) from error
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path} holds {labels.dtype} of shape {labels.shape}", "integers of shape (N,)", "--labels")
    return np.asarray(labels, np.int64)


def save_outputs(path: Path, artifact: Artifact, data: Batches) -> None:
    """Run every batch of ``data``, compare with the simulator, and write one array per output to ``path``."""
    names = [port["name"] for port in artifact.manifest["outputs"]]
    columns: list[list[Any]] = [[] for _ in names]
    for batch in data:
        outputs = artifact.verify(batch if len(batch) > 1 else batch[0])
        for column, values in zip(columns, outputs if isinstance(outputs, tuple) else (outputs,), strict=True):
            column.append(np.asarray(values))
    arrays: dict[str, Any] = {}
    for name, column in zip(names, columns, strict=True):
        if len({a.shape[1:] for a in column}) == 1:
            arrays[name] = np.concatenate(column)
        else:  # sequences of several lengths: padded with zeros, true lengths beside
            steps = [a.shape[1] for a in column for _ in range(a.shape[0])]
            padded = np.zeros((len(steps), max(steps), *column[0].shape[2:]), column[0].dtype)
            row = 0
            for a in column:
                padded[row : row + a.shape[0], : a.shape[1]] = a
                row += a.shape[0]
            arrays[name] = padded
            arrays["lengths"] = np.asarray(steps)
    handle, temporary = tempfile.mkstemp(suffix=".npz", dir=path.parent if path.parent.is_dir() else None)
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"can't write {path}: {error.strerror}", "a writable path", "-o") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
