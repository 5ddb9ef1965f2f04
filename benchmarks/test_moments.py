"""Moments of 1e5 x 512 float32 on one thread against the bare GEMM, and their memory at 1e4, 1e5 and 1e6 rows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.speed import record
from projgen.pca.moments import Moments

ROWS, WIDTH = 100_000, 512
LIMIT = 1.3
ALLOWED_MIB = 64

MEMORY = """
import torch
from projgen.pca.moments import Moments
torch.set_num_threads(1)

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

warm = Moments({width})
warm.update(torch.randn(4096, {width}))
warm.finish()
x = torch.empty({rows}, {width}).normal_()
before = peak()
moments = Moments({width})
moments.update(x)
moments.finish()
print(peak() - before)
"""


@pytest.fixture(autouse=True)
def one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def gather(x: torch.Tensor) -> None:
    moments = Moments(x.shape[1])
    moments.update(x)
    moments.finish()


def test_moments_take_little_more_than_the_bare_product(benchmark: BenchmarkFixture) -> None:
    x = torch.empty(ROWS, WIDTH).normal_(generator=torch.Generator().manual_seed(0))
    bare, ours = [], []
    for _ in range(7):  # in turn, so that whatever else the machine does meets both
        bare.append(seconds(lambda: x.T @ x))
        ours.append(seconds(lambda: gather(x)))
    benchmark.pedantic(gather, (x,), rounds=3)
    ratio = min(ours) / min(bare)
    benchmark.extra_info.update(bare=min(bare), ratio=ratio)
    record("moments", {"rows": ROWS, "width": WIDTH, "bare": min(bare), "ours": min(ours), "ratio": ratio})
    assert ratio <= LIMIT


def test_memory_does_not_grow_with_the_rows() -> None:
    extra = {}
    for rows in (10_000, 100_000, 1_000_000):
        code = MEMORY.format(rows=rows, width=WIDTH)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        extra[rows] = float(done.stdout)
    record("memory", {str(rows): value for rows, value in extra.items()})
    assert max(extra.values()) <= ALLOWED_MIB
    assert max(extra.values()) - min(extra.values()) <= ALLOWED_MIB / 4
