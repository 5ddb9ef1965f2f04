"""Tables that the commands print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from projgen.harness.counting import CONTROL
from projgen.harness.doctor import ToolStatus, install_missing
from projgen.harness.measurement import Measurement
from projgen.report.terminal import cell, console
from projgen.targets import Target


def print_targets(targets: Sequence[Target]) -> None:
    """Every target with its core, features, memory and how it is run."""
    table = Table(title="Targets")
    for heading in ("name", "description", "ISA features"):
        table.add_column(heading)
    for heading in ("flash KiB", "RAM KiB"):
        table.add_column(heading, justify="right")
    for target in targets:
        table.add_row(
            target.name,
            target.description,
            ", ".join(sorted(target.isa)) or "-",
            f"{target.flash_bytes // 1024:,d}",
            f"{target.ram_bytes // 1024:,d}",
        )
    console().print(table)


def print_doctor(tools: tuple[ToolStatus, ...]) -> int:
    """What is here and what is missing; returns the exit code (4 if anything is missing)."""
    table = Table(title="Tools")
    for heading in ("tool", "version", "what for", "targets"):
        table.add_column(heading, no_wrap=heading == "tool")
    for tool in tools:
        table.add_row(tool.tool, tool.version or "[red]missing[/red]", tool.purpose, ", ".join(tool.targets) or "-")
    out = console()
    out.print(table)
    command = install_missing(tools)
    if command is None:
        out.print("Everything is here.")
        return 0
    out.print(f"Install what is missing: {command}", highlight=False, soft_wrap=True)
    return 4


def print_measurement(m: Measurement) -> None:
    """The figures of one build on one target: its layers, each beside the best known of its kind, then totals."""
    out = console()
    table = Table(title=f"{m.target}: instructions per inference")
    table.add_column("layer")
    table.add_column("kernel")
    for heading in ("MACs", "instructions", "per MAC", "best", "times", "share"):
        table.add_column(heading, justify="right")
    for layer in m.layers:
        counted = layer.instructions
        table.add_row(
            layer.name,
            layer.kernel,
            cell(layer.macs, ",d"),
            cell(counted, ",.0f"),
            cell(counted / layer.macs if counted is not None and layer.macs else None, ".3f"),
            cell(layer.reference / layer.macs if layer.reference is not None and layer.macs else None, ".3f"),
            cell(layer.over_reference, ".2f"),
            cell(counted / m.instructions if counted is not None and m.instructions else None, ".1%"),
        )
    table.add_section()
    table.add_row("total", "", "", cell(m.instructions, ",.0f"), "", "", "", "")
    out.print(table)
    out.print(
        f"estimated cycles {cell(m.estimated_cycles, ',.0f')}; flash {m.weight_bytes + m.code_bytes:,d} B "
        f"(weights {m.weight_bytes:,d}, code {m.code_bytes:,d}); arena {m.arena_bytes:,d} B "
        f"(with input {m.arena_with_input_bytes:,d}); state {m.state_bytes:,d} B; stack {cell(m.stack_bytes, ',d')} B",
        highlight=False,
        soft_wrap=True,
    )
    if m.accuracy is not None:
        out.print(f"accuracy {m.accuracy:.4f}", highlight=False)


def print_comparison(ours: Measurement, other: Measurement, headings: tuple[str, str]) -> None:
    """Two builds measured in one run on one target: layer beside layer, then the totals, each with its ratio.

    Layers are matched by name; one that only one build has stands alone.
    """
    out = console()
    table = Table(title=f"{ours.target}: {headings[0]} beside {headings[1]}")
    table.add_column("")
    table.add_column("kernel")
    table.add_column(headings[0], justify="right")
    table.add_column("kernel")
    table.add_column(headings[1], justify="right")
    table.add_column("ratio", justify="right")
    there = {layer.name: layer for layer in other.layers}
    here = {layer.name: layer for layer in ours.layers}
    for name in dict.fromkeys((*(n for n in here if n != CONTROL), *(n for n in there if n != CONTROL), CONTROL)):
        a, b = here.get(name), there.get(name)
        first = None if a is None else a.instructions
        second = None if b is None else b.instructions
        table.add_row(
            name,
            "-" if a is None else a.kernel,
            cell(first, ",d"),
            "-" if b is None else b.kernel,
            cell(second, ",d"),
            _ratio(first, second),
        )
    table.add_section()
    for label, first, second in _totals(ours, other):
        table.add_row(label, "", cell(first, ",d"), "", cell(second, ",d"), _ratio(first, second))
    if ours.accuracy is not None and other.accuracy is not None:
        table.add_row("accuracy", "", f"{ours.accuracy:.4f}", "", f"{other.accuracy:.4f}", "")
    out.print(table)


def _totals(ours: Measurement, other: Measurement) -> list[tuple[str, int | None, int | None]]:
    return [
        ("instructions", ours.instructions, other.instructions),
        ("estimated cycles", ours.estimated_cycles, other.estimated_cycles),
        ("MACs", ours.macs, other.macs),
        ("weight bytes", ours.weight_bytes, other.weight_bytes),
        ("code bytes", ours.code_bytes, other.code_bytes),
        ("flash bytes", ours.flash_bytes, other.flash_bytes),
        ("arena bytes", ours.arena_bytes, other.arena_bytes),
        ("arena with input bytes", ours.arena_with_input_bytes, other.arena_with_input_bytes),
        ("state bytes", ours.state_bytes, other.state_bytes),
        ("stack bytes", ours.stack_bytes, other.stack_bytes),
    ]


def _ratio(ours: int | None, other: int | None) -> str:
    return cell(ours / other if ours is not None and other else None, ".3f")
