"""What a model costs on a target: executed instructions, sizes, stack; as numbers and as JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from projgen.arrays import check_classes
from projgen.errors import InputError
from projgen.harness.build import Compiler, Image, Options, build_image, find_library
from projgen.harness.counting import CONTROL, Counts, count_image
from projgen.harness.cycles import estimate_cycles
from projgen.harness.disassembly import Disassembly, disassemble
from projgen.harness.flash import measure_footprint
from projgen.harness.manifest import ModelFolder, read_model
from projgen.harness.records import IntArray, Record, Result
from projgen.harness.run import execute
from projgen.harness.stack import stack_bound
from projgen.harness.toolchain import HarnessError
from projgen.targets import Target

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class LayerMeasurement:
    """A layer's share per inference; ``instructions`` is None where instructions can't be counted.

    ``reference`` are the instructions that the best kernels of its kind were measured to execute (None: none was), and
    ``over_reference`` how many times as many this build executes. The last row of a measurement is ``(control)``: what
    runs in run, reset and step themselves.
    """

    name: str
    op: str
    kernel: str
    macs: int
    weight_bytes: int
    instructions: int | None
    reference: int | None = None
    over_reference: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model on one target.

    Instructions are means over the records given, rounded so that the layers' sum is the whole.

    Attributes:
        model, target: names.
        machine, cpu: the emulated machine (``user mode``, ``native``) and its CPU.
        elf_attributes: the image's machine and architecture attributes.
        compiler, optimise: version line of the compiler, and its optimisation flag.
        records: number of inferences measured.
        steps: time steps per inference, mean over the records; 1 for a model without a time axis.
        instructions: executed per inference, from the entry of the run function to its return.
        estimated_cycles: per inference, from a table per core; an estimate, never measured.
        macs: multiply-accumulates per inference, mean over the records: the manifest's, times ``steps`` for
            what runs at every step.
        weight_bytes: weights, biases, multipliers. code_bytes: all else in flash, without the two float
            helpers. flash_bytes: their sum, the difference of images linked with and without the model.
        arena_bytes, arena_with_input_bytes, state_bytes: from the manifest.
        stack_bytes: deepest stack found by painting, below the caller's frame.
        stack_bound_bytes: upper bound from the disassembly; None where there is none.
        layers: per layer, and last ``(control)``.
        symbols: instructions per function and inference; empty where they can't be counted.
        calibration: instructions expected and counted in the image's loop of known length.
        accuracy: share of records whose largest output is the label's; None without labels.
    """

    model: str
    target: str
    machine: str
    cpu: str
    elf_attributes: Mapping[str, str]
    compiler: str
    optimise: str
    records: int
    steps: float
    instructions: int | None
    estimated_cycles: int | None
    macs: int
    weight_bytes: int
    code_bytes: int
    flash_bytes: int
    arena_bytes: int
    arena_with_input_bytes: int
    state_bytes: int
    stack_bytes: int
    stack_bound_bytes: int | None
    layers: tuple[LayerMeasurement, ...]
    symbols: Mapping[str, int]
    calibration: tuple[int, int] | None
    accuracy: float | None = None

    def to_json(self) -> str:
        """The measurement as JSON text, with a schema version."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """The measurement that ``to_json`` wrote.

        Raises:
            InputError: text of another kind or schema.
        """
        where = "the measurement"
        try:
            data: dict[str, Any] = json.loads(text)
            if data.pop("schema") != SCHEMA:
                raise InputError("a measurement of another schema", f"schema {SCHEMA}", where)
            data["layers"] = tuple(LayerMeasurement(**row) for row in data["layers"])
            data["calibration"] = tuple(data["calibration"]) if data["calibration"] else None
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"no measurement: {error!r}", "JSON as written by projgen", where) from error


def measure(
    model_dir: Path | str,
    target: Target,
    records: Sequence[Record | IntArray],
    labels: ArrayLike | None = None,
    *,
    out_dir: Path | str | None = None,
    optimise: str = "-O2",
    compiler: Compiler = "gcc",
    extra_flags: Sequence[str] = (),
    cmsis_nn: Path | str | None = None,
) -> Measurement:
    """Build a model for a target, run records there and count everything.

    Args:
        records: inferences; an integer array stands for a record with this one input.
        labels: class of each record, for the accuracy.
        out_dir: where images are built; a temporary folder if None.
        cmsis_nn: folder of CMSIS-NN for a model that calls it; None: what the environment names.

    Raises:
        InputError, FitError, ToolMissingError, HarnessError: as ``build_image`` and ``count_image``.
    """
    listed = [record if isinstance(record, Record) else Record((record,)) for record in records]
    if not listed:
        raise InputError("no inputs to measure with", "at least one record", "the inputs")
    library = find_library([read_model(model_dir)], cmsis_nn)
    options = Options(optimise, compiler, extra_flags=tuple(extra_flags), library=library)
    with tempfile.TemporaryDirectory(prefix="projgen-measure-") as scratch:
        folder = Path(out_dir) if out_dir is not None else Path(scratch)
        image = build_image(
            [model_dir],
            target,
            folder,
            optimise=optimise,
            compiler=compiler,
            extra_flags=extra_flags,
            cmsis_nn=None if library is None else library.root,
        )
        footprint = measure_footprint(image.models[0], target, folder / "size", options)
        results = execute(image, listed, paint=True)
        counts = count_image(image, listed)
        code = disassemble(image.elf, target) if target.board.kind == "system" else None
        return _measurement(image, listed, results, counts, code, footprint.flash, labels)


def accuracy(results: Sequence[Result], labels: ArrayLike) -> float:
    """Share of records whose first output (of its last step) is largest at the label.

    Raises:
        InputError: not one label per record, or one that is no class of the model.
    """
    wanted = np.asarray(labels).ravel()
    if len(wanted) != len(results):
        raise InputError(f"{len(wanted)} labels for {len(results)} inputs", "one label per input", "labels (--labels)")
    if results:
        check_classes(wanted, np.atleast_2d(results[0].outputs[0]).shape[-1], "labels (--labels)")
    found = [np.atleast_2d(result.outputs[0])[-1].argmax() for result in results]
    return float(np.mean(np.asarray(found) == wanted))


def _measurement(
    image: Image,
    records: Sequence[Record],
    results: Sequence[Result],
    counts: Counts | None,
    code: Disassembly | None,
    flash: int,
    labels: ArrayLike | None,
) -> Measurement:
    model, target = image.models[0], image.target
    if flash < model.weight_bytes:
        raise HarnessError(
            f"model {model.name} adds {flash} bytes of flash, less than the {model.weight_bytes} bytes of "
            f"weights in its manifest"
        )
    number = len(results)
    steps = float(np.mean([model.steps(record.inputs) for record in records])) if model.sequence else 1.0
    layers = _layers(model, counts, number, steps)
    cycles = estimate_cycles(counts, code) if counts is not None and code is not None else None
    bounds = [stack_bound(code, name) for name in model.run_functions] if code is not None else [None]
    known = [bound for bound in bounds if bound is not None]
    return Measurement(
        model=model.name,
        target=target.name,
        machine=target.board.machine or {"user": "user mode", "native": "native"}[target.board.kind],
        cpu=target.board.cpu or target.cpu,
        elf_attributes=dict(image.attributes),
        compiler=image.compiler_version,
        optimise=image.optimise,
        records=number,
        steps=steps,
        instructions=None if counts is None else round(sum(counts.totals) / number),
        estimated_cycles=None if cycles is None else round(cycles / number),
        macs=sum(layer.macs for layer in layers),
        weight_bytes=model.weight_bytes,
        code_bytes=flash - model.weight_bytes,
        flash_bytes=flash,
        arena_bytes=model.arena_bytes,
        arena_with_input_bytes=model.arena_with_input_bytes,
        state_bytes=model.state_bytes,
        stack_bytes=max(result.stack_bytes or 0 for result in results),
        stack_bound_bytes=max(known) if len(known) == len(bounds) else None,
        layers=layers,
        symbols={} if counts is None else _symbols(counts, number),
        calibration=None if counts is None else counts.calibration,
        accuracy=None if labels is None else accuracy(results, labels),
    )


def _layers(model: ModelFolder, counts: Counts | None, number: int, steps: float) -> tuple[LayerMeasurement, ...]:
    shares: Sequence[int | None] = [None] * (len(model.layers) + 1)
    if counts is not None:
        sums = [sum(column) for column in zip(*counts.layers, strict=True)]
        shares = mean_shares([*sums, sum(counts.control)], number)
    rows: list[LayerMeasurement] = []
    for layer, counted in zip(model.layers, shares, strict=False):
        times = steps if layer.every_step else 1
        reference = None if layer.reference is None else round(layer.reference * times)
        over = round(counted / reference, 4) if counted is not None and reference else None
        macs = round(layer.macs * times)
        rows.append(
            LayerMeasurement(layer.name, layer.op, layer.kernel, macs, layer.weight_bytes, counted, reference, over)
        )
    return (*rows, LayerMeasurement(CONTROL, "", "", 0, 0, shares[-1]))


def _symbols(counts: Counts, number: int) -> dict[str, int]:
    names = list(counts.symbols)
    return dict(zip(names, mean_shares([counts.symbols[name] for name in names], number), strict=True))


def mean_shares(sums: Sequence[int], number: int) -> list[int]:
    """Each sum over ``number``, rounded to integers whose total is the rounded mean of the whole.

    Largest remainders are rounded up first, so that no share is off by 1 or more.
    """
    shares = [value // number for value in sums]
    missing = round(sum(sums) / number) - sum(shares)
    by_remainder = sorted(range(len(sums)), key=lambda i: -(sums[i] % number))
    for i in by_remainder[:missing]:
        shares[i] += 1
    return shares
