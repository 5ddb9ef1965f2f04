"""``python -m benchmarks.projection``: measures the rows and writes the page; finished cells are kept on disk."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks.projection.cells import METHODS, finished, measure
from benchmarks.projection.page import page
from benchmarks.projection.rows import ROWS
from benchmarks.projection.store import Store

ROOT = Path(__file__).resolve().parents[2]


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]


def main() -> None:
    """Parse the command line, measure, write."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.projection", description=__doc__)
    parser.add_argument("--rows", default=",".join(names), help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--seeds", type=_seeds, default=list(range(5)), help="0-4 (the default), or 0,1,2")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs" / "projection-results.md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "projection", help="folder of finished cells")
    parser.add_argument("--fresh", action="store_true", help="measure finished cells again (after a change of code)")
    parser.add_argument("--finished", action="store_true", help="measure nothing: write what is finished")
    options = parser.parse_args()
    chosen = options.rows.split(",")
    unknown = [name for name in chosen if name not in names]
    if unknown:
        parser.error(f"--rows {','.join(unknown)}: not one of {', '.join(names)}")
    rows = [row for row in ROWS if row.name in chosen]
    torch.set_num_threads(1)  # the same weights on any number of cores
    start = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - start:6.0f} s] {line}", flush=True)

    store = Store(options.cache, options.fresh and not options.finished)
    if options.finished:
        cells = finished(rows, options.seeds, store)
        rows = [row for row in rows if (row.name, row.levels[0].name, METHODS[0]) in cells]
    else:
        cells = measure(rows, options.seeds, store, progress)
    everything = chosen == names and options.seeds == list(range(5))
    arguments = "" if everything else f" --rows {','.join(chosen)} --seeds {','.join(map(str, options.seeds))}"
    command = "make bench-projection" + (f' ARGUMENTS="{arguments[1:]}"' if arguments else "")
    options.out.write_text(page(rows, cells, command), encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
