"""Writing a compilation's folder: whole or not at all, and never over files that aren't ours."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from projgen.codegen.emit import BuildPlan
from projgen.errors import InputError

_WHERE: Final = "out (-o)"
_NAMED: Final = 8  # of the files in the way
_LATER: Final = {"build", "report.html"}  # what other commands add to the folder


def check_folder(out: Path) -> Path:
    """The absolute path of a folder that may be written.

    Raises:
        InputError: it holds files that no compilation wrote, or it can't be written.
    """
    folder = Path(os.path.abspath(out))
    if folder.is_dir():
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in _ours(folder))
        if foreign:
            shown = ", ".join(foreign[:_NAMED]) + (f" and {len(foreign) - _NAMED} more" * (len(foreign) > _NAMED))
            raise InputError(
                f"folder {out} is replaced as a whole, but holds files that projgen did not write: {shown}",
                "a new or empty folder, or one that projgen compile wrote; objects of builds of one's own belong in "
                "another folder, or in its build/, which is replaced too",
                _WHERE,
            )
    elif folder.exists() or folder.is_symlink():
        raise InputError(f"{out} exists and is no folder", "a new folder, or one that projgen compile wrote", _WHERE)
    above = next(p for p in folder.parents if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"folder {out} can't be written: {above} is not writable", "a writable folder", _WHERE)
    return folder


def _ours(folder: Path) -> set[str]:
    """Names that a compilation and later commands put there; none where no manifest lies in the folder."""
    for path in sorted(folder.glob("*.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(manifest, dict) and {"schema", "projgen", "files"} <= set(manifest):
            return {*map(str, manifest["files"]), *_LATER}
    return set()


def write_folder(plan: BuildPlan, folder: Path) -> None:
    """Write all files to a temporary folder beside ``folder`` and move it into place; an old one is replaced.

    Raises:
        InputError: the folder can't be written; nothing is left of the attempt.
    """
    made: list[Path] = []
    scratch: Path | None = None
    try:
        missing = [p for p in (folder.parent, *folder.parent.parents) if not p.exists()]
        for parent in reversed(missing):
            parent.mkdir()
            made.append(parent)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        fresh = scratch / "new"
        fresh.mkdir()
        for name, data in plan.files:
            (fresh / name).write_bytes(data)
        if folder.exists():
            folder.rename(scratch / "old")
        try:
            fresh.rename(folder)
        except OSError:
            if (scratch / "old").exists():
                (scratch / "old").rename(folder)
            raise
    except OSError as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        for parent in reversed(made):
            parent.rmdir()
        raise InputError(f"folder {folder} can't be written: {error.strerror}", "a writable folder", _WHERE) from error
    shutil.rmtree(scratch, ignore_errors=True)
