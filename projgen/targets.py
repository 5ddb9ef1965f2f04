"""Targets: one TOML file each says what a CPU can do, how to compile for it and where to run it.

A target file states the CPU, its instruction set features, the compiler and its flags, how much flash and
RAM a model may use, and the board (an emulated machine, user-mode emulation, or this machine). A user's own
file may say ``base = "cortex-m4"`` and give only what differs.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from projgen import resources
from projgen.errors import InputError

BoardKind = Literal["native", "user", "system"]

# What each CPU can have; a target may list fewer (the DSP extension of a Cortex-M33 is optional). Kernels for
# ``thumb2`` need no more than Armv7-M has; where there is ``dsp``, its own are faster.
CPU_ISA: Final[Mapping[str, frozenset[str]]] = {
    "host": frozenset(),
    "cortex-m0": frozenset({"thumb1"}),
    "cortex-m0plus": frozenset({"thumb1"}),
    "cortex-m3": frozenset({"thumb2"}),
    "cortex-m4": frozenset({"dsp"}),
    "cortex-m7": frozenset({"dsp"}),
    "cortex-m33": frozenset({"dsp", "thumb2"}),
    "cortex-m55": frozenset({"dsp", "mve"}),
    "cortex-a7": frozenset({"neon"}),
    "cortex-a53": frozenset({"neon"}),
    "cortex-a76": frozenset({"neon", "dotprod"}),
}

_UNITS: Final[Mapping[str, int]] = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a board's memory: first address and size in bytes."""

    origin: int
    size: int


@dataclass(frozen=True, slots=True)
class Board:
    """Where an image runs.

    Attributes:
        kind: ``native`` (this machine), ``user`` (user-mode emulation) or ``system`` (a whole machine).
        startup: folder under ``runtime_c/boards`` with the start-up code and files.
        emulator: program that runs the image; empty for ``native``.
        machine: the emulator's machine (``system``).
        cpu: the emulator's ``-cpu`` (``user``; given by the machine for ``system`` when empty).
        arguments: further arguments of the emulator.
        flash, rodata, ram: memory the image is linked into (``system``); rodata is flash when None.
        stack_bytes: stack reserved in the image (``system``).
    """

    kind: BoardKind
    startup: str
    emulator: str = ""
    machine: str = ""
    cpu: str = ""
    arguments: tuple[str, ...] = ()
    flash: Region | None = None
    rodata: Region | None = None
    ram: Region | None = None
    stack_bytes: int = 16384


@dataclass(frozen=True, slots=True)
class Target:
    """What code is generated and built for.

    Attributes:
        name, description: for people.
        cpu: one of ``CPU_ISA``.
        isa: features of the instruction set that kernels may use.
        compiler: prefix of the GCC tools, for example ``arm-none-eabi-``.
        flags: compiler flags that select the CPU and ABI.
        flash_bytes, ram_bytes: what a model may use; the board that emulates it may have more.
        board: where it runs.
        clang_target: clang's ``--target``; None when clang isn't supported for it.
    """

    name: str
    description: str
    cpu: str
    isa: frozenset[str]
    compiler: str
    flags: tuple[str, ...]
    flash_bytes: int
    ram_bytes: int
    board: Board
    clang_target: str | None = None


def parse_bytes(value: object, where: str) -> int:
    """Number of bytes from an integer or a text such as ``"64KiB"``.

    Raises:
        InputError: for anything else, naming ``where``.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
        if match and match[2].lower() in _UNITS:
            size = float(match[1]) * _UNITS[match[2].lower()]
            if size >= 1 and size == int(size):
                return int(size)
    raise InputError(f"{value!r} is no size", 'a number of bytes such as 65536 or "64KiB", "1.5MiB"', where)


def list_targets() -> list[Target]:
    """All targets that come with projgen, in the order host, Cortex-M, Cortex-A."""

    def order(path: Path) -> tuple[int, str, int]:
        match = re.fullmatch(r"(.*?)(\d*)", path.stem)
        kind, number = (match[1], match[2]) if match else (path.stem, "")
        return (0 if path.stem == "host" else 1 if kind.startswith("cortex-m") else 2, kind, int(number or 0))

    return [load_target(str(path)) for path in sorted(resources.targets().glob("*.toml"), key=order)]


def load_target(name_or_path: str | Path) -> Target:
    """The target of this name, or the one in a TOML file (a path that ends in ``.toml``).

    Raises:
        InputError: unknown name, unreadable file, or a field that isn't allowed.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"target file {text} does not exist", "an existing TOML file", "the target")
    else:
        path = resources.targets() / f"{text}.toml"
        if not re.fullmatch(r"[A-Za-z0-9_-]+", text) or not path.is_file():
            names = ", ".join(sorted(p.stem for p in resources.targets().glob("*.toml")))
            raise InputError(
                f"unknown target {text!r}", f"{names}, or a path that ends in .toml", "the target (--target)"
            )
    return _target(_merged(path, seen=()), str(path if text.endswith(".toml") else path.name))


