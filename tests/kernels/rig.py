"""Runs kernels on this machine: many cases in one shared library, guarded buffers, compared with the integer meaning.

The whole chain (generated run functions, arena, other targets) is tested elsewhere; here each kernel is called alone.
Kernels for DSP and MVE cores run as the plain C beside their assembly.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import jinja2
import numpy as np
import numpy.typing as npt

from projgen import ops, resources
from projgen.ir.attrs import Conv2d
from projgen.ir.graph import Graph, Node
from projgen.ir.interpreter import trace_integer
from projgen.ir.types import TensorType
from projgen.kernels.record import Field, KernelChoice, KernelDef, TableRef
from projgen.kernels.render import render_block
from projgen.ops.record import Sample
from projgen.schedule.records import row_scratch_bytes
from projgen.targets import load_target

FAMILIES = (
    "linear",
    "conv",
    "conv_residual",
    "conv_transpose",
    "elementwise",
    "pool",
    "softmax",
    "attention",
    "layer_norm",
    "shape",
)
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
TRAPS = {
    "gcc": ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"),
    "clang": ("-fsanitize=undefined", "-fsanitize-trap=undefined"),
}
GUARD = 64  # bytes before and after each buffer that must survive
_CTYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "uint16": "uint16_t", "uint32": "uint32_t"}

Array = npt.NDArray[np.generic]


def kernels() -> tuple[KernelDef, ...]:
    """Every kernel that is not recurrent."""
    return tuple(k for f in FAMILIES for k in import_module(f"projgen.kernels.{f}").KERNELS)


def samples() -> Iterator[Sample]:
    """The samples of every operator that is not recurrent and executes something."""
    for family in FAMILIES:
        for op in import_module(f"projgen.ops.{family}").OPS:
            if op.integer is not None and not op.view:
                yield from op.samples()


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One kernel on the last node of a sample: its inputs and what it must compute."""

    sample: Sample
    node: Node
    choice: KernelChoice
    inputs: tuple[Array, ...]
    expected: Array

    @property
    def graph(self) -> Graph:
        return self.sample.graph

    @property
    def label(self) -> str:
        types = [str(v.type) for _, v in self.graph.activations(self.node)]
        return f"{self.sample.name}: {self.choice.function}({', '.join(types)}) {self.node.attrs}"

    @property
    def accumulates(self) -> bool:
        return self.node.op == "mean_time"


def cases(made: Iterable[Sample], target: str = "host", only: str = "") -> list[Case]:
    """Every kernel of the target that fits the last node of each sample (named ``only``, if given)."""
    machine = load_target(target)
    result = []
    for sample in made:
        *_, (node, args, expected) = trace_integer(sample.graph, sample.inputs)
        inputs = tuple(np.ascontiguousarray(args[role]) for role, _ in sample.graph.activations(node))
        for kernel in kernels():
            if kernel.op != node.op or not kernel.isa <= machine.isa or (only and kernel.name != only):
                continue
            choice = kernel.apply(sample.graph, node, machine)
            if choice is not None:
                result.append(Case(sample, node, choice, inputs, np.asarray(expected)))
    return result


