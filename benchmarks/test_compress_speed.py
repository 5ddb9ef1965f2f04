"""Compressing a random network of ResNet-18's size: CPU time beside that of the plain work in it."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import projgen
from benchmarks.resnet import Plain, images, plain_work, resnet
from benchmarks.speed import MEASURED, record
from projgen import progress
from projgen.pca.neuron_pca import NeuronPCA

LIMIT = 3.0
GOAL = 0.8

pytestmark = pytest.mark.filterwarnings("ignore:fewer observations than dimensions")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(progress, "now", time.process_time)  # stages in CPU seconds, as all the rest
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def network() -> nn.Module:
    return resnet()


@cache
def plain() -> Plain:
    return plain_work(network(), images())


def test_the_measured_search_says_where_its_time_goes() -> None:
    """Units, ranks and refit chosen by measured output error; first of all, so that the peak of memory is its own."""
    started = time.process_time()
    pca = NeuronPCA(network(), images(), verbosity="off")
    gathered = time.process_time()
    _, info = projgen.compress(network(), pca, data=images(), learnables_reduction_goal=GOAL, verbosity="off")
    found = {
        "gathering": gathered - started,
        "compressing": time.process_time() - gathered,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "parts": {**pca.seconds, **info.seconds},
    }
    record(MEASURED, found)
    assert sum(info.seconds.values()) >= 0.95 * found["compressing"]


def timed(*, curvature: bool, **options: Any) -> tuple[float, float, dict[str, float], dict[str, float]]:
    """CPU seconds of the statistics and of compress, and each one's parts."""
    started = time.process_time()
    pca = NeuronPCA(network(), images(), curvature=curvature, verbosity="off")
    gathered = time.process_time()
    _, info = projgen.compress(network(), pca, learnables_reduction_goal=GOAL, verbosity="off", **options)
    return gathered - started, time.process_time() - gathered, pca.seconds, info.seconds


def test_the_network_is_of_resnet_18s_size() -> None:
    assert 11.1e6 < sum(p.numel() for p in network().parameters()) < 11.3e6


def test_pca_takes_at_most_three_times_the_plain_work() -> None:
    need = plain().forward + plain().moments + plain().spectra
    gathering, compressing, *_ = timed(curvature=False, method="pca")
    ratio = (gathering + compressing) / need
    record("pca", {"plain": need, "gathering": gathering, "compressing": compressing, "ratio": ratio})
    assert ratio <= LIMIT


@pytest.mark.parametrize("prune", [False, "auto"])
def test_output_takes_at_most_three_times_the_plain_work(prune: bool | str) -> None:
    p = plain()
    need = p.forward + p.moments + p.patches + p.spectra
    gathering, compressing, of_pca, of_compress = timed(curvature=True, prune=prune)
    closed = gathering - of_pca["curvature"] + compressing - of_compress.get("selection", 0.0)
    found = {
        "plain": need,
        "backward": p.backward,
        "gathering": gathering,
        "compressing": compressing,
        "ratio": closed / need,
        "whole": (gathering + compressing) / (need + p.backward),
        "parts": {**of_pca, **of_compress},
    }
    record(f"output, prune={prune}", found)
    assert closed / need <= LIMIT
