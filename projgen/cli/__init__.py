"""The command line: parse and print, nothing else."""

from __future__ import annotations

import sys
import traceback


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``projgen``. Exit codes: see ``projgen.errors``; 1 is a fault of projgen itself."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: list[str]) -> int:
    """Run one command and return its exit code; every expected error is one message on stderr."""
    import click

    from projgen.cli.app import app
    from projgen.errors import ProjgenError

    try:
        result = app(argv, standalone_mode=False)
    except click.exceptions.Abort:
        print("projgen: interrupted", file=sys.stderr)
        return 2
    except click.ClickException as error:
        error.show()
        return 2
    except ProjgenError as error:
        print(f"projgen: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("projgen: interrupted", file=sys.stderr)
        return 2
    except Exception as error:  # the boundary: anything unexpected is our bug, and says so
        traceback.print_exc()
        print(f"projgen: internal error ({type(error).__name__}); please report it with the lines above", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0
