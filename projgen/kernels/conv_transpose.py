"""Kernels of the transposed convolution: gathered in portable C, or through the fast convolutions of the target."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from projgen.ir.attrs import Conv2d, ConvTranspose2d
from projgen.ir.graph import Graph, Node, Value
from projgen.ir.types import DType, TensorType
from projgen.kernels import conv_dsp, conv_dsp_winograd, conv_mve
from projgen.kernels.conv_transpose_layouts import PhaseBias, Phases, PhaseWeights, Stacked, reach, stack
from projgen.kernels.costs import loop, matrix
from projgen.kernels.layouts import Computed, plain, table
from projgen.kernels.linear import SUFFIX, matrix_numerics, requant_field
from projgen.kernels.record import Block, Field, KernelChoice, KernelDef, Table, TableRef
from projgen.targets import Target

OP = "conv_transpose2d"
CTYPES = {DType.INT8: "int8_t", DType.INT16: "int16_t"}


def attributes(node: Node) -> ConvTranspose2d:
    """The attributes of a transposed convolution; a ``TypeError`` for another node."""
    if not isinstance(node.attrs, ConvTranspose2d):
        raise TypeError(f"node {node.name!r} is no transposed convolution")
    return node.attrs


def _phases(graph: Graph, node: Node) -> Phases:
    o, kh, kw, c = graph.data(node, "w").shape
    return Phases.of(attributes(node), (o, kh, kw, c))


def _portable(graph: Graph, node: Node, target: Target) -> KernelChoice:
    attrs, numerics, phases = attributes(node), matrix_numerics(node), _phases(graph, node)
    x, y, w = graph.arg(node, "x").type, graph.type(node.output), graph.data(node, "w")
    firsts = tuple(phases.first_tap(axis, p) for axis in (0, 1) for p in range(attrs.stride[axis]))
    top, _, left, _ = attrs.padding
    window = (*x.step_shape, *y.step_shape, *phases.shape[1:3], *attrs.stride, *attrs.dilation, top, left)
    fields: dict[str, Field] = {
        **{name: TableRef(name) for name in ("weights", "bias", "multipliers", "starts", "first_taps")},
        "window": (*window, numerics.input_zero_point),
        "tap_step_h": phases.tap_step(0),
        "tap_step_w": phases.tap_step(1),
        "pixel_step_h": phases.pixel_step(0),
        "pixel_step_w": phases.pixel_step(1),
        "groups": attrs.groups,
        "out": requant_field(numerics.requant),
    }
    tables = (
        table("weights", PhaseWeights(phases), {"w": w}, "[phase_y][phase_x][out_c][taps][in_c / groups]"),
        table(
            "bias",
            PhaseBias(phases.unseen(w, numerics.input_zero_point)),
            {"b": graph.data(node, "b")},
            "[phase_y][phase_x][out_c], input zero point folded in",
        ),
        plain(graph, node, "m", "multipliers", "int32", "[out_c]"),
        table("starts", Computed(phases.starts(), "int32"), {}, "[phase_y][phase_x], where the weights start"),
        table("first_taps", Computed(firsts, "int32"), {}, "first kernel row of each phase, then first column"),
    )
    pixels = y.elements // phases.shape[0]
    seen = pixels * attrs.groups * phases.shape[1] * phases.shape[2] / (attrs.stride[0] * attrs.stride[1])
    return KernelChoice(
        kernel="conv_transpose2d_portable",
        function=f"pg_conv_transpose2d_{SUFFIX[x.dtype]}_{SUFFIX[y.dtype]}",
        struct="pg_conv_transpose2d_params",
        fields=fields,
        tables=tables,
        sources=("pg_matrix.h", "pg_window.h", "pg_conv_transpose2d.h"),
        instructions=matrix(target, round(seen * phases.shape[3] * phases.shape[0] / attrs.groups), y.elements)
        + loop(target, seen, 30.0 + 0.75 * phases.shape[3])
        + loop(target, pixels * attrs.groups, 70.0),
        scratch_bytes=phases.shape[1] * phases.shape[2] * phases.shape[3] * x.dtype.bytes,
    )


def _stacked(graph: Graph, node: Node, target: Target, *, isa: str) -> KernelChoice | None:
    """All phases as the outputs of one convolution of stride 1, by the best kernel there is; then interleaved."""
    made = _as_convolution(graph, node)
    if made is None:
        return None
    inner_graph, inner_node, phases, size = made
    records = (*conv_dsp.KERNELS, *conv_dsp_winograd.KERNELS) if isa == "dsp" else conv_mve.KERNELS
    found = [k.apply(inner_graph, inner_node, target) for k in records if k.op == "conv2d" and k.isa <= target.isa]
    choices = [choice for choice in found if choice is not None]
    if not choices:
        return None
    inner = min(choices, key=lambda choice: choice.instructions)
    unseen = phases.unseen(graph.data(node, "w"), matrix_numerics(node).input_zero_point)
    tables = tuple(_outer(part, phases, unseen, size) for part in inner.tables)
    attrs, y = attributes(node), graph.type(node.output)
    map_h, map_w, _ = inner_graph.type(inner_node.output).step_shape
    out_h, out_w, outputs = y.step_shape
    top, left = attrs.padding[0] % attrs.stride[0], attrs.padding[2] % attrs.stride[1]
    if (map_h, map_w, *attrs.stride) == (out_h, out_w, 1, 1):
        return replace(
            inner,
            kernel=f"conv_transpose2d_{isa}",
            tables=tables,
            in_place=frozenset(),
            row_function="",
        )
    pixel = outputs * y.dtype.bytes
    map_bytes = -(-map_h * map_w * attrs.stride[0] * attrs.stride[1] * pixel // 16) * 16
    sizes = (map_w, *attrs.stride, pixel, top, left, out_h, out_w)
    function = f"pg_conv_transpose2d_{isa}_{inner.function.removeprefix('pg_')}_{'_'.join(map(str, sizes))}"
    names = ("map_w", "phases_y", "phases_x", "pixel", "top", "left", "out_h", "out_w")
    parameters: dict[str, int | str | tuple[int, ...]] = {
        "function": function,
        "inner": inner.function,
        "has_scratch": int(inner.scratch_bytes > 0),
        "struct": inner.struct,
        "x": CTYPES[graph.arg(node, "x").type.dtype],
        "y": CTYPES[y.dtype],
        "map_bytes": map_bytes,
        **dict(zip(names, sizes, strict=True)),
    }
    copies = out_h * -(-(out_w + left) // attrs.stride[1])
    return replace(
        inner,
        kernel=f"conv_transpose2d_{isa}",
        function=function,
        tables=tables,
        sources=(*inner.sources, "pg_interleave.h"),
        blocks=(*inner.blocks, Block("conv_transpose.h.j2", function, tuple(parameters.items()))),
        instructions=inner.instructions + copies * (28.0 + 0.75 * attrs.stride[1] * pixel) + 40,
        scratch_bytes=map_bytes + inner.scratch_bytes,
        in_place=frozenset(),
        row_function="",
    )


def _outer(part: Table, phases: Phases, unseen: tuple[tuple[int, ...], ...], size: tuple[int, int]) -> Table:
    """A table of the convolution as one of the transposed convolution's constants."""
    return replace(part, layout=Stacked(phases, unseen, size, part.layout)) if part.roles else part


