"""A linear layer that reads an RNN's hidden state through the RNN's own output projector.

The RNN multiplies its hidden state h by ``R' Q^T``, Q (H, r) its output projector; the layer that reads h becomes
``A (Q^T h) + b`` with the same Q, stored once and trained once. Whatever selects or averages steps in between
commutes with Q.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projgen.pca.discover import Layer
from projgen.projection.layers import ProjectedLayer
from projgen.projection.recurrent import ProjectedGRU, ProjectedLSTM
from projgen.projection.trace import Group


class SharedProjector(nn.Module):
    """``x -> Q^T x`` without bias; ``weight`` is Q (D, r), as recurrent layers keep it, and may be theirs."""

    def __init__(
        self, inputs: int, rank: int, *, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, rank, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., r)."""
        return x @ self.weight

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


def shared_linear(a: Tensor, q: Tensor, bias: Tensor | None) -> nn.Sequential:
    """``x -> A (Q^T x) + bias``. A: (O, r), Q: (D, r), not tied yet; bias: (O) or None."""
    projector = SharedProjector(*q.shape, dtype=q.dtype, device=q.device)
    core = nn.Linear(a.shape[1], a.shape[0], bias=bias is not None, dtype=a.dtype, device=a.device)
    with torch.no_grad():
        projector.weight.copy_(q)
        core.weight.copy_(a)
        if bias is not None:
            core.bias.copy_(bias)
    return nn.Sequential(OrderedDict(input_projector=projector, core=core))


def tie(layer: ProjectedLayer, rnn: nn.Module, cell: int) -> None:
    """Make the cell's output projector the layer's own projector."""
    network = rnn.network if isinstance(rnn, ProjectedLayer) else rnn
    assert isinstance(network, ProjectedLSTM | ProjectedGRU)
    projector = network.cell_tensor("output_projector", cell)
    assert isinstance(projector, nn.Parameter)
    layer.network.get_submodule("input_projector").weight = projector


@dataclass(frozen=True, slots=True)
class Tied:
    """A linear layer, by its projector and core, and the recurrent cell whose output projector it uses."""

    projector: SharedProjector
    core: nn.Linear
    rnn: ProjectedLSTM | ProjectedGRU
    cell: int


def tied_pairs(model: nn.Module) -> Iterator[Tied]:
    """All linear layers of a model that use the output projector of a recurrent cell."""
    owners: dict[int, tuple[ProjectedLSTM | ProjectedGRU, int]] = {}
    for module in model.modules():
        if isinstance(module, ProjectedLSTM | ProjectedGRU):
            for cell in range(len(module.output_rank)):
                owners[id(module.cell_tensor("output_projector", cell))] = (module, cell)
    for module in model.modules():
        children = dict(module.named_children())
        projector, core = children.get("input_projector"), children.get("core")
        if isinstance(projector, SharedProjector) and isinstance(core, nn.Linear):
            owner = owners.get(id(projector.weight))
            if owner is not None:
                yield Tied(projector, core, *owner)


def shared_readers(groups: list[Group], layers: list[Layer]) -> dict[str, str]:
    """{name of a linear layer: name of the RNN cell whose hidden state it reads}, the widest reader of each cell.

    Args:
        groups: as traced; a layer that reads nothing but the units of one cell qualifies.
        layers: those that may be projected; both must be among them.
    """
    cells = {(x.module_name, x.cell): x for x in layers if x.hidden}
    plain = {x.module_name: x for x in layers if not x.hidden}
    found: dict[str, str] = {}
    for group in groups:
        made_by = cells.get((group.producers[0], group.cells.get(group.producers[0], -1)))
        made_by = made_by if len(group.producers) == 1 else None
        if made_by is None:
            continue
        readers = [
            plain[c.module]
            for c in group.consumers
            if c.module in plain and c.block == 1 and plain[c.module].inputs == made_by.hidden
        ]
        if readers:
            widest = max(readers, key=lambda x: x.outputs)
            found[widest.name] = made_by.name
    return found
