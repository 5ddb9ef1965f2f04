"""Every accepted form of calibration data as one stream of batches: tuples of tensors, one per model input.

Accepted: a DataLoader or any iterable of batches (tensor, tuple or dict; of an ``(x, y)`` pair ``y`` is ignored
when the model takes one input), one array or tensor, a tuple of arrays X1..XN, a mapping of arrays by input
name, or the path of an ``.npz``/``.npy`` file (never unpickled). In mappings and ``.npz`` files ``labels`` and
``lengths`` are reserved: ``lengths`` says how many leading steps of each padded sequence are real, and such
data comes in batches of equal length.

Axis 0 is the batch. Values are checked as they stream: a NaN or infinity is refused with its batch's index, so
is a set of fewer than two observations or a sequence of fewer than two steps.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from projgen.arrays import check_lengths, pick_inputs, read_arrays
from projgen.errors import InputError, InputTypeError, ProjgenError
from projgen.importers.spec import input_specs

FORMS = (
    "a DataLoader or another iterable of batches, an array or tensor, a tuple of arrays X1..XN, "
    "a mapping of arrays, or the path of an .npz or .npy file"
)
WHERE = "data"


@dataclass(frozen=True, slots=True)
class InputLayout:
    """What the data code needs to know of a model: its inputs' names and, for sequences, the time axis.

    Attributes:
        names: one per input, in call order; empty when unknown.
        time_axis: axis of the steps in the first input of a model that starts with an RNN, else None.
        features: width of that RNN's input, to recognise single sequences without a batch axis.
        shapes: expected shape per input with None for any size; empty when unknown.
    """

    names: tuple[str, ...] = ()
    time_axis: int | None = None
    features: int | None = None
    shapes: tuple[tuple[int | None, ...], ...] = ()


def input_layout(model: nn.Module) -> InputLayout:
    """Names, shapes and time axis of a model's inputs, from what was remembered of it or from its forward."""
    remembered = input_specs(model)
    if remembered:
        names = tuple(spec.name for spec in remembered)
        shapes = tuple((None, *spec.shape) for spec in remembered)
    else:
        shapes = ()
        names = tuple(
            parameter.name
            for parameter in inspect.signature(model.forward).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
        )
    first = next((m for m in model.modules() if not list(m.children()) and list(m.parameters())), None)
    if isinstance(first, nn.RNNBase) or (hasattr(first, "batch_first") and hasattr(first, "hidden_size")):
        return InputLayout(names, 1 if first.batch_first else 0, int(first.input_size), shapes)  # type: ignore[union-attr, arg-type]
    return InputLayout(names, None, None, shapes)


@dataclass(frozen=True, slots=True)
class Batches:
    """A stream of batches, each a tuple of tensors in the order of the model's inputs.

    Attributes:
        one_shot: it can be read once only; a second pass raises InputError.
        labels: per observation, when the data carried them; lengths: real steps per observation.
        names: the inputs' names when known.
        count: number of observations, length: number of batches; None when unknown before reading.
        order: which observation comes at each place of the stream; None: as given.
    """

    source: Callable[[], Iterator[tuple[Tensor, ...]]] = field(repr=False)
    one_shot: bool = False
    labels: np.ndarray | None = None
    lengths: np.ndarray | None = None
    names: tuple[str, ...] = ()
    count: int | None = None
    length: int | None = None
    order: np.ndarray | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self.source()

    def require_passes(self, purpose: str) -> None:
        """Refuse a one-shot iterator where several passes are needed."""
        if self.one_shot:
            raise InputError(
                f"{purpose} needs several passes over the data, and a one-shot iterator was given",
                "a DataLoader, a list of batches, arrays or a file",
                WHERE,
            )


def as_batches(data: Any, model: nn.Module | None = None, *, batch_size: int = 64) -> Batches:
    """Any accepted form of data as ``Batches``.

    Args:
        data: see the module's text; an existing ``Batches`` is returned as it is.
        model: says how many inputs there are, how they are called and where the time axis is.
        batch_size: observations per batch where arrays are cut.
    Raises:
        InputError, InputTypeError: naming what was given, what is allowed.
    """
    if isinstance(data, Batches):
        return data
    layout = InputLayout() if model is None else input_layout(model)
    if isinstance(data, str | Path):
        data = read_arrays(Path(data), WHERE)
    if isinstance(data, np.ndarray | Tensor):
        data = (data,)
    if isinstance(data, Mapping):
        return _from_arrays(*pick_inputs(data, layout.names, WHERE), layout, batch_size)
    if isinstance(data, tuple):
        if not data or not all(isinstance(x, np.ndarray | Tensor) for x in data):
            raise InputTypeError(f"a tuple of {_kinds(data)}", f"a tuple of arrays or tensors; or {FORMS}", WHERE)
        arrays = _pick(data, layout, "the data")
        labels = data[-1] if len(arrays) < len(data) else None
        return _from_arrays(arrays, labels, None, layout, batch_size)
    if isinstance(data, bytes) or not isinstance(data, Iterable):
        raise InputTypeError(f"data of type {type(data).__name__}", FORMS, WHERE)
    return _from_iterable(data, layout)


