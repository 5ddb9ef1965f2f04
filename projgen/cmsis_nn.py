"""A user's copy of CMSIS-NN: where it is, which release it is, and which of its sources a model needs.

Nothing of it is part of projgen. Generated code calls it, and is built against the copy that ``CMSIS_NN_ROOT`` or an
argument names. Every release is known by the revision in its ``arm_nnfunctions.h``; a revision that isn't is refused,
for byte equality has not been shown for it and sizes of scratch buffers differ from release to release.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from projgen.errors import InputError

ENVIRONMENT: Final = "CMSIS_NN_ROOT"
WHERE: Final = f"{ENVIRONMENT}, or cmsis_nn (--cmsis-nn)"

# The releases' own "single rounding" is ours; without it the library rounds twice (docs/generated-code.md).
DEFINES: Final = ("CMSIS_NN_USE_SINGLE_ROUNDING",)

# Revision of Include/arm_nnfunctions.h -> release.
RELEASES: Final[Mapping[str, tuple[int, int, int]]] = {
    "11.2.0": (4, 0, 0),
    "11.3.0": (4, 1, 0),
    "12.4.0": (5, 0, 0),
    "16.0.0": (6, 0, 0),
    "18.0.0": (7, 0, 0),
}

_BELOW: Final = (".", "cmsis_nn", "CMSIS-NN", "CMSIS/NN", "NN")
_CORE: Final = ("../cmsis_core", "../Core", "../CMSIS/Core", "../CMSIS_6/CMSIS/Core", "../CMSIS_5/CMSIS/Core", "Core")
_REVISION: Final = re.compile(r"\$Revision:\s*V?\.?\s*(\d+\.\d+\.\d+)")
_COMMENT: Final = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_DEFINITION: Final = re.compile(r"^(?!static\b|__STATIC)[A-Za-z_][\w \t\n*]*?\b(arm_\w+)\s*\([^;{}]*\)\s*\{", re.M)
_NAME: Final = re.compile(r"\barm_\w+")


@dataclass(frozen=True, slots=True)
class CmsisNN:
    """A usable copy.

    Attributes:
        root: the folder with ``Include/`` and ``Source/``.
        release: major, minor, patch.
        includes: folders of headers, CMSIS core's among them where the release needs it.
    """

    root: Path
    release: tuple[int, int, int]
    includes: tuple[Path, ...]

    @property
    def version(self) -> str:
        return ".".join(map(str, self.release))

    def has(self, function: str) -> bool:
        """Whether a function's source is there: copies that travel with other tools lack some."""
        return function in _definitions(self.root)

    def sources(self, functions: Iterable[str]) -> tuple[str, ...]:
        """Files, relative to the root, that define the functions and all that these may call."""
        defined, used = _definitions(self.root), _references(self.root)
        found: set[str] = set()
        waiting = list(functions)
        while waiting:
            file = defined.get(waiting.pop())
            if file is not None and file not in found:
                found.add(file)
                waiting.extend(used[file])
        return tuple(sorted(found))


def load(path: str | os.PathLike[str] | None = None) -> CmsisNN:
    """The copy in ``path``, or in the folder that the environment names.

    Args:
        path: the library's own folder, or one that holds it as ``cmsis_nn`` or ``CMSIS/NN``.

    Raises:
        InputError: no folder is named, it is no CMSIS-NN, or a release that can't be used.
    """
    named = os.fspath(path) if path is not None else os.environ.get(ENVIRONMENT, "")
    allowed = f"the folder of a CMSIS-NN of release {', '.join(_releases())}"
    if not named:
        raise InputError("backend cmsis-nn needs CMSIS-NN, and no folder is named", allowed, WHERE)
    given = Path(named)
    if not given.is_dir():
        raise InputError(f"CMSIS-NN folder {named} does not exist", allowed, WHERE)
    roots = (given / below for below in _BELOW)
    root = next((r.resolve() for r in roots if (r / "Include" / "arm_nnfunctions.h").is_file()), None)
    if root is None or not (root / "Source").is_dir():
        raise InputError(f"{named} holds no CMSIS-NN (Include/arm_nnfunctions.h and Source)", allowed, WHERE)
    header = (root / "Include" / "arm_nnfunctions.h").read_text(encoding="utf-8", errors="replace")
    match = _REVISION.search(header)
    revision = match[1] if match else "unknown"
    if revision not in RELEASES:
        raise InputError(
            f"{named} holds CMSIS-NN with revision {revision} of arm_nnfunctions.h, which belongs to no release that "
            "is known to give the simulator's bytes",
            f"release {', '.join(_releases())}",
            WHERE,
        )
    return CmsisNN(root, RELEASES[revision], _includes(root))


def _releases() -> list[str]:
    return [".".join(map(str, release)) for release in RELEASES.values()]


def _includes(root: Path) -> tuple[Path, ...]:
    own = root / "Include"
    if '"cmsis_compiler.h"' not in (own / "arm_nn_math_types.h").read_text(encoding="utf-8", errors="replace"):
        return (own,)
    if (own / "cmsis_compiler.h").is_file():
        return (own,)
    core = ((root / place / "Include").resolve() for place in _CORE)
    found = next((folder for folder in core if (folder / "cmsis_compiler.h").is_file()), None)
    if found is None:
        raise InputError(
            f"this CMSIS-NN in {root} includes cmsis_compiler.h of CMSIS core, which is not beside it",
            "CMSIS core in ../cmsis_core/Include or ../Core/Include, or release 4.1.0 and later, which need none",
            WHERE,
        )
    return (own, found)


@cache
def _texts(root: Path) -> Mapping[str, str]:
    """Every source without its comments, by path relative to the root."""
    files = sorted((root / "Source").rglob("*.c"))
    return {
        f.relative_to(root).as_posix(): _COMMENT.sub(" ", f.read_text(encoding="utf-8", errors="replace"))
        for f in files
    }


@cache
def _definitions(root: Path) -> Mapping[str, str]:
    """Function -> the file that defines it."""
    return {name: file for file, text in _texts(root).items() for name in _DEFINITION.findall(text)}


@cache
def _references(root: Path) -> Mapping[str, frozenset[str]]:
    """File -> library functions it names, directly or through the inline functions of the headers."""
    headers = "".join(
        _COMMENT.sub(" ", h.read_text(encoding="utf-8", errors="replace"))
        for h in (root / "Include" / "arm_nnsupportfunctions.h",)
        if h.is_file()
    )
    inline = frozenset(_inline_calls(headers))
    return {file: frozenset(_NAME.findall(text)) | inline for file, text in _texts(root).items()}


def _inline_calls(header: str) -> Iterable[str]:
    """Functions called inside bodies of a header; its prototypes are no calls."""
    for body in re.findall(r"\)\s*\n\{(.*?)\n\}", header, re.S):
        yield from _NAME.findall(body)
