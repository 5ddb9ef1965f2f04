"""The CMSIS-NN back end: its rounding is ours, its scratch sizes are exact, its bytes are the simulator's.

``conftest.py`` tells where the library comes from; ``test_cmsis_nn_releases.py`` has the folders that are refused.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import projgen
from projgen import cmsis_nn, resources
from projgen.cmsis_nn import CmsisNN
from projgen.codegen.output import write_folder
from projgen.driver import generate
from projgen.harness.build import Image, build_image
from projgen.harness.records import Record
from projgen.harness.run import execute
from projgen.ir.attrs import Conv2d
from projgen.ir.types import DType, Quant
from projgen.kernels import cmsis_nn as kernels
from projgen.kernels.record import KernelChoice
from projgen.ops import conv, elementwise, linear, registry
from projgen.ops.common import int8_type
from projgen.ops.record import Sample
from projgen.options import CompileOptions
from projgen.quant.model import QuantizedModel
from projgen.schedule import schedule
from projgen.schedule.choose import candidates
from projgen.targets import load_target
from tests.kernels import draws
from tests.kernels.images import Merged, compare, merged
from tests.kernels.rig import WARNINGS

TARGETS = ("cortex-m4", "cortex-m55")
LIMIT = 1 << 31


def options(name: str, root: Path, optimise: str = "speed") -> CompileOptions:
    return CompileOptions.checked(name, "cmsis-nn", "portable", optimise, root)


def chosen(sample: Sample, library: CmsisNN, target: str = "cortex-m4") -> KernelChoice:
    """The only candidate where the library has one, else the first of ours."""
    return candidates(sample.graph, sample.graph.nodes[0], load_target(target), "fast", library)[0]


# --- the rounding ----------------------------------------------------------------------------------------------------


def ours(acc: int, m: int, p: int) -> int:
    return ((acc << p) * m + LIMIT) >> 32


def scalar_form(acc: int, multiplier: int, shift: int) -> int:
    """As the library's C: the intermediate is 32 bits wide."""
    doubled = (acc * multiplier) >> (30 - shift)
    assert -LIMIT <= doubled < LIMIT - 1
    return (doubled + 1) >> 1


def vector_form(acc: int, multiplier: int, shift: int) -> int:
    """As its MVE intrinsics: VSHL, VQDMULH and VRSHL on 32 bits."""
    right = min(-1, shift)
    shifted = acc << (shift - right)
    assert -LIMIT <= shifted < LIMIT
    high = (2 * shifted * multiplier) >> 32
    return (high + (1 << (-right - 1))) >> -right


