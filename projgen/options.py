"""Options of a compilation, checked once where they enter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

from projgen.errors import InputError

Backend = Literal["c"]
Kernels = Literal["fast", "portable"]
Optimise = Literal["speed", "ram", "flash"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")

# Keywords of C99 and C++ and the names the generated files themselves use.
_RESERVED: Final = frozenset(
    {"alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break", "case", "catch"}
    | {"char", "class", "compl", "concept", "const", "const_cast", "consteval", "constexpr", "constinit", "continue"}
    | {"decltype", "default", "delete", "do", "double", "dynamic_cast", "else", "enum", "explicit", "export"}
    | {"extern", "false", "float", "for", "friend", "goto", "if", "inline", "int", "long", "mutable", "namespace"}
    | {"new", "noexcept", "not", "not_eq", "nullptr", "operator", "or", "or_eq", "private", "protected", "public"}
    | {"register", "reinterpret_cast", "requires", "restrict", "return", "short", "signed", "sizeof", "static"}
    | {"static_assert", "static_cast", "struct", "switch", "template", "this", "thread_local", "throw", "true", "try"}
    | {"typedef", "typeid", "typename", "union", "unsigned", "using", "virtual", "void", "volatile", "wchar_t"}
    | {"while", "xor", "xor_eq", "main", "pg", "pgh", "build", "cmakelists"}
)

T = TypeVar("T", bound=str)


def choice(value: str, allowed: tuple[T, ...], what: str) -> T:
    """``value`` where it is one of ``allowed``.

    Raises:
        InputError: it is not.
    """
    if value not in allowed:
        raise InputError(f"{what} is {value!r}", ", ".join(allowed), f"{what} (--{what})")
    return next(a for a in allowed if a == value)


def model_name(name: str) -> str:
    """``name`` where it can be the prefix of files and C names.

    Raises:
        InputError: it is no C identifier, a keyword, or longer than 48 characters.
    """
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED or name.startswith(("pg_", "pgh_")):
        raise InputError(
            f"name {name!r} can't prefix C names and files",
            "a letter, then letters, digits or _, at most 48 characters, no keyword, not starting with pg_",
            "name (--name)",
        )
    return name


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the generated code depends on beside the quantised model and the target."""

    name: str = "model"
    backend: Backend = "c"
    kernels: Kernels = "fast"
    optimise: Optimise = "speed"

    @staticmethod
    def checked(name: str, backend: str, kernels: str, optimise: str) -> CompileOptions:
        """The options, or an ``InputError`` that names the wrong one."""
        return CompileOptions(
            model_name(name),
            choice(backend, get_args(Backend), "backend"),
            choice(kernels, get_args(Kernels), "kernels"),
            choice(optimise, get_args(Optimise), "optimise"),
        )
