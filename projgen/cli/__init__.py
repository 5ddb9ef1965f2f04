"""The command line: parse and print, nothing else."""

from __future__ import annotations

import sys
import traceback
import warnings


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``projgen``. Exit codes: see ``projgen.errors``; 1 is a fault of projgen itself."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command and return its exit code; every expected error is one message on stderr."""
    from projgen.cli.app import app
    from projgen.errors import ProjgenError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.showwarning = _show_warning
            app(argv)
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else 0
    except ProjgenError as error:
        print(f"projgen: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # the boundary: anything unexpected is our bug, and says so
        traceback.print_exc()
        print(
            f"projgen: internal error ({type(error).__name__}); please report it with the lines above", file=sys.stderr
        )
        return 1
    return 0


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line, without the place in our code that gave it."""
    print(f"projgen: warning: {message}", file=sys.stderr)
