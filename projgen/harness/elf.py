"""What the harness reads from ELF files: sizes, functions and architecture attributes."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import ARMAttributesSection, SymbolTableSection

_SUFFIX: Final = re.compile(r"(\.(constprop|isra|part|cold|lto_priv|llvm)(\.\d+)?)+$")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes in code, constants, initialised data and zeroed data."""

    text: int
    rodata: int
    data: int
    bss: int

    @property
    def flash(self) -> int:
        """What has to be stored: code, constants and the initial values of data."""
        return self.text + self.rodata + self.data


@dataclass(frozen=True, slots=True)
class Function:
    """A function of an ELF: addresses [start, end), the source file of a local one (else empty)."""

    name: str
    start: int
    end: int
    file: str

    @property
    def base_name(self) -> str:
        """The name in the source: without what the compiler appends to copies and parts."""
        return _SUFFIX.sub("", self.name)


class FunctionTable:
    """Functions of an ELF by address and by name."""

    def __init__(self, functions: Sequence[Function]) -> None:
        self.functions = tuple(sorted(functions, key=lambda f: f.start))
        self._starts = [function.start for function in self.functions]

    def at(self, address: int) -> Function | None:
        """The function that holds an address."""
        place = bisect_right(self._starts, address) - 1
        if place < 0 or address >= self.functions[place].end:
            return None
        return self.functions[place]

    def named(self, name: str) -> list[Function]:
        """All functions with this name in the source: copies and parts made by the compiler too."""
        return [function for function in self.functions if function.base_name == name]


def section_sizes(path: Path, without: Sequence[str] = ()) -> Sizes:
    """Sizes of an ELF's allocated sections, but for those named ``.text.X`` with X in ``without``."""
    text = rodata = data = bss = 0
    with path.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            flags, size = section["sh_flags"], section["sh_size"]
            if not flags & SH_FLAGS.SHF_ALLOC or section.name.startswith((".stack", ".note", ".eh_frame")):
                continue
            if any(section.name.startswith(f".text.{name}") for name in without):
                continue
            if section["sh_type"] == "SHT_NOBITS":
                bss += size
            elif flags & SH_FLAGS.SHF_EXECINSTR:
                text += size
            elif flags & SH_FLAGS.SHF_WRITE:
                data += size
            else:
                rodata += size
    return Sizes(text, rodata, data, bss)


def object_sizes(path: Path, without: Sequence[str] = ()) -> Sizes:
    """Sizes of an object file before linking (an upper bound: nothing unused is dropped yet)."""
    return section_sizes(path, without)


def read_functions(path: Path) -> FunctionTable:
    """Functions from the symbol table; of several names at one address the global or first one."""
    found: dict[int, Function] = {}
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        mask = ~1 if elf["e_machine"] == "EM_ARM" else ~0
        table = elf.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            return FunctionTable([])
        file = ""
        for symbol in table.iter_symbols():
            kind = symbol["st_info"]["type"]
            local = symbol["st_info"]["bind"] == "STB_LOCAL"
            if kind == "STT_FILE":
                file = symbol.name
            if kind != "STT_FUNC" or symbol["st_size"] == 0 or symbol["st_shndx"] == "SHN_UNDEF":
                continue
            start = symbol["st_value"] & mask
            if start not in found or not local:
                found[start] = Function(symbol.name, start, start + symbol["st_size"], file if local else "")
    return FunctionTable(list(found.values()))


def architecture(path: Path) -> dict[str, str]:
    """The ELF's machine, and on 32-bit Arm its build attributes (CPU name, architecture, DSP, MVE ...)."""
    attributes: dict[str, str] = {}
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        attributes["machine"] = str(elf["e_machine"]).removeprefix("EM_")
        attributes["class"] = f"ELF{elf.elfclass}"
        for section in elf.iter_sections():
            if not isinstance(section, ARMAttributesSection):
                continue
            for part in section.iter_subsections():
                for scope in part.iter_subsubsections():
                    for attribute in scope.iter_attributes():
                        if attribute.tag != "TAG_FILE":
                            attributes[attribute.tag.removeprefix("TAG_").lower()] = str(attribute.value)
    return attributes
