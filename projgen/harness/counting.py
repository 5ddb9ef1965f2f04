"""Exact instruction counts per record, layer and symbol, through a QEMU plugin of our own.

The plugin counts with one counter that every instruction increments, and switches the current layer when a
block of code starts in a layer's function, in a run-level function (``(control)``) or in the driver (not
counted). Kernels and helpers belong to whoever called them. Two checks guard every report: a loop of known
length in the image itself, and the agreement of that counter with an independent count of executed blocks.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from projgen import resources
from projgen.errors import InputError, ToolMissingError
from projgen.harness.build import CALIBRATION_INSTRUCTIONS, Image
from projgen.harness.disassembly import disassemble
from projgen.harness.elf import Function, FunctionTable, read_functions
from projgen.harness.manifest import Layer, ModelFolder
from projgen.harness.records import Record, decode
from projgen.harness.run import DEFAULT_TIMEOUT, emulator_command, run_command
from projgen.harness.toolchain import HarnessError, cache_dir, find_tool, first_line, run_tool

CONTROL = "(control)"
_FIRST_WITHOUT_INLINE = 10


@dataclass(frozen=True, slots=True)
class Counts:
    """Executed instructions.

    Attributes:
        totals: per record.
        layers: per record, per row of its model's table of layers. Rows that share a function are counted
            in the first of them.
        control: per record, what runs in run, reset and step themselves.
        symbols: per function, over all records.
        addresses: per address, over all records.
        fallthrough: for the last instruction of each block: how often the next one executed began 2 and 4
            bytes further. What is left of its executions went elsewhere: taken branches, calls, returns.
        calibration: instructions expected and counted in the loop of known length.
    """

    totals: tuple[int, ...]
    layers: tuple[tuple[int, ...], ...]
    control: tuple[int, ...]
    symbols: Mapping[str, int]
    addresses: Mapping[int, int]
    fallthrough: Mapping[int, tuple[int, int, int]]
    calibration: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the plugin is told, and the slot of each layer (None: the row has no code of its own)."""

    text: str
    slots: tuple[tuple[int | None, ...], ...]


def count_image(
    image: Image, records: Sequence[Record], *, check_alignment: bool = True, timeout: float = DEFAULT_TIMEOUT
) -> Counts | None:
    """Run records under the counting plugin.

    Args:
        check_alignment: refuse accesses that QEMU allows and the target's CPU does not.

    Returns:
        The counts; None on target host when this machine's user-mode emulator isn't installed.

    Raises:
        ToolMissingError: no emulator, no C compiler for the plugin, or a QEMU without the plugin interface.
        HarnessError: the calibration is off, the two counts disagree, an access is not aligned, or a record
            failed.
    """
    if image.sanitized:
        raise InputError("the image has sanitizers", "an image built without", "sanitize")
    try:
        command = emulator_command(image.target, image.elf, plugin="")
    except ToolMissingError:
        if image.target.board.kind == "native":
            return None
        raise
    _check_version(command[0])
    plugin = build_plugin()
    functions = read_functions(image.elf)
    plan = _plan(image, functions, check_alignment=check_alignment)
    with tempfile.TemporaryDirectory(prefix="projgen-count-") as name:
        folder = Path(name)
        (folder / "map").write_text(plan.text, encoding="ascii")
        # Copied here, so that no comma in a path can end the plugin's argument.
        shutil.copy(plugin, folder / "count.so")
        command = emulator_command(image.target, image.elf, plugin="./count.so,map=map,out=counts")
        data = run_command(image, records, command, folder, paint=False, timeout=timeout)
        decode(image.models, records, data, paint=False)
        lines = (folder / "counts").read_text(encoding="ascii").splitlines()
    return _counts(image, records, plan, functions, lines)


def build_plugin() -> Path:
    """The plugin, compiled for this machine once and kept in the cache folder.

    Raises:
        ToolMissingError: no C compiler for this machine.
    """
    source = resources.runtime_c() / "plugin" / "count.c"
    compiler = find_tool("gcc", "to build the counting plugin")
    key = hashlib.sha256(source.read_bytes() + first_line([compiler, "--version"]).encode()).hexdigest()[:16]
    built = cache_dir() / f"count-{key}.so"
    if not built.is_file():
        built.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=built.parent, suffix=".so")
        os.close(descriptor)
        run_tool([compiler, "-std=c99", "-O2", "-shared", "-fPIC", "-o", draft, str(source)])
        Path(draft).replace(built)
    return built


@functools.cache
def _check_version(emulator: str) -> None:
    """QEMU 10 took away the plugin interface that increments a counter inline."""
    text = first_line([emulator, "--version"])
    match = re.search(r"version (\d+)\.", text)
    if match and int(match[1]) >= _FIRST_WITHOUT_INLINE:
        raise ToolMissingError(
            f"{Path(emulator).name} is too new to count instructions ({text})",
            "QEMU 7.2 to 9 (Debian 12 has 7.2)",
            "the installed QEMU",
        )


