"""Static memory planning: an offset in the arena for every buffer, exact before anything is built.

Buffers are intervals of segments with a size; placing them is interval colouring with sizes, which is NP-hard, so
several greedy orders and a short repair search are tried and the best plan is kept beside a lower bound. A buffer
that may be written in place over a dying input is placed together with it, as many bytes before it as it must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from projgen.schedule.records import ALIGN, ArenaPlan, Buffer, Kind, Lowered, Overlay, Phase, Segment

STATE: Final = "@state"
COUNTER_BYTES: Final = 4  # of the steps that a mean over time divides by
_REPAIRS: Final = 64  # attempts to move the buffer that sticks out to the front of the order


def align(size: int) -> int:
    """``size`` rounded up to the alignment of a buffer."""
    return -(-size // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class Demand:
    """What must be placed; ``overlays`` are (new, old, lead): they share bytes where old lies lead bytes after new."""

    buffers: tuple[Buffer, ...]
    overlays: frozenset[Overlay]


def state_layout(lowered: Lowered) -> tuple[dict[str, int], int | None, int]:
    """The state that a caller of the step function keeps: each stateful node's offset, the step counter's, the size."""
    offsets: dict[str, int] = {}
    size = 0
    for segment in lowered.segments:
        if segment.phase is not Phase.STEP:
            continue
        for call in segment.calls:
            if call.choice.state_bytes:
                offsets[call.node.name] = align(size)
                size = align(size) + call.choice.state_bytes
    counter = None
    if any(s.kind is Kind.FINISH for s in lowered.segments):
        counter = align(size)
        size = counter + COUNTER_BYTES
    return offsets, counter, size


def demand(lowered: Lowered) -> Demand:
    """The buffers of a lowered graph, with lifetimes, and who may overlay whom."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    end = len(lowered.segments) - 1
    for segment in lowered.segments:
        if segment.output:
            root = lowered.views[segment.output].root
            first.setdefault(root, segment.index)
            last[root] = max(last.get(root, 0), segment.index)
        for value in segment.inputs:
            root = lowered.views[value].root
            last[root] = max(last.get(root, 0), segment.index)
    buffers: list[Buffer] = []
    for port in lowered.graph.inputs:
        # A step model reads its input at every step, but a step's input is dead after that step.
        buffers.append(Buffer(port.value, "input", lowered.bytes(port.value), 0, last.get(port.value, 0)))
    for root, start in first.items():
        if root not in lowered.direct:
            buffers.append(Buffer(root, "value", lowered.bytes(root), start, last[root]))
    for segment in lowered.segments:
        now = segment.index
        if segment.scratch_bytes:
            buffers.append(Buffer(scratch_name(segment), "scratch", segment.scratch_bytes, now, now))
        for ring in segment.rings:
            buffers.append(Buffer(ring_name(segment, ring.value), "ring", ring.ring_bytes, now, now))
        for i, pad in enumerate(segment.pads):
            buffers.append(Buffer(pad_name(segment, i), "pad", pad.bytes, now, now))
    _, _, state_bytes = state_layout(lowered)
    if state_bytes:
        buffers.append(Buffer(STATE, "state", state_bytes, 0, end))
    by_name = {b.name: b for b in buffers}
    overlays = frozenset(
        (segment.output, root, lead)
        for segment in lowered.segments
        for root, lead in ((lowered.views[v].root, lead) for v, lead in segment.in_place.items())
        if segment.output in by_name
        and root in by_name
        and by_name[root].last == segment.index
        and by_name[segment.output].first == segment.index
        and all(lowered.views[v].offset == 0 for v in segment.inputs if lowered.views[v].root == root)
    )
    return Demand(tuple(buffers), overlays)


def scratch_name(segment: Segment) -> str:
    return f"@{segment.name}.scratch"


def ring_name(segment: Segment, value: str) -> str:
    return f"@{segment.name}.ring.{value}"


