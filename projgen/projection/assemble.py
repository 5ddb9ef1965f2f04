"""Putting projected layers into a copy of a model, and keeping what is known of its inputs."""

from __future__ import annotations

import copy

from torch import nn

from projgen.data import input_layout
from projgen.importers.spec import InputSpec, input_specs, remember_inputs
from projgen.pca.discover import Layer
from projgen.projection.factors import Factors, LinearFactors, build
from projgen.projection.layers import ProjectedLayer
from projgen.projection.shared import tie


def assemble(model: nn.Module, factors: dict[str, Factors], layers: list[Layer]) -> nn.Module:
    """A copy of a model with the layers that have factors replaced.

    Args:
        model: free of pruning masks (``owned_copy``); not modified.
        factors: per layer name. layers: where they belong.
    """
    own = copy.deepcopy(model)
    modules: dict[str, list[tuple[Layer, Factors | None]]] = {}
    for layer in layers:
        if layer.name in factors:
            modules.setdefault(layer.module_name, []).append((layer, factors[layer.name]))
    used: dict[str, ProjectedLayer] = {}
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in own.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places.setdefault(id(child), []).append((parent, name))
    result = own
    for module_name, cells in modules.items():
        module = own.get_submodule(module_name)
        replacement = build(module, cells, module_name or cells[0][0].name)
        for parent, name in places.get(id(module), []):
            setattr(parent, name, replacement)
        used[module_name] = replacement
        if module is own:
            result = replacement
    for module_name, cells in modules.items():
        for _, given in cells:
            if isinstance(given, LinearFactors) and given.shared is not None:
                tie(used[module_name], result.get_submodule(given.shared.module), given.shared.cell)
    return result


def remember(result: nn.Module, model: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Keep the model's input specifications on the result, or note those of the data."""
    specs = input_specs(model)
    if specs is None:
        layout = input_layout(model)
        names = layout.names if len(layout.names) == len(shapes) else [f"input{i}" for i in range(len(shapes))]
        specs = tuple(
            InputSpec(name, tuple(None if axis == layout.time_axis else size for axis, size in enumerate(shape))[1:])
            for name, shape in zip(names, shapes, strict=True)
        )
    remember_inputs(result, specs)
