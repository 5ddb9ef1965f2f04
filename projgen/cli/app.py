"""The commands of ``projgen``. Each loads its inputs, calls the library and prints the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from projgen.cli.explore import explore
from projgen.cli.options import (
    Backend,
    BudgetOpt,
    CmsisNNOpt,
    DataOpt,
    Kernels,
    LayersOpt,
    Method,
    MethodOpt,
    ModelArg,
    ModuleArg,
    Optimise,
    RanksOpt,
    ReductionOpt,
    VarianceOpt,
    Verbosity,
    VerbosityOpt,
    parse_layers,
    parse_ranks,
)
from projgen.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from projgen.artifact import Artifact
    from projgen.budget import Budget
    from projgen.targets import Target

app = typer.Typer(
    name="projgen",
    help="Project neural networks onto their principal components, quantise them, emit C and prove it on the target.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

FolderArg = Annotated[Path, typer.Argument(metavar="DIR", help="a folder written by `projgen compile`")]
TargetOpt = Annotated[str | None, typer.Option("--target", "-t", help="a name from `projgen targets`, or ./board.toml")]


@app.command()
def analyze(model: ModuleArg, data: DataOpt) -> None:
    """Tell which layers can be compressed, and how far."""
    from projgen.data import load_data
    from projgen.models import load_module
    from projgen.projection.analyze import analyze as run
    from projgen.report.terminal import console

    console().print(run(load_module(model), load_data(data)))


@app.command()
def compress(
    model: ModuleArg,
    data: DataOpt,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="OUT.onnx or OUT.pt2")],
    explained_variance: VarianceOpt = None,
    learnables_reduction: ReductionOpt = None,
    ranks: RanksOpt = None,
    budget: BudgetOpt = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="of the budget: a name, or ./board.toml; default: cortex-m4"),
    ] = None,
    method: MethodOpt = Method.OUTPUT,
    layers: LayersOpt = None,
    verbosity: VerbosityOpt = Verbosity.SUMMARY,
) -> None:
    """Project the model's layers and save the smaller model."""
    from projgen.cli.arrays import check_parent
    from projgen.data import load_data
    from projgen.export import save
    from projgen.models import load_module

    if out.suffix not in (".onnx", ".pt2"):
        raise InputError(f"output {out} has the ending {out.suffix!r}", ".onnx or .pt2", "-o")
    check_parent(out, "-o")
    if target is not None and budget is None:
        raise InputError("--target without a budget: it would change nothing", "--budget beside it", "--target")
    allowed = None if budget is None else _budget(budget, target, Optimise.SPEED)
    projected = _project(
        load_module(model),
        load_data(data),
        explained_variance,
        learnables_reduction,
        ranks,
        allowed,
        method,
        layers,
        verbosity,
    )
    save(projected, out)
    if verbosity is not Verbosity.OFF:
        typer.echo(f"wrote {out}")


