from __future__ import annotations

import pytest

import projgen
from projgen.budget import Budget
from projgen.errors import InputError, InputTypeError


def test_sizes() -> None:
    budget = Budget("cortex-m55", flash="64KiB", ram=16384, instructions="2M")
    assert budget.limits == {"flash": 65536.0, "ram": 16384.0, "instructions": 2e6}
    assert budget.machine.name == "cortex-m55"
    assert projgen.Budget is Budget
    assert Budget(flash="10 kB").limits == {"flash": 10_000.0}
    assert Budget(instructions=2e6).limits == {"instructions": 2e6}


def test_command_line() -> None:
    budget = Budget.parse("flash=64KiB, ram=16KiB,instructions=2e6,target=cortex-m0", "cortex-m4", "ram")
    assert budget.limits == {"flash": 65536.0, "ram": 16384.0, "instructions": 2e6}
    assert (budget.machine.name, budget.optimise) == ("cortex-m0", "ram")


@pytest.mark.parametrize(
    "text", ["flash", "speed=3", "flash=1KiB,flash=2KiB", "flash=64KiBs", "ram=-3", "ram=", "", "flash=0"]
)
def test_wrong_text(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        Budget.parse(text)


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="a budget without limits"):
        Budget()
    with pytest.raises(InputTypeError, match="budget flash is True"):
        Budget(flash=True)
    with pytest.raises(InputError, match="accuracy_drop without metric"):
        Budget(accuracy_drop=0.01)
    with pytest.raises(InputError, match="metric without accuracy_drop"):
        Budget(flash=1, metric=lambda _: 1.0)
    with pytest.raises(InputError, match="accuracy_drop is -1"):
        Budget(accuracy_drop=-1, metric=lambda _: 1.0)
    with pytest.raises(InputError, match="'quick'"):
        Budget(flash=1, optimise="quick")
    with pytest.raises(InputError, match="no-such-core"):
        Budget("no-such-core", flash=1)
