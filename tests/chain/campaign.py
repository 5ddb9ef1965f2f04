"""A long comparison with fresh inputs and fresh nets: C against simulator until every target gave enough outputs.

``make campaign``, or ``python -m tests.chain.campaign --outputs 1000000 --seed 0 --target cortex-m4``. Every round
takes all operator samples with new random inputs, the matrix's nets, and newly drawn nets, builds them into one image
and compares every output. The round's nets and inputs follow from the seed and the round's number, so a failure is
found again by its seed. On emulated Cortex-M one inference of each model then runs under the counting plugin, which
refuses unaligned accesses, and with a painted stack, which must stay within the bound read from the disassembly. On the
host the same C, for every family of kernels, runs under address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from projgen.errors import FitError
from projgen.harness.build import Image
from projgen.harness.counting import count_image
from projgen.harness.disassembly import disassemble
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.harness.stack import stack_bound
from projgen.ir.graph import Graph
from projgen.ops.record import Sample
from projgen.targets import list_targets
from tests.chain.nets import nets
from tests.chain.support import Part, build, compare, draw, merge_all, operator_samples, part
from tests.chain.test_drawn_nets import Drawn, made, maps, sequences

PAGE = """\
# The campaign

Written by `make campaign ARGUMENTS="--page docs/campaign.md"`, build by build: output bytes of the C that equal the
simulator's, every one compared. `of`: generated for that core, its plain C built for the host. On the host all of it
runs under the address and undefined-behaviour sanitizers; on Cortex-M one inference of each model and round also runs
with every access checked for alignment and with a painted stack. [measuring.md](measuring.md) says what a round holds.

| build | output bytes | inferences | rounds | first seed |
| --- | ---: | ---: | ---: | ---: |"""
VECTORS = 24  # fresh inputs of every operator sample and net in a round
NETS = 12  # nets drawn in a round


@dataclass(frozen=True, slots=True)
class Tier:
    """One way to build what a round holds: the target, the one it is generated for, and the build's options."""

    target: str
    of: str = ""
    favour: str = "speed"
    sanitize: bool = False

    @property
    def label(self) -> str:
        words = [self.target, f"of {self.of}" if self.of else "", self.favour, "sanitized" if self.sanitize else ""]
        return " ".join(word for word in words if word)


def tiers(names: Sequence[str] | None = None) -> list[Tier]:
    """Every target; the host also with the kernels of the fast cores, all under sanitizers."""
    listed = [t.name for t in list_targets() if t.name != "host"]
    every = [Tier("host", of, sanitize=True) for of in ("", "cortex-m4", "cortex-m55")]
    every += [Tier(name) for name in listed]
    every += [Tier(name, favour=favour) for name in ("cortex-m4", "cortex-m55") for favour in ("ram", "flash")]
    return [tier for tier in every if not names or tier.target in names]


def rounds(first: int) -> Iterator[list[Part]]:
    """Parts of round 0, 1, ...: the same for the same seed."""
    number = first
    while True:
        yield parts_of(number)
        number += 1


def parts_of(number: int) -> list[Part]:
    """Samples and nets with the inputs of one round."""
    samples = [_fresh(sample, number) for sample in operator_samples()]
    fixed = [part(one.graph, draw(one.graph, VECTORS, seed=number), name) for name, one in nets().items()]
    return [*merge_all(samples), *fixed, *(made(drawn) for drawn in _drawn(number))]


def _fresh(sample: Sample, number: int) -> Sample:
    """The sample's graph with other inputs, the lengths of its sequences kept."""
    graph: Graph = sample.graph
    steps = sample.inputs[0].shape[1] if graph.has_time else 1
    vectors = draw(graph, VECTORS, steps=steps, seed=number)
    return Sample(sample.name, graph, tuple(np.stack(column) for column in zip(*vectors, strict=True)))


def _drawn(number: int) -> list[Drawn]:
    found: list[Drawn] = []

    @seed(number)
    @settings(
        deadline=None,
        max_examples=NETS,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.one_of(maps(), sequences()))
    def add(drawn: Drawn) -> None:
        found.append(drawn)

    add()
    return found