class Library:
    """Cases compiled into one shared library."""

    def __init__(self, parts: Sequence[Case], folder: Path, command: Sequence[str] = ("gcc", "-O1")) -> None:
        self.cases = list(parts)
        source, binary = folder / "shim.c", folder / "shim.so"
        source.write_text(_render(self.cases))
        runtime = resources.runtime_c()
        includes = [f"-I{runtime / 'include'}", f"-I{runtime / 'src'}"]
        compiler, *options = command
        flags = ["-std=c99", *WARNINGS, "-fPIC", "-shared", *options, *includes]
        subprocess.run([compiler, *flags, str(source), "-o", str(binary)], check=True)
        self._library = ctypes.CDLL(str(binary))

    def check(self, *, rows: bool = True) -> int:
        """Compare every case; returns how many outputs were compared."""
        compared = 0
        for i, case in enumerate(self.cases):
            actual = self._run(f"c{i}", case)
            np.testing.assert_array_equal(actual, case.expected, err_msg=case.label)
            compared += actual.size
            if rows and case.choice.row_function:
                by_rows = self._run_rows(f"c{i}", case)
                np.testing.assert_array_equal(by_rows, case.expected, err_msg=f"{case.label} by rows")
                compared += by_rows.size
            over_time = case.graph.type(case.node.output).has_time
            for role in sorted(case.choice.in_place if not over_time else ()):
                over = self._run_over(f"c{i}", case, role)
                np.testing.assert_array_equal(over, case.expected, err_msg=f"{case.label} over {role}")
                compared += over.size
        return compared

    def _run_over(self, name: str, case: Case, role: str) -> Array:
        """The output written over one of the inputs, both from the same address on."""
        out = case.graph.type(case.node.output)
        roles = [r for r, _ in case.graph.activations(case.node)]
        results = []
        for b in range(len(case.inputs[0])):
            scratch = _Buffer(case.choice.scratch_bytes)
            xs = [_Buffer.of(x[b], out if r == role else None) for r, x in zip(roles, case.inputs, strict=True)]
            y = xs[roles.index(role)]
            pointers = (ctypes.c_void_p * len(xs))(*(x.pointer for x in xs))
            self._call(f"{name}_call", pointers, y.pointer, scratch.pointer, _Buffer(0).pointer)
            for buffer in (*xs, scratch):
                buffer.check(case.label)
            results.append(np.frombuffer(y.bytes[: out.nbytes], out.dtype.value).reshape(out.step_shape))
        return np.stack(results)

    def _run(self, name: str, case: Case) -> Array:
        out = case.graph.type(case.node.output)
        over_time = [v.type.has_time for _, v in case.graph.activations(case.node)]
        results = []
        for b in range(len(case.inputs[0])):
            steps = next((x.shape[1] for x, t in zip(case.inputs, over_time, strict=True) if t), 1)
            state, scratch = _Buffer(case.choice.state_bytes), _Buffer(case.choice.scratch_bytes)
            if case.choice.state_bytes:
                self._call(f"{name}_reset", state.pointer)
            rows = []
            for t in range(steps):
                y = _Buffer(out.nbytes)
                xs = [_Buffer.of(x[b, t] if moving else x[b]) for x, moving in zip(case.inputs, over_time, strict=True)]
                before = [x.bytes for x in xs]
                pointers = (ctypes.c_void_p * len(xs))(*(x.pointer for x in xs))
                self._call(f"{name}_call", pointers, y.pointer, scratch.pointer, state.pointer)
                if case.accumulates:
                    self._call(f"{name}_finish", state.pointer, ctypes.c_int32(t + 1), y.pointer)
                for buffer in (*xs, y, scratch, state):
                    buffer.check(case.label)
                assert [x.bytes for x in xs] == before, f"{case.label} writes to its input"
                rows.append(np.frombuffer(y.bytes, out.dtype.value).reshape(out.step_shape))
            results.append(np.stack(rows) if out.has_time else rows[-1])
        return np.stack(results)

    def _run_rows(self, name: str, case: Case) -> Array:
        """A convolution, a few output rows at a time from row pointers; rows outside the map hold the zero point.

        A residual lies beside the output, and in it where the kernel allows that.
        """
        attrs, out, count = case.node.attrs, case.graph.type(case.node.output), case.choice.rows
        assert isinstance(attrs, Conv2d)
        kernel = case.graph.data(case.node, "w").shape[1] + (count - 1) * attrs.stride[0]
        zero_point = case.node.numerics.input_zero_point  # type: ignore[union-attr]
        scratch = _Buffer(row_scratch_bytes(case.choice))
        residuals = case.inputs[1] if "residual" in case.node.inputs else None
        results = []
        for n, x in enumerate(case.inputs[0]):
            outside = np.full(x.shape[1:], zero_point, x.dtype)
            for oy in range(0, out.step_shape[0], count):
                above = oy * attrs.stride[0] - attrs.padding[0]
                taps = [above + ky * attrs.dilation[0] for ky in range(kernel)]
                rows = [_Buffer.of(x[iy] if 0 <= iy < len(x) else outside) for iy in taps]
                y = _Buffer(out.nbytes // out.step_shape[0] * count)
                added = _Buffer(0) if residuals is None else _Buffer.of(residuals[n, oy : oy + count])
                if residuals is not None and oy // count % 2 and "residual" in case.choice.in_place:
                    y = added
                pointers = (ctypes.c_void_p * kernel)(*(r.pointer for r in rows))
                self._call(f"{name}_row", pointers, added.pointer, y.pointer, scratch.pointer)
                for buffer in (*rows, added, y, scratch):
                    buffer.check(case.label)
                results.append(np.frombuffer(y.bytes, out.dtype.value))
        return np.concatenate(results).reshape(case.expected.shape)

    def _call(self, function: str, *arguments: object) -> None:
        getattr(self._library, function)(*arguments)


class _Buffer:
    """Bytes between guards; starts filled with a pattern, 16-byte aligned unless ``of`` an int8 array."""

    def __init__(self, size: int, misaligned: int = 0) -> None:
        self.size = size
        self._store = np.full(size + 2 * GUARD + 16, 0xA5, np.uint8)
        start = self._store.ctypes.data
        self._at = GUARD + (-(start + GUARD)) % 16 + misaligned
        self.pointer = ctypes.c_void_p(start + self._at)

    @classmethod
    def of(cls, values: Array, over: TensorType | None = None) -> _Buffer:
        """The values, with room for ``over``, which is to be written over them."""
        data = np.ascontiguousarray(values)
        size, unit = (over.nbytes, over.dtype.bytes) if over else (0, 1)
        buffer = cls(max(data.nbytes, size), misaligned=1 if data.itemsize == unit == 1 else 0)
        buffer._store[buffer._at : buffer._at + data.nbytes] = np.frombuffer(data.tobytes(), np.uint8)
        return buffer

    @property
    def bytes(self) -> bytes:
        return self._store[self._at : self._at + self.size].tobytes()

    def check(self, label: str) -> None:
        outside = np.concatenate([self._store[: self._at], self._store[self._at + self.size :]])
        assert (outside == 0xA5).all(), f"{label} writes outside a buffer"


def _render(parts: Sequence[Case]) -> str:
    sources = dict.fromkeys(s for case in parts for s in case.choice.sources)
    blocks = dict.fromkeys(render_block(b) for case in parts for b in case.choice.blocks)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    views = [_view(f"c{i}", case) for i, case in enumerate(parts)]
    return environment.get_template("shim.c.j2").render(sources=sources, blocks=blocks, cases=views)


def _view(name: str, case: Case) -> dict[str, object]:
    choice = case.choice
    tables = [
        {"name": t.name, "ctype": _CTYPES[t.data.dtype.name], "numbers": t.data.ravel().tolist()} for t in choice.tables
    ]
    return {
        "name": name,
        "function": choice.function,
        "row_function": choice.row_function,
        "struct": choice.struct,
        "fields": [(field, _initialiser(name, value)) for field, value in choice.fields.items()],
        "tables": tables,
        "inputs": len(case.inputs),
        "scratch": choice.scratch_bytes > 0,
        "row_scratch": row_scratch_bytes(choice) > 0,
        "residual": "residual" in case.node.inputs,
        "state": choice.state_bytes > 0,
        "accumulates": case.accumulates,
    }


def _initialiser(name: str, value: Field) -> str:
    if isinstance(value, TableRef):
        return f"{name}_{value.table}"
    return str(value) if isinstance(value, int) else "{" + ", ".join(map(str, value)) + "}"


def families_without_kernels(target: str = "host") -> list[str]:
    """Operators that some sample exercises and no kernel of the target realises."""
    machine = load_target(target)
    missing = []
    for sample in samples():
        *_, (node, _, _) = trace_integer(sample.graph, sample.inputs)
        fits = (k for k in kernels() if k.op == node.op and k.isa <= machine.isa)
        if ops.get(node.op).integer and not any(k.apply(sample.graph, node, machine) for k in fits):
            missing.append(sample.name)
    return missing
