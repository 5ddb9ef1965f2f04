"""Style and type checks of the whole tree: ruff, mypy --strict, clang-format. Exits with the first failure's code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    c_files = sorted(str(p) for p in (ROOT / "runtime_c").rglob("*.[ch]"))
    commands = [
        [sys.executable, "-m", "ruff", "check", "."],
        [sys.executable, "-m", "ruff", "format", "--check", "."],
        [sys.executable, "-m", "mypy", "--strict", "projgen"],
        ["clang-format", "--dry-run", "--Werror", *c_files],
    ]
    for command in commands:
        print(
            "lint:",
            " ".join(Path(command[0]).name if i == 0 else part for i, part in enumerate(command[:4])),
            flush=True,
        )
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
