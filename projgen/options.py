"""Options of a compilation, checked once where they enter."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

from projgen import cmsis_nn as library
from projgen.cmsis_nn import CmsisNN
from projgen.errors import InputError

Backend = Literal["c", "cmsis-nn"]
Kernels = Literal["fast", "portable"]
Optimise = Literal["speed", "ram", "flash"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")

# C99's keywords, what names other files of the folder, and CMake's own targets.
_RESERVED: Final = frozenset(
    {"auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern"}
    | {"float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed"}
    | {"sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while"}
    | {"main", "cmakelists", "build", "all", "clean", "edit_cache", "help", "install", "package", "test", "pg", "pgh"}
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
            "a letter, then letters, digits or _, at most 48 characters; no C keyword, nothing that starts with pg_",
            "name (--name)",
        )
    return name


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What the generated code depends on beside the quantised model and the target.

    ``cmsis_nn`` is the library of back end "cmsis-nn"; of it, only its release and the files it has count.
    """

    name: str = "model"
    backend: Backend = "c"
    kernels: Kernels = "fast"
    optimise: Optimise = "speed"
    cmsis_nn: CmsisNN | None = None

    @staticmethod
    def checked(
        name: str, backend: str, kernels: str, optimise: str, cmsis_nn: str | os.PathLike[str] | None = None
    ) -> CompileOptions:
        """The options, or an ``InputError`` that names the wrong one.

        Args:
            cmsis_nn: folder of the library for back end "cmsis-nn"; None: what the environment names.
        """
        checked = choice(backend, get_args(Backend), "backend")
        if checked == "c" and cmsis_nn is not None:
            raise InputError(
                "a CMSIS-NN folder is given, but the back end is c", "backend cmsis-nn", "backend (--backend)"
            )
        return CompileOptions(
            model_name(name),
            checked,
            choice(kernels, get_args(Kernels), "kernels"),
            choice(optimise, get_args(Optimise), "optimise"),
            library.load(cmsis_nn) if checked == "cmsis-nn" else None,
        )
