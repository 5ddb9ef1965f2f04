"""The tables of aten operators, by family: how each becomes nodes of the IR."""

from __future__ import annotations

from projgen.importers.torch import attention, dense, pointwise, pooling, recurrent, shapes
from projgen.importers.torch.context import Handler

HANDLERS: dict[str, Handler] = {
    **dense.HANDLERS,
    **recurrent.HANDLERS,
    **pointwise.HANDLERS,
    **pooling.HANDLERS,
    **shapes.HANDLERS,
    **attention.HANDLERS,
}