def _plan(image: Image, functions: FunctionTable, *, check_alignment: bool) -> _Plan:
    lines = [f"mark {_one(functions, 'pgh_mark').start:x}"]
    lines += [_range("off", f) for f in functions.functions if f.base_name.startswith("pgh_")]
    loop = _one(functions, "calibration_loop")
    lines.append(_range("on 0", loop))
    slots: list[tuple[int | None, ...]] = []
    used = 0
    for model in image.models:
        for name in model.run_functions:
            lines += [_range("on 0", function) for function in _functions_of(model, name, functions)]
        row: list[int | None] = []
        seen: dict[str, int] = {}
        for layer in model.layers:
            if not layer.function or layer.function in seen:
                row.append(None)
                continue
            used += 1
            seen[layer.function] = used
            row.append(used)
            lines += [_range(f"on {used}", function) for function in _layer_functions(model, layer, functions)]
        slots.append(tuple(row))
    if check_alignment:
        lines += _aligned(image)
    return _Plan("\n".join(lines) + "\n", tuple(slots))


def _range(kind: str, function: Function) -> str:
    return f"{kind} {function.start:x} {function.end:x}"


def _one(functions: FunctionTable, name: str) -> Function:
    found = functions.named(name)
    if len(found) != 1:
        raise HarnessError(f"the image has {len(found)} functions {name}")
    return found[0]


def _functions_of(model: ModelFolder, name: str, functions: FunctionTable) -> list[Function]:
    found = functions.named(name)
    own = [function for function in found if function.file == model.source.name]
    return own or found


def _layer_functions(model: ModelFolder, layer: Layer, functions: FunctionTable) -> list[Function]:
    found = _functions_of(model, layer.function, functions)
    if not found:
        raise HarnessError(
            f"layer {layer.name} of model {model.name} can't be counted: the image has no function {layer.function}"
        )
    return found


def _aligned(image: Image) -> list[str]:
    """Vector accesses, which QEMU allows anywhere and the CPU doesn't (it does check LDRD, LDM and the like)."""
    if "mve" not in image.target.isa:
        return []
    watched = re.compile(r"^v(ld|st)(r[hw]|[24]\d)\.\w+$")
    code = disassemble(image.elf, image.target)
    return [
        f"align {i.address:x} {i.address + i.size:x}" for i in code.instructions.values() if watched.match(i.mnemonic)
    ]


def _counts(
    image: Image, records: Sequence[Record], plan: _Plan, functions: FunctionTable, lines: Sequence[str]
) -> Counts:
    rows: list[list[int]] = []
    addresses: Counter[int] = Counter()
    fallthrough: dict[int, list[int]] = {}
    unaligned: list[str] = []
    for line in lines:
        kind, *words = line.split()
        if kind == "record":
            rows.append([int(word) for word in words])
        elif kind == "block":
            runs, by2, by4 = (int(word) for word in words[:3])
            block = [int(word, 16) for word in words[3:]]
            addresses.update(dict.fromkeys(block, runs))
            last = fallthrough.setdefault(block[-1], [0, 0, 0])
            for i, value in enumerate((runs, by2, by4)):
                last[i] += value
        elif kind == "unaligned":
            unaligned.append(_unaligned(words, functions))
    if lines[-1:] != ["end"] or len(rows) != len(records) + 1:
        raise HarnessError(f"the counting plugin reported {len(rows)} of {len(records) + 1} records")
    if unaligned:
        raise HarnessError(f"accesses the CPU would not allow on {image.target.name}: {'; '.join(unaligned)}")
    _check_exact(rows, addresses, image)
    loop = _one(functions, "calibration_loop")
    for address in [a for a in addresses if loop.start <= a < loop.end]:
        del addresses[address]
        fallthrough.pop(address, None)
    symbols: Counter[str] = Counter()
    for address, runs in addresses.items():
        function = functions.at(address)
        symbols[function.base_name if function else "(unknown)"] += runs
    layers = [
        tuple(0 if slot is None else row[slot] if slot < len(row) else 0 for slot in plan.slots[record.model])
        for row, record in zip(rows[1:], records, strict=True)
    ]
    return Counts(
        totals=tuple(sum(row) for row in rows[1:]),
        layers=tuple(layers),
        control=tuple(row[0] for row in rows[1:]),
        symbols=dict(symbols.most_common()),
        addresses=dict(addresses),
        fallthrough={address: (n, by2, by4) for address, (n, by2, by4) in fallthrough.items()},
        calibration=(CALIBRATION_INSTRUCTIONS, sum(rows[0])),
    )


def _check_exact(rows: Sequence[Sequence[int]], addresses: Mapping[int, int], image: Image) -> None:
    counted = sum(rows[0])
    if counted != CALIBRATION_INSTRUCTIONS:
        raise HarnessError(
            f"counts on {image.target.name} are off: the calibration loop of {CALIBRATION_INSTRUCTIONS} "
            f"instructions counted as {counted}"
        )
    total, by_blocks = sum(map(sum, rows)), sum(addresses.values())
    # An x86 string instruction with nothing left to do leaves its block early: there only the counter is exact.
    if total != by_blocks and image.target.board.kind != "native":
        raise HarnessError(
            f"counts on {image.target.name} are off: {total} instructions by the running counter, {by_blocks} by blocks"
        )


def _unaligned(words: Sequence[str], functions: FunctionTable) -> str:
    place, address, size = int(words[0], 16), int(words[1], 16), int(words[2])
    function = functions.at(place)
    name = function.name if function else "(unknown)"
    return f"{size} bytes at {address:#x} by the instruction at {place:#x} in {name}"
