"""The campaign's rounds are new, repeatable, and compared whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from projgen.errors import FitError
from tests.chain import campaign
from tests.chain.nets import nets
from tests.chain.support import operator_samples
from tests.chain.test_drawn_nets import Drawn


def test_a_round_follows_from_its_number() -> None:
    first, again, other = (campaign._drawn(number) for number in (3, 3, 4))
    assert first == again != other
    assert len(first) >= campaign.NETS // 2 and all(isinstance(one, Drawn) for one in first)
    sample = operator_samples()[0]
    a, b, c = (campaign._fresh(sample, number).inputs[0] for number in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert a.shape == c.shape and not np.array_equal(a, c)
    assert len(a) == campaign.VECTORS


def test_every_target_takes_part() -> None:
    named = {tier.target for tier in campaign.tiers()}
    assert named >= {"host", "cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"}
    assert named >= {"cortex-a7", "cortex-a53"}
    assert {tier.target for tier in campaign.tiers(["cortex-m4"])} == {"cortex-m4"}


@pytest.mark.qemu
def test_a_round_on_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "VECTORS", 3)
    monkeypatch.setattr(campaign, "NETS", 2)
    rounds, inferences, size = campaign.run(campaign.Tier("cortex-m4"), 1, 11, tmp_path)
    assert rounds == 1
    assert inferences >= 3 * len(nets()) and size > 10_000
    monkeypatch.setattr(campaign, "stack_bound", lambda *_: 4)
    with pytest.raises(AssertionError, match="of stack, bound 4 B"):
        campaign.run(campaign.Tier("cortex-m4"), 1, 11, tmp_path / "again")


def test_parts_that_overflow_a_board_are_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(parts: list[int], target: str, folder: Path, **_: object) -> str:
        if sum(parts) > 7:
            raise FitError(f"{parts} overflows {target}", "less", "the model")
        return f"image of {parts} in {folder.name}"

    monkeypatch.setattr(campaign, "build", build)
    tier = campaign.Tier("cortex-m0")
    found = list(campaign.images(tier, [1, 2, 3, 4, 5], tmp_path))  # type: ignore[list-item]
    assert [parts for _, parts in found] == [[1, 5], [3], [2, 4]]
    assert len({image for image, _ in found}) == 3
    with pytest.raises(FitError, match=r"\[8\] overflows cortex-m0"):
        list(campaign.images(tier, [1, 8, 2], tmp_path))  # type: ignore[list-item]


def test_the_page_keeps_other_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([(3, 5040, 1_389_890), (1, 40, 1000), (4, 6000, 1_500_000)])
    monkeypatch.setattr(campaign, "run", lambda *_: next(counts))
    page = tmp_path / "campaign.md"
    for target in ("cortex-m7", "cortex-m0", "cortex-m7"):
        assert campaign.main(["--target", target, "--page", str(page), "--seed", "9"]) == 0
    assert page.read_text().splitlines()[-3:] == [
        "| --- | ---: | ---: | ---: | ---: |",
        "| cortex-m0 speed | 1,000 | 40 | 1 | 9 |",
        "| cortex-m7 speed | 1,500,000 | 6,000 | 4 | 9 |",
    ]


def test_an_unknown_target_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        campaign.main(["--target", "cortex-m99"])
    assert "cortex-m4" in capsys.readouterr().err
