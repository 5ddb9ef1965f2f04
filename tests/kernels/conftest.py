"""CMSIS-NN for the tests: the copy that ``CMSIS_NN_ROOT`` names, else the one inside a development dependency."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from projgen import cmsis_nn
from projgen.cmsis_nn import CmsisNN


@pytest.fixture(scope="session")
def root() -> Path:
    named = os.environ.get(cmsis_nn.ENVIRONMENT)
    if named:
        return Path(named)
    files = metadata.files("bakenn") or []
    header = next(f for f in files if f.as_posix().endswith("cmsis_nn/Include/arm_nnfunctions.h"))
    return Path(str(header.locate())).parent.parent


@pytest.fixture(scope="session")
def library(root: Path) -> CmsisNN:
    return cmsis_nn.load(root)


@pytest.fixture
def named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cmsis_nn.ENVIRONMENT, str(root))
