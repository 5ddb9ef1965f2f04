"""The exploration: statistics once, then every level that is not finished yet, in parallel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import nn

import projgen
from projgen.data import Batches, as_batches, input_layout
from projgen.errors import InputError, InputTypeError
from projgen.explore.levels import DENSE, Level, plan
from projgen.explore.records import Exploration
from projgen.explore.store import data_digest, finished, key_of, model_digest, open_folder, shared_pca
from projgen.explore.work import Arrays, Task, accuracy, finish
from projgen.explore.workers import require, workers
from projgen.export import FORMATS
from projgen.pca.discover import as_module, choose_layers, owned_copy
from projgen.pca.neuron_pca import NeuronPCA
from projgen.progress import Reporter
from projgen.projection.measure import samples_of
from projgen.report.exploration import write_exploration
from projgen.report.terminal import console

_POOL = 4096


def explore(
    model: nn.Module | str | Path,
    data: Any,
    *,
    levels: Iterable[float] = (),
    budgets: Iterable[str] = (),
    out: str | Path,
    methods: Iterable[str] = ("output",),
    labels: Any = None,
    inputs: Any = None,
    layer_names: list[str] | str | None = None,
    closed_form: bool = False,
    quantise: bool = False,
    ending: str = ".onnx",
    jobs: int = -1,
    backend: str | None = "loky",
    verbosity: str = "summary",
) -> Exploration:
    """Compress a model to many levels from one neuron PCA, and compare them.

    Every finished level is two files in ``out``, moved there when they are complete: the compressed model and
    its record. A record carries a hash of model, data and options; called again, ``explore`` takes over what has
    the same hash and makes the rest. At the end it writes ``explore.json``, ``pareto.svg`` and ``explore.html``.

    Args:
        model: nn.Module (not modified) or the path of an ONNX file.
        data: calibration data in any form ``projgen.data`` accepts that can be read several times.
        levels: shares of the learnables to remove. out: folder, created if missing.
        budgets: what a target allows, e.g. "flash=64KiB,ram=16KiB,target=cortex-m4"; by method "output", from the data.
        methods: "output", "pca" or both.
        labels: class numbers (N,) in the order of the inputs, for the accuracy; default: those in the data.
        inputs: what the labels belong to, as ``data``; default: the calibration data.
        layer_names: only these layers. closed_form: choose and solve by the stored moments alone, without refit.
        quantise: measure each level's int8 model too. ending: ".onnx" or ".pt2".
        jobs: levels at once; -1 means one per core. backend: see ``workers``.
        verbosity: off, summary, steps or iterations.
    Raises:
        InputError, InputTypeError: arguments or data that can't be used; then nothing is written.
        ToolMissingError: Dask or Ray is asked for and not installed.
    """
    reporter = Reporter(verbosity)
    wanted = plan(levels, methods, budgets)
    if ending not in FORMATS:
        raise InputError(f"ending {ending!r}", " or ".join(FORMATS), "ending")
    if isinstance(jobs, bool) or not isinstance(jobs, int) or (jobs < 1 and jobs != -1):
        raise InputError(f"jobs={jobs!r}", "a whole number from 1, or -1 for one per core", "jobs")
    require(backend)
    module = as_module(model)
    names = [layer.name for layer in choose_layers(module, layer_names)] if layer_names is not None else None
    batches = as_batches(data, module)
    batches.require_passes("exploring levels")
    test, test_labels = _labelled(module, batches, labels, inputs)
    own, curvature = owned_copy(module), any(level.method == "output" for level in wanted)
    sources = {"model": model_digest(own), "data": data_digest(batches)}
    labelled = data_digest(_tensors(test), test_labels)
    shared = {**sources, "test": labelled, "int8": quantise, "version": projgen.__version__}
    folder = Path(out)
    open_folder(folder)
    pca = folder / f"pca-{key_of(**sources, curvature=curvature)}.npz"
    keys = {
        level: key_of(**shared, layers=names, closed_form=closed_form, ending=ending, level=_described(level))
        for level in (DENSE, *wanted)
    }
    results = {level: finished(folder, level.name, key) for level, key in keys.items()}
    reused = [level.name for level, result in results.items() if result is not None]
    todo = [level for level, result in results.items() if result is None]
    if todo:
        known = shared_pca(pca, module, lambda: NeuronPCA(module, batches, curvature=curvature, verbosity="off"))
        reporter.step(f"{'Found' if known else 'Gathered'} the neuron PCA; {len(todo)} levels to make")
        pool = [tuple(x.detach().cpu().numpy() for x in batch) for batch in samples_of(batches, module, _POOL)]
        tasks = [
            Task(x, keys[x], folder, pca, own, pool, test, test_labels, names, closed_form, quantise, ending)
            for x in todo
        ]
        with workers(backend, jobs):
            as_they_come = backend in {"loky", "threading", "dask"}
            parallel = Parallel(n_jobs=jobs, return_as="generator_unordered" if as_they_come else "list")
            made = parallel(delayed(finish)(task) for task in tasks)
            for result in reporter.track(made, "levels", len(tasks)):
                reporter.step(f"{result.name}: {result.learnables:,} learnables, error {result.output_error:.4g}")
                results[next(x for x in todo if x.name == result.name)] = result
    whole = Exploration(tuple(r for r in results.values() if r is not None), tuple(reused))
    write_exploration(folder, whole)
    _report(reporter, whole)
    return whole


def _described(level: Level) -> list[Any]:
    return [level.method, level.goal, level.value]


def _labelled(model: nn.Module, batches: Batches, labels: Any, inputs: Any) -> tuple[Arrays | None, np.ndarray | None]:
    """The inputs to measure accuracy on and their labels, batch after batch; (None, None) without labels."""
    source = batches if inputs is None else as_batches(inputs, model)
    found = source.labels if labels is None else labels
    if found is None:
        if inputs is not None:
            raise InputError("inputs without labels", "labels of these inputs", "labels")
        return None, None
    values = np.asarray(found)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        if labels is None and inputs is None:  # targets of another kind, which nobody asked to compare with
            return None, None
        raise InputTypeError(f"labels of type {values.dtype} and shape {values.shape}", "integers (N,)", "labels")
    source.require_passes("measuring accuracy")
    test = [tuple(x.detach().cpu().numpy() for x in batch) for batch in source]
    counts = _observations(model, test)
    if counts != len(values):
        raise InputError(f"{len(values)} labels for {counts} observations", "one per observation", "labels")
    if source.lengths is not None:  # such data comes by length
        values = values[np.argsort(source.lengths, kind="stable")]
    accuracy(model, model, [tuple(x[:2] for x in test[0])], values)
    return test, values


def _observations(model: nn.Module, test: Arrays) -> int:
    axis = 1 if input_layout(model).time_axis == 0 else 0
    return sum(x[0].shape[axis if x[0].ndim > axis else 0] for x in test)


def _tensors(test: Arrays | None) -> list[tuple[torch.Tensor, ...]]:
    return [tuple(torch.from_numpy(np.array(x)) for x in batch) for batch in test or []]


def _report(reporter: Reporter, found: Exploration) -> None:
    if found.reused:
        reporter.summary(f"Taken over, finished before: {', '.join(found.reused)}")
    notes = [(r.name, note) for r in found.results for note in r.notes]
    for name, note in notes:
        reporter.summary(f"{name}: {note}")
    if reporter.verbosity != "off":
        console().print(found)
