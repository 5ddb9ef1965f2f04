"""Upper bound of the stack a function needs, from the disassembly (32-bit Arm).

Frames are read from the code itself, so that hand-written assembly counts too: every instruction of a
function that lowers the stack pointer is added up, and the deepest chain of calls is taken.
"""

from __future__ import annotations

import re
from typing import Final

from projgen.harness.disassembly import Disassembly, Instruction
from projgen.harness.elf import Function

_REGISTERS: Final = re.compile(r"([rds]?[a-z]*?)(\d+)-[rds]?[a-z]*?(\d+)")
_LOWER: Final = re.compile(r"^sp, (?:sp, )?#(\d+)$")
_STORE: Final = re.compile(r"\[sp, #-(\d+)\]!$")


def stack_bound(code: Disassembly, name: str) -> int | None:
    """Most stack bytes that function ``name`` and all it calls can use below the caller's frame.

    Returns:
        None where no bound can be given: recursion, a call through a pointer, a frame of variable size, or
        code that isn't 32-bit Arm.
    """
    if code.cpu in ("host", "cortex-a53", "cortex-a76"):
        return None
    bounds = [_deepest(code, function, ()) for function in code.functions.named(name)]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if known and len(known) == len(bounds) else None


def _deepest(code: Disassembly, function: Function, path: tuple[Function, ...]) -> int | None:
    if function in path:
        return None
    frame = 0
    for instruction in code.body(function):
        lowered = _lowered(instruction)
        calls_itself = instruction.mnemonic == "bl" and instruction.destination == function.start
        if lowered is None or instruction.is_indirect or calls_itself:
            return None
        frame += lowered
    deepest = 0
    for callee in code.callees(function):
        below = _deepest(code, callee, (*path, function))
        if below is None:
            return None
        deepest = max(deepest, below)
    return frame + deepest


def _lowered(instruction: Instruction) -> int | None:
    """Bytes by which an instruction lowers the stack pointer; None when they can't be told."""
    name, operands = instruction.mnemonic.split(".")[0], instruction.operands
    if name in ("push", "vpush"):
        return _listed(operands)
    if name in ("stmdb", "stmfd", "vstmdb") and operands.startswith("sp!"):
        return _listed(operands.split(",", 1)[1])
    if name.startswith(("str", "vstr")) and (match := _STORE.search(operands)):
        return int(match[1])
    if name in ("sub", "subw", "subs") and operands.startswith("sp,"):
        lower = _LOWER.match(operands)
        return int(lower[1]) if lower else None
    if name in ("add", "addw", "adds") and re.match(r"^sp, (sp, )?[a-z]", operands):
        return None
    return 0


def _listed(registers: str) -> int:
    """Bytes of a list of registers such as ``{r4, r5, lr}`` or ``{d8-d15}``."""
    total = 0
    for item in registers.strip(" {}").split(","):
        entry = item.strip()
        span = _REGISTERS.fullmatch(entry)
        count = int(span[3]) - int(span[2]) + 1 if span else 1
        total += count * (8 if entry.startswith("d") else 4)
    return total
