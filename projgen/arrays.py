"""Arrays from ``.npz`` and ``.npy`` files, never unpickled; inputs out of named arrays, in one way everywhere."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from projgen.errors import InputError

LABELS = ("labels", "label", "y", "targets", "target")


def read_arrays(path: Path, where: str) -> dict[str, np.ndarray] | np.ndarray:
    """Contents of a file: arrays by name of an ``.npz``, one array of an ``.npy``.

    Args:
        where: what the message of an error says to change.
    Raises:
        InputError: another ending, no such file, a damaged one, or pickled objects in it.
    """
    if path.suffix.lower() not in {".npz", ".npy"}:
        raise InputError(f"data file {path.name!r}", "a file ending in .npz or .npy", where)
    if not path.is_file():
        raise InputError(f"data file {str(path)!r} was not found", "an existing .npz or .npy file", where)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except ValueError as error:
        if "pickle" not in str(error).lower() and "object" not in str(error).lower():
            raise InputError(
                f"data file {path.name!r} can't be read: {error}", "a whole .npz or .npy", where
            ) from error
        raise InputError(
            f"data file {path.name!r} holds pickled (object) arrays, which are never loaded",
            "arrays of numbers; for sequences of several lengths a padded array plus 'lengths'",
            where,
        ) from error
    except (OSError, EOFError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"data file {path.name!r} can't be read: {error}", "a whole .npz or .npy", where) from error
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray):
            raise InputError(f"{name!r} in data file {path.name!r} is no array", "arrays of numbers alone", where)
    return arrays


def pick_inputs(
    arrays: Mapping[str, Any], names: Sequence[str], where: str
) -> tuple[tuple[Any, ...], Any | None, Any | None]:
    """(inputs, labels, lengths) of named arrays: inputs by name, or in order where no name is an input's.

    Args:
        names: of the model's inputs; empty when unknown, then all arrays are inputs.
    Raises:
        InputError: too few or too many arrays, or names of which only some are inputs'.
    """
    lengths = arrays.get("lengths")
    inputs = {name: value for name, value in arrays.items() if name not in {"labels", "lengths"}}
    labels = arrays.get("labels")
    if names and all(name in inputs for name in names):
        return tuple(inputs[name] for name in names), labels, lengths
    if names and len(inputs) > len(names):
        extra = [name for name in inputs if name.lower() in LABELS]
        labels = inputs[extra[0]] if labels is None and extra else labels
        inputs = {name: value for name, value in inputs.items() if name not in extra}
    # With one name right and another wrong the order says nothing, and might swap the inputs.
    if not inputs or (names and (len(inputs) != len(names) or any(name in inputs for name in names))):
        raise InputError(
            f"arrays named {', '.join(repr(name) for name in arrays) or 'nothing'}",
            f"one array per model input ({', '.join(names) or 'at least one'}), all by name or all in order, "
            "and optionally 'labels' and 'lengths'",
            where,
        )
    return tuple(inputs.values()), labels, lengths


def check_lengths(lengths: Any, count: int, longest: int, where: str) -> np.ndarray:
    """Real steps per padded sequence, (count,), each from 1 to ``longest``.

    Raises:
        InputError: another number of them, no whole numbers, or out of range.
    """
    real = np.asarray(lengths)
    if real.shape != (count,) or real.dtype.kind not in "iu":
        raise InputError(
            f"'lengths' of shape {real.shape} and type {real.dtype}",
            f"one whole number per observation ({count})",
            where,
        )
    if real.size and (real.min() < 1 or real.max() > longest):
        raise InputError(f"'lengths' from {real.min()} to {real.max()}", f"1 to {longest}", where)
    return real


def check_classes(labels: np.ndarray, classes: int, where: str) -> None:
    """Refuse class numbers that a model with ``classes`` outputs can never give, such as ones that start at 1.

    Raises:
        InputError: a label below 0, or ``classes`` or above.
    """
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise InputError(
            f"labels from {labels.min()} to {labels.max()} for {classes} classes", f"0 to {classes - 1}", where
        )
