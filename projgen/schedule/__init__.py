"""Lowering, scheduling and memory planning: a quantised graph becomes segments with exact addresses."""

from __future__ import annotations

from projgen.schedule.records import Schedule
from projgen.schedule.search import schedule

__all__ = ["Schedule", "schedule"]
