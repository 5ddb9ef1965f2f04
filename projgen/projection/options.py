"""The options of a layer, or of an RNN cell and the layer that shares its projector: costs, losses and their fronts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from projgen.pca.discover import Layer
from projgen.projection.factors import Array
from projgen.projection.ranks import DENSE, Choice, Options, output_cost, pareto

_SMALL, _BLOCK, _FINE, _FRONT = 8, 4, 64, 64


@dataclass(frozen=True, slots=True)
class Weighting:
    """How the search bends the predicted losses: factors on what a layer reads and on its hidden state, and the form
    of an LSTM ("separate", "joint", "folded", "unfolded" for the first two, "" for any). ``shared``: whether its reader
    uses its projector."""

    read: float = 1.0
    hidden: float = 1.0
    form: str = ""
    shared: bool | None = None


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Choices of one layer, or of several layers together, and the predicted loss of each, (n,)."""

    layers: tuple[Layer, ...]
    choices: tuple[tuple[Choice, ...], ...]
    loss: Array


@dataclass(frozen=True, slots=True)
class Table:
    """All options of a layer: cost, and losses on the input side (or in all) and on the hidden side."""

    layer: Layer
    cost: Array
    read: Array
    hidden: Array
    choices: tuple[Choice, ...]

    def options(self, weighting: Weighting) -> Options[Choice]:
        kept, loss = self.kept(weighting), self.loss(weighting)
        return pareto(self.layer, self.cost[kept], loss[kept], [self.choices[i] for i in kept])

    def loss(self, weighting: Weighting) -> Array:
        """The bent loss of every option."""
        return np.asarray(weighting.read * self.read + weighting.hidden * self.hidden)

    def alternatives(self) -> Alternatives:
        """Options of least loss for their learnables, and those of round ranks."""
        plain = Weighting()
        front = self.options(plain).choices
        front = front[:: -(-len(front) // _FRONT)]
        few = [i for i, c in enumerate(self.choices) if c == DENSE or c in front or is_round(self.layer, c)]
        return Alternatives((self.layer,), tuple((self.choices[i],) for i in few), self.loss(plain)[few])

    def kept(self, weighting: Weighting) -> Array:
        """Indices of the options of the wanted form."""
        forms = ("separate", "joint") if weighting.form == "unfolded" else (weighting.form,)
        wanted = np.array([choice.form in forms for choice in self.choices])
        dense = np.array([choice == DENSE for choice in self.choices])
        return np.flatnonzero(wanted | dense if wanted.any() else np.ones(len(self.choices), dtype=bool))


@dataclass(frozen=True, slots=True)
class Sharing:
    """A linear layer behind the projector of an RNN cell: its errors at every rank, for each form of the cell."""

    rnn: Layer
    reader: Layer
    projectors: dict[str, Array]
    errors: dict[str, Array]

    def choice(self, of_rnn: Choice) -> Choice | None:
        """The reader's choice beside one of the cell, None if that has no output projector."""
        rank = of_rnn.r_out
        if rank is None or rank >= self.rnn.hidden:
            return None
        return Choice(rank, None, of_rnn.joint, shared=True, folded=of_rnn.folded)

    def error(self, choice: Choice) -> float:
        assert choice.r_in is not None
        return float(self.errors[choice.form][choice.r_in])

    def alternatives(self, table: Table) -> Alternatives:
        """The options of the cell that have a projector, with the reader behind it.

        Args:
            table: of the cell.
        """
        found = [(i, choice, self.choice(choice)) for i, choice in enumerate(table.choices)]
        usable = [(i, a, b) for i, a, b in found if b is not None and is_round(self.rnn, a)]
        losses = table.loss(Weighting())[[i for i, _, _ in usable]]
        losses = losses + np.array([self.error(b) for _, _, b in usable])
        return Alternatives((self.rnn, self.reader), tuple((a, b) for _, a, b in usable), losses)

    def options(
        self, table: Table, rnn: Options[Choice], reader: Options[Choice], weighting: Weighting, of_reader: Weighting
    ) -> Options[tuple[Choice, ...]]:
        """The pairs of choices that no other pair beats: both on their own, and with the projector shared.

        Args:
            table: of the cell. rnn, reader: their own options, bent. weighting, of_reader: how.
        """
        pairs: list[tuple[Choice, ...]] = []
        costs, losses = [], []
        if not weighting.shared:
            pairs += [(a, b) for a in rnn.choices for b in reader.choices]
            costs.append((rnn.cost[:, None] + reader.cost).ravel())
            losses.append((rnn.error[:, None] + reader.error).ravel())
        if weighting.shared is not False:
            kept, loss = table.kept(weighting), table.loss(weighting)
            found = [(i, self.choice(table.choices[i])) for i in kept]
            usable = [(i, choice) for i, choice in found if choice is not None]
            pairs += [(table.choices[i], choice) for i, choice in usable]
            index = [i for i, _ in usable]
            costs.append(table.cost[index] + [output_cost(self.reader, choice) for _, choice in usable])
            losses.append(loss[index] + [of_reader.read * self.error(choice) for _, choice in usable])
        if weighting.shared and not pairs:
            return self.options(table, rnn, reader, replace(weighting, shared=False), of_reader)
        return pareto(table.layer, np.concatenate(costs), np.concatenate(losses), pairs)


def is_round(layer: Layer, choice: Choice) -> bool:
    """Whether ranks are small, or multiples of what kernels take at a time; of wide layers, of more."""
    for rank, width in zip(choice[:2], (layer.inputs, layer.hidden or layer.outputs), strict=True):
        block = _BLOCK * max(1, min(width, layer.inputs + layer.hidden) // _FINE)
        block = 2 * block if rank is not None and rank > 8 * block else block
        if rank is not None and rank % block and (rank > _SMALL or block > _BLOCK):
            return False
    return True
