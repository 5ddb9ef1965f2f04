"""Small float models with example inputs, shared by the tests of every front and back end."""

from __future__ import annotations

from tests.models.zoo import ZOO, Entry, build

__all__ = ["ZOO", "Entry", "build"]