def pad_name(segment: Segment, place: int) -> str:
    return f"@{segment.name}.pad{place}"


def lower_bound(demanded: Demand, *, with_inputs: bool = False) -> int:
    """Bytes that no plan of these buffers can go below: the most that is live during one segment.

    Inputs don't count unless they are to lie in the arena. An overlay that could happen counts as if it did.
    """
    live = [b for b in demanded.buffers if with_inputs or b.role != "input"]
    bound = 0
    for now in {b.first for b in live}:
        at = {b.name: b for b in live if b.first <= now <= b.last}
        sizes = {name: align(b.bytes) for name, b in at.items()}
        used: set[str] = set()
        total = sum(sizes.values())
        for new, old, lead in sorted(demanded.overlays, key=lambda o: -_saved(sizes, o)):
            if new in at and old in at and at[old].last == now and not used & {new, old}:
                used |= {new, old}
                total -= _saved(sizes, (new, old, lead))
        slack = max(align(b.bytes) - b.bytes for b in at.values())
        bound = max(bound, total - slack)
    return bound


def _saved(sizes: Mapping[str, int], overlay: Overlay) -> int:
    """Bytes that two buffers share when both are live."""
    new, old, lead = overlay
    if new not in sizes or old not in sizes:
        return 0
    return max(0, min(sizes[old], sizes[new] - lead))


def plan(lowered: Lowered) -> ArenaPlan:
    """The best arena found: smallest with the input inside it, which over time lies behind it, then without."""
    demanded = demand(lowered)
    offsets, counter, state_bytes = state_layout(lowered)
    bound = lower_bound(demanded)
    reached = (bound, max(bound, lower_bound(demanded, with_inputs=True)))
    best: ArenaPlan | None = None
    for overlays in _overlay_choices(demanded):
        for placed in _attempts(Demand(demanded.buffers, overlays)):
            inside = tuple(b for b in placed if b.role != "input")
            arena = max((b.end for b in inside), default=0)
            if lowered.is_sequence:
                placed = _after(placed, arena)  # noqa: PLW2901  (any number of steps may follow the arena)
            with_input = max((b.end for b in placed), default=0)
            if best is None or _rank(max(with_input, arena), arena) < _rank(best.with_input_bytes, best.arena_bytes):
                ordered = tuple(sorted(inside, key=lambda b: (b.first, b.offset, b.name)))
                inputs = tuple(b for b in placed if b.role == "input")
                best = ArenaPlan(
                    ordered, inputs, overlays, arena, max(with_input, arena), bound, offsets, counter, state_bytes
                )
            if (best.arena_bytes, best.with_input_bytes) == reached:
                return best
    if best is None:
        raise ValueError("no placement was tried")
    return best


def _rank(with_input: int, arena: int) -> tuple[int, ...]:
    """Orders plans: RAM with the input counts most, but for what aligning it costs."""
    return align(with_input), arena, with_input


def _after(placed: Sequence[Buffer], arena: int) -> list[Buffer]:
    """The inputs moved one after the other behind the arena."""
    moved: list[Buffer] = []
    end = align(arena)
    for buffer in placed:
        if buffer.role == "input":
            moved.append(replace(buffer, offset=end))
            end = align(end + buffer.bytes)
        else:
            moved.append(buffer)
    return moved


def _overlay_choices(demanded: Demand) -> Iterable[frozenset[Overlay]]:
    """All overlays (a buffer is overlaid once and overlays once), those that save most first, and none."""
    sizes = {b.name: b.bytes for b in demanded.buffers}
    taken: set[Overlay] = set()
    for overlay in sorted(demanded.overlays, key=lambda o: (-_saved(sizes, o), o)):
        if _saved(sizes, overlay) and all(overlay[0] != n and overlay[1] != o for n, o, _ in taken):
            taken.add(overlay)
    if taken:
        yield frozenset(taken)
    yield frozenset()


