"""Option texts that several commands share, and the parsing of their small languages."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from projgen.errors import InputError

Ranks = dict[str, int | tuple[int, int] | None]


class Verbosity(StrEnum):
    OFF = "off"
    SUMMARY = "summary"
    STEPS = "steps"
    ITERATIONS = "iterations"


class Method(StrEnum):
    PCA = "pca"
    OUTPUT = "output"


class Kernels(StrEnum):
    FAST = "fast"
    PORTABLE = "portable"


class Backend(StrEnum):
    C = "c"
    CMSIS_NN = "cmsis-nn"


class Optimise(StrEnum):
    SPEED = "speed"
    RAM = "ram"
    FLASH = "flash"


ModelArg = Annotated[str, typer.Argument(metavar="MODEL", help="x.onnx, x.pt2 or module:attribute")]
ModuleArg = Annotated[str, typer.Argument(metavar="MODEL", help="x.onnx or module:attribute")]
DataOpt = Annotated[str, typer.Option("--data", "-d", metavar="D", help="inputs: x.npz, x.npy or module:attribute")]
VerbosityOpt = Annotated[Verbosity, typer.Option("--verbosity", help="how much is told on the way")]
VarianceOpt = Annotated[
    float | None, typer.Option("--explained-variance", metavar="V", help="share of activation variance kept, 0 to 1")
]
ReductionOpt = Annotated[
    float | None, typer.Option("--learnables-reduction", metavar="R", help="share of learnables removed, 0 to 1")
]
RanksOpt = Annotated[
    str | None, typer.Option("--ranks", metavar="L=R[:R],...", help="explicit ranks, e.g. lstm=8:7,fc=4; conv1=none")
]
BudgetOpt = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="LIMITS", help="what the target allows, e.g. flash=64KiB,ram=16KiB,instructions=2e6"
    ),
]
MethodOpt = Annotated[Method, typer.Option("--method", help="output: least output error; pca: plain W Q Qt")]
CmsisNNOpt = Annotated[
    Path | None, typer.Option("--cmsis-nn", metavar="PATH", help="folder of CMSIS-NN; default: $CMSIS_NN_ROOT")
]
LayersOpt = Annotated[str | None, typer.Option("--layers", metavar="A,B", help="only these layers (wildcards allowed)")]


def parse_ranks(text: str | None) -> Ranks | None:
    """``lstm=8:7,fc=4,conv=none`` as {layer: rank | (in, out) | None}.

    Raises:
        InputError: an entry is not LAYER=RANK, LAYER=RANK:RANK or LAYER=none, or a rank is below 1.
    """
    if text is None:
        return None
    ranks: Ranks = {}
    for entry in text.split(","):
        layer, equals, value = entry.strip().partition("=")
        parts = value.split(":")
        if equals and layer and value.lower() == "none":
            ranks[layer] = None
        elif equals and layer and len(parts) in (1, 2) and all(p.isdigit() and int(p) > 0 for p in parts):
            ranks[layer] = int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
        else:
            raise InputError(
                f"rank entry {entry!r} is not understood", "LAYER=R, LAYER=R_IN:R_OUT or LAYER=none", "--ranks"
            )
    return ranks


def parse_layers(text: str | None) -> list[str] | None:
    """``a,b`` as ["a", "b"]; None stays None (all layers)."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
