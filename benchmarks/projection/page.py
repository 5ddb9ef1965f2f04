"""The page of results: every limit with its verdict, then every row with all its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.projection.cells import METHODS, PARTS, Cell, Cells
from benchmarks.projection.rows import PcaRanks, Row
from benchmarks.projection.verdicts import Spread, int8_lost, lost, verdicts

INTRODUCTION = """\
# Projection: results

Written by `{command}`. Small networks, each trained with several seeds, compressed by both
methods to the same size: `"output"` never keeps more learnables than its level allows. Statistics, choices and
distillation see training inputs without labels; test sets are read for this page alone. Defaults (samples, numbers of
units that are tried, steps and rates of distillation) were chosen on training data: networks trained on a part of it
were judged on the rest. What was worth working on, though, earlier versions of this page had shown. **Points lost** are
100 · (accuracy of the seed's own dense network − accuracy after compression), mean ± standard deviation over the seeds.
A limit holds when the mean less one standard error does (accuracies: plus one). `closed` is without any gradient step,
`distilled` after `projgen.distill`, which `"pca"` gets too where a figure stands. `int8` is the points that
`projgen.quantize` loses against the float compressed network on the same test observations: int8 weights and
activations, int16 between the factors. Seconds are CPU time of one thread. A row that names fewer than five seeds has
not been measured with the others, and a network of `benchmarks/projection/rows.py` that is absent not at all. Finished
cells are kept, so they may stem from different versions of the code; `ARGUMENTS=--fresh` measures all of them again.
"""


def page(rows: Sequence[Row], cells: Cells, command: str) -> str:
    """The page as Markdown."""
    found = verdicts(rows, cells)
    holding = sum(v.holds for v in found)
    lines = [
        INTRODUCTION.format(command=command),
        "## Limits\n",
        f"{holding} of {len(found)} hold.\n",
        *_table(
            ("network", "level", "stage", "must be", '`"pca"`', '`"output"`', "holds"),
            (
                (v.row.title, v.level.name, v.stage, v.asked, v.baseline, v.measured, "yes" if v.holds else "**no**")
                for v in found
            ),
        ),
        "",
    ]
    for row in rows:
        lines += _section(row, cells)
    return "\n".join(lines)


def _section(row: Row, cells: Cells) -> list[str]:
    by_seed = cells[row.name, row.levels[0].name, "output"]
    first = list(by_seed.values())
    dense = Spread(tuple(cell.dense for cell in first))
    trained = any(level.distil for level in row.levels)
    net = f"{row.net.text}, {first[0].dense_learnables:,} learnables. "
    net += f"Seeds {', '.join(map(str, by_seed))}: dense accuracy {dense.text(4)} ({dense.each(4)})."
    lines = [f"## {row.title}\n", net]
    if any(isinstance(level.size, PcaRanks) for level in row.levels):
        lines.append('A rank stands for the size that `"pca"` has at it.')
    if trained:
        lines.append(f"Distilled for {row.steps} steps of {row.batch} observations.")
    lines.append("")
    body = [
        _line(level.name, method, list(cells[row.name, level.name, method].values()), method in level.distil)
        for level in row.levels
        for method in METHODS
    ]
    head = ["level", "method", "learnables", "lost, closed", "each seed", "int8"]
    head += ["lost, distilled", "each seed", "int8"] if trained else []
    width = len(head) + 1
    lines += _table((*head, "seconds"), ((*line[:-1], *[""] * (width - len(line)), line[-1]) for line in body))
    notes: dict[str, list[str]] = {}
    for level in row.levels:
        for method in METHODS:
            for message in {m for cell in cells[row.name, level.name, method].values() for m in cell.messages}:
                notes.setdefault(message, []).append(f"{level.name} `{method}`")
    lines += ["", *(f"- {', '.join(where)}: {message}" for message, where in notes.items()), *[""] * bool(notes)]
    return lines


def _line(level: str, method: str, cells: Sequence[Cell], distil: bool) -> list[str]:
    kept = sorted({cell.learnables for cell in cells})
    size = f"{kept[0]:,}" if len(kept) == 1 else f"{kept[0]:,} to {kept[-1]:,}"
    line = [level, f"`{method}`", size]
    for stage in ("closed", "distilled") if distil else ("closed",):
        spread = lost(cells, stage)
        line += [spread.text(), spread.each(), int8_lost(cells, stage).text() if method == "output" else ""]
    keys = [key for key in PARTS if key in cells[0].seconds]
    parts = {key: Spread(tuple(cell.seconds[key] for cell in cells)).mean for key in keys}
    line.append(", ".join(f"{key} {value:.1f}" for key, value in parts.items()))
    return line


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "| " + " | ".join("---" for _ in head) + " |",
        *("| " + " | ".join(line) + " |" for line in body),
    ]