def check_alignment_and_stack(image: Image, parts: Sequence[Part]) -> None:
    """One inference of each model under the counting plugin and with a painted stack.

    Raises:
        HarnessError: an access that the core does not allow.
        AssertionError: a stack deeper than its bound.
    """
    records = [Record(one.vectors[0], model=place) for place, one in enumerate(parts)]
    count_image(image, records, check_alignment=True)
    code = disassemble(image.elf, image.target)
    for record, result in zip(records, execute(image, records, paint=True), strict=True):
        model = image.models[record.model]
        bounds = [stack_bound(code, name) for name in model.run_functions]
        known = [bound for bound in bounds if bound is not None]
        deepest = result.stack_bytes or 0
        if len(known) == len(bounds) and deepest > max(known):
            raise AssertionError(f"{image.target.name}, model {model.name}: {deepest} B of stack, bound {max(known)} B")


def images(tier: Tier, parts: Sequence[Part], folder: Path) -> Iterator[tuple[Image, Sequence[Part]]]:
    """One image of all parts, or of halves of them where they don't fit the board.

    Raises:
        FitError: a part alone does not fit.
    """
    options: dict[str, Any] = {"sanitize": True, "optimise": "-O1"} if tier.sanitize else {}
    try:
        image = build(parts, tier.target, folder, generated_for=tier.of, favour=tier.favour, **options)
    except FitError:
        if len(parts) == 1:
            raise
        for half, some in enumerate((parts[::2], parts[1::2])):
            yield from images(tier, some, folder / f"half{half}")
    else:
        yield image, parts


def run(tier: Tier, outputs: int, first: int, folder: Path) -> tuple[int, int, int]:
    """Rounds until ``outputs`` bytes agree; returns rounds, inferences and bytes compared."""
    total = inferences = done = 0
    folder.mkdir(parents=True, exist_ok=True)
    for number, parts in enumerate(rounds(first)):
        with tempfile.TemporaryDirectory(prefix=f"{tier.label.replace(' ', '-')}-{number}-", dir=folder) as place:
            for image, some in images(tier, parts, Path(place)):
                compared = compare(image, some)
                if image.target.board.kind == "system":
                    check_alignment_and_stack(image, some)
                total, inferences = total + compared.bytes, inferences + compared.runs
        done = number + 1
        if total >= outputs:
            break
    return done, inferences, total


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare C and simulator over many outputs on every target.")
    parser.add_argument("--outputs", type=int, default=1_000_000, help="bytes to compare on each target")
    parser.add_argument("--seed", type=int, default=0, help="number of the first round")
    parser.add_argument("--target", action="append", help="only this target; may be given several times")
    parser.add_argument("--page", type=Path, help="a Markdown file to write the results to, those of other builds kept")
    given_ = parser.parse_args(arguments)
    chosen = tiers(given_.target)
    if not chosen:
        parser.error(f"no such target; there are {', '.join(t.name for t in list_targets())}")
    everything = 0
    for tier in chosen:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="projgen-campaign-") as folder:
            done, inferences, total = run(tier, given_.outputs, given_.seed, Path(folder))
        everything += total
        seconds = time.monotonic() - started
        print(
            f"{tier.label}: {total:,d} output bytes equal in {inferences:,d} inferences, {done} rounds from seed "
            f"{given_.seed}, {seconds:.0f} s",
            flush=True,
        )
        if given_.page is not None:
            add_row(given_.page, tier.label, (total, inferences, done, given_.seed))
    print(f"campaign: {everything:,d} output bytes equal in {len(chosen)} builds")
    return 0


def add_row(page: Path, label: str, numbers: Sequence[int]) -> None:
    """Puts a build's result into the page's table, in the place of an older one."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| build", "| ---"))]
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    rows[label] = f"| {label} | " + " | ".join(f"{n:,d}" for n in numbers) + " |"
    known = [tier.label for tier in tiers()]
    kept = sorted((known.index(name), row) for name, row in rows.items() if name in known)
    page.write_text("\n".join([PAGE, *(row for _, row in kept)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
