"""The stages of a compilation as text files, one a stage in the order of their making: what ``--dump-ir`` writes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from projgen.errors import InputError
from projgen.ir.graph import Graph
from projgen.ir.printer import print_graph
from projgen.schedule.printer import print_schedule
from projgen.schedule.records import Schedule

_OURS: Final = re.compile(r"\d{2}-[a-z_]+\.txt")
_WHERE: Final = "dump_ir (--dump-ir)"


class StageFolder:
    """Writes ``00-import.txt``, ``01-remove_dead.txt``, ...: each when its stage is reached, so that those before a
    fault are there. Neighbours differ by what one pass did. The same model gives the same files.
    """

    def __init__(self, folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
        """Make the folder, or empty one that an earlier compilation filled.

        Args:
            folder: where to write.
            out: the folder of the compilation, which is replaced whole: the stages can't lie in it.
        Raises:
            InputError: the folder holds other files, is no folder, or can't be written.
        """
        self._folder = Path(os.path.abspath(folder))
        target = Path(os.path.abspath(out))
        if self._folder == target or target in self._folder.parents:
            raise InputError(f"{folder} lies in the folder that the C goes to", "a folder outside it", _WHERE)
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"{folder} exists and is no folder", "a new folder", _WHERE)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            old = sorted(self._folder.iterdir())
            foreign = [p.name for p in old if not _OURS.fullmatch(p.name)]
            if foreign:
                shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
                raise InputError(
                    f"folder {folder} holds files that are no dumped stages ({shown})", "a new or empty folder", _WHERE
                )
            for path in old:
                path.unlink()
        except OSError as error:
            raise _unwritable(folder, error) from error
        self._count = 0

    def graph(self, stage: str, graph: Graph) -> None:
        """The graph after a pass or stage of that name."""
        self._write(stage, print_graph(graph))

    def schedule(self, schedule: Schedule) -> None:
        """The segments, kernels and addresses at the end."""
        self._write("schedule", print_schedule(schedule))

    def _write(self, stage: str, text: str) -> None:
        path = self._folder / f"{self._count:02d}-{stage}.txt"
        self._count += 1
        try:
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise _unwritable(path, error) from error


def _unwritable(path: str | os.PathLike[str], error: OSError) -> InputError:
    return InputError(f"{path} can't be written: {error.strerror}", "a writable folder", _WHERE)
