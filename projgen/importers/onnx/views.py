"""Axis bookkeeping: transposes, squeezes and reshapes kept as descriptions until a real tensor is needed.

ONNX writes recurrent layers time first and with a direction axis; exporters wrap them in transposes, squeezes
and reshapes that undo each other. A ``View`` describes a tensor as a regrouping of the axes of a tensor that
exists (its base), so that these chains vanish instead of being repeated in the imported model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from torch import fx

from projgen.importers.onnx.sizes import Size, Symbolic, baked, divide, product, same

_serial = count()


@dataclass(frozen=True, slots=True)
class Atom:
    """A part of an axis that no reshape has split so far."""

    size: Size
    serial: int


Group = tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as a regrouping of the axes of ``node``.

    Attributes:
        node: the tensor that exists.
        base: its axes, each a group of atoms; an axis of size 1 has none.
        groups: the axes of the described tensor, made of the same atoms.
    """

    node: fx.Node
    base: tuple[Group, ...]
    groups: tuple[Group, ...]

    @property
    def shape(self) -> tuple[Size, ...]:
        return group_sizes(self.groups)

    @property
    def is_plain(self) -> bool:
        """Whether the described tensor is the existing one."""
        return self.base == self.groups

    def permute(self, order: Sequence[int]) -> View:
        return replace(self, groups=tuple(self.groups[axis] for axis in order))

    def insert(self, axes: Sequence[int]) -> View:
        """Axes of size 1 at these places of the result."""
        groups = list(self.groups)
        for axis in sorted(axes):
            groups.insert(axis, ())
        return replace(self, groups=tuple(groups))

    def remove(self, axes: Sequence[int]) -> View:
        return replace(self, groups=tuple(g for axis, g in enumerate(self.groups) if axis not in axes))

    def parted(self, last: int) -> View:
        """With an axis for every part of the axes before the ``last`` ones."""
        single = tuple((atom,) for group in self.groups[:-last] for atom in group)
        return replace(self, groups=(*single, *self.groups[-last:]))

    def merged(self, counts: Sequence[int]) -> View:
        """The reverse of ``parted``: the first axes, so many at a time (0: one of size 1), merged."""
        view = self
        for axis, count_ in enumerate(counts):
            view = view.merge(axis, axis + count_)
        return view

    def merge(self, first: int, last: int) -> View:
        """Axes first..last-1 as one."""
        merged = tuple(atom for group in self.groups[first:last] for atom in group)
        return replace(self, groups=(*self.groups[:first], merged, *self.groups[last:]))

    def reshape(self, target: Sequence[Size]) -> View | None:
        """The tensor in the shape ``target`` (-1 allowed once), or None if the axes don't line up.

        A baked batch in ``target`` takes the batch axis, whatever its true length.
        """
        splits: dict[Atom, Group] = {}
        atoms = [atom for group in self.groups for atom in group]
        open_axis = next((i for i, size in enumerate(target) if size == -1), len(target))
        head = _take(atoms, target[:open_axis], splits, from_left=True)
        tail = _take(atoms, list(target[open_axis + 1 :])[::-1], splits, from_left=False)
        if head is None or tail is None or (open_axis == len(target) and atoms):
            return None
        middle = [tuple(atoms)] if open_axis < len(target) else []
        groups = (*head, *middle, *tail[::-1])
        return View(self.node, tuple(_split(g, splits) for g in self.base), tuple(_split(g, splits) for g in groups))


def new_view(node: fx.Node, shape: Sequence[Size]) -> View:
    """A tensor that exists, with an atom for every axis longer than 1."""
    groups = tuple(() if size == 1 else (Atom(size, next(_serial)),) for size in shape)
    return View(node, groups, groups)


def group_sizes(groups: Sequence[Group]) -> tuple[Size, ...]:
    return tuple(product(atom.size for atom in group) for group in groups)


def _split(group: Group, splits: dict[Atom, Group]) -> Group:
    while any(atom in splits for atom in group):
        group = tuple(part for atom in group for part in splits.get(atom, (atom,)))
    return group


def _take(
    atoms: list[Atom], sizes: Sequence[Size], splits: dict[Atom, Group], *, from_left: bool
) -> list[Group] | None:
    """Remove from one end of ``atoms`` the groups that make up ``sizes``; None if that is impossible."""
    end = 0 if from_left else -1
    groups: list[Group] = []
    for wanted in sizes:
        group: list[Atom] = []
        while not _complete(group, wanted, atoms, from_left):
            if not atoms:
                return None
            atom = atoms.pop(end)
            got = product(a.size for a in group)
            if not _fits(got * atom.size, wanted):
                part = _quotient(wanted, got)
                rest = None if part is None else divide(atom.size, part)
                if part is None or rest is None:
                    return None
                inner, outer = Atom(part, next(_serial)), Atom(rest, next(_serial))
                splits[atom] = (inner, outer) if from_left else (outer, inner)
                atoms.insert(0 if from_left else len(atoms), outer)
                atom = inner
            group.insert(len(group) if from_left else 0, atom)
        groups.append(tuple(group))
    return groups


def _complete(group: list[Atom], wanted: Size, atoms: list[Atom], from_left: bool) -> bool:
    if not same(product(atom.size for atom in group), wanted):
        return False
    # A stated length of 1 means the batch axis when that is next in line and was baked as 1.
    return not (
        from_left
        and not group
        and wanted == 1
        and atoms
        and isinstance(atoms[0].size, Symbolic)
        and same(atoms[0].size, 1)
    )


def _quotient(wanted: Size, got: Size) -> Size | None:
    """What is missing to a stated length, a baked batch among what is there already counted at its baked length."""
    exact, known = divide(wanted, got), baked(got)
    if exact is not None or isinstance(wanted, Symbolic) or not known or wanted % known:
        return exact
    return wanted // known


def _fits(got: Size, wanted: Size) -> bool:
    if divide(wanted, got) is not None:
        return True
    mine, theirs = baked(got), baked(wanted)
    return mine is not None and theirs is not None and theirs % mine == 0 and not isinstance(wanted, Symbolic)
