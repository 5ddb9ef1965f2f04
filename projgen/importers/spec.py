"""What a module remembers of its inputs: names, shapes without the batch axis, element types."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projgen.errors import InputError

ATTRIBUTE = "_projgen_inputs"
FLEXIBLE_STEPS = 8  # length given to a dynamic axis when an example is made up

# torch.fx.GraphModule copies only the attributes listed in its ``meta`` under this key.
_GRAPH_MODULE_KEPT = "_user_preserved_attributes"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: as the model's file or ``forward`` calls it.
        shape: sizes without axis 0, the batch; None marks a dynamic axis, such as time.
        dtype: element type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype = torch.float32


def remember_inputs(module: nn.Module, specs: tuple[InputSpec, ...]) -> None:
    """Attach the input specifications to a module, so that copies and pickles of it keep them."""
    setattr(module, ATTRIBUTE, specs)
    if isinstance(module, torch.fx.GraphModule):
        module.meta.setdefault(_GRAPH_MODULE_KEPT, {})[ATTRIBUTE] = specs


def input_specs(module: nn.Module) -> tuple[InputSpec, ...] | None:
    """The remembered input specifications, or None if the module has none."""
    specs = getattr(module, ATTRIBUTE, None)
    return specs if isinstance(specs, tuple) else None


def example_inputs(module: nn.Module, batch: int = 2) -> tuple[Tensor, ...] | None:
    """Standard normal inputs of the remembered shapes, the same ones on every call.

    Args:
        module: any module.
        batch: size of axis 0, at least 1.
    Returns:
        One tensor (batch, *shape) per input, dynamic axes of length ``FLEXIBLE_STEPS``; None if the module
        remembers no shapes.
    """
    if batch < 1:
        raise InputError(f"batch={batch}", "an integer of at least 1", "batch")
    specs = input_specs(module)
    if specs is None:
        return None
    generator = torch.Generator().manual_seed(0)
    shapes = [[batch, *(FLEXIBLE_STEPS if size is None else size for size in spec.shape)] for spec in specs]
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float32).to(spec.dtype)
        for shape, spec in zip(shapes, specs, strict=True)
    )
