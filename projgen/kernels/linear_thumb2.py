"""Fully connected layers on Armv7-M cores without DSP instructions: two outputs in a 64-bit sum where they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from projgen.ir.graph import Graph, Node
from projgen.ir.types import DType
from projgen.kernels.conv_blocks import CTYPES, Parameters, is_clamped, is_packed
from projgen.kernels.conv_dsp_layouts import as_words, signed
from projgen.kernels.conv_thumb2_layouts import byte_words, bytes_of
from projgen.kernels.costs_thumb2 import linear_block, linear_widen
from projgen.kernels.layouts import table
from projgen.kernels.linear import SUFFIX, matrix_numerics, rows_of
from projgen.kernels.record import Block, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

Array = npt.NDArray[np.generic]

OFFSET = np.array([128, 0, 128, 0])  # that the bytes A, D, C, B of a word are stored with
BYTES = (0, 3, 2, 1)  # outputs of a block, byte by byte


@dataclass(frozen=True, slots=True)
class OutputPairStream:
    """Fully connected w (N, K), b, m, four outputs A, B, C, D at a time.

    ``packed``: bA + 2^24 bB and bC + 2^24 bD, each as low and high word; per input a word of the bytes A + 128, D,
    C + 128, B, whole quads with at least one input more than there are, of weight 0. Else bA, bB, bC, bD; per input a
    word of the bytes A, B, C, D. Then, with ``multipliers``, mA, mB, mC, mD. Outputs beyond the matrix hold 0.
    """

    outputs: int
    inputs: int
    packed: bool = True
    multipliers: bool = True

    @property
    def quads(self) -> int:
        return self.inputs // 4 + 1 if self.packed else -(-self.inputs // 4)

    @property
    def blocks(self) -> int:
        return -(-self.outputs // 4)

    def pack(self, constants: Mapping[str, Array]) -> Array:
        w, b = (np.asarray(constants[role]).astype(np.int64) for role in ("w", "b"))
        rows = 4 * self.blocks - self.outputs
        filled = np.pad(w, ((0, rows), (0, 4 * self.quads - self.inputs)))
        by_input = filled.reshape(self.blocks, 4, -1).transpose(0, 2, 1)
        start = np.pad(b, (0, rows)).reshape(self.blocks, 4)
        if self.packed:
            pairs = start[:, 0::2] + (start[:, 1::2] << 24)
            start = np.stack([pairs & 0xFFFFFFFF, pairs >> 32], axis=2).reshape(self.blocks, 4)
            by_input = by_input[..., BYTES] + OFFSET
        parts = [start, byte_words(by_input).reshape(self.blocks, -1)]
        if self.multipliers:
            parts.append(np.pad(np.asarray(constants["m"]).astype(np.int64), (0, rows)).reshape(self.blocks, 4))
        return as_words([np.concatenate(parts, axis=1)])

    def unpack(self, table: Array) -> Mapping[str, Array]:
        rows = table.astype(np.uint32).reshape(self.blocks, -1)
        b = signed(rows[:, :4]).reshape(-1)
        w = bytes_of(rows[:, 4 : 4 + 4 * self.quads]).reshape(self.blocks, -1, 4)
        if self.packed:
            halves = rows[:, :4].reshape(self.blocks, 2, 2)
            starts = signed(halves[..., 1]) << 32 | halves[..., 0].astype(np.int64)
            first = ((starts & 0xFFFFFF) ^ 0x800000) - 0x800000
            b = np.stack([first, (starts - first) >> 24], axis=2).reshape(-1)
            w = ((w - OFFSET + 128) % 256 - 128)[..., BYTES]
        by_output = w.transpose(0, 2, 1).reshape(4 * self.blocks, -1)
        words = {"b": b} | ({"m": signed(rows[:, -4:]).reshape(-1)} if self.multipliers else {})
        found: dict[str, Array] = {role: v[: self.outputs].astype(np.int32) for role, v in words.items()}
        return found | {"w": by_output[: self.outputs, : self.inputs].astype(np.int8)}


def rows_block(
    *, packed: bool, looped: bool = False, raw: bool = False, wide: bool = False, shift: int = 0, clamped: bool = False
) -> Block:
    """The block that takes one vector through the weights; ``raw``: to the sums themselves, int32."""
    kind = "int32" if raw else "s16" if wide else "s8"
    variant = f"{'' if packed else 'plain_'}{'looped_' if looped else ''}{kind}"
    variant += f"{f'_shift{shift}' if shift else ''}{'_clamped' if clamped else ''}"
    function = f"pg_linear_thumb2_rows_{variant}"
    flags = {"packed": packed, "looped": looped, "raw": raw, "wide": wide, "shift": shift, "clamped": clamped}
    parameters: Parameters = {"function": function, **{name: int(value) for name, value in flags.items()}}
    return Block("linear_thumb2_block.h.j2", function, tuple(parameters.items()))


def _linear(graph: Graph, node: Node, _target: Target, *, looped: bool = False) -> KernelChoice | None:
    packed = is_packed(graph, node)
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    outputs, inputs = graph.data(node, "w").shape
    requant, clamped = matrix_numerics(node).requant, is_clamped(graph, node)
    layout = OutputPairStream(outputs, inputs, packed)
    wide_x, wide_y = x.dtype is DType.INT16, y.dtype is DType.INT16
    block = rows_block(packed=packed, looped=looped, wide=wide_y, shift=requant.shift, clamped=clamped)
    function = f"pg_linear_thumb2_{SUFFIX[x.dtype]}_{block.function.removeprefix('pg_linear_thumb2_rows_')}"
    constants = {role: graph.data(node, role) for role in ("w", "b", "m")}
    rows = rows_of(x)
    per_row = linear_block(
        layout.quads, outputs, packed=packed, looped=looped, shift=requant.shift > 0, clamped=clamped
    )
    per_row += 5 * inputs + 12 if wide_x else linear_widen(inputs)
    return KernelChoice(
        kernel="linear_thumb2_looped" if looped else "linear_thumb2",
        function=function,
        struct="pg_linear_thumb2_params",
        fields={
            "stream": TableRef("stream"),
            "rows": rows,
            "inputs": inputs,
            "quads": layout.quads,
            "outputs": outputs,
            "zero_point": requant.zero_point,
            "low": requant.low,
            "high": requant.high,
        },
        tables=(table("stream", layout, constants, "bias, weights and multipliers in reading order"),),
        sources=("pg_linear_thumb2.h",),
        blocks=(
            block,
            Block(
                "linear_thumb2.h.j2",
                function,
                (
                    ("function", function),
                    ("block", block.function),
                    ("x", CTYPES[x.dtype]),
                    ("y", CTYPES[y.dtype]),
                    ("wide_x", int(wide_x)),
                    ("wide_y", int(wide_y)),
                ),
            ),
        ),
        instructions=rows * (per_row + 28.0 + 8.0 * max(4 * layout.quads - inputs - 1, 0)) + 18.0,
        scratch_bytes=16 * layout.quads,
    )


KERNELS = (
    KernelDef("linear_thumb2", "linear", frozenset({"thumb2"}), _linear),
    KernelDef("linear_thumb2_looped", "linear", frozenset({"thumb2"}), partial(_linear, looped=True)),
)
