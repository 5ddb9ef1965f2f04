"""Element-wise sum and product on DSP cores, and tables on all with Thumb-2 instructions: four elements at a time.

Where b is repeated, both are ``requantise(f a + s)`` with f and s linear in b, and share their code.
"""

from __future__ import annotations

from functools import partial

from projgen.ir.graph import Graph, Node
from projgen.ir.numerics import AddNumerics
from projgen.kernels.elementwise import Fitting, fitting
from projgen.kernels.layouts import plain
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, TableRef
from projgen.targets import Target

_CLAMPED = 21  # instructions for limits of four elements, half of which exceed one


def _twice(value: int) -> int:
    """A number as both halfwords of a word."""
    return (value & 0xFFFF) * 0x10001


def _binary(graph: Graph, node: Node, _target: Target) -> KernelChoice | None:
    found = fitting(graph, node)
    if found is None:
        return None
    n, form, constant, clamped = found.numerics, found.form, found.constant, found.clamped
    if form.form != "same":
        return _repeated(graph, node, found)
    if isinstance(n, AddNumerics):
        first = (n.factor_a & 0xFFFF) | (n.factor_b & 0xFFFF) << 16
        second = -(n.factor_a * n.zero_a + n.factor_b * n.zero_b) & 0xFFFFFFFF
    else:
        first, second = _twice(n.zero_a), _twice(n.zero_b)
    out, count = n.requant, graph.type(node.output).elements
    function = f"pg_{node.op}_dsp{f'_constant_{constant}' if constant else ''}"
    function += f"{f'_shift{out.shift}' if out.shift else ''}{'_clamped' if clamped else ''}"
    parameters: tuple[tuple[str, int | str], ...] = (
        ("function", function),
        ("product", int(node.op == "mul")),
        ("constant", constant),
        ("shift", out.shift),
        ("clamped", int(clamped)),
    )
    fields: dict[str, Field] = {"constant": TableRef("constant")} if constant else {}
    fields |= {
        "count": count,
        "constants": (first, second, n.multiplier, out.zero_point, out.low, out.high),
    }
    per_quad = (28 if node.op == "add" else 30) + (4 if out.shift else 0) + (_CLAMPED if clamped else 0)
    return KernelChoice(
        kernel=f"{node.op}_dsp",
        function=function,
        struct="pg_binary_dsp_params",
        fields=fields,
        tables=(plain(graph, node, constant, "constant", "int8"),) if constant else (),
        sources=("pg_binary_dsp.h",),
        blocks=(Block("binary_dsp.h.j2", function, parameters),),
        instructions=per_quad * (count // 4) + 20 * (count % 4) + 40,
        in_place=frozenset({"a", "b"} - {constant}),
    )


def _repeated(graph: Graph, node: Node, found: Fitting) -> KernelChoice:
    """The sum or product with an operand that is shorter than a."""
    n, form, constant, clamped = found.numerics, found.form, found.constant, found.clamped
    out = n.requant
    if isinstance(n, AddNumerics):
        linear = (n.factor_a, 0, -(n.factor_a * n.zero_a + n.factor_b * n.zero_b), n.factor_b)
    else:
        linear = (-n.zero_b, 1, n.zero_a * n.zero_b, -n.zero_a)
    quads, rest = divmod(form.count, 4)
    pixels = form.form == "pixels"
    block = f"pg_affine_{form.form}_dsp_{'four' if quads else ''}{rest}"
    block += f"{f'_shift{out.shift}' if out.shift else ''}{'_clamped' if clamped else ''}"
    function = f"{block}_call{f'_constant_{constant}' if constant else ''}"
    fields: dict[str, Field] = {"constant": TableRef("constant")} if constant else {}
    numbers = (form.rows, quads, n.multiplier, out.zero_point, out.low, out.high, *linear)
    shift = 1 if out.shift else 0
    quad = (21 if pixels else 22) + 4 * shift + (_CLAMPED if clamped else 0)
    one = (5 if pixels else 6) + shift + (5 if clamped else 0)
    row = (10 if pixels else 5) + (1 if quads else 0) + quads * quad + rest * one + (1 if rest and clamped else 0)
    prepared = 0 if pixels else (55 if quads else 36) + 40 * quads + 12 * rest
    return KernelChoice(
        kernel=f"{node.op}_dsp",
        function=function,
        struct="pg_affine_dsp_params",
        fields={**fields, "channels": form.count, "numbers": numbers},
        tables=(plain(graph, node, constant, "constant", "int8"),) if constant else (),
        sources=("pg_affine_dsp.h",) if pixels else ("pg_affine_dsp.h", "pg_affine_dsp_channels.h"),
        blocks=(
            Block(
                "affine_dsp.h.j2",
                block,
                (
                    ("function", block),
                    ("pixels", int(pixels)),
                    ("quads", int(quads > 0)),
                    ("rest", rest),
                    ("shift", out.shift),
                    ("clamped", int(clamped)),
                ),
            ),
            Block(
                "affine_dsp_call.h.j2",
                function,
                (("function", function), ("constant", constant), ("block", block), ("pixels", int(pixels))),
            ),
        ),
        scratch_bytes=0 if pixels else 24 * quads + 8 * rest,
        instructions=form.rows * row + prepared + 28 + (2 if clamped else 0),
        in_place=frozenset({"a"} - {constant}),
    )


def _lut(graph: Graph, node: Node, _target: Target, *, kernel: str) -> KernelChoice:
    x = graph.arg(node, "x").type
    return KernelChoice(
        kernel=kernel,
        function="pg_lut_thumb2",
        struct="pg_lut_thumb2_params",
        fields={"table": TableRef("table"), "count": x.elements},
        tables=(plain(graph, node, "table", "table", "int8", "y of x = -128..127"),),
        sources=("pg_lut_thumb2.h",),
        instructions=15 * (x.elements // 4) + 5 * (x.elements % 4) + 21,
        in_place=frozenset({"x"}),
    )


KERNELS = (
    KernelDef("add_dsp", "add", frozenset({"dsp"}), _binary),
    KernelDef("mul_dsp", "mul", frozenset({"dsp"}), _binary),
    KernelDef("lut_dsp", "lut", frozenset({"dsp"}), partial(_lut, kernel="lut_dsp")),
    KernelDef("lut_thumb2", "lut", frozenset({"thumb2"}), partial(_lut, kernel="lut_thumb2")),
)