@app.command(name="compile")
def compile_command(
    model: ModelArg,
    data: DataOpt,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="folder to write")],
    target: Annotated[str, typer.Option("--target", "-t", help="a name from `projgen targets`, or ./board.toml")],
    explained_variance: VarianceOpt = None,
    learnables_reduction: ReductionOpt = None,
    ranks: RanksOpt = None,
    budget: BudgetOpt = None,
    method: MethodOpt = Method.OUTPUT,
    layers: LayersOpt = None,
    name: Annotated[str, typer.Option("--name", help="prefix of the files and C names")] = "model",
    kernels: Annotated[
        Kernels, typer.Option("--kernels", help="fast where proven equal, or portable C only")
    ] = Kernels.FAST,
    optimise: Annotated[Optimise, typer.Option("--optimise", help="what to favour")] = Optimise.SPEED,
    backend: Annotated[
        Backend, typer.Option("--backend", help="c, or cmsis-nn: call it where the bytes are the same")
    ] = Backend.C,
    cmsis_nn: CmsisNNOpt = None,
    int8_limit: Annotated[
        float | None,
        typer.Option(
            "--int8-limit",
            metavar="X",
            help="most that int8 may lose: accuracy with labels, else changed decisions, else output error; "
            "default with compression 0.005, 0.02, 0.2; without: not measured",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="y.npy, class numbers of the calibration inputs, for --int8-limit")
    ] = None,
    dump_ir: Annotated[
        Path | None, typer.Option("--dump-ir", metavar="DIR", help="write the representation after each stage there")
    ] = None,
    verbosity: VerbosityOpt = Verbosity.SUMMARY,
) -> None:
    """Go the whole way from a float model to C, with projection when a goal is given."""
    from projgen.cli.arrays import load_labels
    from projgen.data import load_data
    from projgen.driver import compile as run
    from projgen.models import load_model, load_module
    from projgen.options import CompileOptions
    from projgen.quant.loss import check_limit
    from projgen.targets import load_target

    # What is wrong should not cost a calibration first.
    without_goal = explained_variance is None and learnables_reduction is None and ranks is None and budget is None
    if without_goal and (layers is not None or method is not Method.OUTPUT):
        raise InputError(
            f"{'--layers' if layers is not None else '--method'} without a goal: nothing would be compressed",
            "--explained-variance, --learnables-reduction, --ranks or --budget beside it",
            "the options",
        )
    machine = load_target(target)
    allowed = None if budget is None else _budget(budget, target, optimise)
    CompileOptions.checked(name, backend.value, kernels.value, optimise.value, cmsis_nn)
    limit = None if int8_limit is None else check_limit(int8_limit)
    classes = None if labels is None else load_labels(labels)
    batches = load_data(data)
    source: Any
    if without_goal:
        source = load_model(model)
    else:
        limit = "auto" if limit is None else limit
        source = _project(
            load_module(model),
            batches,
            explained_variance,
            learnables_reduction,
            ranks,
            allowed,
            method,
            layers,
            verbosity,
            None if allowed else (machine, optimise.value),
        )
    artifact = run(
        source,
        calibration=batches,
        target=target,
        out=out,
        name=name,
        kernels=kernels.value,
        optimise=optimise.value,
        backend=backend.value,
        cmsis_nn=cmsis_nn,
        int8_limit=limit,
        labels=classes,
        dump_ir=dump_ir,
    )
    if verbosity is not Verbosity.OFF:
        m = artifact.manifest
        if (loss := artifact.quantized.notes.int8_loss) is not None:
            typer.echo(f"{loss.text}; limit {loss.limit_text}")
        if m["equalised"]:
            gains = ", ".join(f"{e['layer']} ({e['name']}) {e['gain']:+.1f} dB" for e in m["equalised"])
            typer.echo(f"equalised the ranges inside low-rank products: {gains}")
        if m["removed_channels"]:
            lost = ", ".join(f"{r['layer']} {r['removed']} of {r['total']}" for r in m["removed_channels"])
            typer.echo(f"removed channels that are constant or unread, no output changes: {lost}")
        _note_slower(artifact)
        macs = f"{m['macs']} MACs{' a step' if m['interface']['kind'] == 'sequence' else ''}"
        typer.echo(
            f"wrote {out}: {m['learnables']} learnables, {macs}, weights {m['weight_bytes']} B, "
            f"arena {m['arena_bytes']} B (with input {m['arena_with_input_bytes']} B; in use at once "
            f"{m['arena_lower_bound']} B)"
        )


def _budget(text: str, target: str | None, optimise: Optimise) -> Budget:
    """The budget of a command line; where it and the command both name a target, they name the same one."""
    from projgen.budget import Budget
    from projgen.targets import load_target

    allowed = Budget.parse(text, target or "cortex-m4", optimise.value)
    if target is not None and (wanted := load_target(target).name) != allowed.machine.name:
        raise InputError(
            f"--target {wanted} and a budget for {allowed.machine.name}",
            "one target",
            "--target, or target= in --budget",
        )
    return allowed


def _project(
    model: nn.Module,
    data: Any,
    explained_variance: float | None,
    learnables_reduction: float | None,
    ranks: str | None,
    budget: Budget | None,
    method: Method,
    layers: str | None,
    verbosity: Verbosity,
    runs_on: tuple[Target, str] | None = None,
) -> nn.Module:
    """``runs_on``: a target and what is favoured there: layers that are no cheaper there stay dense."""
    from projgen.projection.compress import compress as run
    from projgen.projection.layers import unpack_projected_layers

    projected, _ = run(
        model,
        data,
        explained_variance_goal=explained_variance,
        learnables_reduction_goal=learnables_reduction,
        ranks=parse_ranks(ranks),
        budget=budget,
        layer_names=parse_layers(layers),
        method=method.value,
        verbosity=verbosity.value,
    )
    if runs_on is not None:
        from projgen.budget.restore import restore_for

        again = restore_for(projected, model, data, *runs_on)
        if again and verbosity is not Verbosity.OFF:
            typer.echo(f"dense again, no cheaper on {runs_on[0].name} than before: {', '.join(again)}")
    return unpack_projected_layers(projected)


