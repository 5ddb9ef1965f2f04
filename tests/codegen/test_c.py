"""The emitted C, compiled and called on this machine: its bytes, its interface, its manners."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from projgen.ir.graph import Graph
from projgen.ir.interpreter import run_integer
from projgen.quant.boundary import dequantise_output, quantise_input
from tests.codegen.native import FLAGS, Library, emit, pointer
from tests.schedule.nets import (
    Net,
    depthwise_pointwise,
    draw,
    recurrent,
    residual,
    sample_lut,
    sample_of,
    static_recurrent,
)


def odd_linear() -> Graph:
    net = Net("odd")
    x = net.input((13,), zero=-128)
    return net.graph(net.linear(net.linear(x, 7), 3))


def two_inputs() -> Graph:
    net = Net("two")
    a, b = net.input((5,)), net.input((5,))
    a = net.apply(sample_lut(net, a), a)
    return net.graph(net.linear(a, 4), net.linear(b, 6))


STATIC = {
    "odd_linear": odd_linear(),
    "residual": residual(),
    "residual_1x1": residual(1, 1, 3),
    "residual_7x3x5": residual(7, 3, 5, tap=False),
    "two_in_two_out": two_inputs(),
    "dwpw": depthwise_pointwise(9, 7, 8, 8),
    "dwpw_odd": depthwise_pointwise(5, 3, 3, 7, stride=2),
    "lstm_rows": static_recurrent("lstm", "lstm_3_5_k2"),
    "gru_rows": static_recurrent("gru", "gru_3_5_k1", 7, last=False),
}
SEQUENCES = {
    "lstm_last": recurrent("lstm", "lstm_3_5_k2"),
    "lstm_every": recurrent("lstm", "lstm_3_5_k2", "every"),
    "lstm_projected": recurrent("lstm", "lstm_12_17_ranks_8_7"),
    "gru_mean": recurrent("gru", "gru_3_5_k1", "mean"),
    "lstm_mean": recurrent("lstm", "lstm_1_1", "mean"),
}


@pytest.mark.parametrize("optimise", ["speed", "ram"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", STATIC)
def test_static_models_equal_the_simulator(name: str, compiler: str, optimise: str, tmp_path: Path) -> None:
    graph = STATIC[name]
    library = Library(emit(graph, tmp_path / "out", optimise=optimise), compiler)
    inputs = draw(graph, batch=3)
    meant = run_integer(graph, inputs)
    for i in range(3):
        found = library.run(tuple(x[i] for x in inputs))
        for y, m in zip(found, meant, strict=True):
            np.testing.assert_array_equal(y, m[i].reshape(-1))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_equal_the_simulator_whole_and_step_by_step(name: str, compiler: str, tmp_path: Path) -> None:
    graph = SEQUENCES[name]
    library = Library(emit(graph, tmp_path / "out"), compiler)
    for steps in (1, 2, 9):
        inputs = draw(graph, batch=1, steps=steps, seed=steps)
        one = tuple(x[0] for x in inputs)
        (meant,) = run_integer(graph, inputs)
        (found,) = library.run(one, steps)
        np.testing.assert_array_equal(found, meant[0].reshape(-1))
        stepped = library.step(one, steps)
        for t, (y,) in enumerate(stepped):  # after every step: the output of the sequence so far
            (so_far,) = run_integer(graph, tuple(x[:, : t + 1] for x in inputs))
            wanted = so_far[0, t] if graph.type(graph.outputs[0].value).has_time else so_far[0]
            np.testing.assert_array_equal(y, wanted.reshape(-1))


def test_state_can_be_saved_and_restored(tmp_path: Path) -> None:
    graph = SEQUENCES["gru_mean"]
    library = Library(emit(graph, tmp_path / "out"))
    (x,) = (x[0] for x in draw(graph, batch=1, steps=4))
    state, arena, (y,) = library.arena(key="state_bytes"), library.arena(), library.outputs()
    library["reset"](pointer(state))
    seen = []
    for t in range(4):
        if t == 2:
            saved = state.copy()
        assert library["step"](pointer(state), pointer(x[t]), pointer(y), pointer(arena)) == 0
        seen.append(y.copy())
    state[:] = saved
    for t in (2, 3):
        assert library["step"](pointer(state), pointer(x[t]), pointer(y), pointer(arena)) == 0
        np.testing.assert_array_equal(y, seen[t])


def test_a_backward_model_has_no_step_and_says_why(tmp_path: Path) -> None:
    sample = sample_of("lstm", "lstm_5_6_reverse")
    library = Library(emit(sample.graph, tmp_path / "out"))
    assert library.manifest["interface"]["step"] is False
    assert "runs backwards over time" in library.manifest["interface"]["step_absent_reason"]
    with pytest.raises(AttributeError):
        library["step"]
    assert "net_step(" not in (tmp_path / "out" / "net.h").read_text()
    x = sample.inputs[0][:1]
    (meant,) = run_integer(sample.graph, (x,))
    (found,) = library.run((x[0],), x.shape[1])
    np.testing.assert_array_equal(found, meant[0].reshape(-1))


@pytest.mark.parametrize("name", ["residual", "dwpw", "lstm_rows"])
def test_the_input_may_lie_in_the_arena(name: str, tmp_path: Path) -> None:
    graph = STATIC[name]
    library = Library(emit(graph, tmp_path / "out"))
    (x,) = draw(graph, batch=1)
    memory = library.arena(key="arena_with_input_bytes")
    offset = library.manifest["input_offset"]
    inside = memory[offset : offset + x.size]
    inside[:] = x[0].reshape(-1).view(np.uint8)
    outputs = library.outputs()
    assert library["run"](pointer(inside), *map(pointer, outputs), pointer(memory)) == 0
    for y, m in zip(outputs, run_integer(graph, (x,)), strict=True):
        np.testing.assert_array_equal(y, m[0].reshape(-1))


def test_error_codes_leave_everything_untouched(tmp_path: Path) -> None:
    graph = SEQUENCES["lstm_last"]
    library = Library(emit(graph, tmp_path / "out"))
    header = (tmp_path / "out" / "net.h").read_text()
    codes = {k: int(v) for k, v in re.findall(r"#define NET_ERR_(\w+) \((-\d+)\)", header)}
    assert set(codes) == {"NULL", "ALIGN", "STEPS"}
    x = draw(graph, batch=1, steps=2)[0][0]
    (y,), arena, state = library.outputs(), library.arena(), library.arena(key="state_bytes")
    run, step = library["run_sequence"], library["step"]
    assert run(None, 2, pointer(y), pointer(arena)) == codes["NULL"]
    assert run(pointer(x), 2, None, pointer(arena)) == codes["NULL"]
    assert run(pointer(x), 2, pointer(y), None) == codes["NULL"]
    assert run(pointer(x), 2, pointer(y), pointer(library.arena(extra=8))) == codes["ALIGN"]
    assert run(pointer(x), 0, pointer(y), pointer(arena)) == codes["STEPS"]
    assert run(pointer(x), -1, pointer(y), pointer(arena)) == codes["STEPS"]
    assert step(None, pointer(x), pointer(y), pointer(arena)) == codes["NULL"]
    assert step(pointer(state), None, pointer(y), pointer(arena)) == codes["NULL"]
    assert step(pointer(state), pointer(x), None, pointer(arena)) == codes["NULL"]
    misplaced = library.arena(extra=4, key="state_bytes")
    assert step(pointer(misplaced), pointer(x), pointer(y), pointer(arena)) == codes["ALIGN"]
    library["reset"](None)
    assert np.all(y == 99) and np.all(arena == 0xA5) and np.all(state == 0xA5)


def test_quantise_and_dequantise_equal_the_simulators(tmp_path: Path) -> None:
    graph = STATIC["odd_linear"]
    library = Library(emit(graph, tmp_path / "out"))
    t, size = graph.type(graph.inputs[0].value), 13
    scale, rng = np.float32(t.quant.scale), np.random.default_rng(1)  # type: ignore[union-attr]
    halves = (np.arange(-300, 300) + 0.5) * scale
    special = [0.0, -0.0, 1e30, -1e30, np.inf, -np.inf, 65535.5 * scale, 0.49999997 * scale, -0.49999997 * scale]
    values = np.concatenate([halves, special, rng.normal(0, 4, 300)]).astype(np.float32)
    values = np.resize(values, (len(values) // size + 1, size))
    for row in values:
        q = np.zeros(size, np.int8)
        library["quantize_input"](pointer(row), pointer(q))
        np.testing.assert_array_equal(q, quantise_input(row, t))
    nan, q = np.full(size, np.nan, np.float32), np.zeros(size, np.int8)
    library["quantize_input"](pointer(nan), pointer(q))
    assert np.all(q == t.quant.zero_point)  # type: ignore[union-attr]
    out = graph.type(graph.outputs[0].value)
    for row in np.resize(np.arange(-128, 128), (86, 3)).astype(np.int8):
        y = np.zeros(3, np.float32)
        library["dequantize_output"](pointer(row), pointer(y))
        np.testing.assert_array_equal(y, dequantise_output(row, out))


@pytest.mark.parametrize("name", ["residual", "two_in_two_out", "lstm_last", "lstm_every"])
def test_the_example_checks_its_vectors_and_the_header_is_cpp(name: str, tmp_path: Path) -> None:
    folder = emit({**STATIC, **SEQUENCES}[name], tmp_path / "out")
    example = [*FLAGS, "-O2", "net.c", "main.c", "-o", "example"]
    assert subprocess.run(["gcc", *example], cwd=folder, check=True).returncode == 0
    assert subprocess.run(["./example"], cwd=folder, check=False).returncode == 0
    vectors = folder / "net_test_vectors.h"
    text = vectors.read_text()
    start = text.index("net_test_output")
    brace = text.index("{", start)
    first = re.search(r"-?\d+", text[brace:])
    assert first is not None
    changed = str((int(first[0]) + 129) % 256 - 128)
    place = brace + first.start()
    vectors.write_text(text[:place] + changed + text[place + len(first[0]) :])
    subprocess.run(["gcc", *example], cwd=folder, check=True)
    assert subprocess.run(["./example"], cwd=folder, check=False).returncode == 1
    (folder / "use.cpp").write_text('#include "net.h"\n#include "net.h"\nint main() { return NET_OK; }\n')
    flags = ("-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
    for compiler in ("g++", "clang++"):
        subprocess.run([compiler, *flags, "-c", "use.cpp", "-o", "use.o"], cwd=folder, check=True)


def test_two_models_link_into_one_image(tmp_path: Path) -> None:
    first = emit(STATIC["residual"], tmp_path / "a", "alpha")
    second = emit(STATIC["residual"], tmp_path / "b", "beta")
    calls = "int main(void) { return alpha_run(0, 0, 0, 0) - beta_run(0, 0, 0, 0); }"
    (tmp_path / "use.c").write_text(f'#include "alpha.h"\n#include "beta.h"\n{calls}\n')
    command = ["gcc", *FLAGS, f"-I{first}", f"-I{second}", f"{first}/alpha.c", f"{second}/beta.c", "use.c", "-o", "use"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([str(tmp_path / "use")], check=False).returncode == 0


@pytest.mark.parametrize("name", ["residual", "lstm_projected", "gru_mean"])
def test_no_float_no_heap_no_mutable_globals(name: str, tmp_path: Path) -> None:
    graph = {**STATIC, **SEQUENCES}[name]
    folder = emit(graph, tmp_path / "out")
    code = "".join((folder / f"net{part}").read_text() for part in (".c", "_kernels.h", "_weights.h"))
    code = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
    helpers = re.compile(r"void net_(?:de)?quantize_\w+\(.*?\n}\n", re.DOTALL)
    assert len(helpers.findall(code)) == len(graph.inputs) + len(graph.outputs)
    assert not re.search(r"\b(float|double|malloc|calloc|realloc|free|printf)\b", helpers.sub("", code))
    Library(folder)
    subprocess.run(["gcc", "-std=c99", "-O1", "-fno-pie", "-c", "net.c", "-o", "net.o"], cwd=folder, check=True)
    table = subprocess.run(["nm", "net.o"], cwd=folder, check=True, capture_output=True, text=True).stdout
    kinds = {line.split()[-2] for line in table.splitlines()}
    assert not kinds & {"b", "B", "d", "D", "C"}, table
    undefined = {line.split()[-1] for line in table.splitlines() if " U " in line}
    assert undefined <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}
