"""A compiled model: build its C, run it on its target, measure it, compare it with the simulator."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from projgen.arrays import check_lengths, pick_inputs, read_arrays
from projgen.errors import InputError, InputTypeError, MismatchError, ToolMissingError
from projgen.harness.build import Compiler, Image, build_image
from projgen.harness.manifest import read_model
from projgen.harness.measurement import Measurement, measure
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.ir.graph import Array, Graph, Port
from projgen.options import CompileOptions
from projgen.quant.model import Outputs, QuantizedModel
from projgen.targets import Target, load_target

Batch = tuple[Array, ...]  # one array per input, PyTorch's layout, batch first
Mode = Literal["run", "step"]


@dataclass(slots=True, eq=False)
class Artifact:
    """A folder that ``projgen.compile`` wrote, for one target.

    Inputs are what ``QuantizedModel`` takes (an array or tensor, a tuple for several inputs, a mapping by name), a list
    of such batches (sequences of different lengths; single samples may lack the batch axis), or the path of an ``.npz``
    or ``.npy`` file. A list, and a file with ``lengths``, gives a list of outputs, one per entry.

    Attributes:
        directory: the folder.
        target: what it was compiled for.
        manifest: contents of ``NAME.json``.
        cmsis_nn: folder of CMSIS-NN for its back end; None: what the environment names.
    """

    directory: Path
    target: Target
    cmsis_nn: Path | None = None
    manifest: Mapping[str, Any] = field(init=False, repr=False)
    _image: Image | None = field(init=False, default=None, repr=False)
    _model: QuantizedModel | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        name = read_model(self.directory).name
        self.manifest = json.loads((self.directory / f"{name}.json").read_text(encoding="utf-8"))

    @classmethod
    def open(
        cls,
        directory: str | Path,
        target: str | Path | Target | None = None,
        cmsis_nn: str | Path | None = None,
    ) -> Artifact:
        """The artifact in a folder; for another target its quantised model is lowered again, into ``build/``.

        Raises:
            InputError: no such folder, or the target does not exist.
        """
        folder = Path(directory).resolve()
        name = read_model(folder).name
        manifest = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        wanted = target if isinstance(target, Target) else load_target(target or manifest["target"])
        library = None if cmsis_nn is None else Path(cmsis_nn)
        if target is None or wanted.name == manifest["target"]:
            return cls(folder, wanted, library)
        from projgen.codegen.output import write_folder
        from projgen.driver import check_library, generate

        kept = manifest["options"]
        options = CompileOptions.checked(name, kept["backend"], kept["kernels"], kept["optimise"], library)
        check_library(options, wanted)
        again = folder / "build" / wanted.name / "model"
        write_folder(generate(QuantizedModel.load(folder / f"{name}.qmodel"), wanted, options), again)
        return cls(again, wanted, library)

    @property
    def name(self) -> str:
        """Prefix of the files and C names."""
        return str(self.manifest["name"])

    @property
    def quantized(self) -> QuantizedModel:
        """The model's meaning: ``NAME.qmodel``."""
        if self._model is None:
            self._model = QuantizedModel.load(self.directory / f"{self.name}.qmodel")
        return self._model

    def build(self, optimise: str = "-O2", compiler: Compiler = "gcc") -> Image:
        """Compile the C with the test driver into ``build/``, and measure it on the test vectors.

        ``build/measurement.json`` then holds what a compiler decides: code size, stack, instructions. It is left out
        where the target's emulator is not installed.

        Raises:
            ToolMissingError: no compiler.
            FitError: code and weights are larger than the target's flash.
        """
        folder = self.directory / "build"
        image = build_image(
            [self.directory], self.target, folder, optimise=optimise, compiler=compiler, cmsis_nn=self.cmsis_nn
        )
        self._image = image
        report = folder / "measurement.json"
        report.unlink(missing_ok=True)
        try:
            records = self._records(self._vectors())
            result = measure(
                self.directory,
                self.target,
                records,
                optimise=optimise,
                compiler=compiler,
                cmsis_nn=self.cmsis_nn,
            )
        except ToolMissingError:
            return image
        report.write_text(result.to_json(), encoding="utf-8")
        return image

    def run(self, x: Any) -> Outputs | list[Outputs]:
        """Float outputs of float inputs: quantised, run on the target, back to reals."""
        batches, many = self._float_batches(x)
        return _like(many, [self.quantized.dequantize_output(y) for y in self._execute(batches)])

    def run_int(self, x: Any, *, mode: Mode = "run") -> Outputs | list[Outputs]:
        """Integer outputs of integer inputs, from the C on the target.

        Args:
            mode: "run", or "step": reset and one step after the other (models with a time axis).
        """
        batches, many = self._batches(x)
        return _like(many, self._execute(batches, mode))

    def verify(self, x: Any) -> Outputs | list[Outputs]:
        """As ``run``, and every integer is compared with the simulator's.

        Raises:
            MismatchError: the C and the simulator differ.
        """
        batches, many = self._float_batches(x)
        found = self._execute(batches)
        for place, (ours, meant) in enumerate(zip(found, self._simulate(batches), strict=True)):
            for port, (a, b) in enumerate(zip(_all(ours), _all(meant), strict=True)):
                if not np.array_equal(a, b):
                    wrong = np.argwhere(a != b)
                    first = tuple(int(i) for i in wrong[0])
                    raise MismatchError(
                        f"C on {self.target.name} and the simulator differ in {len(wrong)} of {a.size} integers of "
                        f"output {self.quantized.graph.outputs[port].name!r}, batch {place}: first at {first}, "
                        f"{int(a[first])} instead of {int(b[first])}",
                        "equal integers",
                        "nothing of yours: report this model",
                    )
        return _like(many, [self.quantized.dequantize_output(y) for y in found])

    def measure(
        self, x: Any = None, labels: Any = None, *, optimise: str = "-O2", compiler: Compiler = "gcc"
    ) -> Measurement:
        """Instructions, sizes and stack, and accuracy with labels, over float inputs (default: the test vectors)."""
        batches = self._vectors() if x is None else self._float_batches(x)[0]
        return measure(
            self.directory,
            self.target,
            self._records(batches),
            labels,
            optimise=optimise,
            compiler=compiler,
            cmsis_nn=self.cmsis_nn,
        )

    def _vectors(self) -> list[Batch]:
        """Inputs of the compiled test vectors, in PyTorch's layout."""
        from projgen.codegen.vectors import drawn_inputs

        graph = self.quantized.graph
        return [
            tuple(port.to_user(x[None]) for port, x in zip(graph.inputs, drawn, strict=True))
            for drawn in drawn_inputs(graph, str(self.manifest["hash"]))
        ]

    def _float_batches(self, x: Any) -> tuple[list[Batch], bool]:
        """Batches of quantised inputs, and whether a list was given."""
        batches, many = self._batches(x)
        return [_all(self.quantized.quantize_input(*batch)) for batch in batches], many

    def _batches(self, x: Any) -> tuple[list[Batch], bool]:
        if isinstance(x, str | Path):
            x = _read(Path(x), self.quantized.graph)
        if isinstance(x, Mapping | tuple) or hasattr(x, "shape"):
            return [self._batch(x)], False
        if not isinstance(x, Iterable) or isinstance(x, bytes):
            raise InputTypeError(f"inputs of type {type(x).__name__}", "an array, a tuple, a mapping or a list", "x")
        batches = [self._batch(item) for item in x]
        if not batches:
            raise InputError("the list of inputs is empty", "at least one batch", "x")
        return batches, True

    def _batch(self, item: Any) -> Batch:
        """One array per input, the batch axis added where it lacks."""
        ports = self.quantized.graph.inputs
        if isinstance(item, Mapping):
            missing = [p.name for p in ports if p.name not in item]
            if missing:
                raise InputError(f"no input named {', '.join(missing)}", ", ".join(p.name for p in ports), "x")
            given: Sequence[Any] = [item[p.name] for p in ports]
        else:
            given = item if isinstance(item, tuple) else (item,)
        if len(given) == len(ports) + 1 and len(ports) == 1:
            given = given[:1]  # (x, y): the label is not needed
        if len(given) != len(ports):
            raise InputError(f"{len(given)} inputs", f"{len(ports)}: {', '.join(p.name for p in ports)}", "x")
        arrays: list[Array] = []
        for port, value in zip(ports, given, strict=True):
            a = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
            arrays.append(a[None] if a.ndim == len(port.perm) else a)
        return tuple(arrays)

    def _records(self, batches: Sequence[Batch]) -> list[Record]:
        """One record per sample, in the C's layout."""
        graph = self.quantized.graph
        records: list[Record] = []
        for batch in batches:
            inner = [_inner(graph, port, x) for port, x in zip(graph.inputs, batch, strict=True)]
            dtypes = [graph.type(port.value).dtype.value for port in graph.inputs]
            for sample in range(len(inner[0])):
                records.append(Record(tuple(x[sample].astype(d) for x, d in zip(inner, dtypes, strict=True))))
        return records

    def _execute(self, batches: Sequence[Batch], mode: Mode = "run") -> list[Outputs]:
        """Integer outputs of every batch, from the target."""
        if self._image is None:
            self._image = build_image([self.directory], self.target, self.directory / "build", cmsis_nn=self.cmsis_nn)
        records = [Record(r.inputs, mode=mode) for r in self._records(batches)]
        results = iter(execute(self._image, records))
        graph = self.quantized.graph
        made: list[Outputs] = []
        for batch in batches:
            samples = [next(results).outputs for _ in range(len(batch[0]))]
            arrays = []
            for port, flat in zip(graph.outputs, zip(*samples, strict=True), strict=True):
                t = graph.type(port.value)
                shape = (-1, *t.step_shape) if t.has_time else t.step_shape
                native = [a.astype(a.dtype.newbyteorder("=")).reshape(shape) for a in flat]
                arrays.append(port.to_user(np.stack(native)))
            made.append(arrays[0] if len(arrays) == 1 else tuple(arrays))
        return made

    def _simulate(self, batches: Sequence[Batch]) -> list[Outputs]:
        """Integer outputs of every batch, from the simulator; batches of one shape run together."""
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for place, batch in enumerate(batches):
            groups.setdefault(tuple(x.shape[1:] for x in batch), []).append(place)
        made: dict[int, Outputs] = {}
        for places in groups.values():
            joined = [np.concatenate(parts) for parts in zip(*(batches[i] for i in places), strict=True)]
            outputs = _all(self.quantized.run_int(*joined))
            start = 0
            for i in places:
                stop = start + len(batches[i][0])
                parts = tuple(y[start:stop] for y in outputs)
                made[i] = parts[0] if len(parts) == 1 else parts
                start = stop
        return [made[i] for i in range(len(batches))]


