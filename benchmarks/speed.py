"""Keeps what the speed benchmarks find, and writes it to docs/speed.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "speed.md"

INTRODUCTION = """\
# Speed of gathering and compressing

Written by `make bench`. CPU seconds of one thread; each ratio is of times from one run.
"""

MEASURED = "output, measured"
CLOSED = ("output, prune=False", "output, prune=auto")

_found: dict[str, dict[str, Any]] = {}


def record(name: str, figures: dict[str, Any]) -> None:
    """Keep the figures of one benchmark and write the page anew once all are there."""
    _found[name] = figures
    if {"moments", "memory", "pca", *CLOSED, MEASURED} <= set(_found):
        PAGE.write_text(page(_found), encoding="utf-8")


def page(found: dict[str, dict[str, Any]]) -> str:
    """The text of the page."""
    m, searched = found["moments"], found[MEASURED]
    lines = [
        *INTRODUCTION.splitlines(),
        "",
        "## Moments",
        "",
        f"{m['rows']:,} x {m['width']} float32. The bare product is torch's `x.T @ x`, all of it; moments multiply the",
        "half that a symmetric result needs, in blocks of rows, shifted and summed up in float64.",
        "",
        "| what | seconds | ratio | at most |",
        "| --- | ---: | ---: | ---: |",
        f"| bare float32 product | {m['bare']:.3f} | 1 | |",
        f"| `Moments` | {m['ours']:.3f} | {m['ratio']:.2f} | 1.3 |",
        "",
        "Peak memory beyond the data's own, in a process of its own:",
        "",
        "| rows | MiB |",
        "| ---: | ---: |",
        *(f"| {int(rows):,} | {value:.1f} |" for rows, value in found["memory"].items()),
        "",
        "## A random network of ResNet-18's size",
        "",
        "11.2 million learnables, 256 images of 3 x 64 x 64, goal 80% fewer, from the moments alone. Plain work: the",
        "forward passes, one full float32 product per covariance that the method needs, and an eigendecomposition of",
        "each layer's input and output covariance, with nothing around them. Curvature also needs one backward pass",
        "per class.",
        "",
        "| method | plain work | statistics | compress | ratio, closed | at most | backward passes | whole ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in ("pca", *CLOSED):
        f = found[name]
        back, whole = (f"{f['backward']:.1f}", f"{f['whole']:.2f}") if "whole" in f else ("", "")
        lines.append(
            f"| {name} | {f['plain']:.1f} | {f['gathering']:.1f} | {f['compressing']:.1f} | {f['ratio']:.2f} | 3 "
            f"| {back} | {whole} |"
        )
    lines += [
        "",
        "The closed form leaves out curvature and selection. With the images given again (`data=`), units, ranks and",
        f"refit are chosen by measured output error: {searched['gathering']:.0f} s of statistics and "
        f"{searched['compressing']:.0f} s of search, in a",
        f"process of at most {searched['peak']:.1f} GiB. By stage, as `pca.seconds` and `info.seconds` say:",
    ]
    stages = list(dict.fromkeys(s for f in found.values() for s in f.get("parts", {})))
    lines += ["", "| method | " + " | ".join(stages) + " |", "| --- |" + " ---: |" * len(stages)]
    for name in (*CLOSED, MEASURED):
        parts = found[name]["parts"]
        lines.append(f"| {name} | " + " | ".join(f"{parts[s]:.1f}" if s in parts else "" for s in stages) + " |")
    return "\n".join(lines) + "\n"