def _groups(demanded: Demand) -> list[Group]:
    """Buffers that lie at fixed distances: chains of overlays. Each has its place in the group as its offset."""
    place = {b.name: 0 for b in demanded.buffers}
    group = {b.name: {b.name} for b in demanded.buffers}
    for new, old, lead in sorted(demanded.overlays):
        moved = place[new] + lead - place[old]
        for name in group[old]:
            place[name] += moved
        group[new] |= group[old]
        for name in group[old]:
            group[name] = group[new]
    by_name = {b.name: b for b in demanded.buffers}
    found: list[Group] = []
    for names in {id(g): g for g in group.values()}.values():
        lowest = min(place[n] for n in names)
        found.append(tuple(replace(by_name[n], offset=place[n] - lowest) for n in by_name if n in names))
    return found


Group = tuple[Buffer, ...]
Key = Callable[[Group], tuple[float, ...]]


def _size(group: Group) -> int:
    return max(b.end for b in group)


def _span(group: Group) -> int:
    return max(b.last for b in group) - min(b.first for b in group) + 1


_ORDERS: Final[Mapping[str, Key]] = {
    "largest first": lambda g: (-_size(g),),
    "longest lived first": lambda g: (-_span(g), -_size(g)),
    "largest area first": lambda g: (-_size(g) * _span(g),),
    "first used first": lambda g: (min(b.first for b in g), -_size(g)),
    "last used first": lambda g: (-max(b.last for b in g), -_size(g)),
}


def _attempts(demanded: Demand) -> Iterable[list[Buffer]]:
    """Placements by every order, inputs after all others and among them, each with a repair search."""
    groups = _groups(demanded)
    bound = lower_bound(demanded)
    for key in _ORDERS.values():
        for inputs_last in (True, False):

            def rank(group: Group, key: Key = key, inputs_last: bool = inputs_last) -> tuple[object, ...]:
                only_input = all(b.role == "input" for b in group)
                return (only_input and inputs_last, *key(group), group[0].name)

            order = sorted(groups, key=rank)
            seen: set[tuple[str, ...]] = set()
            for _ in range(_REPAIRS):
                placed = _place(order, demanded.overlays)
                yield placed
                counted = [b for b in placed if b.role != "input"] or placed
                highest = max(counted, key=lambda b: (b.end, b.name))
                names = tuple(g[0].name for g in order)
                if highest.end <= bound or names in seen:
                    break
                seen.add(names)
                stuck = next(g for g in order if any(b.name == highest.name for b in g))
                order = [stuck, *(g for g in order if g is not stuck)]


def conflicts(a: Buffer, b: Buffer, handed_over: frozenset[tuple[str, str]]) -> bool:
    """Whether two buffers are live at the same time and may not share bytes; (new, old) pairs may."""
    if a.first > b.last or b.first > a.last:
        return False
    return not (
        ((a.name, b.name) in handed_over and a.first == b.last)
        or ((b.name, a.name) in handed_over and b.first == a.last)
    )


def _place(order: Sequence[Group], overlays: frozenset[Overlay]) -> list[Buffer]:
    """Each group at the lowest offset free of conflicts with those placed before."""
    placed: list[Buffer] = []
    handed_over = frozenset((new, old) for new, old, _ in overlays)
    for group in order:
        # Forbidden starts of the group, one interval for each conflicting pair of a placed buffer and a member.
        blocked = sorted(
            (p.offset - align(b.end), align(p.end) - b.offset)
            for p in placed
            for b in group
            if conflicts(p, b, handed_over)
        )
        offset = 0
        for low, high in blocked:
            if low < offset < high:
                offset = align(high)
        # An interval that starts before ``offset`` was raised can block it again: repeat until nothing moves.
        while any(low < offset < high for low, high in blocked):
            offset = align(max(high for low, high in blocked if low < offset < high))
        placed.extend(replace(b, offset=offset + b.offset) for b in group)
    return placed
