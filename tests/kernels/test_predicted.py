"""What a kernel says it will execute, beside what it executes."""

from __future__ import annotations

import pytest

from tests.kernels.predicted import SMALL, drawn, predictions

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_within_five_per_cent(target: str) -> None:
    found = predictions(target, list(drawn(1001)))
    assert len({p.kernel for p in found}) >= 8
    wrong = [p for p in found if abs(p.error) > 0.05 and abs(p.predicted - p.counted) > 0.05 * SMALL]
    assert not wrong
