"""Disassembly of an ELF: its instructions by function, who calls whom, and where floating point is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from projgen.harness.elf import Function, FunctionTable, read_functions
from projgen.harness.toolchain import binutil, run_tool
from projgen.targets import Target

_LINE: Final = re.compile(r"^\s*([0-9a-f]+):\t((?:[0-9a-f]{2,8} ?)+)\s*\t(\S+)(?:\s+(.*))?$")
_TARGET: Final = re.compile(r"(?:^|\s|,)\s*(?:0x)?([0-9a-f]+)\s+<")
_CONDITIONS: Final = "eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al"
_BRANCH: Final = re.compile(
    rf"^(bl?x?(\.?({_CONDITIONS}))?(\.[nw])?|cbn?z|tbn?z|call|j[a-z]+|bl?r|le|letp|wls|wlstp\.\d+)$"
)
_SOFT_FLOAT: Final = re.compile(
    r"^(__aeabi_(c?[fd][a-z0-9]\w*|u?[il]2[fd]|h2f\w*)|__(add|sub|mul|div|neg|cmp|eq|ne|lt|le|gt|ge|unord)[sdth]f\d"
    r"|__(fix|fixuns|float|floatun|floatuns|extend|trunc)[sdthfi]{4}\d?|__powi[sd]f2)$"
)
_X86_FLOAT: Final = re.compile(
    r"^v?(((add|sub|mul|div|sqrt|min|max|rcp|rsqrt|hadd|hsub|addsub|round|cmp\w*|ucomi|comi|dp)(ss|sd|ps|pd))"
    r"|cvt\w+|fn?m(add|sub)\w+|f(ld|st|stp|add|sub|mul|div|addp|mulp|ild|istp|sqrt|com|comi|ucomi)\w*)$"
)
_A64_FLOAT: Final = re.compile(r"^(f(?!mov$)[a-z]+\d*|[su]cvtf|bf\w*dot|bfcvt\w*)$")
_VFP_REGISTER: Final = re.compile(r"\b[sd]\d+\b")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: where it is, its size in bytes, and its text."""

    address: int
    size: int
    mnemonic: str
    operands: str

    @property
    def text(self) -> str:
        return f"{self.mnemonic} {self.operands}".strip()

    @property
    def destination(self) -> int | None:
        """Where a direct branch or call goes."""
        if not _BRANCH.match(self.mnemonic):
            return None
        match = _TARGET.search(self.operands)
        return int(match[1], 16) if match else None

    @property
    def is_indirect(self) -> bool:
        """A call or jump whose destination is in a register or in memory (but no return)."""
        name = self.mnemonic.split(".")[0]
        if name in ("call", "jmp") and self.operands.startswith("*"):
            return True
        if name in ("blx", "blr", "br"):
            return self.destination is None
        if re.fullmatch(rf"bx({_CONDITIONS})?", name):
            return not self.operands.startswith("lr")
        if name in ("mov", "ldr") and self.operands.startswith("pc,"):
            return self.operands not in ("pc, lr", "pc, [sp], #4")
        return False


@dataclass(frozen=True, slots=True)
class Use:
    """A use of floating point: the function it is in, the address, and the instruction or the callee."""

    function: str
    address: int
    text: str


class Disassembly:
    """Instructions of an ELF's functions.

    Attributes:
        functions: the ELF's functions.
        instructions: all instructions by address, in order.
    """

    def __init__(self, functions: FunctionTable, instructions: Sequence[Instruction], cpu: str) -> None:
        self.functions = functions
        self.instructions: Mapping[int, Instruction] = {i.address: i for i in instructions}
        self.cpu = cpu
        self._bodies: dict[Function, list[Instruction]] = {}
        for instruction in instructions:
            function = functions.at(instruction.address)
            if function is not None:
                self._bodies.setdefault(function, []).append(instruction)

    def body(self, function: Function) -> Sequence[Instruction]:
        """A function's instructions, in the order of their addresses."""
        return self._bodies.get(function, ())

    def callees(self, function: Function) -> list[Function]:
        """Functions that this one calls or jumps to directly."""
        found: dict[int, Function] = {}
        for instruction in self.body(function):
            destination = instruction.destination
            callee = None if destination is None else self.functions.at(destination)
            if callee is not None and callee is not function:
                found[callee.start] = callee
        return list(found.values())

    def reachable(self, names: Iterable[str]) -> list[Function]:
        """The functions with these names in the source, and all they can call directly."""
        waiting = [function for name in names for function in self.functions.named(name)]
        seen: dict[int, Function] = {}
        while waiting:
            function = waiting.pop()
            if function.start not in seen:
                seen[function.start] = function
                waiting.extend(self.callees(function))
        return [seen[start] for start in sorted(seen)]

    def float_uses(self, names: Iterable[str]) -> list[Use]:
        """Floating-point instructions and calls of soft-float routines reachable from these functions.

        Moves between registers are no arithmetic and not reported where vector instructions share the
        registers (NEON, MVE, SSE); on other cores any use of a floating-point register is.
        """
        uses = []
        for function in self.reachable(names):
            if _SOFT_FLOAT.match(function.base_name):
                uses.append(Use(function.name, function.start, f"soft-float routine {function.name}"))
                continue
            uses += [
                Use(function.name, instruction.address, instruction.text)
                for instruction in self.body(function)
                if self._is_float(instruction)
            ]
        return uses

    def _is_float(self, instruction: Instruction) -> bool:
        name = instruction.mnemonic
        if self.cpu == "host":
            return _X86_FLOAT.match(name) is not None or _A64_FLOAT.match(name) is not None
        if self.cpu in ("cortex-a53", "cortex-a76"):
            return _A64_FLOAT.match(name) is not None
        if re.search(r"\.f(16|32|64)\b", name):
            return True
        shared = self.cpu in ("cortex-a7", "cortex-m55")
        return not shared and name.startswith("v") and _VFP_REGISTER.search(instruction.operands) is not None


def disassemble(elf: Path, target: Target) -> Disassembly:
    """Disassemble an ELF built for a target.

    Raises:
        ToolMissingError: the target has no objdump.
    """
    # objdump takes MVE for coprocessor instructions unless it is told the architecture.
    machine = ("-m", "armv8.1-m.main") if "mve" in target.isa else ()
    output = run_tool([binutil(target, "objdump"), "-d", "-w", *machine, str(elf)])
    instructions = []
    for line in output.splitlines():
        match = _LINE.match(line)
        if match and not match[3].startswith("."):
            size = len(match[2].replace(" ", "").strip()) // 2
            operands = re.split(r"\s*[;@]|\s//", match[4] or "")[0].strip()
            instructions.append(Instruction(int(match[1], 16), size, match[3], operands))
    return Disassembly(read_functions(elf), instructions, target.cpu)
