"""Kernels chosen together: code that layers share is paid once."""

from __future__ import annotations

import subprocess
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projgen.driver import compile as compile_model
from projgen.ir.attrs import Lstm
from projgen.kernels.code_size import code_units
from projgen.kernels.record import KernelChoice
from projgen.ops.recurrent_samples import Case, sample
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel
from projgen.schedule import schedule, share
from projgen.targets import load_target
from tests.schedule.nets import depthwise_pointwise, residual

Units = dict[str, float]


def choice(name: str, instructions: float) -> KernelChoice:
    return KernelChoice(name, name, "", {}, (), (), instructions)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Units]:
    """Units of code by kernel name, to be filled by a test."""
    made: dict[str, Units] = {}
    monkeypatch.setattr(share, "code_units", lambda c: made[c.kernel])
    return made


def test_layers_meet_in_one_block_that_none_would_take_alone(sizes: dict[str, Units]) -> None:
    able = {n: [choice(f"own_{n}", 1000.0), choice("shared", 1010.0)] for n in "abc"}
    sizes |= {"shared": {"block": 900.0}} | {f"own_{n}": {f"own_{n}": 1000.0} for n in "abc"}
    first = {n: choices[0] for n, choices in able.items()}
    assert {c.kernel for c in share.pick(able, first, "speed").values()} == {"shared"}
    # One layer alone keeps its own, faster block.
    assert share.pick({"a": able["a"]}, {"a": able["a"][0]}, "speed")["a"].kernel == "own_a"


def test_layers_meet_in_one_block_beside_one_that_others_share(sizes: dict[str, Units]) -> None:
    """Those whose blocks serve several layers keep them; the others give up theirs."""
    able = {n: [choice(f"own_{n}", 1000.0), choice("any", 1010.0)] for n in "abc"}
    able |= {n: [choice("common", 1000.0), choice("any", 1300.0)] for n in "wxyz"}
    sizes |= {name: {name: 900.0} for name in ("any", "own_a", "own_b", "own_c")} | {"common": {"common": 9000.0}}
    found = share.pick(able, {n: choices[0] for n, choices in able.items()}, "speed")
    assert {n: c.kernel for n, c in found.items()} == {n: "common" if n in "wxyz" else "any" for n in able}


def test_code_that_is_worth_its_bytes_stays(sizes: dict[str, Units]) -> None:
    able = {"a": [choice("fast", 1e6), choice("small", 1.2e6)]}
    sizes |= {"fast": {"fast": 2000.0}, "small": {"small": 500.0}}
    assert share.pick(able, {"a": able["a"][0]}, "speed")["a"].kernel == "fast"
    assert share.pick(able, {"a": able["a"][0]}, "flash")["a"].kernel == "small"


def test_a_layer_that_runs_often_is_worth_more_code(sizes: dict[str, Units]) -> None:
    able = {"a": [choice("fast", 4e3), choice("small", 17e3)]}
    sizes |= {"fast": {"fast": 1200.0}, "small": {"small": 800.0}}
    first = {"a": able["a"][0]}
    assert share.pick(able, first, "flash")["a"].kernel == "small"
    assert share.pick(able, first, "flash", calls={"a": 16})["a"].kernel == "fast"


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_recurrent_layers_are_fast_though_flash_is_favoured(target: str) -> None:
    """The DSP block is little larger than portable C and 5 times as fast at every step."""
    made = sample(Case("joint", Lstm, 12, 35, ranks=(11, 11), spread=300.0, joint=True))
    plan = schedule(made.graph, load_target(target), CompileOptions(optimise="flash"))
    assert [c.choice.kernel for s in plan.segments for c in s.calls] == ["lstm_dsp"]


def test_a_limit_of_flash_takes_back_what_saves_least_a_byte(sizes: dict[str, Units]) -> None:
    """Each of three layers may be faster for more flash: 100, 25 and 40 instructions a byte."""
    able = {
        n: [choice(f"fast_{n}", 5e5 - rate * more), choice(f"plain_{n}", 5e5)]
        for n, rate, more in (("a", 100, 1000), ("b", 25, 2000), ("c", 40, 1500))
    }
    sizes |= {f"fast_{n}": {f"fast_{n}": 500.0 + more} for n, more in (("a", 1000), ("b", 2000), ("c", 1500))}
    sizes |= {f"plain_{n}": {f"plain_{n}": 500.0} for n in "abc"}
    first = {n: choices[0] for n, choices in able.items()}

    def kept(limit: float) -> str:
        chosen = share.pick(able, first, "speed", limit)
        assert share.flash(chosen) <= limit or all(c.kernel.startswith("plain") for c in chosen.values())
        return "".join(n for n, c in chosen.items() if c.kernel.startswith("fast"))

    assert kept(float("inf")) == "abc"
    full, least = share.flash(first), share.flash({n: choices[1] for n, choices in able.items()})
    assert kept(full - 1) == "ac"
    assert kept(least + share._MARGIN * 2400) == "a"  # no room for c beside it
    assert kept(least - 1) == ""


@settings(deadline=None, max_examples=60, derandomize=True)  # a ring of layers needs two units drawn at once
@given(
    st.lists(
        st.lists(st.tuples(st.integers(500, 2000), st.integers(0, 3)), min_size=1, max_size=3), min_size=1, max_size=4
    )
)
def test_never_worse_than_one_by_one(drawn: list[list[tuple[int, int]]]) -> None:
    """And the optimum, by trying all, in the drawn problems where one change at a time or one unit suffices."""
    sizes = {f"k{u}": {f"u{u}": 40.0 * (u + 1)} for u in range(4)}
    able = {f"n{i}": [choice(f"k{u}", float(c)) for c, u in choices] for i, choices in enumerate(drawn)}
    price = float(share.INSTRUCTIONS_A_BYTE)

    def cost(chosen: dict[str, KernelChoice]) -> float:
        units: Units = {}
        for c in chosen.values():
            units |= sizes[c.kernel]
        return sum(c.instructions for c in chosen.values()) + price * sum(units.values())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(share, "code_units", lambda c: sizes[c.kernel])
        first = {n: min(choices, key=lambda c: c.instructions) for n, choices in able.items()}
        found = cost(share.pick(able, first, "flash"))
    assert found <= cost(first)
    best = min(cost(dict(zip(able, combination, strict=True))) for combination in product(*able.values()))
    assert found <= 1.25 * best


@pytest.mark.qemu
@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m3", "cortex-m4", "cortex-m55"])
def test_predicted_code_size(target: str, tmp_path: Path) -> None:
    for graph in (residual(), depthwise_pointwise(12, 12, 16, 24)):
        planned = schedule(graph, load_target(target), CompileOptions("net"))
        units: Units = {}
        for segment in planned.segments:
            for call in segment.calls:
                units |= code_units(call.choice)
        image = compile_model(QuantizedModel(graph), target=target, out=tmp_path / graph.name, name="net").build()
        listed = subprocess.run(
            ["arm-none-eabi-nm", "-S", str(image.elf)], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        found = sum(
            int(words[1], 16)
            for words in map(str.split, listed)
            if len(words) == 4 and words[2] in "tT" and words[3].startswith("pg_")
        )
        predicted = sum(units.values())
        print(f"{graph.name} on {target}: {predicted:.0f} predicted, {found} bytes")
        assert 0.7 < predicted / found < 1.4
