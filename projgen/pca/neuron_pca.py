"""NeuronPCA: principal components of a network's activations, computed once for many compressions."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from projgen.data import as_batches, place
from projgen.errors import InputError
from projgen.pca.collect import Collected, LayerStats, collect
from projgen.pca.counting import count_learnables, dense_cost, smallest_cost
from projgen.pca.discover import Kind, Layer, as_device, as_module, choose_layers, owned_copy, weight_digest
from projgen.pca.moments import MomentSummary, spectrum
from projgen.progress import Reporter

_FORMAT = 1


class NeuronPCA:
    """Second moments of what every projectable layer reads and emits, and their principal components.

    Args:
        model: nn.Module (not modified) or the path of an ONNX file.
        data: any form ``projgen.data`` accepts; a one-shot iterator is enough.
        layer_names: the layers to look at, wildcards allowed; None for all that can be projected and are called.
        curvature: also gather what ``method="output"`` needs: the outputs' curvature and conv patches. Without
            it the result serves ``method="pca"``.
        device: where to run; the model's own device by default.
        process_group: torch process group whose members each bring a part of the data; their moments and
            curvatures are summed, and every member gets the same components. Every member needs data.
        verbosity: off, summary, steps or iterations.

    The spectra are uncentred: eigenvalues (descending) and eigenvectors (columns) of E[x x^T], per layer name.
    Input is what the layer multiplies (an RNN's x); output is what it emits (an RNN's hidden state as it is fed
    back). For a grouped convolution the eigenvalues are summed over the groups, rank by rank, and the
    eigenvectors of the groups are stacked. ``seconds``: time per stage (forward passes, moments, curvature, spectra);
    empty when loaded.
    """

    def __init__(
        self,
        model: nn.Module | str | Path,
        data: Any,
        *,
        layer_names: list[str] | str | None = None,
        curvature: bool = True,
        device: torch.device | str | None = None,
        process_group: Any = None,
        verbosity: str = "summary",
    ) -> None:
        module = as_module(model)
        reporter = Reporter(verbosity)
        layers = choose_layers(module, layer_names)
        batches = as_batches(data, module)
        own = owned_copy(module).eval().requires_grad_(False)
        digest, learnables = weight_digest(own), count_learnables(module)
        place = as_device(device, module)
        reporter.step(f"Gathering moments of {len(layers)} layers" + (" and curvature" * curvature))
        stream = reporter.track(batches, "neuron PCA", batches.length)
        weights = {x.name: _linear_map(own, x) for x in layers if x.kind is Kind.LINEAR}
        named = layer_names is not None
        clock = reporter.clock
        collected = collect(
            own.to(place), layers, stream, curvature=curvature, device=place, required=named, group=process_group,
            clock=clock,
        )  # fmt: skip
        stats = {
            name: replace(s, outputs=(s.inputs[0].through(*weights[name]),)) if name in weights else s
            for name, s in collected.layers.items()
        }
        with clock.stage("spectra"):
            self._set(replace(collected, layers=stats), digest, learnables, curvature)
        self.seconds: dict[str, float] = clock.seconds
        reporter.step(f"Time: {clock}")
        reporter.summary(
            f"Neuron PCA over {collected.samples} observations: {len(self.layer_names)} layers, learnables reduction "
            f"up to {self.learnables_reduction_range[1]:.1%}"
        )

    def _set(self, collected: Collected, digest: str, learnables: int, curvature: bool) -> None:
        self.collected = collected
        self.digest = digest
        self.learnables = learnables
        self.has_curvature = curvature
        self.layer_names = list(collected.layers)
        self.input_eigenvalues: dict[str, np.ndarray] = {}
        self.input_eigenvectors: dict[str, np.ndarray] = {}
        self.output_eigenvalues: dict[str, np.ndarray] = {}
        self.output_eigenvectors: dict[str, np.ndarray] = {}
        for name, stats in collected.layers.items():
            read, emitted = activations(stats)
            self.input_eigenvalues[name], self.input_eigenvectors[name] = _grouped_spectrum(read)
            self.output_eigenvalues[name], self.output_eigenvectors[name] = _grouped_spectrum(emitted)

    @property
    def learnables_reduction_range(self) -> tuple[float, float]:
        """(0, the proportion of learnables removed when every layer that gains has rank one)."""
        removed = sum(max(0, dense_cost(x) - smallest_cost(x)) for x in self._layers())
        return 0.0, removed / self.learnables if self.learnables else 0.0

    @property
    def explained_variance_range(self) -> tuple[float, float]:
        """(mean proportion explained by the first component of each projected activation, 1)."""
        shares = []
        for layer in self._layers():
            if smallest_cost(layer) >= dense_cost(layer):
                continue
            shares.append(explained_share(self.input_eigenvalues[layer.name], 1))
            if layer.kind is not Kind.LINEAR:
                shares.append(explained_share(self.output_eigenvalues[layer.name], 1))
        return (float(np.mean(shares)) if shares else 1.0), 1.0

    def example(self, model: nn.Module) -> tuple[torch.Tensor, ...]:
        """Inputs of the shapes that the data had, on the model's device and of its floating type, to trace it with."""
        device = as_device(None, model)
        return place(tuple(torch.zeros(shape) for shape in self.collected.input_shapes), model, device)

    def _layers(self) -> list[Layer]:
        return [stats.layer for stats in self.collected.layers.values()]

    def check(self, model: nn.Module) -> None:
        """Raise InputError unless the components were computed from this model with these weights."""
        if weight_digest(owned_copy(model)) == self.digest:
            return
        known = {layer.name: layer for layer in choose_layers(model, None)}
        for name, stats in self.collected.layers.items():
            problem = "" if name in known else "the model has no such layer"
            if name in known and known[name] != stats.layer:
                problem = "its shape differs"
            if problem:
                raise InputError(
                    f"the NeuronPCA is of another model: layer {name!r}: {problem}", "the PCA's own model", "model"
                )
        raise InputError(
            "the NeuronPCA is of another model: the layers agree, the weights differ",
            "the model it was computed from, with the same weights",
            "model",
        )

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file (no pickle)."""
        arrays: dict[str, np.ndarray] = {}
        entries = []
        for index, stats in enumerate(self.collected.layers.values()):
            entries.append({**asdict(stats.layer), "kind": stats.layer.kind.value if stats.layer.kind else ""})
            for part in ("inputs", "outputs", "patches"):
                for group, moments in enumerate(getattr(stats, part)):
                    arrays[f"{index}/{part}/{group}/mean"] = moments.mean
                    arrays[f"{index}/{part}/{group}/covariance"] = moments.covariance
                    arrays[f"{index}/{part}/{group}/rows"] = np.array(moments.rows)
            for key, value in stats.curvature.items():
                arrays[f"{index}/curvature/{key}"] = value
        header = {
            "format": _FORMAT,
            "digest": self.digest,
            "learnables": self.learnables,
            "curvature": self.has_curvature,
            "samples": self.collected.samples,
            "output_variance": self.collected.output_variance,
            "input_shapes": self.collected.input_shapes,
            "layers": entries,
        }
        target = Path(path)
        if target.suffix.lower() != ".npz":
            raise InputError(f"file name {target.name!r}", "a name ending in .npz", "path")
        try:
            np.savez(target, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise InputError(
                f"{str(target)!r} can't be written: {error.strerror}", "a writable path", "path"
            ) from error

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | str | Path) -> NeuronPCA:
        """Read a saved PCA and check that it belongs to the model (layers, shapes, weights)."""
        source = Path(path)
        if not source.is_file():
            raise InputError(f"file {str(source)!r} was not found", "a file that NeuronPCA.save wrote", "path")
        try:
            with np.load(source, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
            if header["format"] != _FORMAT:
                raise InputError(f"{source.name!r} has format {header['format']}", f"format {_FORMAT}", "path")
            layers = {entry["name"]: _read_layer(arrays, i, entry, header) for i, entry in enumerate(header["layers"])}
        except (ValueError, KeyError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{source.name!r} is not a saved NeuronPCA: {error}", "a file that NeuronPCA.save wrote", "path"
            ) from error
        shapes = tuple(tuple(shape) for shape in header["input_shapes"])
        collected = Collected(layers, header["samples"], header["output_variance"], shapes)
        loaded = cls.__new__(cls)
        loaded.seconds = {}
        loaded._set(collected, header["digest"], header["learnables"], header["curvature"])
        loaded.check(as_module(model))
        return loaded


def _read_layer(arrays: dict[str, np.ndarray], index: int, entry: dict[str, Any], header: dict[str, Any]) -> LayerStats:
    layer = Layer(**{**entry, "kind": Kind(entry["kind"])})
    parts: dict[str, tuple[MomentSummary, ...]] = {}
    for part in ("inputs", "outputs", "patches"):
        prefix = f"{index}/{part}/"
        groups = sorted({int(name.split("/")[2]) for name in arrays if name.startswith(prefix)})
        parts[part] = tuple(
            MomentSummary(*(arrays[f"{prefix}{g}/{what}"] for what in ("rows", "mean", "covariance")))  # type: ignore[arg-type]
            for g in groups
        )
    parts = {k: tuple(replace(m, rows=int(m.rows)) for m in v) for k, v in parts.items()}
    prefix = f"{index}/curvature/"
    curvature = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    return LayerStats(layer, header["samples"], parts["inputs"], parts["outputs"], parts["patches"], curvature)


def activations(stats: LayerStats) -> tuple[tuple[MomentSummary, ...], tuple[MomentSummary, ...]]:
    """(what the layer reads, what it emits), per group; for an RNN x and the hidden state fed back."""
    if stats.layer.hidden:
        joint, width = stats.inputs[0], stats.layer.inputs
        return (joint.part(0, width),), (joint.part(width, width + stats.layer.hidden),)
    return stats.inputs, stats.outputs


def explained_share(eigenvalues: np.ndarray, rank: int) -> float:
    """Proportion of the variance that the first components explain (1 if there is none)."""
    total = float(eigenvalues.sum())
    return 1.0 if total <= 0.0 else min(1.0, float(eigenvalues[:rank].sum()) / total)


def _grouped_spectrum(groups: tuple[MomentSummary, ...]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [spectrum(moments.second) for moments in groups]
    return np.sum([values for values, _ in pairs], 0), np.concatenate([vectors for _, vectors in pairs], 0)


def _linear_map(model: nn.Module, layer: Layer) -> tuple[np.ndarray, np.ndarray | None]:
    module = model.get_submodule(layer.module_name)
    assert isinstance(module, nn.Linear)
    bias = None if module.bias is None else module.bias.detach().double().cpu().numpy()
    return module.weight.detach().double().cpu().numpy(), bias
