"""The best known cost of each kernel family: what the fits say, and how far the emitted kernels are from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import projgen
from projgen import kernels
from projgen.cli.tables import print_measurement
from projgen.harness.measurement import Measurement
from projgen.ir.attrs import AvgPool2d, Conv2d, Gru, Lstm, MaxPool2d
from projgen.ir.types import DType, Quant
from projgen.kernels import figures
from projgen.ops import conv, conv_residual, elementwise, linear, pool
from projgen.ops.common import int8_type
from projgen.ops.record import Sample
from projgen.ops.recurrent_samples import Case, sample
from projgen.quant.model import QuantizedModel
from tests.kernels.predicted import predictions

SAME = (1, 1, 1, 1)
STRIDE2 = Conv2d((2, 2), (0, 1, 0, 1))
MOST = 1.3  # times the figure that an emitted kernel may execute, maps of 16x16x16 or more


def conv3(h: int, w: int, c: int, n: int, attrs: Conv2d | None = None) -> Sample:
    return conv.sample(f"conv_{h}_{w}_{c}_{n}", (h, w, c), n, (3, 3), attrs or Conv2d(padding=SAME))


def pointwise(h: int, w: int, c: int, n: int) -> Sample:
    return conv.sample(f"pointwise_{h}_{w}_{c}_{n}", (h, w, c), n, (1, 1), Conv2d())


def depthwise(h: int, w: int, c: int, stride: int = 1) -> Sample:
    attrs = Conv2d((stride, stride), SAME, groups=c)
    return conv.sample(f"depthwise_{h}_{w}_{c}_{stride}", (h, w, c), c, (3, 3), attrs)


MEASURED = [  # (layer, kernel, instructions of the hand-made kernel)
    (conv3(32, 32, 16, 16), "conv2d_dsp", 1_934_227),
    (conv3(16, 16, 32, 32), "conv2d_dsp", 1_875_400),
    (conv3(32, 32, 16, 16), "winograd1d_dsp", 1_189_860),
    (conv3(8, 8, 64, 64), "winograd1d_dsp", 1_035_000),
    (conv3(32, 32, 16, 16), "winograd2d_dsp", 974_407),
    (conv3(16, 16, 32, 32), "winograd2d_dsp_looped", 856_500),
    (conv3(32, 32, 16, 32, STRIDE2), "winograd_stride2_dsp", 703_000),
    (pointwise(25, 5, 64, 64), "pointwise_dsp", 427_862),
    (pointwise(6, 6, 128, 128), "pointwise_dsp", 452_900),
    (depthwise(25, 5, 64), "depthwise_dsp", 110_703),
    (linear.sample("fc_640_128", 640, 128), "linear_dsp_looped", 74_361),
    (sample(Case("lstm_12_100", Lstm, 12, 100)), "lstm_dsp", 44_063),
    (sample(Case("lstm_12_100_r", Lstm, 12, 100, ranks=(8, 7))), "lstm_dsp", 11_103),
    (sample(Case("gru_12_64", Gru, 12, 64)), "gru_dsp", 15_153),
    (conv3(32, 32, 16, 16), "conv2d_mve", 286_043),
    (conv3(8, 8, 64, 64), "conv2d_mve", 239_149),
    (conv3(32, 32, 16, 32, STRIDE2), "conv2d_mve", 153_625),
    (pointwise(25, 5, 64, 64), "pointwise_mve", 80_456),
    (depthwise(25, 5, 64), "depthwise_mve", 39_464),
    (linear.sample("fc_640_128", 640, 128), "linear_mve", 11_341),
    (sample(Case("lstm_12_100", Lstm, 12, 100)), "lstm_mve", 7_445),
    (sample(Case("lstm_12_100_r", Lstm, 12, 100, ranks=(8, 7))), "lstm_mve", 3_209),
]


@pytest.mark.parametrize(("made", "kernel", "counted"), MEASURED, ids=lambda v: getattr(v, "name", str(v)))
def test_fits_give_what_was_measured(made: Sample, kernel: str, counted: int) -> None:
    found = figures.figure(made.graph, made.graph.nodes[-1], kernel)
    assert found == pytest.approx(counted, rel=0.05)


def test_fits_are_of_kernels_that_exist() -> None:
    names = {k.name for k in kernels.registry()}
    assert set(figures._MAPS) <= names
    assert not any(name.endswith("_portable") for name in figures._MAPS)


def test_what_was_never_measured_has_none() -> None:
    for made, kernel in (
        (conv3(16, 16, 16, 16), "conv2d_portable"),
        (conv3(16, 16, 4, 16), "conv2d_dsp"),  # too few channels for the fit
        (conv3(16, 16, 16, 16, Conv2d((3, 3), SAME)), "conv2d_dsp"),
        (conv.sample("wide", (16, 16, 16), 16, (5, 5), Conv2d(padding=(2, 2, 2, 2))), "conv2d_mve"),
        (linear.sample("wide_x", 128, 16, x=DType.INT16), "linear_dsp"),
        (sample(Case("gru", Gru, 12, 64)), "gru_mve"),
        (sample(Case("gru_r", Gru, 12, 64, ranks=(8, 7))), "gru_dsp"),
    ):
        assert figures.figure(made.graph, made.graph.nodes[-1], kernel) is None


def test_a_residual_costs_two_instructions_an_output() -> None:
    plain = conv3(16, 16, 16, 16)
    summed = conv_residual.sample("sum", (16, 16, 16), 16, (3, 3), Conv2d(padding=SAME))
    for kernel in ("winograd2d", "conv2d"):
        alone = figures.figure(plain.graph, plain.graph.nodes[-1], f"{kernel}_dsp")
        both = figures.figure(summed.graph, summed.graph.nodes[-1], f"{kernel}_residual_dsp")
        assert alone is not None and both == alone + 2 * 16 * 16 * 16
    assert figures.figure(summed.graph, summed.graph.nodes[-1], "conv2d_residual_mve") is None


def layers() -> Iterator[Sample]:
    """Layers of 16x16x16 and more, odd sizes among them, and those without a map."""
    yield from (conv3(*s) for s in ((16, 16, 16, 16), (16, 16, 32, 32), (32, 32, 16, 16), (17, 19, 20, 24)))
    yield from (conv3(*s, STRIDE2) for s in ((32, 32, 16, 32), (16, 16, 32, 64)))
    yield conv_residual.sample("sum", (16, 16, 16), 16, (3, 3), Conv2d(padding=SAME))
    yield from (pointwise(*s) for s in ((16, 16, 16, 16), (25, 16, 64, 64), (16, 16, 64, 128), (17, 17, 30, 34)))
    yield from (depthwise(*s) for s in ((16, 16, 16), (24, 24, 32), (25, 17, 64), (32, 32, 16, 2)))
    yield conv.sample("stem", (32, 32, 3), 16, (3, 3), Conv2d(padding=SAME))
    yield from (linear.sample(f"fc_{k}_{n}", k, n) for k, n in ((128, 128), (640, 128), (128, 640)))
    types = (int8_type((16, 16, 16), 0.05, 3), int8_type((16, 16, 16), 0.04, -3))
    yield elementwise.binary_sample("add", "add", *types, Quant(0.08, 1))
    yield pool._max_sample("maximum", (16, 16, 32), MaxPool2d((2, 2), (2, 2)), Quant(0.05, 3))
    yield pool.avg_sample("mean", (16, 16, 32), AvgPool2d((16, 16), (1, 1)), Quant(0.05, 3), Quant(0.04, -3))
    yield from (sample(Case(f"lstm_{x}_{h}", Lstm, x, h)) for x, h in ((12, 100), (28, 20)))
    yield sample(Case("lstm_12_100_ranks", Lstm, 12, 100, ranks=(8, 7)))
    yield sample(Case("lstm_12_26_joint", Lstm, 12, 26, ranks=(14, 14), spread=300.0, joint=True))
    yield sample(Case("gru_12_64", Gru, 12, 64))


@pytest.mark.qemu
@pytest.mark.parametrize(("target", "known"), [("cortex-m4", 27), ("cortex-m55", 22)])
def test_emitted_kernels_are_near_their_figures(target: str, known: int) -> None:
    made = list(layers())
    compared = 0
    for one, found in zip(made, predictions(target, made), strict=True):
        best = figures.figure(one.graph, one.graph.nodes[-1], found.kernel)
        if best is not None:
            compared += 1
            assert found.counted <= MOST * best, (
                one.name,
                found.kernel,
                found.counted,
                best,
            )
    assert compared >= known


@pytest.mark.qemu
def test_bench_shows_the_distance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sequence: the figure is of a step, the measurement of all steps."""
    made = sample(Case("gated", Gru, 12, 64, steps=5))
    folder = projgen.compile(QuantizedModel(made.graph), target="cortex-m4", out=tmp_path / "gated")
    best = figures.figure(made.graph, made.graph.nodes[0], "gru_dsp")
    assert best is not None
    assert folder.manifest["layers"][0]["reference_instructions"] == round(best)
    measured = folder.measure()
    layer, control = measured.layers
    assert layer.reference == round(best * measured.steps) and layer.instructions is not None
    assert layer.over_reference == pytest.approx(layer.instructions / layer.reference, abs=1e-4)
    assert (control.reference, control.over_reference) == (None, None)
    assert Measurement.from_json(measured.to_json()) == measured
    print_measurement(measured)
    shown = capsys.readouterr().out
    assert all(heading in shown for heading in ("best", "times"))
    assert f"{layer.reference / layer.macs:.3f}" in shown and f"{layer.over_reference:.2f}" in shown
