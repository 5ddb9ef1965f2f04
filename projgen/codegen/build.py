"""A schedule becomes a C program: interface, tables, layers, and the bodies of the run functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import projgen
from projgen import resources
from projgen.cmsis_nn import DEFINES
from projgen.codegen.layers import Namer, array, layer, macs
from projgen.codegen.names import CTYPES, comment, float_literal
from projgen.codegen.program import (
    CArg,
    CBody,
    CCopy,
    CInit,
    CLayer,
    CLibrary,
    CLocal,
    CPort,
    CProgram,
    CTable,
    CVectors,
)
from projgen.codegen.structs import read_structs
from projgen.ir.graph import Graph, Port
from projgen.ir.types import Quant
from projgen.kernels.record import Block
from projgen.options import CompileOptions
from projgen.schedule.plan import STATE
from projgen.schedule.records import ALIGN, Kind, Phase, Reader, Schedule

_LOCAL_INCLUDE: Final = re.compile(r'^#include "([A-Za-z0-9_]+\.h)"\n', re.MULTILINE)
RUNTIME_HEADER: Final = "projgen_runtime.h"
BlockRenderer = Callable[[Block], str]


def build_program(
    schedule: Schedule, options: CompileOptions, digest: str, render: BlockRenderer, vectors: CVectors
) -> CProgram:
    """All that the templates need.

    Args:
        digest: hash of the quantised model, in hexadecimal.
        render: renders an emitted block (``render.render_block``).
        vectors: test vectors (``vectors.test_vectors``).
    """
    graph, plan = schedule.graph, schedule.plan
    segments = schedule.segments
    choices = [c.choice for s in segments for c in s.calls]
    sources = _sources(s for c in choices for s in c.sources)
    stored = schedule.stored()
    namer = Namer(schedule, options.name, read_structs(text for _, text in sources))
    namer = replace(namer, arrays=_arrays(namer, stored))
    layers = {s.index: layer(namer, s) for s in segments if s.kind is not Kind.COPY}
    return CProgram(
        name=options.name,
        macro=options.name.upper(),
        generator=f"projgen {projgen.__version__}",
        hash=digest,
        options=(("kernels", options.kernels), ("optimise", options.optimise), ("backend", options.backend)),
        target=schedule.target.name,
        is_sequence=graph.has_time,
        is_backward=schedule.lowered.is_backward,
        step_absent=step_absent(schedule),
        inputs=tuple(_port(graph, graph.inputs, i, plan.inputs[i].offset) for i in range(len(graph.inputs))),
        outputs=tuple(_port(graph, graph.outputs, i, 0) for i in range(len(graph.outputs))),
        arena_bytes=plan.arena_bytes,
        arena_with_input_bytes=plan.with_input_bytes,
        arena_lower_bound=plan.lower_bound,
        arena_align=ALIGN,
        state_bytes=plan.state_bytes,
        state_offset=plan[STATE].offset if plan.state_bytes else 0,
        counter_offset=plan.counter_offset,
        arena_map=tuple(
            CLocal(comment(b.name), "", b.offset, b.bytes, f"layers {b.first}-{b.last}") for b in plan.buffers
        ),
        tables=tuple(_unique(array(namer, readers) for readers in stored)),
        layers=tuple(layers.values()),
        main=_body(namer, layers, Phase.MAIN),
        step=_body(namer, layers, Phase.STEP),
        tail=_body(namer, layers, Phase.TAIL),
        resets=tuple(_resets(schedule, layers)),
        sources=sources,
        blocks=_blocks((b for c in choices for b in c.blocks), render),
        macs=sum(macs(graph, n) for n in graph.nodes),
        weight_bytes=schedule.weight_bytes,
        vectors=vectors,
        library=library_use(schedule, options),
    )


def library_use(schedule: Schedule, options: CompileOptions) -> CLibrary | None:
    """What the model needs of CMSIS-NN; None where it calls nothing of it."""
    functions = {f for s in schedule.segments for c in s.calls for f in c.choice.library_functions}
    if options.cmsis_nn is None or not functions:
        return None
    return CLibrary(options.cmsis_nn.version, DEFINES, options.cmsis_nn.sources(sorted(functions)))


def _port(graph: Graph, ports: tuple[Port, ...], i: int, offset: int) -> CPort:
    port = ports[i]
    t = graph.type(port.value)
    quant = t.quant or Quant(1.0)
    shape = user_shape(graph, port)
    return CPort(
        suffix="" if len(ports) == 1 else f"_{i}",
        name=comment(port.name),
        ctype=CTYPES[t.dtype],
        size=t.elements,
        scale=float_literal(quant.scale),
        zero_point=quant.zero_point,
        low=t.dtype.low,
        high=t.dtype.high,
        shape=tuple(str(d) for d in shape),
        layout=layout(graph, port),
        over_time=t.has_time,
        offset=offset,
    )


def user_shape(graph: Graph, port: Port) -> tuple[int | str, ...]:
    """The port's shape in PyTorch's order, without batch; "T" for time."""
    inner = graph.type(port.value).shape
    back = sorted(range(len(port.perm)), key=lambda axis: port.perm[axis])
    return tuple(inner[a] for a in back)


def layout(graph: Graph, port: Port) -> str:
    """Letters of the C order: CHW images are HWC, sequences TF; otherwise the axes' numbers in PyTorch's order."""
    rank = len(graph.type(port.value).shape)
    if port.perm == tuple(range(rank)):
        return {0: "scalar", 1: "N", 2: "TF" if graph.type(port.value).has_time else "01"}.get(
            rank, "".join(map(str, port.perm))
        )
    return "HWC" if port.perm == (1, 2, 0) else "".join(map(str, port.perm))


def step_absent(schedule: Schedule) -> str:
    """Why a model has no step function; "" where it has one."""
    if not schedule.graph.has_time:
        return "the model has no time axis"
    return "the model runs backwards over time: it needs the whole sequence" if schedule.lowered.is_backward else ""


def _arrays(namer: Namer, stored: Sequence[Sequence[Reader]]) -> dict[str, str]:
    """Of each table the array that holds it."""
    names = [[namer.table(r.segment, r.stage, r.table.name) for r in readers] for readers in stored]
    return {name: same[0] for same in names for name in same}


def _unique(tables: Iterable[CTable]) -> list[CTable]:
    seen: dict[str, CTable] = {}
    for table in tables:
        if table.symbol in seen:
            raise ValueError(f"two tables are named {table.symbol}")
        seen[table.symbol] = table
    return list(seen.values())


def _body(namer: Namer, layers: dict[int, CLayer], phase: Phase) -> CBody | None:
    """One function of the schedule; None when nothing runs in this phase."""
    schedule = namer.schedule
    segments = [s for s in schedule.segments if s.phase is phase]
    wanted = Phase.STEP if schedule.graph.has_time else Phase.MAIN
    if not segments and phase is not wanted:
        return None
    steps: list[CLayer | CCopy] = []
    touched: dict[str, CLocal] = {}
    inputs: set[int] = set()
    outputs: set[int] = set()
    for segment in segments:
        values = [*segment.inputs, *([segment.output] if segment.output else [])]
        for value in values:
            place = schedule.place(value)
            if place.base == "input":
                inputs.add(place.index)
            elif place.base == "output":
                outputs.add(place.index)
            else:
                root = schedule.lowered.views[value].root
                buffer = schedule.plan[root]
                touched[root] = CLocal(
                    namer.local(root),
                    CTYPES[schedule.graph.type(root).dtype],
                    buffer.offset,
                    buffer.bytes,
                    comment(root),
                )
        if segment.kind is Kind.COPY:
            port = segment.copy_to
            outputs.add(port)
            source, offset = namer.pointer(segment.inputs[0])
            suffix = "" if len(schedule.graph.outputs) == 1 else f"_{port}"
            nbytes = schedule.graph.type(segment.inputs[0]).nbytes
            steps.append(CCopy(f"output{suffix}", source, offset, nbytes))
        else:
            steps.append(layers[segment.index])
    passed = [a for s in steps if isinstance(s, CLayer) for a in s.arguments]
    parameters: list[CArg] = []
    counts = phase is Phase.STEP and schedule.plan.counter_offset is not None
    if counts or any(a.base == "state" for a in passed):
        parameters.append(CArg("state", "uint8_t", False, "state", "state"))
    parameters += [_port_arg(schedule.graph.inputs, "input", i, schedule.graph) for i in sorted(inputs)]
    parameters += [_port_arg(schedule.graph.outputs, "output", i, schedule.graph) for i in sorted(outputs)]
    if touched or any(a.base == "arena" for a in passed):
        parameters.append(CArg("base", "uint8_t", False, "arena", "arena"))
    return CBody(tuple(sorted(touched.values(), key=lambda c: c.name)), tuple(steps), tuple(parameters))


def _port_arg(ports: tuple[Port, ...], base: str, i: int, graph: Graph) -> CArg:
    name = base if len(ports) == 1 else f"{base}_{i}"
    return CArg(name, CTYPES[graph.type(ports[i].value).dtype], base == "input", "value", name)


def _resets(schedule: Schedule, layers: dict[int, CLayer]) -> Iterable[CInit]:
    for segment in schedule.segments:
        offset = schedule.plan.state_offsets.get(segment.calls[0].node.name) if segment.calls else None
        if offset is not None and segment.phase is Phase.STEP:
            call = layers[segment.index].calls[0]
            yield CInit(f"{call.function}_reset", call.params, offset)


def _sources(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The runtime header and the kernel files, each once, what they include first."""
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name in texts:
            return
        folder = "include" if name == RUNTIME_HEADER else "src"
        text = (resources.runtime_c() / folder / name).read_text(encoding="utf-8")
        for needed in _LOCAL_INCLUDE.findall(text):
            add(needed)
        texts[name] = _LOCAL_INCLUDE.sub("", text)

    add(RUNTIME_HEADER)
    for name in names:
        add(name)
    return tuple(texts.items())


def _blocks(blocks: Iterable[Block], render: BlockRenderer) -> tuple[tuple[str, str], ...]:
    made: dict[str, tuple[Block, str]] = {}
    for block in blocks:
        if block.function in made:
            if made[block.function][0] != block:
                raise ValueError(f"two different blocks are named {block.function}")
            continue
        made[block.function] = (block, render(block))
    return tuple((name, text) for name, (_, text) in made.items())