@st.composite
def requantisations(draw: st.DrawFn) -> tuple[int, int, int]:
    p = draw(st.integers(0, 20))
    m = draw(st.one_of(st.integers(0, (LIMIT - 4) // 4), st.sampled_from([0, 1, 1 << 28, (LIMIT - 4) // 4]))) * 4
    top = (LIMIT - 1) >> p
    acc = draw(st.one_of(st.integers(-top, top), st.sampled_from([-top, -1, 0, 1, top])))
    return acc, m, p


@settings(deadline=None, max_examples=2000)
@given(requantisations())
@example((LIMIT - 1, LIMIT - 4, 0))
@example((1 - LIMIT, LIMIT - 4, 0))
@example((LIMIT - 1 >> 9, LIMIT - 4, 9))
def test_both_forms_round_as_ours(case: tuple[int, int, int]) -> None:
    acc, m, p = case
    multiplier, shift = kernels.normalised(m, p)
    assert multiplier == 0 or 1 << 30 <= multiplier < LIMIT
    assert scalar_form(acc, multiplier, shift) == vector_form(acc, multiplier, shift) == ours(acc, m, p)


def test_the_librarys_own_function_rounds_as_ours(library: CmsisNN, tmp_path: Path) -> None:
    source = tmp_path / "r.c"
    source.write_text(
        "#include <stdint.h>\n#include <arm_nnsupportfunctions.h>\n"
        "void r(const int32_t *a, const int32_t *m, const int32_t *s, int32_t *y, int n)"
        "{ for (int i = 0; i < n; ++i) y[i] = arm_nn_requantize(a[i], m[i], s[i]); }\n"
    )
    flags = [f"-D{name}" for name in cmsis_nn.DEFINES] + host_flags(library)
    subprocess.run(
        ["gcc", "-O1", "-w", "-shared", "-fPIC", *flags, str(source), "-o", str(tmp_path / "r.so")], check=True
    )
    rng = np.random.default_rng(1)
    count = 1_000_000
    p = rng.integers(0, 13, count)
    m = (rng.integers(1, LIMIT >> 2, count) >> rng.integers(0, 28, count)) * 4
    top = (LIMIT - 1) >> p
    acc = rng.integers(-top, top + 1) >> rng.integers(0, 28, count)
    acc[:64], acc[64:128] = top[:64], -top[64:128]
    tie = np.minimum((LIMIT >> p[128:100_128]) // np.maximum(m[128:100_128], 1), top[128:100_128])
    acc[128:100_128] = tie  # products about one half
    k = np.where(m > 0, 30 - np.floor(np.log2(np.maximum(m, 1))).astype(np.int64), 0)
    y = np.zeros(count, np.int32)
    tables = [np.ascontiguousarray(v, np.int32) for v in (acc, m << k, p - 1 - k)]
    pointer = ctypes.POINTER(ctypes.c_int32)
    run = ctypes.CDLL(str(tmp_path / "r.so")).r
    run(*(t.ctypes.data_as(pointer) for t in (*tables, y)), ctypes.c_int(count))
    np.testing.assert_array_equal(y, ((acc << p) * m + LIMIT) >> 32)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 15), st.lists(st.integers(0, (LIMIT - 4) // 4), min_size=1, max_size=9), st.data())
def test_tables_hold_the_constants(p: int, quarters: list[int], data: st.DataObject) -> None:
    m = np.array([4 * q for q in quarters], np.int32)
    layout = kernels.Normalised("m", p)
    np.testing.assert_array_equal(layout.unpack(layout.pack({"m": m}))["m"], m)
    taken = tuple(data.draw(st.integers(-(1 << 24), 1 << 24)) for _ in quarters)
    b = np.array([data.draw(st.integers(-(1 << 29), 1 << 29)) for _ in quarters], np.int32)
    bias = kernels.Unfolded("b", taken)
    np.testing.assert_array_equal(bias.unpack(bias.pack({"b": b}))["b"], b)


# --- the bytes -------------------------------------------------------------------------------------------------------


def host_flags(library: CmsisNN) -> list[str]:
    return ["-D__GNUC_PYTHON__", "-D__RESTRICT=__restrict", *(f"-isystem{folder}" for folder in library.includes)]


def wide_conv(seed: int) -> Sample:
    """Channels beyond the library's unrolled loops, one row, strides, asymmetric padding."""
    rng = np.random.default_rng(seed)
    depthwise = bool(rng.integers(2))
    channels = int(rng.integers(2, 70))
    kernel = [(3, 3), (3, 3), (1, 3), (1, 5), (3, 1), (1, 1), (2, 4)][rng.integers(7)]
    height = int(rng.choice([1, 4, 5])) if kernel[0] == 1 else int(rng.integers(4, 7))
    pads = tuple(int(rng.integers(0, (k - 1) // 2 + 2)) if k > 1 else 0 for k in kernel for _ in range(2))
    stride = (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
    dilation = (1, int(rng.integers(1, 3))) if height == 1 else (1, 1)
    x_zero, y_zero = (int(z) for z in rng.integers(-128, 128, 2))
    return conv.sample(
        f"wide_{seed}",
        (height, int(rng.integers(9, 13)), channels),
        channels * int(rng.choice([1, 1, 2, 4])) if depthwise else int(rng.integers(1, 20)),
        kernel,
        Conv2d(stride, pads, dilation, channels if depthwise else 1),  # type: ignore[arg-type]
        x_zero=x_zero,
        y_zero=y_zero,
        saturating=seed % 3 == 0,
    )


def made(library: CmsisNN, target: str) -> list[Sample]:
    """Every sample and drawn graph of which the library computes a node."""
    parts = [s for op in ("conv2d", "linear", "mul", "max_pool2d") for s in registry()[op].samples()]
    parts += [wide_conv(seed) for seed in range(40)]
    drawn = [(draws.convs(), 25), (draws.depthwise(), 20), (draws.linears(90, 9), 20)]
    drawn += [(draws.pools(), 15), (draws.sums_and_products(), 15)]
    for strategy, count in drawn:
        parts += draws.collect(strategy, count)
    machine = load_target(target)
    every = [s for s in parts if len(s.graph.nodes) == 1]
    return [s for s in every if candidates(s.graph, s.graph.nodes[0], machine, "fast", library)[0].library_functions]


def build(models: Sequence[Merged], target: str, root: Path, folder: Path, **how: Any) -> Image:
    machine = load_target(target)
    folders = [folder / f"m{i}" for i in range(len(models))]
    for i, model in enumerate(models):
        write_folder(generate(QuantizedModel(model.graph), machine, options(f"m{i}", root)), folders[i])
    return build_image(folders, machine, folder / "image", cmsis_nn=root, **how)


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("target", "how"),
    [("cortex-m0", {}), *((t, {}) for t in TARGETS), ("cortex-m4", {"compiler": "clang", "optimise": "-O3"})],
)
def test_bytes_are_the_simulators(target: str, how: dict[str, str], library: CmsisNN, tmp_path: Path) -> None:
    parts = made(library, target)
    called = {f for s in parts for f in chosen(s, library, target).library_functions}
    assert {kernels._CONV, kernels._DEPTHWISE, kernels._MAX} <= called
    models = merged(parts)
    assert compare(models, build(models, target, library.root, tmp_path, **how)) > 150


def test_bytes_are_the_simulators_under_sanitizers(library: CmsisNN, tmp_path: Path) -> None:
    models = merged(made(library, "host"))
    assert compare(models, build(models, "host", library.root, tmp_path, sanitize=True)) > 150


class Separable(nn.Module):
    """What keyword spotting nets are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, (5, 4), stride=(2, 2), padding=(2, 1))
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.point = nn.Conv2d(12, 20, 1)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc = nn.Linear(20 * 5 * 2, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.point(torch.relu(self.depth(torch.relu(self.stem(x))))))
        return torch.softmax(self.fc(self.pool(y).flatten(1)), -1)


class Gated(nn.Module):
    """A sum, a product and an average, which the library rounds otherwise or this copy lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 3, stride=2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        y = y + y * torch.sigmoid(self.gate(y))
        return self.fc(torch.relu(self.last(y)).mean((2, 3)))


@pytest.mark.qemu
@pytest.mark.parametrize(("net", "shape"), [(Separable, (1, 20, 10)), (Gated, (3, 9, 9))])
def test_whole_nets(net: type[nn.Module], shape: tuple[int, ...], named: None, tmp_path: Path) -> None:
    torch.manual_seed(3)
    x = torch.randn(12, *shape)
    q = projgen.quantize(net().eval(), x)
    for target in TARGETS:
        plain = projgen.compile(q, target=target, out=tmp_path / f"{target}-c")
        made = projgen.compile(q, target=target, out=tmp_path / target, backend="cmsis-nn")
        made.verify(x)
        assert made.manifest["options"]["backend"] == "cmsis-nn"
        assert made.manifest["cmsis_nn"]["defines"] == ["CMSIS_NN_USE_SINGLE_ROUNDING"]
        assert all(not Path(s).is_absolute() for s in made.manifest["cmsis_nn"]["sources"])
        assert "cmsis_nn" not in plain.manifest
        measured = made.measure(x[:1])
        by_library = [layer for layer in measured.layers if layer.kernel.endswith("cmsis_nn")]
        assert len(by_library) >= 4
        assert all((layer.instructions or 0) > layer.macs / 8 for layer in by_library)
        assert measured.code_bytes > 2000
        again = projgen.Artifact.open(tmp_path / target, target="cortex-m3") if target == "cortex-m4" else None
        if again is not None:
            again.verify(x[:2])


def test_files_depend_on_the_release_not_on_its_place(library: CmsisNN, root: Path, tmp_path: Path) -> None:
    sample = next(s for s in made(library, "cortex-m4") if s.graph.nodes[0].op == "conv2d")
    q, machine = QuantizedModel(sample.graph), load_target("cortex-m4")
    elsewhere = tmp_path / "copies" / "cmsis_nn"
    shutil.copytree(library.root, elsewhere)
    if len(library.includes) > 1:
        shutil.copytree(library.includes[1], tmp_path / "copies" / "cmsis_core" / "Include")
    here, there = (generate(q, machine, options("m", r)) for r in (root, tmp_path / "copies"))
    assert here.digest == there.digest
    assert b"#include <arm_nnfunctions.h>" in here["m_kernels.h"]
    assert b"arm_convolve_wrapper_s8.c" in here["CMakeLists.txt"]


# --- scratch sizes ---------------------------------------------------------------------------------------------------

ASKED = {
    "(void)arm_convolve_wrapper_s8(&context, &how, &channels, &p->input, x, &p->filter, p->weights, &bias,\n"
    "                                  p->bias, &p->output, y);": (
        "const int32_t asked = arm_convolve_wrapper_s8_get_buffer_size(&how, &p->input, &p->filter, &p->output);"
    ),
    "(void)arm_depthwise_conv_wrapper_s8(&context, &how, &channels, &p->input, x, &p->filter, p->weights,\n"
    "                                        &bias, p->bias, &p->output, y);": (
        "const int32_t asked = arm_depthwise_conv_wrapper_s8_get_buffer_size(&how, &p->input, &p->filter, &p->output);"
    ),
}
STORE = " (void)context; (void)channels; (void)bias; (void)x; memcpy(y, &asked, sizeof asked);"


@pytest.mark.qemu
@pytest.mark.parametrize("target", ["cortex-m0", *TARGETS])
def test_scratch_sizes_are_the_librarys(target: str, library: CmsisNN, tmp_path: Path) -> None:
    """The calls are replaced by calls of the size functions, whose results come out as the first four bytes."""
    parts = [wide_conv(seed) for seed in range(40)] + draws.collect(st.one_of(draws.depthwise(), draws.convs()), 20)
    parts = [s for s in parts if s.graph.type("y").elements >= 4 and chosen(s, library, target).library_functions]
    models = merged(parts)
    machine, folders = load_target(target), []
    for i, model in enumerate(models):
        folder = tmp_path / f"m{i}"
        write_folder(generate(QuantizedModel(model.graph), machine, options(f"m{i}", library.root)), folder)
        text = (folder / f"m{i}_kernels.h").read_text()
        for call, asks in ASKED.items():
            text = text.replace(call, asks + STORE)
        assert "(void)arm_" not in text
        (folder / f"m{i}_kernels.h").write_text(text)
        manifest = json.loads((folder / f"m{i}.json").read_text())
        asked = [f"{f}_get_buffer_size" for f in (kernels._CONV, kernels._DEPTHWISE)]
        manifest["cmsis_nn"]["sources"] = library.sources([kernels._CONV, kernels._DEPTHWISE, *asked])
        (folder / f"m{i}.json").write_text(json.dumps(manifest))
        folders.append(folder)
    wanted = [chosen(s, library, target).scratch_bytes for m in models for s in m.samples]
    image = build_image(folders, machine, tmp_path / "image", cmsis_nn=library.root)
    results = execute(image, [Record(m.inputs(0), model=i) for i, m in enumerate(models)])
    found = [int.from_bytes(y.ravel()[:4].tobytes(), "little") for r in results for y in r.outputs]
    assert found == wanted
    assert len(set(wanted)) > (1 if target == "cortex-m0" else 8)


# --- which nodes are the library's -----------------------------------------------------------------------------------


def test_the_library_is_preferred_whatever_it_costs(library: CmsisNN) -> None:
    dense = conv.sample("dense", (8, 8, 16), 16, (3, 3), Conv2d(padding=(1, 1, 1, 1)))
    choice = chosen(dense, library)
    every = candidates(dense.graph, dense.graph.nodes[0], load_target("cortex-m4"), "fast")
    assert choice.kernel == "conv2d_cmsis_nn"
    assert choice.instructions > min(c.instructions for c in every)
    for optimise in ("speed", "ram", "flash"):
        planned = schedule(dense.graph, load_target("cortex-m4"), options("m", library.root, optimise))
        assert [c.choice.kernel for s in planned.segments for c in s.calls] == ["conv2d_cmsis_nn"]


def test_what_is_not_proven_stays_ours(library: CmsisNN) -> None:
    def kernel(shape: tuple[int, int, int], out: int, size: tuple[int, int], attrs: Conv2d, **kinds: DType) -> str:
        return chosen(conv.sample("c", shape, out, size, attrs, **kinds), library).kernel  # type: ignore[arg-type]

    assert kernel((6, 6, 4), 8, (3, 3), Conv2d(padding=(1, 0, 1, 0))) == "conv2d_cmsis_nn"
    assert kernel((6, 6, 4), 8, (3, 3), Conv2d(groups=4)) == "depthwise_cmsis_nn"
    theirs = [
        kernel((6, 6, 4), 8, (3, 3), Conv2d(groups=2)),  # groups of several channels
        kernel((6, 6, 4), 8, (3, 3), Conv2d(), x=DType.INT16),
        kernel((6, 6, 4), 8, (3, 3), Conv2d(), y=DType.INT16),
        kernel((6, 6, 4), 8, (1, 1), Conv2d(padding=(0, 1, 0, 1))),  # its 1x1 form knows no padding
        kernel((6, 6, 4), 4, (1, 3), Conv2d(padding=(1, 0, 0, 0), groups=4)),  # a window that holds no pixel
        kernel((1, 6, 4), 8, (1, 3), Conv2d(padding=(1, 1, 1, 1))),
        chosen(linear.sample("l", 8, 4, x=DType.INT16), library).kernel,
        chosen(linear.sample("l", 8, 4, y=DType.INT16), library).kernel,
    ]
    assert not [k for k in theirs if k.endswith("cmsis_nn")]
    assert chosen(linear.sample("l", 8, 4), library).kernel == "linear_cmsis_nn"
    for op in ("add", "avg_pool2d", "softmax"):
        for sample in registry()[op].samples():
            if len(sample.graph.nodes) == 1:
                assert not chosen(sample, library).library_functions


def test_accumulators_that_could_overflow_stay_ours(library: CmsisNN) -> None:
    sample = conv.sample("c", (6, 6, 4), 8, (3, 3), Conv2d())
    name = sample.graph.nodes[0].inputs["b"]
    value = sample.graph.values[name]
    for bias, expected in ((LIMIT - (1 << 20) - 1, "conv2d_cmsis_nn"), (LIMIT - 5, "ours")):
        data = np.full(value.type.shape, bias, np.int32)
        graph = sample.graph.with_(values=[type(value)(name, value.type, data)])
        found = candidates(graph, graph.nodes[0], load_target("cortex-m4"), "fast", library)[0].kernel
        assert found.endswith("cmsis_nn") == (expected != "ours")


MUL = """#include "arm_nnfunctions.h"
#include "arm_nnsupportfunctions.h"
arm_cmsis_nn_status arm_elementwise_mul_s8(const int8_t *a, const int8_t *b, const int32_t offset_a,
                                           const int32_t offset_b, int8_t *y, const int32_t offset,
                                           const int32_t multiplier, const int32_t shift, const int32_t low,
                                           const int32_t high, const int32_t count) {
    for (int32_t i = 0; i < count; ++i) {
        int32_t v = arm_nn_requantize((a[i] + offset_a) * (b[i] + offset_b), multiplier, shift) + offset;
        v = v < low ? low : v;
        y[i] = (int8_t)(v > high ? high : v);
    }
    return ARM_CMSIS_NN_SUCCESS;
}
"""


@pytest.mark.qemu
def test_products_where_the_copy_has_them(library: CmsisNN, tmp_path: Path) -> None:
    """Copies that travel with other tools lack products: the documented function is written here for those."""
    fuller = library
    if not library.has(kernels._MUL):
        shutil.copytree(library.root.parent, tmp_path / "fuller")
        folder = tmp_path / "fuller" / library.root.name / "Source" / "BasicMathFunctions"
        folder.mkdir()
        (folder / "arm_elementwise_mul_s8.c").write_text(MUL)
        fuller = cmsis_nn.load(tmp_path / "fuller" / library.root.name)
    a, b, y = int8_type((3, 5, 7), 0.05, 7), int8_type((3, 5, 7), 0.02, -100), Quant(0.04, 11)
    constant = np.arange(-52, 53, dtype=np.int8).reshape(3, 5, 7)
    samples = [
        elementwise.binary_sample("mul", "mul", a, b, y),
        elementwise.binary_sample("mul_relu6", "mul", a, b, y, activation="relu6"),
        elementwise.binary_sample("mul_constant", "mul", a, b, y, constant=constant),
    ]
    assert {chosen(s, fuller).kernel for s in samples} == {"mul_cmsis_nn"}
    broadcast = elementwise.binary_sample("broadcast", "mul", a, int8_type((3, 1, 7), 0.02, 0), y)
    assert not chosen(broadcast, fuller).library_functions
    models = merged(samples)
    assert compare(models, build(models, "cortex-m4", fuller.root, tmp_path / "c")) >= 3


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_adapters_compile_without_warnings(compiler: str, library: CmsisNN, tmp_path: Path) -> None:
    folder = resources.runtime_c()
    for source in sorted((folder / "src").glob("pg_cmsis_nn*.h")):
        if source.name == "pg_cmsis_nn_linear.h" and library.release < (7, 0, 0):
            continue  # a function of release 7
        unit = tmp_path / f"{source.stem}.c"
        unit.write_text(f'#include "{source.name}"\n#include "{source.name}"\n')
        includes = [f"-I{folder / 'include'}", f"-I{source.parent}", "-include", "stdint.h", *host_flags(library)]
        command = [compiler, "-std=c99", "-O1", *WARNINGS, "-Wcast-qual", *includes, "-c", str(unit), "-o", "/dev/null"]
        subprocess.run(command, check=True)
