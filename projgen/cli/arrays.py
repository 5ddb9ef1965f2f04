"""Reading label files and writing output files for the commands."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from projgen.arrays import read_arrays
from projgen.errors import InputError

if TYPE_CHECKING:
    from projgen.artifact import Artifact


def load_labels(path: Path) -> npt.NDArray[np.int64]:
    """Class numbers (N,) from a ``.npy`` file.

    Raises:
        InputError: no such file, a damaged one, pickled objects, or not a vector of integers.
    """
    labels = read_arrays(path, "--labels")
    if not isinstance(labels, np.ndarray):
        raise InputError(f"{path} holds arrays named {', '.join(labels)}", "a .npy file of class numbers", "--labels")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path} holds {labels.dtype} of shape {labels.shape}", "integers of shape (N,)", "--labels")
    return np.asarray(labels, np.int64)


def check_parent(path: Path, where: str) -> None:
    """Refuse an output file before the work, where its folder is missing or it is a folder itself."""
    if not path.parent.is_dir():
        raise InputError(f"can't write {path}: there is no folder {path.parent}", "an existing folder", where)
    if path.is_dir():
        raise InputError(f"can't write {path}: it is a folder", "a file name", where)


def save_outputs(path: Path, artifact: Artifact, inputs: Path) -> int:
    """Run the inputs of a file, compare with the simulator, and write one array per output to ``path``.

    Per-step outputs of sequences of several lengths are padded with zeros; ``lengths`` stands beside them.

    Returns:
        How many inferences there were.
    """
    found = artifact.verify(inputs)
    batches = [b if isinstance(b, tuple) else (b,) for b in (found if isinstance(found, list) else [found])]
    arrays: dict[str, Any] = {}
    for port, parts in zip(artifact.manifest["outputs"], zip(*batches, strict=True), strict=True):
        if len({a.shape[1:] for a in parts}) == 1:
            arrays[port["name"]] = np.concatenate(parts)
        else:
            steps = [a.shape[1] for a in parts]
            arrays[port["name"]] = np.concatenate(
                [np.pad(a, [(0, 0), (0, max(steps) - a.shape[1]), *[(0, 0)] * (a.ndim - 2)]) for a in parts]
            )
            arrays["lengths"] = np.repeat(steps, [len(a) for a in parts])
    _write_npz(path, arrays)
    return sum(len(parts[0]) for parts in batches)


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    try:
        handle, temporary = tempfile.mkstemp(suffix=".npz", dir=path.parent)
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror}", "a writable folder", "-o") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
