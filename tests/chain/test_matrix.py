"""Every operator sample and some nets on every target, with every compiler and flag: the simulator's bytes.

All samples share one image per build. The run prints samples x targets x flags (``tally``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from projgen import ops
from projgen.targets import list_targets
from tests.chain import tally
from tests.chain.nets import nets
from tests.chain.support import build, compare, operator_parts, operator_samples

SAMPLES = 200  # of operators, committed: they may only grow


@dataclass(frozen=True, slots=True)
class Build:
    """One build of all samples; ``of``: generated for that target, then built for this one."""

    target: str
    kernels: str = "fast"
    optimise: str = "-O2"
    compiler: str = "gcc"
    sanitize: bool = False
    lto: bool = False
    of: str = ""

    @property
    def label(self) -> str:
        words = [self.target, f"of {self.of}" if self.of else "", self.kernels, self.compiler, self.optimise]
        words += ["sanitized"] if self.sanitize else []
        words += ["lto"] if self.lto else []
        return " ".join(w for w in words if w)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "kernels": self.kernels,
            "generated_for": self.of,
            "optimise": self.optimise,
            "compiler": self.compiler,
            "sanitize": self.sanitize,
            "lto": self.lto,
        }


HOST = [
    *(Build("host", optimise=o) for o in ("-O0", "-Os", "-O2", "-O3")),
    Build("host", lto=True),
    *(Build("host", optimise="-O3", compiler="clang", of=of) for of in ("", "cortex-m4", "cortex-m55")),
    *(Build("host", optimise="-O1", compiler=c, sanitize=True) for c in ("gcc", "clang")),
    # The plain C beside the assembly blocks.
    *(Build("host", optimise="-O1", sanitize=True, of=of) for of in ("cortex-m4", "cortex-m55")),
]
EMULATED = [
    Build("cortex-m0", optimise="-Os"),
    Build("cortex-m3"),
    *(Build("cortex-m4", optimise=o) for o in ("-O0", "-Os", "-O2", "-O3")),
    Build("cortex-m4", lto=True),
    Build("cortex-m4", compiler="clang"),
    Build("cortex-m4", kernels="portable"),
    Build("cortex-m7"),
    Build("cortex-m33"),
    *(Build("cortex-m55", optimise=o) for o in ("-O0", "-O2", "-O3")),
    Build("cortex-m55", compiler="clang"),
    Build("cortex-m55", kernels="portable"),
    Build("cortex-a53"),
    Build("cortex-a53", kernels="portable"),
    Build("cortex-a7"),
    Build("cortex-a76"),
]


def check(one: Build, folder: Path, record_property: Any) -> None:
    parts = (*operator_parts(), *nets().values())
    compared = compare(build(parts, one.target, folder, **one.options), parts)
    assert compared.samples == len(operator_samples()) + len(nets())
    record_property(tally.PROPERTY, (compared.samples, compared.runs, compared.bytes))


@pytest.mark.slow
@pytest.mark.parametrize("one", HOST, ids=lambda b: b.label)
def test_on_this_machine(one: Build, tmp_path: Path, record_property: Any) -> None:
    check(one, tmp_path, record_property)


@pytest.mark.qemu
@pytest.mark.parametrize("one", EMULATED, ids=lambda b: b.label)
def test_emulated(one: Build, tmp_path: Path, record_property: Any) -> None:
    check(one, tmp_path, record_property)


def test_the_matrix_is_whole() -> None:
    """No sample, operator, target or flag has dropped out."""
    samples = operator_samples()
    assert len({s.name for s in samples}) == len(samples) >= SAMPLES
    exercised = {node.op for s in samples for node in s.graph.nodes}
    assert exercised == {name for name, op in ops.registry().items() if op.integer is not None}
    assert {b.target for b in HOST + EMULATED} >= {t.name for t in list_targets()}
    for target in ("host", "cortex-m4"):
        assert {b.optimise for b in HOST + EMULATED if b.target == target} >= {"-O0", "-Os", "-O2", "-O3"}
    assert len(HOST) + len(EMULATED) == tally.BUILDS
    assert (len(samples) + len(nets())) * tally.BUILDS >= tally.LEAST
