"""Writes docs/networks.md: the public MLPerf Tiny networks, quantised by us, whole. ``make bench`` runs it.

The float ONNX files come from the folder that PROJGEN_DATA names. Instructions do not depend on the calibration data
but through the channels it leaves alive, so fixed random inputs do.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import projgen
from benchmarks.test_recurrent import table
from projgen.errors import FitError
from projgen.harness.measurement import Measurement
from projgen.importers.spec import input_specs
from projgen.quant.model import QuantizedModel

PAGE = Path(__file__).resolve().parents[1] / "docs" / "networks.md"
FOLDER = Path(os.environ.get("PROJGEN_DATA", "")) / "models" / "mlperf_tiny" / "onnx"
NETWORKS: dict[
    str, tuple[str, int, int, int]
] = {  # title: file, and what CMSIS-NN called directly executes on Cortex-M3, M4 and M55
    "image classification, ResNet8": ("pretrainedResnet", 41_800_000, 29_860_000, 4_800_000),
    "keyword spotting, DS-CNN": ("kws_ref_model_float32", 10_500_000, 7_690_000, 1_780_000),
    "visual wake words, MobileNetV1": ("vww_96_float", 32_000_000, 24_090_000, 6_420_000),
    "anomaly detection, autoencoder": ("ad01_fp32", 956_000, 576_000, 147_000),
}
PEERS = ("cortex-m3", "cortex-m4", "cortex-m55")
BUILDS = (  # target, and objectives or the plain C of every core
    ("cortex-m0", "speed"), ("cortex-m0", "portable"),
    ("cortex-m3", "speed"), ("cortex-m3", "portable"),
    ("cortex-m4", "speed"), ("cortex-m4", "ram"), ("cortex-m4", "flash"),
    ("cortex-m7", "speed"),
    ("cortex-m33", "speed"),
    ("cortex-m55", "speed"),
    ("cortex-a7", "speed"), ("cortex-a7", "portable"),
    ("cortex-a53", "speed"), ("cortex-a53", "portable"),
    ("cortex-a76", "speed"), ("cortex-a76", "portable"),
)  # fmt: skip
MEMORY = ("weights B", "code B", "arena B", "stack B")

INTRODUCTION = """\
# Networks

Written by `make bench`, with `PROJGEN_DATA` naming a folder that holds `models/mlperf_tiny/onnx`. The public MLPerf
Tiny float networks, quantised to int8 by projgen, not projected, softmax included; executed instructions per inference,
counted exactly on the emulated core; every output compared with the simulator's. `arena` leaves the input out. Compiled
with `arm-none-eabi-gcc -O2`. `CMSIS-NN` is what the library executes for the same network when it is called directly,
without a runtime: figures measured earlier on the same emulated cores with the same compiler. `portable` is the plain C
that every core runs (`--kernels portable`), compiled for the same core. Cycles are estimates from the same counts and a
table per core without wait states (`projgen/harness/cycles.py`); they rank kernels otherwise than instructions do where
an instruction is slow, such as the 64-bit products of the M3.
"""

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="needs PROJGEN_DATA with models/mlperf_tiny/onnx"),
]


def quantised(file: str) -> QuantizedModel:
    model = projgen.load_onnx(FOLDER / f"{file}.onnx")
    specs = input_specs(model)
    assert specs is not None
    shape = tuple(size for size in specs[0].shape if size is not None)
    return projgen.quantize(model, np.random.default_rng(0).normal(size=(16, *shape)).astype(np.float32))


def measured(q: QuantizedModel, target: str, build: str, folder: Path) -> Measurement:
    kernels, optimise = ("portable", "speed") if build == "portable" else ("fast", build)
    out = folder / f"{target}_{build}"
    artifact = projgen.compile(q, target=target, out=out, kernels=kernels, optimise=optimise, name="net")
    shape = (
        artifact.quantized.graph.inputs[0].to_user(np.zeros((1, *q.graph.type(q.graph.inputs[0].value).shape))).shape
    )
    x = np.random.default_rng(1).normal(size=(2, *shape[1:])).astype(np.float32)
    artifact.verify(x)
    return artifact.measure(x)


def row(m: Measurement, build: str, peer: int | None) -> list[object]:
    return [
        f"{m.target}, {build}",
        f"{m.instructions or 0:,}",
        f"{(m.instructions or 0) / m.macs:.3f}",
        f"{peer:,}" if peer else "",
        f"{peer / m.instructions:.1f}" if peer and m.instructions else "",
        f"{m.estimated_cycles:,}" if m.estimated_cycles else "",
        f"{m.weight_bytes:,}",
        f"{m.code_bytes:,}",
        f"{m.arena_bytes:,}",
        f"{m.stack_bytes:,}",
    ]


def test_page(tmp_path: Path) -> None:
    head = ("target", "instructions", "per MAC", "CMSIS-NN", "times fewer", "est. cycles", *MEMORY)
    lines = [INTRODUCTION]
    for place, (title, (file, *counts)) in enumerate(NETWORKS.items()):
        q = quantised(file)
        peers = dict(zip(PEERS, counts, strict=True))
        rows, layers = [], None
        for target, build in BUILDS:
            try:
                m = measured(q, target, build, tmp_path / str(place))
            except FitError:
                rows.append([f"{target}, {build}", "does not fit its board"] + [""] * (len(head) - 2))
                continue
            assert m.instructions is not None
            peer = None if build == "portable" else peers.get(target)
            if peer:
                assert m.instructions < peer
            rows.append(row(m, build, peer))
            if (target, build) == ("cortex-m4", "speed"):
                layers = m.layers
        removed = sum(entry.removed for entry in q.notes.removed_channels)
        assert layers is not None
        lines += [
            f"## {title}\n",
            f"{sum(layer.macs for layer in layers):,} MAC, {removed} constant channels removed.\n",
            *table(head, rows),
            "\nLayers on Cortex-M4, speed:\n",
            *table(
                ("layer", "kernel", "MAC", "instructions", "per MAC"),
                [
                    (
                        layer.name,
                        layer.kernel,
                        f"{layer.macs:,}",
                        f"{layer.instructions or 0:,}",
                        f"{(layer.instructions or 0) / layer.macs:.3f}" if layer.macs else "",
                    )
                    for layer in layers
                ],
            ),
            "",
        ]
    PAGE.write_text("\n".join(lines), encoding="utf-8")