def _inner(graph: Graph, port: Port, x: Array) -> Array:
    """An input's integers in the IR's layout, checked."""
    t = graph.type(port.value)
    want = ["N", *(str(t.shape[port.perm.index(axis)]) for axis in range(len(port.perm)))]
    if x.ndim != len(want) or any(w not in ("N", "T", str(n)) for w, n in zip(want, x.shape, strict=True)):
        raise InputError(f"input {port.name!r} has shape {x.shape}", " x ".join(want), "x")
    if x.dtype.kind not in "iu" or (x.size and (x.min() < t.dtype.low or x.max() > t.dtype.high)):
        raise InputError(f"input {port.name!r} holds {x.dtype}", f"integers of {t.dtype.value}", "x")
    return port.to_ir(x)


def _all(outputs: Outputs) -> tuple[Array, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _like(many: bool, outputs: list[Outputs]) -> Outputs | list[Outputs]:
    return outputs if many else outputs[0]


def _read(path: Path, graph: Graph) -> Any:
    """Inputs from a file: arrays by name or in order; with ``lengths``, a list of sequences in the file's order."""
    where = "the inputs"
    found = read_arrays(path, where)
    arrays = {"": found} if isinstance(found, np.ndarray) else found
    columns, _, lengths = pick_inputs(arrays, [p.name for p in graph.inputs], where)
    timed = [graph.type(p.value).has_time for p in graph.inputs]
    if lengths is None:
        return tuple(columns)
    if not any(timed):
        raise InputError(f"'lengths' in {path.name!r}", "inputs alone: this model has no time axis", where)
    padded = columns[timed.index(True)]
    real = check_lengths(lengths, len(padded), padded.shape[1] if padded.ndim > 1 else 0, where)
    return [
        tuple(x[i : i + 1, : int(n)] if t else x[i : i + 1] for x, t in zip(columns, timed, strict=True))
        for i, n in enumerate(real)
    ]
