"""Every portable kernel computes exactly the integers of its operator, on every sample and on drawn shapes."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from projgen import resources
from tests.kernels import draws
from tests.kernels.rig import TRAPS, WARNINGS, Library, cases, families_without_kernels, kernels, samples

COMPILERS = (
    ("gcc", "-O0"),
    ("gcc", "-O1", *TRAPS["gcc"]),
    ("gcc", "-O3"),
    ("clang", "-Os"),
    ("clang", "-O1", *TRAPS["clang"]),
)


@pytest.mark.parametrize("command", COMPILERS, ids=" ".join)
def test_samples(command: tuple[str, ...], tmp_path: Path) -> None:
    library = Library(cases([*samples(), *draws.extra()]), tmp_path, command)
    assert len(library.cases) >= 120
    assert library.check() > 10_000


def test_samples_with_the_requantisation_of_small_cores(tmp_path: Path) -> None:
    library = Library(cases([*samples(), *draws.extra()]), tmp_path, ("gcc", "-O1", *TRAPS["gcc"], "-D__ARM_ARCH_6M__"))
    library.check(rows=False)


def test_product_from_halves_is_exact(tmp_path: Path) -> None:
    source, binary = Path(__file__).with_name("halves.c"), tmp_path / "halves.so"
    include = f"-I{resources.runtime_c() / 'include'}"
    flags = ["-std=c99", "-O2", *WARNINGS, *TRAPS["gcc"], "-fPIC", "-shared", include]
    subprocess.run(["gcc", *flags, str(source), "-o", str(binary)], check=True)
    compare = ctypes.CDLL(str(binary)).count_differences
    compare.argtypes, compare.restype = (ctypes.c_uint32, ctypes.c_int64), ctypes.c_int64
    assert compare(20261, 20_000_000) == 0


def test_every_operator_has_a_portable_kernel_for_every_sample() -> None:
    assert families_without_kernels() == []


def test_kernel_names_are_distinct() -> None:
    names = [k.name for k in kernels()]
    assert len(names) == len(set(names))


def test_drawn_graphs(tmp_path: Path) -> None:
    made = draws.collect(draws.ALL, 200)
    library = Library(cases(made), tmp_path, ("gcc", "-O1", *TRAPS["gcc"]))
    assert len(library.cases) >= 150
    library.check()
