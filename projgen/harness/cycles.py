"""Estimated cycles from exact instruction counts: a table per core, stated here, never called measured.

The tables follow Arm's technical reference manuals where they give timings (Cortex-M0, M3, M4) and are
rougher elsewhere: the M7's dual issue and branch prediction, the M33's and M55's dual issue of 16-bit pairs
and the overlap of neighbouring vector instructions are not modelled. Memory has no wait states.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from projgen.harness.counting import Counts
from projgen.harness.disassembly import Disassembly, Instruction


@dataclass(frozen=True, slots=True)
class CycleTable:
    """Cycles per instruction of a core; what isn't named takes 1.

    Attributes:
        load: LDR; load_next: an LDR right after another load or store. store: STR.
        multiple_base: LDM, STM, PUSH, POP of n registers take this + n.
        mla, divide: MLA; SDIV, UDIV.
        long_multiply, long_accumulate: SMULL, UMULL; SMLAL, UMLAL, UMAAL. Where a core stops early on small numbers
            (the M3: 3 to 5 and 4 to 7 cycles) they and the divisions take a middle value.
        taken: added to a branch that is taken, a call or a return.
        loop_end: added to a taken LE or LETP.
        vector: a vector (MVE) instruction, also a vector load or store.
    """

    load: int = 2
    load_next: int = 1
    store: int = 1
    multiple_base: int = 1
    mla: int = 1
    long_multiply: int = 1
    long_accumulate: int = 1
    divide: int = 7
    taken: int = 2
    loop_end: int = 0
    vector: int = 2


TABLES: Final[Mapping[str, CycleTable]] = {
    "cortex-m0": CycleTable(load_next=2, store=2),
    "cortex-m0plus": CycleTable(load_next=2, store=2, taken=1),
    "cortex-m3": CycleTable(mla=2, long_multiply=4, long_accumulate=6),
    "cortex-m4": CycleTable(),
    "cortex-m7": CycleTable(load=1, multiple_base=0, taken=1),
    "cortex-m33": CycleTable(),
    "cortex-m55": CycleTable(load=1, multiple_base=0),
}

_LOAD: Final = re.compile(r"^(ldr|vldr)(?!ex)")
_STORE: Final = re.compile(r"^(str|vstr)(?!ex)")
_MULTIPLE: Final = re.compile(r"^(v?ldm|v?stm|v?push|v?pop)")
_LONG: Final = re.compile(r"^[su]mull")
_LONG_ACCUMULATE: Final = re.compile(r"^[su]ml[as]l|^umaal")
_MLA: Final = re.compile(r"^ml[as]")
_MVE: Final = re.compile(r"\.(8|16|32|64|[suif]8|[suif]16|[suif]32|[suif]64|p8)$")


def estimate_cycles(counts: Counts, code: Disassembly) -> int | None:
    """Estimated cycles of all counted records; None for cores without a table.

    Args:
        counts: from the image that ``code`` disassembles.
    """
    table = TABLES.get(code.cpu)
    if table is None:
        return None
    total = 0
    for address, runs in counts.addresses.items():
        instruction = code.instructions.get(address)
        if instruction is not None:
            total += runs * _cycles(table, instruction, code)
    for address, (runs, by2, by4) in counts.fallthrough.items():
        instruction = code.instructions.get(address)
        if instruction is not None:
            taken = runs - (by2 if instruction.size == 2 else by4)
            loop = instruction.mnemonic in ("le", "letp")
            total += taken * (table.loop_end if loop else table.taken)
    return total


def _cycles(table: CycleTable, instruction: Instruction, code: Disassembly) -> int:
    """Cycles of one execution, a taken branch's extra ones apart."""
    name = instruction.mnemonic
    vector = name.startswith("v")
    if _MULTIPLE.match(name):
        return table.multiple_base + _register_count(instruction.operands)
    if vector and code.cpu == "cortex-m55" and _MVE.search(name):
        return table.vector
    if name.startswith("ldrd"):
        return table.load + 1
    if name.startswith("strd"):
        return table.store + 1
    if _LOAD.match(name):
        return table.load_next if _follows_access(instruction, code) else table.load
    if _STORE.match(name):
        return table.store
    if name.startswith(("sdiv", "udiv")):
        return table.divide
    if _LONG.match(name):
        return table.long_multiply
    if _LONG_ACCUMULATE.match(name):
        return table.long_accumulate
    return table.mla if _MLA.match(name) else 1


def _follows_access(instruction: Instruction, code: Disassembly) -> bool:
    """Whether the instruction just before is a single load or store, so that this one is pipelined."""
    for size in (2, 4):
        before = code.instructions.get(instruction.address - size)
        if before is not None and before.size == size:
            return _LOAD.match(before.mnemonic) is not None or _STORE.match(before.mnemonic) is not None
    return False


def _register_count(operands: str) -> int:
    match = re.search(r"\{(.*)\}", operands)
    count = 0
    for item in (match[1] if match else "").split(","):
        span = re.fullmatch(r"\s*[a-z]+(\d+)-[a-z]+(\d+)\s*", item)
        count += int(span[2]) - int(span[1]) + 1 if span else 1
    return count