def _merged(path: Path, seen: tuple[Path, ...]) -> dict[str, object]:
    """The file's fields over those of its base."""
    where = str(path)
    try:
        fields: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"target file {where} is no TOML: {error}", "a TOML file", where) from error
    except OSError as error:
        raise InputError(f"target file {where} can't be read: {error}", "a readable file", where) from error
    base = fields.pop("base", None)
    if base is None:
        return fields
    if not isinstance(base, str):
        raise InputError(f"base = {base!r}", "the name of a target", where)
    parent = path.parent / base if base.endswith(".toml") else resources.targets() / f"{base}.toml"
    if not parent.is_file():
        names = ", ".join(sorted(p.stem for p in resources.targets().glob("*.toml")))
        raise InputError(f"unknown base target {base!r}", f"{names}, or a TOML file beside this one", where)
    if parent.resolve() in seen:
        raise InputError(f"target {where} is based on itself", "a base that ends somewhere", where)
    below = _merged(parent, (*seen, path.resolve()))
    board = fields.get("board")
    merged = {**below, **fields}
    if isinstance(board, dict) and isinstance(below.get("board"), dict):
        merged["board"] = {**below["board"], **board}  # type: ignore[dict-item]
    fields.setdefault("name", path.stem)
    merged["name"] = fields["name"]
    return merged


def _target(fields: Mapping[str, object], where: str) -> Target:
    known = {"name", "description", "cpu", "isa", "compiler", "flags", "flash", "ram", "board", "clang_target"}
    _only(fields, known, where)
    name = _text(fields, "name", where)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"target name {name!r}", "letters, digits, - and _", where)
    cpu = _text(fields, "cpu", where)
    if cpu not in CPU_ISA:
        raise InputError(f"unknown cpu {cpu!r}", ", ".join(CPU_ISA), f"cpu in {where}")
    isa = frozenset(_texts(fields, "isa", where))
    if not isa <= CPU_ISA[cpu]:
        extra = ", ".join(sorted(isa - CPU_ISA[cpu]))
        allowed = ", ".join(sorted(CPU_ISA[cpu])) or "an empty list"
        raise InputError(f"{cpu} does not have {extra}", allowed, f"isa in {where}")
    if "mve" in isa and "dsp" not in isa:
        raise InputError("isa has mve without dsp", '["dsp", "mve"]', f"isa in {where}")
    board = fields.get("board")
    if not isinstance(board, dict):
        raise InputError("a target needs a [board] table", "kind, startup, emulator, machine, ...", where)
    clang = fields.get("clang_target")
    if clang is not None and not isinstance(clang, str):
        raise InputError(f"clang_target = {clang!r}", "a text such as arm-none-eabi", where)
    return Target(
        name=name,
        description=_text(fields, "description", where),
        cpu=cpu,
        isa=isa,
        compiler=_text(fields, "compiler", where, empty=True),
        flags=_texts(fields, "flags", where),
        flash_bytes=parse_bytes(fields.get("flash"), f"flash in {where}"),
        ram_bytes=parse_bytes(fields.get("ram"), f"ram in {where}"),
        board=_board(board, f"[board] in {where}"),
        clang_target=clang,
    )


def _board(fields: Mapping[str, object], where: str) -> Board:
    known = set(Board.__dataclass_fields__) - {"stack_bytes"} | {"stack"}
    _only(fields, known, where)
    kind = _text(fields, "kind", where)
    startups = sorted(p.name for p in (resources.runtime_c() / "boards").iterdir() if p.name != "common")
    startup = _text(fields, "startup", where)
    if startup not in startups:
        raise InputError(f"unknown startup {startup!r}", ", ".join(startups), where)
    emulator = "" if kind == "native" else _text(fields, "emulator", where)
    common = {
        "startup": startup,
        "emulator": emulator,
        "arguments": _texts(fields, "arguments", where),
    }
    cpu = fields.get("cpu", "")
    if not isinstance(cpu, str):
        raise InputError(f"cpu = {cpu!r}", "a text", where)
    if kind == "native":
        return Board(kind="native", startup=startup)
    if kind == "user":
        return Board(kind="user", cpu=cpu, **common)  # type: ignore[arg-type]
    if kind == "system":
        flash, ram = _region(fields, "flash", where), _region(fields, "ram", where)
        if flash is None or ram is None:
            raise InputError("a system board needs flash and ram", '{ origin = 0x0, size = "1MiB" }', where)
        return Board(
            kind="system",
            machine=_text(fields, "machine", where),
            cpu=cpu,
            flash=flash,
            rodata=_region(fields, "rodata", where),
            ram=ram,
            stack_bytes=parse_bytes(fields.get("stack", 16384), f"stack in {where}"),
            **common,  # type: ignore[arg-type]
        )
    raise InputError(f"unknown board kind {kind!r}", "native, user, system", where)


def _only(fields: Mapping[str, object], known: set[str], where: str) -> None:
    unknown = sorted(set(fields) - known)
    if unknown:
        raise InputError(f"unknown field {', '.join(unknown)}", ", ".join(sorted(known)), where)


def _text(fields: Mapping[str, object], key: str, where: str, *, empty: bool = False) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not (value or empty):
        raise InputError(f"{key} is {value!r}" if key in fields else f"{key} is missing", "a text", where)
    return value


def _texts(fields: Mapping[str, object], key: str, where: str) -> tuple[str, ...]:
    value = fields.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{key} is {value!r}", "a list of texts", where)
    return tuple(value)


def _region(fields: Mapping[str, object], key: str, where: str) -> Region | None:
    value = fields.get(key)
    if value is None:
        return None
    origin = value.get("origin") if isinstance(value, dict) else None
    if not isinstance(value, dict) or set(value) != {"origin", "size"} or not isinstance(origin, int):
        raise InputError(f"{key} is {value!r}", '{ origin = 0x20000000, size = "1MiB" }', where)
    return Region(origin, parse_bytes(value["size"], f"{key} of {where}"))
