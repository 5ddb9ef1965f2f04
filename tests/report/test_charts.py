"""The charts of a report: names only where they can be read, any number of targets, same data same bytes."""

from __future__ import annotations

from projgen.report.charts import arena_chart
from projgen.report.records import ArenaBuffer

LARGE = ArenaBuffer("features", 0, 4000, 0, 9)
SHORT = ArenaBuffer("features.3.input_projector", 4000, 4000, 4, 4)
FLAT = ArenaBuffer("scores", 8000, 8, 5, 18)


def test_buffers_of_the_arena_are_named_where_the_name_fits() -> None:
    chart = arena_chart((LARGE, SHORT, FLAT))
    assert "features (4000 B)" in chart
    assert SHORT.name not in chart and FLAT.name not in chart
    assert chart == arena_chart((LARGE, SHORT, FLAT))


def test_an_arena_without_buffers_is_an_empty_chart() -> None:
    assert arena_chart(()).lstrip().startswith("<svg")
