"""Of the kernels' text only what a model reaches: firmware that is certified should hold no dead functions.

The text is C as the runtime and the kernel templates write it: a declaration starts in the first column and ends with a
line that starts with a brace, or with a semicolon. A comment directly above a declaration belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache

Sources = tuple[tuple[str, str], ...]

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_CONDITION = re.compile(r"#if(n?def)?\b")
_BRANCH = re.compile(r"#(else|elif|endif)\b")
_DEFINE = re.compile(r"#define\s+(\w+)")
_NAMED = re.compile(r"(\w+)\s*[(\[]")


@dataclass(frozen=True, slots=True)
class _Item:
    """A declaration or macro, and the comment above it. ``name`` "" is kept always."""

    comment: str
    code: str
    name: str
    uses: frozenset[str]
    spaced: bool  # an empty line stands above it


@dataclass(frozen=True, slots=True)
class _Conditional:
    """``#if`` to ``#endif``: the directive above each branch, and what stands in it."""

    comment: str
    directives: tuple[str, ...]
    branches: tuple[tuple[_Item | _Conditional, ...], ...]
    end: str
    uses: frozenset[str]
    spaced: bool

    @property
    def is_guard(self) -> bool:
        """Whether it keeps a header from being read twice."""
        first = self.branches[0][0] if self.branches[0] else None
        return isinstance(first, _Item) and first.name != "" and self.directives[0].split()[1:] == [first.name]


_Node = _Item | _Conditional


def identifiers(text: str) -> frozenset[str]:
    """All identifiers of a C text outside its comments; those in strings too, for assembly may name functions."""
    return frozenset(_IDENTIFIER.findall(_COMMENT.sub(" ", text)))


def reached(parts: Iterable[Sources], roots: Iterable[str]) -> list[Sources]:
    """The parts (name and text of each source) without declarations that nothing reaches from the root identifiers.

    A source of which nothing is left goes. The order stays.
    """
    parsed = [[(name, _parse(text)) for name, text in part] for part in parts]
    items: dict[str, list[frozenset[str]]] = {}
    todo: list[str] = list(roots)
    for part in parsed:
        for _, nodes in part:
            for name, uses in _items(nodes):
                items.setdefault(name, []).append(uses)
                if not name:
                    todo += uses
    found: set[str] = {""}
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [use for uses in items.get(name, ()) for use in uses]
    kept = [[(name, _print(nodes, found)) for name, nodes in part] for part in parsed]
    return [tuple((name, text) for name, text in part if text) for part in kept]


def _items(nodes: Sequence[_Node], above: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    """Every item's name and all that it uses, the conditions around it included; a guard's own macro is no item."""
    for node in nodes:
        if isinstance(node, _Item):
            yield node.name, node.uses | above
            continue
        for branch in node.branches:
            yield from _items(branch[1:] if node.is_guard else branch, node.uses | above)


def _print(nodes: Sequence[_Node], wanted: Set[str]) -> str:
    """Nodes as text. A comment above several lines in a row stays with those that are left."""
    text, comment, gap = "", "", False
    for node in nodes:
        if node.spaced or node.comment:
            comment, gap = node.comment, node.spaced
        if isinstance(node, _Conditional):
            piece = _print_conditional(node, wanted)
        else:
            piece = node.code if node.name in wanted else ""
        if piece:
            text += ("\n" if gap and text else "") + comment + piece
            comment, gap = "", False
    return text


def _print_conditional(node: _Conditional, wanted: Set[str]) -> str:
    if node.is_guard:
        guard, *rest = node.branches[0]
        body = _print(rest, wanted)
        head = guard.code if isinstance(guard, _Item) else ""
        return f"{node.directives[0]}\n{head}\n{body}\n{node.end}\n" if body else ""
    bodies = [_print(branch, wanted) for branch in node.branches]
    count = max((i + 1 for i, body in enumerate(bodies) if body), default=0)
    text = "".join(f"{directive}\n{body}" for directive, body in zip(node.directives[:count], bodies, strict=False))
    return f"{text}{node.end}\n" if count else ""


@cache
def _parse(text: str) -> tuple[_Node, ...]:
    lines = text.splitlines()
    nodes, end = _nodes(lines, 0)
    if end != len(lines):
        raise ValueError(f"line {end + 1} of a kernel's text closes nothing: {lines[end]}")
    return nodes


def _nodes(lines: Sequence[str], at: int) -> tuple[tuple[_Node, ...], int]:
    """Nodes from line ``at`` to the end, or to the ``#else`` or ``#endif`` of the conditional around them."""
    found: list[_Node] = []
    while True:
        spaced = at < len(lines) and not lines[at]
        comment = ""
        while at < len(lines) and (not lines[at] or lines[at].startswith("/*")):
            end = at
            while lines[at] and "*/" not in lines[end]:
                end += 1
            comment += _joined(lines[at : end + 1]) if comment or lines[at] else ""
            at = end + 1
        if at == len(lines) or _BRANCH.match(lines[at]):
            return tuple(found), at
        if _CONDITION.match(lines[at]):
            node, at = _conditional(lines, at, comment, spaced)
            found.append(node)
        else:
            end = _end(lines, at)
            code = _joined(lines[at:end])
            found.append(_Item(comment, code, _name(code), identifiers(code), spaced))
            at = end


def _conditional(lines: Sequence[str], at: int, comment: str, spaced: bool) -> tuple[_Conditional, int]:
    directives: list[str] = []
    branches: list[tuple[_Node, ...]] = []
    while not lines[at].startswith("#endif"):
        directives.append(lines[at])
        nodes, at = _nodes(lines, at + 1)
        branches.append(nodes)
    uses = identifiers("\n".join(directives))
    return _Conditional(comment, tuple(directives), tuple(branches), lines[at], uses, spaced), at + 1


def _end(lines: Sequence[str], at: int) -> int:
    """The line after a declaration or directive."""
    if lines[at].startswith("#"):
        while lines[at].endswith("\\"):
            at += 1
        return at + 1
    depth = 0
    while True:
        code = _COMMENT.sub("", lines[at]).rstrip()
        depth += code.count("{") - code.count("}")
        at += 1
        if depth == 0 and code.endswith((";", "}")):
            return at


def _name(code: str) -> str:
    """What a declaration or macro names; "" for an include, and for what is checked when it is compiled."""
    if code.startswith("#"):
        macro = _DEFINE.match(code)
        return macro[1] if macro else ""
    plain = _COMMENT.sub("", code)
    if plain.startswith("typedef struct"):
        return str(_IDENTIFIER.findall(plain.rsplit("}", 1)[1])[0])
    if plain.startswith("typedef") and "(" not in plain:
        return "" if "[" in plain else str(_IDENTIFIER.findall(plain)[-1])
    named = _NAMED.search(plain)
    return "" if named is None or "pg_assert" in named[1] else named[1]


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