def load_data(spec: str | Path) -> Any:
    """Data named on a command line: a ``.npz``/``.npy`` path, or ``module:attribute``.

    The attribute may be data itself or a function without arguments that returns it. Paths are returned as they
    are, for ``as_batches``.
    """
    text = str(spec)
    if text.lower().endswith((".npz", ".npy")):
        return Path(text)
    module_name, colon, attribute = text.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(f"data {text!r}", "a path ending in .npz or .npy, or module:attribute", "--data")
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise InputError(f"module {module_name!r} was not found", "an importable module", "--data") from error
        raise
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise InputError(f"{module_name!r} has no {attribute!r}", "an attribute of that module", "--data")
        value = getattr(value, part)
    return value() if inspect.isroutine(value) or inspect.isclass(value) else value


def run_model(model: nn.Module, batch: tuple[Tensor, ...], index: int) -> Any:
    """Call a model on one batch; what torch can't run becomes an InputError that names batch and shapes."""
    try:
        return model(*batch)
    except ProjgenError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = ", ".join(f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in batch)
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the model can't run on batch {index} of shape {shapes}: {first}",
            "batches of the shape, number and type of the model's inputs",
            WHERE,
        ) from error


def place(batch: tuple[Tensor, ...], model: nn.Module, device: torch.device) -> tuple[Tensor, ...]:
    """The batch on a device; numbers in the model's floating type, unless it looks them up in an Embedding."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    dtype = torch.get_default_dtype() if parameter is None else parameter.dtype
    indices = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in model.modules())
    return tuple(x.to(device=device, dtype=dtype if x.is_floating_point() or not indices else x.dtype) for x in batch)


def _kinds(values: Iterable[Any]) -> str:
    return ", ".join(sorted({type(value).__name__ for value in values})) or "nothing"


def _pick(values: Sequence[Any], layout: InputLayout, what: str) -> tuple[Any, ...]:
    """The model's inputs out of a tuple: all of it, or all but a label at the end."""
    wanted = len(layout.names)
    if not wanted or len(values) == wanted:
        return tuple(values)
    if len(values) == wanted + 1:
        return tuple(values[:wanted])
    raise InputError(
        f"{what} has {len(values)} parts", f"{wanted} ({', '.join(layout.names)}), or one more for a label", WHERE
    )


def _tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise InputTypeError(f"{what} holds {array.dtype} values", "real numbers", WHERE)
    if not array.flags.writeable or not array.dtype.isnative or min(array.strides, default=0) < 0:
        array = array.astype(array.dtype.newbyteorder("="), copy=True)
    return torch.from_numpy(array)


def _from_arrays(
    arrays: tuple[Any, ...], labels: Any | None, lengths: Any | None, layout: InputLayout, batch_size: int
) -> Batches:
    names = layout.names or tuple(str(index) for index in range(len(arrays)))
    tensors = tuple(_tensor(x, f"input {name!r}") for x, name in zip(arrays, names, strict=True))
    for name, x in zip(names, tensors, strict=True):
        if x.dim() == 0:
            raise InputError(f"input {name!r} is a single number", "an array whose axis 0 is the batch", WHERE)
    count = tensors[0].shape[0]
    if any(x.shape[0] != count for x in tensors):
        sizes = ", ".join(f"{name}: {x.shape[0]}" for name, x in zip(names, tensors, strict=True))
        raise InputError(f"inputs with different numbers of observations ({sizes})", "equal numbers", WHERE)
    label_array = None if labels is None else np.asarray(labels)
    groups: list[tuple[np.ndarray, int | None]]
    if lengths is None:
        starts = range(0, count, batch_size)
        groups = [(np.arange(start, min(start + batch_size, count)), None) for start in starts]
    else:
        groups = _equal_lengths(np.asarray(lengths), tensors[0], layout, batch_size)

    def cut() -> Iterator[tuple[Tensor, ...]]:
        axis = layout.time_axis or 1
        for rows, steps in groups:
            chosen = tuple(x[torch.from_numpy(rows)] for x in tensors)
            if steps is not None:
                chosen = tuple(
                    x.narrow(axis, 0, steps) if x.dim() > axis and x.shape[axis] == tensors[0].shape[axis] else x
                    for x in chosen
                )
            yield chosen

    return Batches(
        lambda: _checked(cut(), layout, padded=lengths is None),
        labels=label_array,
        lengths=None if lengths is None else np.asarray(lengths).astype(np.int64),
        names=layout.names,
        count=count,
        length=len(groups),
        order=None if lengths is None else np.concatenate([rows for rows, _ in groups]),
    )


