"""Where templates/, runtime_c/ and targets/ are: beside the checkout, or inside an installed wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def root() -> Path:
    """Folder that holds ``templates/``, ``runtime_c/`` and ``targets/``."""
    package = Path(__file__).resolve().parent
    installed = package / "_resources"
    return installed if installed.is_dir() else package.parent


def templates() -> Path:
    """Folder of the Jinja templates."""
    return root() / "templates"


def runtime_c() -> Path:
    """Folder of the C runtime: ``include/``, ``src/`` (one kernel a file), ``boards/``, ``plugin/``."""
    return root() / "runtime_c"


def targets() -> Path:
    """Folder of the target files, one TOML each."""
    return root() / "targets"
