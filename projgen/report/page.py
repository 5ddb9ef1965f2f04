"""The HTML page: one file, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import projgen
from projgen import resources
from projgen.errors import InputError
from projgen.harness.measurement import Measurement
from projgen.report import charts
from projgen.report.records import Level, ModelReport, SummaryRow, arena_buffers
from projgen.report.terminal import cell


def write_report(
    path: Path,
    *,
    title: str,
    rows: Sequence[SummaryRow],
    levels: Sequence[Level] = (),
    models: Sequence[ModelReport] = (),
    spectra: charts.Spectra | None = None,
) -> Path:
    """Write the page to ``path`` (moved into place when complete) and return it.

    Raises:
        InputError: the folder can't be written.
    """
    dense = next((r for r in rows if r.accuracy is not None and r.learnables is not None), None)
    sections: list[dict[str, Any]] = [
        {
            "title": model.title,
            "layers": charts.layers_chart(model.measurements) if model.measurements else "",
            "arena": charts.arena_chart(model.arena) if model.arena else "",
            "measurements": model.measurements,
        }
        for model in models
    ]
    environment = Environment(
        loader=FileSystemLoader(resources.templates()),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = cell
    html = environment.get_template("report/page.html.j2").render(
        title=title,
        version=projgen.__version__,
        rows=rows,
        levels=levels,
        sections=sections,
        spectra=charts.spectra_chart(spectra) if spectra else "",
        curve=(
            charts.levels_chart(levels, (dense.learnables, dense.accuracy))
            if levels and dense and dense.learnables is not None and dense.accuracy is not None
            else ""
        ),
    )
    write_text(path, html)
    return path


def write_folder_report(folder: Path) -> Path:
    """``report.html`` in a compiled folder, from its manifest and ``build/measurement.json`` when there is one.

    Raises:
        InputError: the folder holds no manifest written by projgen.
    """
    manifests = [p for p in sorted(folder.glob("*.json")) if p.with_suffix(".qmodel").is_file()]
    if len(manifests) != 1:
        raise InputError(f"{folder} holds no compiled model", "a folder written by `projgen compile`", "DIR")
    manifest = json.loads(manifests[0].read_text())
    measured = folder / "build" / "measurement.json"
    measurements = (Measurement.from_json(measured.read_text()),) if measured.is_file() else ()
    accuracy = measurements[0].accuracy if measurements else None
    model = ModelReport(manifest["name"], manifest["learnables"], accuracy, measurements, arena_buffers(manifest))
    rows = model.summary_rows() or [
        SummaryRow(
            manifest["name"], manifest["target"], None, manifest["learnables"], None, manifest["arena_bytes"], None
        )
    ]
    return write_report(folder / "report.html", title=manifest["name"], rows=rows, models=(model,))


def write_text(path: Path, text: str) -> None:
    """Write beside the path and move into place.

    Raises:
        InputError: the folder can't be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".projgen-", dir=path.parent) as hidden:
            temporary = Path(hidden) / path.name
            temporary.write_text(text)
            temporary.replace(path)
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror}", "a writable folder", "the report's path") from error
