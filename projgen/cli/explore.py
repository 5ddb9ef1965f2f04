"""``projgen explore``: many levels side by side."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from projgen.cli.options import (
    DataOpt,
    LayersOpt,
    Method,
    ModuleArg,
    Verbosity,
    VerbosityOpt,
    parse_layers,
)


class Workers(StrEnum):
    LOKY = "loky"
    THREADING = "threading"
    DASK = "dask"
    RAY = "ray"


class Ending(StrEnum):
    ONNX = "onnx"
    PT2 = "pt2"


def explore(
    model: ModuleArg,
    data: DataOpt,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="folder to write; finished levels stay")],
    levels: Annotated[
        str, typer.Option("--levels", metavar="L,...", help="shares of learnables to remove, e.g. 0.5,0.8,0.9")
    ] = "",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="LIMITS",
            help="what a target allows, e.g. flash=64KiB,target=cortex-m4; may be repeated",
        ),
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="y.npy, class numbers: adds accuracy")] = None,
    inputs: Annotated[
        str | None, typer.Option("--inputs", metavar="X", help="what the labels belong to; default: the data")
    ] = None,
    method: Annotated[
        list[Method] | None, typer.Option("--method", help="output (default) or pca; may be given several times")
    ] = None,
    layers: LayersOpt = None,
    closed_form: Annotated[
        bool, typer.Option("--closed-form", help="stored moments alone: no refit, no measured choice")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="measure each level's int8 model too")] = False,
    ending: Annotated[Ending, typer.Option("--format", help="of the saved models")] = Ending.ONNX,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="levels at once; -1: one per core")] = -1,
    parallel: Annotated[Workers, typer.Option("--parallel", help="joblib's back end")] = Workers.LOKY,
    verbosity: VerbosityOpt = Verbosity.SUMMARY,
) -> None:
    """Compress to many levels from one PCA, in parallel and resumable; write a table and a Pareto plot."""
    from projgen.cli.arrays import load_labels
    from projgen.data import load_data
    from projgen.explore import explore as run
    from projgen.explore import parse_levels
    from projgen.explore.levels import plan
    from projgen.models import load_module

    methods = [m.value for m in method or [Method.OUTPUT]]
    wanted = parse_levels(levels)
    budgets = budget or []
    plan(wanted, methods, budgets)  # what is wrong should not cost loading the model
    run(
        load_module(model),
        load_data(data),
        levels=wanted,
        budgets=budgets,
        out=out,
        methods=methods,
        labels=None if labels is None else load_labels(labels),
        inputs=None if inputs is None else load_data(inputs),
        layer_names=parse_layers(layers),
        closed_form=closed_form,
        quantise=int8,
        ending=f".{ending.value}",
        jobs=jobs,
        backend=parallel.value,
        verbosity=verbosity.value,
    )
    if verbosity is not Verbosity.OFF:
        typer.echo(f"wrote {out}: explore.html, pareto.svg, explore.json")
