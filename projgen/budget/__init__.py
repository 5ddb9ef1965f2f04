"""What a target allows, what a model needs of it before any compiler runs, and compression down to that."""

from __future__ import annotations

from projgen.budget.record import Budget

__all__ = ["Budget"]
