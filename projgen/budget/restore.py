"""Projected layers that cost a target more than dense ones go back to dense."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from projgen.budget.predict import Footprint, predict
from projgen.data import as_batches
from projgen.options import Optimise, choice
from projgen.projection.layers import ProjectedLayer, unpack_projected_layers
from projgen.projection.recurrent import ProjectedGRU, ProjectedLSTM
from projgen.targets import Target


def restore_dense(
    projected: nn.Module, original: nn.Module, target: Target, example: Any, *, optimise: Optimise = "speed"
) -> list[str]:
    """Replace, in ``projected``, every projected layer that the target runs no cheaper than a dense one.

    A layer that kept its sizes gets the weights of ``original`` back, a narrowed one the product of its factors.
    Cheaper means fewer instructions; with ``optimise="flash"``, fewer bytes of constants.

    Args:
        projected: a model with ``ProjectedLayer``; it is changed.
        example: a batch of inputs, several in a tuple.
    Returns:
        Names of the layers that are dense again.
    """
    layers = {n: m for n, m in projected.named_modules() if isinstance(m, ProjectedLayer)}
    dense = {n: d for n, m in layers.items() if (d := _dense(m, original.get_submodule(n))) is not None}
    if not dense:
        return []
    whole = copy.deepcopy(projected)
    for name, module in dense.items():
        whole.set_submodule(name, copy.deepcopy(module))
    costs = [
        predict(unpack_projected_layers(copy.deepcopy(m)).cpu(), target, example, optimise=optimise)
        for m in (projected, whole)
    ]
    losing = []
    for name, module in dense.items():
        after, before = (_cost(f, name, optimise) for f in costs)
        if before and after >= before:
            projected.set_submodule(name, module)
            losing.append(name)
    return losing


def restore_for(projected: nn.Module, original: nn.Module, data: Any, target: Target, optimise: str) -> list[str]:
    """``restore_dense`` with a batch of the calibration data."""
    example = tuple(x.detach().cpu().numpy() for x in next(iter(as_batches(data, original))))
    favour: Optimise = choice(optimise, ("speed", "ram", "flash"), "optimise")
    return restore_dense(projected, original, target, example, optimise=favour)


def _cost(footprint: Footprint, module: str, optimise: Optimise) -> float:
    mine = [c for c in footprint.layers if c.belongs(module)]
    return sum(c.weight_bytes if optimise == "flash" else c.instructions for c in mine)


def _dense(layer: ProjectedLayer, original: nn.Module) -> nn.Module | None:
    """The dense form of a projected layer; None where it has none of its own."""
    network = layer.network
    if isinstance(network, ProjectedLSTM | ProjectedGRU):
        if not isinstance(original, nn.LSTM | nn.GRU):
            return None
        same = (network.input_size, network.hidden_size) == (original.input_size, original.hidden_size)
        return copy.deepcopy(original) if same else _recurrent(network)
    core = getattr(network, "core", None)
    into, out = (getattr(network, f"{side}_projector", None) for side in ("input", "output"))
    if not isinstance(core, nn.Linear | nn.Conv1d | nn.Conv2d) or not isinstance(original, type(core)):
        return None
    first, last = into or core, out or core
    if first.weight.shape[1] == original.weight.shape[1] and last.weight.shape[0] == original.weight.shape[0]:
        return copy.deepcopy(original)
    if getattr(core, "groups", 1) != 1:
        return None
    weight, bias = core.weight, core.bias
    if into is not None:
        weight = torch.einsum("or...,rc->oc...", weight, into.weight.flatten(1))
    if out is not None:
        weight = torch.einsum("no,oc...->nc...", out.weight.flatten(1), weight)
        carried = None if bias is None else out.weight.flatten(1) @ bias
        bias = out.bias if carried is None else carried if out.bias is None else carried + out.bias
    made = copy.deepcopy(core)
    made.weight = nn.Parameter(weight.detach().clone())
    made.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    if isinstance(made, nn.Linear):
        made.in_features, made.out_features = weight.shape[1], weight.shape[0]
    else:
        made.in_channels, made.out_channels = weight.shape[1], weight.shape[0]
    return made


def _recurrent(network: ProjectedLSTM | ProjectedGRU) -> nn.Module:
    kind = nn.LSTM if isinstance(network, ProjectedLSTM) else nn.GRU
    made = kind(
        network.input_size,
        network.hidden_size,
        network.num_layers,
        bias=network.bias,
        batch_first=network.batch_first,
        dropout=network.dropout,
        bidirectional=network.bidirectional,
    ).train(network.training)
    with torch.no_grad():
        for target, value in zip(made.parameters(), network.dense_weights(), strict=True):
            target.copy_(value)
    return made.to(next(network.parameters()).device)