def _note_slower(artifact: Artifact) -> None:
    """Say which projected layers the target would run faster dense."""
    from projgen.budget.slower import slower_than_dense

    if found := slower_than_dense(artifact.quantized.graph, artifact.target):
        typer.echo(
            f"slower projected than dense on {artifact.target.name}: {', '.join(s.text for s in found)}; a goal for "
            "learnables knows no target, --budget does"
        )


@app.command(name="run")
def run_command(
    folder: FolderArg,
    inputs: Annotated[Path, typer.Option("--inputs", help="x.npz or x.npy, as at compile")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="Y.npz", help="outputs, one array per output")],
    target: TargetOpt = None,
    cmsis_nn: CmsisNNOpt = None,
) -> None:
    """Build, run on the (emulated) target, check against the simulator and save the outputs."""
    from projgen.artifact import Artifact
    from projgen.cli.arrays import check_parent, save_outputs

    if out.suffix != ".npz":
        raise InputError(f"output {out} has the ending {out.suffix!r}", ".npz", "-o")
    check_parent(out, "-o")
    artifact = Artifact.open(folder, target=target, cmsis_nn=cmsis_nn)
    artifact.build()
    count = save_outputs(out, artifact, inputs)
    typer.echo(f"wrote {out}: {count} inferences on {artifact.target.name}, every byte the simulator's")


@app.command()
def bench(
    folder: FolderArg,
    target: Annotated[list[str] | None, typer.Option("--target", "-t", help="may be given several times")] = None,
    inputs: Annotated[
        Path | None, typer.Option("--inputs", help="x.npz or x.npy; default: the compiled test vectors")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="y.npy, class numbers: adds accuracy")] = None,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="DIR", help="another compiled folder, measured the same way")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="also write the figures to this file")] = None,
    cmsis_nn: CmsisNNOpt = None,
) -> None:
    """Count instructions, flash, RAM and stack on each target; accuracy if labels are given.

    With --compare, the other folder's build is measured in the same run, on the same targets and inputs, and both stand
    side by side.
    """
    from projgen.artifact import Artifact
    from projgen.cli.arrays import check_parent, load_labels
    from projgen.cli.tables import print_comparison, print_measurement

    if json_out is not None:
        check_parent(json_out, "--json")
    if labels is not None and inputs is None:
        raise InputError("--labels without --inputs", "the inputs that the labels belong to", "--inputs")
    figures = []
    classes = None if labels is None else load_labels(labels)
    names: list[str | None] = [*target] if target else [None]
    for name in names:
        artifact = Artifact.open(folder, target=name, cmsis_nn=cmsis_nn)
        # Without --target both are built for what the first folder was compiled for.
        other = None if compare is None else Artifact.open(compare, target=artifact.target, cmsis_nn=cmsis_nn)
        measurement = artifact.measure(inputs, labels=classes)
        figures.append(json.loads(measurement.to_json()))
        if other is None or compare is None:
            print_measurement(measurement)
            _note_slower(artifact)
        else:
            beside = other.measure(inputs, labels=classes)
            print_comparison(measurement, beside, headings(folder, compare, measurement.model, beside.model))
            figures.append(json.loads(beside.to_json()))
    if json_out is not None:
        _write_text(json_out, json.dumps(figures, indent=1) + "\n")


app.command()(explore)


@app.command()
def report(folder: FolderArg) -> None:
    """Write DIR/report.html from the manifest and the last measurement."""
    from projgen.report import write_folder_report

    typer.echo(f"wrote {write_folder_report(folder)}")


@app.command()
def targets() -> None:
    """List what can be targeted."""
    from projgen.cli.tables import print_targets
    from projgen.targets import list_targets

    print_targets(list_targets())


@app.command()
def doctor() -> None:
    """Tell which tools are here, what is missing, and the one command that installs it."""
    from projgen.cli.tables import print_doctor
    from projgen.harness.doctor import check

    raise typer.Exit(print_doctor(check()))


def headings(folder: Path, compare: Path, ours: str, other: str) -> tuple[str, str]:
    """What two builds are called: the models' names, or the folders where those are the same."""
    return (ours, other) if ours != other else (str(folder), str(compare))


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror}", "a writable path", "--json") from error
