"""Every error a user can cause: what was given, what is allowed, where to change it.

The command line maps each class to its exit code; anything that is not a ``ProjgenError`` is a fault of
projgen itself and exits 1.
"""

from __future__ import annotations

from typing import ClassVar


class ProjgenError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what was given, and why it can't be used.
        allowed: what would be accepted.
        where: the argument, option or file to change.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, allowed: str = "", where: str = "") -> None:
        self.what = what
        self.allowed = allowed
        self.where = where
        super().__init__(what, allowed, where)

    def __str__(self) -> str:
        parts = [self.what.rstrip(".") + "."]
        if self.allowed:
            parts.append(f"Allowed: {self.allowed.rstrip('.')}.")
        if self.where:
            parts.append(f"Change it in: {self.where.rstrip('.')}.")
        return " ".join(parts)


class InputError(ProjgenError, ValueError):
    """A value, file or data set that can't be used (exit 2)."""


class InputTypeError(ProjgenError, TypeError):
    """An argument of the wrong kind (exit 2)."""


class UnsupportedError(InputError):
    """An operator, layer or model feature projgen does not compile (exit 2)."""


class Int8LossError(InputError):
    """A model whose integers lose more against its floats than the limit allows (exit 2)."""


class FitError(ProjgenError):
    """The model does not fit the target (exit 3)."""

    exit_code = 3


class ToolMissingError(ProjgenError):
    """A compiler, emulator or other program is not installed (exit 4)."""

    exit_code = 4


class MismatchError(ProjgenError):
    """Emitted C and the integer simulator differ (exit 5): always a bug, never a tolerance."""

    exit_code = 5
