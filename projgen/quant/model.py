"""``projgen.quantize`` and what it returns: the bit-exact integer model, which needs no compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from projgen.errors import InputError, InputTypeError
from projgen.ir.graph import Array, Graph, Port, Stage
from projgen.ir.interpreter import run_integer
from projgen.ir.verify import VerifyError, verify
from projgen.quant.boundary import dequantise_output, quantise_input
from projgen.quant.dead_channels import remove_dead_channels
from projgen.quant.notes import NONE, Notes
from projgen.quant.quantise import prove
from projgen.quant.store import digest, load_graph, save_graph

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from projgen.data import Batches
    from projgen.quant.loss import Limit

_CHUNK_ELEMENTS = 1 << 22
Outputs = Array | tuple[Array, ...]


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedModel:
    """A quantised model: its graph is the meaning, and running it gives the bytes that the emitted C gives.

    Inputs and outputs have the user's layout (PyTorch's), batch first: an array or tensor, or for several inputs as
    many arguments, a tuple, or a mapping by input name. Several outputs come as a tuple.

    Attributes:
        graph: at the quantised stage.
        notes: what quantising did besides.
    """

    graph: Graph
    notes: Notes = NONE

    def __post_init__(self) -> None:
        if self.graph.stage is not Stage.QUANTISED:
            raise InputTypeError(f"a graph at stage {self.graph.stage}", "a quantised graph", "graph")

    def __call__(self, *inputs: Any) -> Outputs:
        """Float outputs of float inputs: ``quantize_input``, ``run_int``, and back to reals (float32)."""
        return self.dequantize_output(self.run_int(self.quantize_input(*inputs)))

    def run_int(self, *inputs: Any) -> Outputs:
        """Integer outputs of integer inputs: the exact meaning of the model.

        Raises:
            InputError: shapes or integers that the inputs' types don't hold.
        """
        arrays = [port.to_ir(x) for port, x in zip(self.graph.inputs, self._arrays(inputs), strict=True)]
        parts = [run_integer(self.graph, chunk) for chunk in self._chunks(arrays)]
        joined = tuple(np.concatenate(y) for y in zip(*parts, strict=True))
        return _one_or_all([port.to_user(y) for port, y in zip(self.graph.outputs, joined, strict=True)])

    def quantize_input(self, *inputs: Any) -> Outputs:
        """Integers of real inputs, exactly as the emitted C's helper makes them.

        Raises:
            InputError: a NaN.
        """
        found = []
        for port, x in zip(self.graph.inputs, self._arrays(inputs), strict=True):
            if x.dtype.kind == "f" and np.isnan(x).any():
                raise InputError(f"input {port.name!r} holds NaN", "numbers", "the inputs")
            found.append(quantise_input(x, self.graph.type(port.value)))
        return _one_or_all(found)

    def dequantize_output(self, outputs: Outputs) -> Outputs:
        """Reals (float32) of integer outputs."""
        given = outputs if isinstance(outputs, tuple) else (outputs,)
        types = [self.graph.type(port.value) for port in self.graph.outputs]
        if len(given) != len(types):
            raise InputError(f"{len(given)} outputs", f"{len(types)}", "outputs")
        return _one_or_all([dequantise_output(np.asarray(q), t) for q, t in zip(given, types, strict=True)])

    def save(self, path: str | Path) -> None:
        """Write the model as one file, the same bytes for the same model."""
        save_graph(self.graph, path, self.notes)

    @classmethod
    def load(cls, path: str | Path) -> QuantizedModel:
        """Read a saved model; its overflow proofs are made again.

        Raises:
            InputError: the file is missing or damaged, or holds a model that could overflow.
        """
        graph, notes = load_graph(path)
        try:
            verify(graph)
            prove(graph)
        except (VerifyError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} holds no valid model: {error}", "a saved quantised model", "path") from error
        return cls(graph, notes)

    def digest(self) -> str:
        """SHA-256 of the canonical graph: independent of names, paths and times."""
        return digest(self.graph)

    def _arrays(self, inputs: tuple[Any, ...]) -> list[Array]:
        """One array per input, in the graph's order."""
        ports = self.graph.inputs
        given: Sequence[Any] = inputs
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            missing = [p.name for p in ports if p.name not in inputs[0]]
            if missing or len(inputs[0]) != len(ports):
                names = ", ".join(p.name for p in ports)
                raise InputError(f"inputs named {', '.join(map(str, inputs[0]))}", names, "the inputs")
            given = [inputs[0][p.name] for p in ports]
        elif len(inputs) == 1 and isinstance(inputs[0], tuple):
            given = inputs[0]
        if len(given) != len(ports):
            names = ", ".join(p.name for p in ports)
            raise InputError(f"{len(given)} inputs were given", f"{len(ports)}: {names}", "the inputs")
        return [self._array(port, x) for port, x in zip(ports, given, strict=True)]

    def _array(self, port: Port, given: Any) -> Array:
        x = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
        if x.dtype.kind not in "fiu":
            raise InputTypeError(f"input {port.name!r} holds {x.dtype}", "an array of numbers", "the inputs")
        t = self.graph.type(port.value)
        want = ["N", *(str(t.shape[port.perm.index(axis)]) for axis in range(len(port.perm)))]
        if x.ndim != len(want) or any(w not in ("N", "T", str(n)) for w, n in zip(want, x.shape, strict=True)):
            raise InputError(f"input {port.name!r} has shape {x.shape}", " x ".join(want), "the inputs")
        return x

    def _chunks(self, arrays: Sequence[Array]) -> Iterator[list[Array]]:
        """The batch in parts, so that the integers of one layer stay in memory."""
        steps = max((x.shape[1] for p, x in zip(self.graph.inputs, arrays, strict=True) if self._timed(p)), default=1)
        widest = max(v.type.elements for v in self.graph.values.values() if not v.is_constant)
        size = max(1, _CHUNK_ELEMENTS // max(1, widest * steps))
        for start in range(0, max(1, len(arrays[0])), size):
            yield [x[start : start + size] for x in arrays]

    def _timed(self, port: Port) -> bool:
        return self.graph.type(port.value).has_time


def quantize(
    model: nn.Module | ExportedProgram | str | Path,
    calibration: Any,
    *,
    activations: str = "int8",
    weights: str = "int8",
    name: str = "model",
    equalise: bool = True,
    keep_dead_channels: bool = False,
    int8_limit: Limit | None = None,
    labels: Any = None,
    on_stage: Callable[[str, Graph], None] | None = None,
) -> QuantizedModel:
    """Quantise a model: int8 weights per output channel, int8 activations from calibrated ranges.

    Components of low-rank intermediates are brought to more equal ranges where that is measured to bring the integers
    closer to the floats. Channels that the quantised weights prove constant, and those that nobody reads, are taken
    out: no byte changes.

    Args:
        model: a module, a torch.export program, or what the command line takes (an .onnx or .pt2 file, or
            module:attribute). It is not modified.
        calibration: representative inputs, in any form that ``projgen.compress`` takes; read once.
        activations: "int8".
        weights: "int8".
        name: of the graph.
        equalise: try more equal ranges; each trial runs the integers on some of the calibration inputs.
        keep_dead_channels: leave in what never changes.
        int8_limit: measure what the integers lose against the floats on calibration inputs, note it
            (``notes.int8_loss``), and refuse more than this: of accuracy, with ``labels``; else of the share of class
            decisions that change, and of the accuracy that these are expected to cost; else, where outputs are no
            class scores, of the relative output error. "auto": 0.005; 0.02 and 0.005; 0.2. None: not measured, unless
            there are labels.
        labels: class number of each calibration input, (N,); default: those in the calibration data.
        on_stage: called with the graph after each stage: "import", the name of each pass, "equalise",
            "quantise", "remove_dead_channels".
    Raises:
        UnsupportedError: an operator that can't be quantised, or an accumulator that can't be proven to fit int32.
        InputError: data or options that can't be used.
        Int8LossError: the integers lose more than ``int8_limit``.
    """
    for option, value in (("activations", activations), ("weights", weights)):
        if value != "int8":
            raise InputError(f"{option}={value!r}", "'int8'", option)
    from projgen.quant import loss
    from projgen.quant.calibrate import calibrate
    from projgen.quant.equalise import equalised
    from projgen.quant.probe import Sampler
    from projgen.quant.quantise import quantise

    limit = "auto" if int8_limit is None and labels is not None else int8_limit
    if limit is not None:
        loss.check_limit(limit)
    graph, batches, data = _float_graph(model, calibration, name, on_stage)
    sampler = Sampler(graph, loss.MACS)
    seen = calibrate(graph, sampler.watch(batches))
    classes = None if limit is None else loss.in_order(labels, data, sampler.seen)
    notes = NONE
    if equalise:
        graph, seen, done = equalised(graph, seen, sampler.samples)
        notes = Notes(equalised=done)
        if on_stage is not None:
            on_stage("equalise", graph)
    quantised = quantise(graph, seen)
    if on_stage is not None:
        on_stage("quantise", quantised)
    if limit is not None:
        found = loss.measure_loss(graph, quantised, sampler.samples, classes, limit)
        found.require()
        notes = replace(notes, int8_loss=found)
    if keep_dead_channels:
        return QuantizedModel(quantised, notes)
    narrowed, removed = remove_dead_channels(quantised)
    verify(narrowed, after="remove_dead_channels")
    prove(narrowed)
    if on_stage is not None:
        on_stage("remove_dead_channels", narrowed)
    return QuantizedModel(narrowed, replace(notes, removed_channels=removed))


def _float_graph(
    model: Any, calibration: Any, name: str, on_stage: Callable[[str, Graph], None] | None
) -> tuple[Graph, Iterator[list[Array]], Batches]:
    """The canonical float graph, the calibration batches, and the data they come from.

    The first batch is the import's example.
    """
    import torch
    from torch import nn
    from torch.export import ExportedProgram

    from projgen.data import as_batches, place
    from projgen.importers.torch_export import import_module, import_program
    from projgen.models import load_model
    from projgen.passes import run_pipeline

    given = load_model(model) if isinstance(model, str | Path) else model
    if not isinstance(given, nn.Module | ExportedProgram):
        raise InputTypeError(f"a model of type {type(given).__name__}", "an nn.Module or a path", "model")
    module = given if isinstance(given, nn.Module) else given.module()
    data = as_batches(calibration, module)
    batches = iter(data)
    first = next(batches, None)
    if first is None:
        raise InputError("the calibration data holds no batch", "at least one", "calibration")
    cpu = torch.device("cpu")
    example = place(first, module, cpu)
    graph = import_module(given, example, name) if isinstance(given, nn.Module) else import_program(given, name)
    every = (place(batch, module, cpu) for batch in chain([first], batches))
    arrays = ([x.detach().float().numpy() for x in batch] for batch in every)
    return run_pipeline(graph, on_stage=on_stage), arrays, data


def _one_or_all(arrays: Sequence[Array]) -> Outputs:
    return arrays[0] if len(arrays) == 1 else tuple(arrays)
