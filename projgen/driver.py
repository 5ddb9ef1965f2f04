"""The whole way from a model to C, on one screen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projgen.artifact import Artifact
from projgen.codegen import manifest as manifests
from projgen.codegen.build import build_program
from projgen.codegen.emit import BuildPlan, emit
from projgen.codegen.output import check_folder, write_folder
from projgen.codegen.vectors import test_vectors
from projgen.dump import StageFolder
from projgen.errors import FitError, InputError
from projgen.kernels.render import render_block
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel, quantize
from projgen.quant.store import to_bytes
from projgen.schedule import Schedule, schedule
from projgen.targets import Target, load_target

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from projgen.quant.loss import Limit


def compile(
    model_or_q: nn.Module | ExportedProgram | QuantizedModel | str | Path,
    *,
    calibration: Any = None,
    target: str | Path | Target = "cortex-m4",
    out: str | os.PathLike[str],
    name: str = "model",
    backend: str = "c",
    kernels: str = "fast",
    optimise: str = "speed",
    activations: str = "int8",
    weights: str = "int8",
    cmsis_nn: str | os.PathLike[str] | None = None,
    int8_limit: Limit | None = None,
    labels: Any = None,
    dump_ir: str | os.PathLike[str] | None = None,
) -> Artifact:
    """Compile a model to a folder of C files.

    Args:
        model_or_q: a quantised model, or what ``projgen.quantize`` takes. It is not modified.
        calibration: representative inputs; needed unless the model is quantised already.
        target: a name from ``projgen targets``, the path of a TOML file, or a loaded target.
        out: folder to write; one that an earlier compilation wrote is replaced, any other is refused.
        name: prefix of files and C names.
        backend: "c", or "cmsis-nn": what CMSIS-NN can compute with the same bytes is called, the rest stays ours.
        kernels: "fast" (what the target's instruction set allows) or "portable" (C99 alone); the same bytes result.
        optimise: "speed", "ram" (smallest arena found) or "flash" (smallest constants and code).
        activations, weights: as ``projgen.quantize``.
        cmsis_nn: folder of CMSIS-NN for its back end; default: what the environment variable CMSIS_NN_ROOT names.
        int8_limit, labels: as ``projgen.quantize``: measure what int8 loses, and refuse more than the limit.
        dump_ir: folder for the intermediate representation after each stage, one text file each.

    Raises:
        InputError: an option, the data, the model or the folder can't be used.
        Int8LossError: the integers lose more than ``int8_limit``.
        FitError: the weights or the arena are larger than the target's memory.
    """
    options = CompileOptions.checked(name, backend, kernels, optimise, cmsis_nn)
    cpu = target if isinstance(target, Target) else load_target(target)
    check_library(options, cpu)
    folder = check_folder(Path(out))
    stages = None if dump_ir is None else StageFolder(dump_ir, folder)
    if isinstance(model_or_q, QuantizedModel):
        if int8_limit is not None or labels is not None:
            raise InputError(
                "int8_limit or labels for a model that is quantised already",
                "a float model, or int8_limit given to projgen.quantize",
                "int8_limit (--int8-limit), labels (--labels)",
            )
        q = model_or_q
        if stages is not None:
            stages.graph("quantised", q.graph)
    elif calibration is None:
        raise InputError("a float model without calibration data", "representative inputs", "calibration (--data)")
    else:
        q = quantize(
            model_or_q,
            calibration,
            activations=activations,
            weights=weights,
            name=name,
            int8_limit=int8_limit,
            labels=labels,
            on_stage=None if stages is None else stages.graph,
        )
    write_folder(generate(q, cpu, options, None if stages is None else stages.schedule), folder)
    return Artifact(folder, cpu, cmsis_nn=None if options.cmsis_nn is None else options.cmsis_nn.root)


def check_library(options: CompileOptions, target: Target) -> None:
    """Refuses CMSIS-NN on a core that it is not written for."""
    if options.cmsis_nn is not None and target.cpu.startswith("cortex-a"):
        raise InputError(
            f"backend cmsis-nn for {target.name}: CMSIS-NN is written for Cortex-M",
            "a Cortex-M target, or host to try it",
            "target (--target), or backend (--backend)",
        )


def generate(
    q: QuantizedModel,
    target: Target,
    options: CompileOptions,
    on_schedule: Callable[[Schedule], None] | None = None,
) -> BuildPlan:
    """The files of a quantised model: the same model, target and options give the same bytes.

    Args:
        on_schedule: called with the scheduled stage.
    Raises:
        FitError: the weights or the arena are larger than the target's memory.
    """
    scheduled = schedule(q.graph, target, options)
    if on_schedule is not None:
        on_schedule(scheduled)
    check_fit(scheduled)
    digest = q.digest()
    vectors = test_vectors(q.graph, options.name, digest)
    program = build_program(scheduled, options, digest, render_block, vectors)
    extra = {
        f"{options.name}.json": manifests.to_bytes(manifests.manifest(scheduled, options, digest, q.notes)),
        f"{options.name}.qmodel": to_bytes(q.graph, q.notes),
    }
    return emit(program, extra)


def check_fit(scheduled: Schedule) -> None:
    """Refuses a model whose constants or arena alone are larger than the target's memory."""
    target = scheduled.target
    where = f"the model (compress it further), or the target: flash and ram in {target.name}.toml"
    if scheduled.weight_bytes > target.flash_bytes:
        raise FitError(
            f"the weights need {scheduled.weight_bytes} bytes of flash, and {target.name} has {target.flash_bytes}",
            f"up to {target.flash_bytes} bytes of weights and code",
            where,
        )
    if scheduled.plan.arena_bytes > target.ram_bytes:
        raise FitError(
            f"the arena needs {scheduled.plan.arena_bytes} bytes of RAM, and {target.name} has {target.ram_bytes}",
            f"up to {target.ram_bytes} bytes",
            f"optimise='ram' (--optimise ram), {where}",
        )
