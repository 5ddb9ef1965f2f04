"""A C program becomes files: Jinja templates with strict variables, and nothing but text out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import jinja2

from projgen.codegen.program import CLayer, CProgram
from projgen.codegen.reach import identifiers, reached
from projgen.kernels.render import environment


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """The files of a compilation: name and contents, in order of name."""

    files: tuple[tuple[str, bytes], ...]

    def __post_init__(self) -> None:
        names = [n for n, _ in self.files]
        if names != sorted(set(names)) or any(PurePosixPath(n).name != n for n in names):
            raise ValueError(f"file names {names} are not plain, sorted and distinct")

    def __getitem__(self, name: str) -> bytes:
        return dict(self.files)[name]

    @property
    def digest(self) -> str:
        """SHA-256 over all names and contents."""
        state = hashlib.sha256()
        for name, data in self.files:
            state.update(f"{name}\0{len(data)}\0".encode())
            state.update(data)
        return state.hexdigest()


def _templates() -> jinja2.Environment:
    """The environment of the files: a step of a program can be asked whether it is a layer."""
    made = environment()
    made.tests["layer"] = lambda step: isinstance(step, CLayer)
    return made


_FILES = {
    "{name}.h": "model.h.j2",
    "{name}.c": "model.c.j2",
    "{name}_weights.h": "weights.h.j2",
    "{name}_kernels.h": "kernels.h.j2",
    "{name}_test_vectors.h": "test_vectors.h.j2",
    "main.c": "main.c.j2",
    "CMakeLists.txt": "CMakeLists.txt.j2",
}

_KERNELS = "{name}_kernels.h"


def file_names(name: str) -> list[str]:
    """Names of the files that templates make for a model of this name."""
    return [pattern.format(name=name) for pattern in _FILES]


def _render(template: str, program: CProgram) -> str:
    return _templates().get_template(template).render(p=program)


def emit(program: CProgram, extra: dict[str, bytes]) -> BuildPlan:
    """All files of a program; of the kernels only what the model reaches.

    Args:
        extra: files made elsewhere (the manifest and the quantised model).
    """
    files = dict(extra)
    texts = {pattern: _render(template, program) for pattern, template in _FILES.items() if pattern != _KERNELS}
    sources, blocks = reached((program.sources, program.blocks), identifiers("".join(texts.values())))
    texts[_KERNELS] = _render(_FILES[_KERNELS], replace(program, sources=sources, blocks=blocks))
    files |= {pattern.format(name=program.name): text.encode() for pattern, text in texts.items()}
    return BuildPlan(tuple(sorted(files.items())))