def _equal_lengths(
    lengths: np.ndarray, padded: Tensor, layout: InputLayout, batch_size: int
) -> list[tuple[np.ndarray, int | None]]:
    """Observation indices grouped by length, ascending, at most batch_size together."""
    axis = layout.time_axis or 1
    if padded.dim() <= axis:
        raise InputError(f"'lengths' beside arrays of shape {tuple(padded.shape)}", "padded sequences", WHERE)
    lengths = check_lengths(lengths, padded.shape[0], padded.shape[axis], WHERE)
    groups: list[tuple[np.ndarray, int | None]] = []
    for steps in np.unique(lengths):
        members = np.flatnonzero(lengths == steps)
        groups.extend((members[i : i + batch_size], int(steps)) for i in range(0, len(members), batch_size))
    return groups


def _from_iterable(data: Iterable[Any], layout: InputLayout) -> Batches:
    iterator = iter(data)
    one_shot = iterator is data
    length = len(data) if isinstance(data, Sized) else None
    used: list[bool] = []

    def read() -> Iterator[tuple[Tensor, ...]]:
        if one_shot and used:
            raise InputError(
                "the data is a one-shot iterator that has been read already",
                "a DataLoader, a list of batches, arrays or a file",
                WHERE,
            )
        used.append(True)
        for index, batch in enumerate(iterator if one_shot else data):
            yield _inputs_of(batch, layout, index)

    return Batches(lambda: _checked(read(), layout, padded=True), one_shot=one_shot, names=layout.names, length=length)


def _inputs_of(batch: Any, layout: InputLayout, index: int) -> tuple[Tensor, ...]:
    what = f"batch {index}"
    if isinstance(batch, Mapping):
        values, _, _ = pick_inputs(batch, layout.names, WHERE)
    elif isinstance(batch, list | tuple) and batch and not all(np.isscalar(x) for x in batch):
        nested = batch[0] if isinstance(batch[0], list | tuple) and len(layout.names) != 1 else None
        values = _pick(batch if nested is None else nested, layout, what)
    elif isinstance(batch, Tensor | np.ndarray):
        values = (batch,)
    else:
        raise InputTypeError(f"{what} is a {type(batch).__name__}", "a tensor, a tuple or a dict of tensors", WHERE)
    tensors = tuple(_tensor(value, what) for value in values)
    first = tensors[0]
    if first.dim() == 0:
        raise InputError(f"{what} is a single number", "an array whose axis 0 is the batch", WHERE)
    if layout.time_axis is not None and first.dim() == 2 and first.shape[1] == layout.features:
        return (first.unsqueeze(1 - layout.time_axis), *tensors[1:])  # a sequence alone: a batch of one
    return tensors


def _checked(
    batches: Iterator[tuple[Tensor, ...]], layout: InputLayout, *, padded: bool
) -> Iterator[tuple[Tensor, ...]]:
    """Pass batches on, refusing values and sizes that would spoil the statistics."""
    seen = 0
    warned = not padded
    for index, batch in enumerate(batches):
        for position, x in enumerate(batch):
            _check_shape(x, layout, position, index)
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                kind = "NaN" if bool(torch.isnan(x).any()) else "an infinite value"
                raise InputError(f"batch {index} holds {kind}", "finite numbers", WHERE)
        first = batch[0]
        axis = layout.time_axis
        if axis is not None and first.dim() == 3:
            if first.shape[axis] < 2:
                raise InputError(
                    f"batch {index} has sequences of {first.shape[axis]} step", "at least two steps", WHERE
                )
            if not warned and _looks_padded(first if axis == 1 else first.transpose(0, 1)):
                warned = True
                warnings.warn(
                    f"sequences in batch {index} end in constant rows, which looks like padding: it distorts "
                    "the statistics. Pass 'lengths', batches of equal length, or batches of one.",
                    stacklevel=2,
                )
        seen += first.shape[0 if axis != 0 or first.dim() < 3 else 1]
        yield batch
    if seen < 2:
        raise InputError(f"the data holds {seen} observation{'s' * (seen != 1)}", "at least two", WHERE)


def _check_shape(x: Tensor, layout: InputLayout, position: int, index: int) -> None:
    if position >= len(layout.shapes):
        return
    expected = layout.shapes[position]
    fits = x.dim() == len(expected) and all(
        want is None or axis == 0 or want == have
        for axis, (want, have) in enumerate(zip(expected, x.shape, strict=True))
    )
    if not fits:
        text = ", ".join("any" if size is None or axis == 0 else str(size) for axis, size in enumerate(expected))
        raise InputError(
            f"input {layout.names[position]!r} of batch {index} has shape {tuple(x.shape)}", f"({text})", WHERE
        )


def _looks_padded(x: Tensor) -> bool:
    """Whether a sequence of (N, T, D) ends in at least two equal rows without being constant throughout."""
    if x.shape[1] < 4:
        return False
    tail = (x[:, -1:] == x[:, -3:-1]).flatten(1).all(1)
    moving = (x[:, -1:] != x).flatten(1).any(1)
    return bool((tail & moving).any())
