"""One level from start to end: compress, measure, quantise, save. It runs in a worker process."""

from __future__ import annotations

import threading
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from projgen.arrays import check_classes
from projgen.data import as_batches, place, run_model
from projgen.errors import InputError
from projgen.explore.levels import DENSE, Level
from projgen.explore.records import LevelResult
from projgen.explore.store import keep
from projgen.export import save
from projgen.pca.counting import count_learnables
from projgen.pca.neuron_pca import NeuronPCA
from projgen.projection.compress import compress
from projgen.projection.measure import OutputError, evaluating

Arrays = list[tuple[np.ndarray, ...]]

# torch.export is not made for several threads: where workers are threads, they take turns.
_ALONE = threading.Lock()


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker needs.

    Attributes:
        level: what to make. key: what the result is kept under. folder: where. pca: file of the neuron PCA.
        model: the original. pool: calibration batches. test: labelled batches, with their ``labels``; both None
            without labels.
        closed_form: use the stored moments alone. quantise: measure the int8 model too. ending: of the model file.
    """

    level: Level
    key: str
    folder: Path
    pca: Path
    model: nn.Module
    pool: Arrays
    test: Arrays | None
    labels: np.ndarray | None
    layer_names: list[str] | None
    closed_form: bool
    quantise: bool
    ending: str


def finish(task: Task) -> LevelResult:
    """Make, measure, save and record one level."""
    with _ALONE:
        if threading.current_thread() is threading.main_thread():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")
                warnings.filterwarnings("always", module="projgen")
                result = _finish(task)
            result = replace(result, notes=tuple(dict.fromkeys(str(w.message) for w in caught)))
        else:  # warnings of one thread can't be told from those of the others
            result = _finish(task)
        keep(task.folder, result)
    return result


def _finish(task: Task) -> LevelResult:
    started = time.perf_counter()
    level, model, file = task.level, task.model, ""
    pool = [tuple(torch.from_numpy(np.array(x)) for x in batch) for batch in task.pool]
    batches = as_batches(pool, model)
    reduction, explained, choice, refit, ranks = 0.0, 1.0, "", False, {}
    if level != DENSE:
        pca = NeuronPCA.load(task.pca, model)
        again = None if (task.closed_form and level.goal != "budget") or level.method == "pca" else batches
        model, info = compress(
            task.model, pca, data=again, method=level.method, layer_names=task.layer_names, unpack=True,
            verbosity="off", **level.arguments,
        )  # fmt: skip
        reduction, explained = info.learnables_reduction, info.explained_variance
        choice, refit = info.choice, info.refit
        ranks = {d.name: list(d.ranks) for d in info.layers if d.projected}
        file = f"{level.name}{task.ending}"
        save(model, task.folder / file)
    error_of = OutputError(task.model, batches, _device(task.model))
    int8 = _Quantised(model, pool) if task.quantise else None
    return LevelResult(
        name=level.name,
        key=task.key,
        method=level.method,
        goal=level.goal,
        value=level.value,
        learnables=count_learnables(model),
        learnables_reduction=reduction,
        explained_variance=explained,
        output_error=error_of(model),
        accuracy=_accuracy(task, model),
        int8_output_error=None if int8 is None else error_of(int8),
        int8_accuracy=None if int8 is None else _accuracy(task, int8),
        choice=choice,
        refit=refit,
        ranks=ranks,
        model=file,
        seconds=round(time.perf_counter() - started, 3),
    )


def _accuracy(task: Task, model: nn.Module) -> float | None:
    return None if task.test is None or task.labels is None else accuracy(task.model, model, task.test, task.labels)


def accuracy(original: nn.Module, model: nn.Module, test: Arrays, labels: np.ndarray) -> float:
    """Share of the inputs whose largest output is the label's.

    Raises:
        InputError: the model's output is no table of scores (N, classes), or labels beyond its classes.
    """
    device, right, start = _device(original), 0, 0
    with evaluating(model), torch.no_grad():
        for index, arrays in enumerate(test):
            batch = place(tuple(torch.from_numpy(np.array(x)) for x in arrays), original, device)
            scores = run_model(model, batch, index)
            if not isinstance(scores, Tensor) or scores.dim() != 2 or scores.shape[1] < 2:
                raise InputError("labels for a model whose output is no table of scores", "(N, classes)", "labels")
            check_classes(labels, scores.shape[1], "labels")
            wanted = torch.from_numpy(labels[start : start + len(scores)]).to(scores.device)
            right += int((scores.argmax(1) == wanted).sum())
            start += len(scores)
    return right / len(labels)


class _Quantised(nn.Module):
    """The int8 model behind a module's interface, to be measured like one."""

    def __init__(self, model: nn.Module, pool: list[tuple[Tensor, ...]]) -> None:
        super().__init__()
        from projgen.quant.model import quantize

        self._model = quantize(model, pool)

    def forward(self, *inputs: Tensor) -> Any:
        found = self._model(*(x.cpu().numpy() for x in inputs))
        parts = found if isinstance(found, tuple) else (found,)
        outputs = tuple(torch.from_numpy(np.asarray(y, np.float32)).to(inputs[0].device) for y in parts)
        return outputs if isinstance(found, tuple) else outputs[0]


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
