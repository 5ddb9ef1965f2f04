"""A compiler is done with a generated model in seconds: no file that makes it think."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import projgen
from projgen.harness.build import Options, compile_command
from projgen.harness.manifest import read_model
from projgen.quant.model import QuantizedModel
from projgen.targets import load_target

MLPERF = Path(os.environ.get("PROJGEN_DATA", "")) / "models" / "mlperf_tiny" / "onnx"
NETWORKS = {
    "pretrainedResnet": (3, 32, 32),
    "kws_ref_model_float32": (1, 49, 10),
    "vww_96_float": (3, 96, 96),
    "ad01_fp32": (640,),
}
MOST = 3.0  # seconds of the compiler's own time; none took more than 0.4


def compiler_seconds(command: Sequence[str]) -> float:
    """CPU time in user mode of a command and the programs it starts; other work of the machine does not count."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return usage.ru_utime


@cache
def quantised(name: str) -> QuantizedModel:
    x = np.random.default_rng(0).normal(size=(2, *NETWORKS[name])).astype(np.float32)
    return projgen.quantize(projgen.load_onnx(MLPERF / f"{name}.onnx"), x)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("name", NETWORKS)
def test_mlperf_tiny_models_compile_quickly(name: str, target: str, tmp_path: Path) -> None:
    if "PROJGEN_DATA" not in os.environ:
        pytest.skip("PROJGEN_DATA is not set")
    projgen.compile(quantised(name), target=target, out=tmp_path / "net", name="net")
    command = compile_command(read_model(tmp_path / "net"), load_target(target), tmp_path, Options())
    seconds = compiler_seconds(command)
    assert 0.0 < seconds <= MOST
    assert (tmp_path / "net.o").stat().st_size > 1000


def test_time_of_programs_that_a_command_starts_counts() -> None:
    work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    assert compiler_seconds(["sh", "-c", f"sh -c '{work}'; true"]) > 0.05
    assert compiler_seconds(["sleep", "0.3"]) < 0.1
