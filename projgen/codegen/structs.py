"""Member names of the kernels' parameter structs, read from their C text: initialisers then say what a number is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_STRUCT = re.compile(r"typedef struct \w*\s*\{(?P<body>[^{}]*)\}\s*(?P<name>\w+);")
_PLAIN = re.compile(r"(?P<type>\w+)\s+(?P<names>\w+(?:\s*,\s*\w+)*)")


@dataclass(frozen=True, slots=True)
class Declaration:
    """Members of one type that are declared together, such as a height and a width."""

    ctype: str
    names: tuple[str, ...]


Structs = Mapping[str, tuple[Declaration, ...]]


def read_structs(texts: Iterable[str]) -> Structs:
    """The structs that C texts define, by name. Pointers, arrays and const members have ``ctype`` ""."""
    found: dict[str, tuple[Declaration, ...]] = {}
    for text in texts:
        for match in _STRUCT.finditer(_COMMENT.sub("", text)):
            parts = (" ".join(part.split()) for part in match["body"].split(";"))
            found[match["name"]] = tuple(_declaration(part) for part in parts if part)
    return found


def member_lines(structs: Structs, struct: str, field: str, count: int) -> tuple[tuple[str, ...], ...]:
    """Names of the numbers of a struct's field, a line for what is declared together.

    Args:
        struct: the parameter struct. field: one of its fields. count: how many numbers the field is given.
    Returns:
        () where the field is no struct of plain numbers that the texts define, such as an array.
    Raises:
        ValueError: the field's struct has another number of members.
    """
    kind = next((d.ctype for d in structs.get(struct, ()) if field in d.names), "")
    lines = structs.get(kind, ())
    if not lines or not all(d.ctype.endswith("_t") for d in lines):
        return ()
    members = sum(len(d.names) for d in lines)
    if members != count:
        raise ValueError(f"{struct}.{field} is given {count} numbers; {kind} has {members}")
    return tuple(d.names for d in lines)


def _declaration(text: str) -> Declaration:
    plain = _PLAIN.fullmatch(text)
    return (
        Declaration("", ()) if plain is None else Declaration(plain["type"], tuple(re.findall(r"\w+", plain["names"])))
    )