def _as_convolution(graph: Graph, node: Node) -> tuple[Graph, Node, Phases, tuple[int, int]] | None:
    """The graph with the convolution of all phases in the node's place; None where it would not be an ordinary one."""
    attrs, phases = attributes(node), _phases(graph, node)
    x, y = graph.arg(node, "x").type, graph.type(node.output)
    if attrs.groups != 1:
        return None
    sizes, dilations, padding = [], [], []
    for axis in (0, 1):
        stride, before = attrs.stride[axis], attrs.padding[2 * axis]
        length, dilation = reach(phases, axis), attrs.dilation[axis] if stride == 1 else 1
        first, last = before // stride, (before + y.step_shape[axis] - 1) // stride  # of the pixels' own outputs
        ahead = dilation * (length - 1) - first
        behind = last - first + dilation * (length - 1) - x.step_shape[axis] - ahead + 1
        if min(ahead, behind) < 0:
            return None
        sizes.append(last - first + 1)
        dilations.append(dilation)
        padding += [ahead, behind]
    size = (reach(phases, 0), reach(phases, 1))
    unseen = phases.unseen(graph.data(node, "w"), matrix_numerics(node).input_zero_point)
    constants = stack(phases, unseen, size, {role: graph.data(node, role) for role in ("w", "b", "m")})
    names = {role: f"{node.name}.phases.{role}" for role in constants}
    conv2d = Conv2d((1, 1), tuple(padding), (dilations[0], dilations[1]), 1, attrs.activation)  # type: ignore[arg-type]
    inner = replace(
        node,
        op="conv2d",
        attrs=conv2d,
        inputs={"x": node.inputs["x"], **names},
        output=f"{node.name}.phases",
    )
    out = TensorType((sizes[0], sizes[1], len(constants["b"])), y.dtype, y.quant)
    values = [Value(names[role], TensorType(tuple(c.shape), DType(c.dtype.name)), c) for role, c in constants.items()]
    nodes = [inner if n.name == node.name else n for n in graph.nodes]
    return graph.with_(nodes=nodes, values=[*values, Value(inner.output, out)]), inner, phases, size


KERNELS = (
    KernelDef("conv_transpose2d_portable", OP, frozenset(), _portable),
    KernelDef("conv_transpose2d_dsp", OP, frozenset({"dsp"}), partial(_stacked, isa="dsp")),
    KernelDef("conv_transpose2d_mve", OP, frozenset({"mve"}), partial(_stacked, isa="mve")),
)
