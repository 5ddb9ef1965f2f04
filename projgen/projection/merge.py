"""Select and merge: keep the units that matter most for the output, let their consumers imitate the others.

For a group of units with features h read by consumers W, leaving units out and writing h ~ M h_S costs
sum over consumers of tr Om E, with Om = sum over taps of W^T G W and E the covariance of the residual. Units are
taken greedily, each time the one that lowers that sum most; M = C_:S C_SS^-1 then goes into the consumers'
columns. C is uncentred, so zero padding stays exact and biases stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from projgen.pca.collect import LayerStats
from projgen.pca.discover import Layer
from projgen.projection.factors import KEPT_UNITS, Array
from projgen.projection.trace import Consumer, Group

_RIDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Ranking:
    """The order in which a group's units are taken, and what each consumer sees of them.

    ``order``: unit indices, most important first. ``left[k]``: predicted loss when the first k are kept.
    ``covariances``: uncentred covariance of the units at each consumer, in the group's order of consumers.
    """

    group: Group
    order: Array
    left: Array
    covariances: tuple[Array, ...]


def rank_units(group: Group, model: nn.Module, stats: Mapping[str, LayerStats]) -> Ranking | None:
    """Rank the units of a group; None if a consumer's statistics are missing."""
    covariances, weights = [], []
    for consumer in group.consumers:
        found = _consumer_statistics(consumer, group.size, model, stats)
        if found is None:
            return None
        covariances.append(found[0] + _RIDGE * np.trace(found[0]) / group.size * np.eye(group.size))
        weights.append(found[1])
    if not covariances:
        return None
    residuals = [c.copy() for c in covariances]
    products = [e @ om for e, om in zip(residuals, weights, strict=True)]
    left = [sum(float(np.trace(p)) for p in products)]
    taken = np.zeros(group.size, dtype=bool)
    order = []
    for _ in range(group.size):
        gains = np.zeros(group.size)
        for e, p in zip(residuals, products, strict=True):
            gains += np.einsum("ij,ij->i", p, e) / np.maximum(np.diagonal(e), 1e-300)
        gains[taken] = -np.inf
        unit = int(gains.argmax())
        for index, (e, om) in enumerate(zip(residuals, weights, strict=True)):
            column, pivot = e[:, unit].copy(), max(float(e[unit, unit]), 1e-300)
            products[index] -= np.outer(column, om @ column) / pivot
            residuals[index] = e - np.outer(column, column) / pivot
        taken[unit] = True
        order.append(unit)
        left.append(max(0.0, sum(float(np.trace(p)) for p in products)))
    return Ranking(group, np.array(order), np.array(left), tuple(covariances))


def _consumer_statistics(
    consumer: Consumer, size: int, model: nn.Module, stats: Mapping[str, LayerStats]
) -> tuple[Array, Array] | None:
    """(covariance of the units, Om) at one consumer, Om per observation."""
    found = stats.get(consumer.module)
    if found is None:
        return None
    module = model.get_submodule(consumer.module)
    scale = found.inputs[0].rows / max(found.samples, 1)
    second = found.inputs[0].second
    curvature = found.curvature
    if isinstance(module, nn.LSTM | nn.GRU):
        width = found.layer.inputs
        part = slice(width, None) if consumer.recurrent else slice(0, width)
        weight = module.get_parameter("weight_hh_l0" if consumer.recurrent else "weight_ih_l0")
        g = curvature.get("z", curvature.get("h" if consumer.recurrent else "x"))
        covariance, taps = second[part, part], _double(weight)[:, :, None]
    elif isinstance(module, nn.Linear):
        blocks = second.reshape(size, consumer.block, size, consumer.block)
        covariance = np.einsum("aubu->ab", blocks) / consumer.block
        g, taps = curvature.get("z"), _double(module.weight).reshape(-1, size, consumer.block)
    elif isinstance(module, nn.Conv1d | nn.Conv2d):
        covariance, taps = second, _double(module.weight).reshape(module.out_channels, size, -1)
        g = None if "z" not in curvature else curvature["z"][0]
        if found.patches:
            scale = found.patches[0].rows / max(found.samples, 1)
    else:
        return None
    weighted = taps if g is None else np.einsum("op,pct->oct", g, taps)
    return covariance, scale * np.einsum("oct,odt->cd", taps, weighted)


def narrowed(model: nn.Module, kept: list[tuple[Ranking, Array]]) -> nn.Module:
    """A copy of a model with only the chosen units, merged into their consumers.

    Args:
        kept: per group its ranking and the indices that stay (ascending).
    """
    own = copy.deepcopy(model)
    rows: dict[str, Array] = {}
    columns: dict[str, tuple[Array, int]] = {}
    recurrent: dict[str, Array] = {}
    for ranking, chosen in kept:
        for name in (*ranking.group.producers, *ranking.group.followers):
            rows[name] = chosen
        for consumer, covariance in zip(ranking.group.consumers, ranking.covariances, strict=True):
            merge = np.linalg.solve(covariance[np.ix_(chosen, chosen)], covariance[chosen]).T  # (size, k)
            if consumer.recurrent:
                recurrent[consumer.module] = merge
            else:
                columns[consumer.module] = (merge, consumer.block)
    for name in {*rows, *columns, *recurrent}:
        module = own.get_submodule(name)
        small = _small(module, rows.get(name), columns.get(name), recurrent.get(name))
        small.train(module.training)
        parent, _, last = name.rpartition(".")
        setattr(own.get_submodule(parent), last, small)
    return own


def narrowed_stats(
    stats: Mapping[str, LayerStats], layers: list[Layer], kept: list[tuple[Ranking, Array]]
) -> dict[str, LayerStats]:
    """The statistics of a narrowed network as far as the original's moments tell: the kept features and rows.

    Args:
        stats: of the original. layers: those of the narrowed network, by the same names.
    """
    rows: dict[str, Array] = {}
    columns: dict[tuple[str, bool], tuple[Array, int]] = {}
    for ranking, chosen in kept:
        rows.update(dict.fromkeys(ranking.group.producers, chosen))
        for consumer in ranking.group.consumers:
            columns[consumer.module, consumer.recurrent] = (chosen, consumer.block)
    return {
        layer.name: _narrow_layer(stats[layer.name], layer, rows.get(layer.module_name), columns) for layer in layers
    }


def _narrow_layer(
    found: LayerStats, layer: Layer, rows: Array | None, columns: Mapping[tuple[str, bool], tuple[Array, int]]
) -> LayerStats:
    old = found.layer
    chosen, block = columns.get((layer.module_name, False), (np.arange(old.inputs), 1))
    read = (chosen[:, None] * block + np.arange(block)).ravel()
    if old.hidden:
        units, _ = columns.get((layer.module_name, True), (np.arange(old.hidden), 1))
        read = np.concatenate((read, old.inputs + units))
        width = old.hidden
        made = np.concatenate([gate * width + units for gate in range(old.outputs // width)])
    else:
        made = np.arange(old.outputs) if rows is None else rows
    patches = (chosen[:, None] * layer.taps + np.arange(layer.taps)).ravel()
    whole = old.groups > 1  # a grouped convolution is never narrowed
    return LayerStats(
        layer,
        found.samples,
        found.inputs if whole else tuple(m.pick(read) for m in found.inputs),
        found.outputs if whole or old.hidden else tuple(m.pick(made) for m in found.outputs),
        found.patches if whole else tuple(m.pick(patches) for m in found.patches),
        found.curvature if whole else {k: g[..., made[:, None], made] for k, g in found.curvature.items()},
    )


def _small(
    module: nn.Module, rows: Array | None, columns: tuple[Array, int] | None, recurrent: Array | None
) -> nn.Module:
    if isinstance(module, nn.LSTM | nn.GRU):
        return _small_rnn(module, rows, columns, recurrent)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        assert rows is not None
        return _small_norm(module, rows)
    assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)
    weight = _double(module.weight)
    depthwise = not isinstance(module, nn.Linear) and module.groups > 1
    if columns is not None:
        merge, block = columns
        flat = weight.reshape(weight.shape[0], merge.shape[0], -1)
        weight = np.einsum("oct,ck->okt", flat, merge).reshape(
            weight.shape[0], merge.shape[1] * block, *weight.shape[2:]
        )
    bias = None if module.bias is None else _double(module.bias)
    if rows is not None:
        weight, bias = weight[rows], None if bias is None else bias[rows]
    small = copy.copy(module)
    small._parameters = dict(module._parameters)
    if isinstance(small, nn.Linear):
        small.out_features, small.in_features = weight.shape
    else:
        small.out_channels = weight.shape[0]
        small.groups = weight.shape[0] if depthwise else 1
        small.in_channels = weight.shape[0] if depthwise else weight.shape[1]
    small.weight = _parameter(weight, module.weight)
    if bias is not None:
        small.bias = _parameter(bias, module.weight)
    return small


def _small_norm(module: nn.modules.batchnorm._BatchNorm, rows: Array) -> nn.Module:
    small = copy.deepcopy(module)
    small.num_features = len(rows)
    index = torch.as_tensor(rows)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            small._parameters[name] = nn.Parameter(parameter.detach()[index.to(parameter.device)].clone())
    for name, buffer in module._buffers.items():
        if buffer is not None and buffer.dim() == 1:
            small._buffers[name] = buffer[index.to(buffer.device)].clone()
    return small


def _small_rnn(
    module: nn.LSTM | nn.GRU, rows: Array | None, columns: tuple[Array, int] | None, recurrent: Array | None
) -> nn.Module:
    gates = 4 if isinstance(module, nn.LSTM) else 3
    hidden = module.hidden_size
    chosen = np.arange(hidden) if rows is None else rows
    picked = np.concatenate([gate * hidden + chosen for gate in range(gates)])
    w, r = _double(module.get_parameter("weight_ih_l0")), _double(module.get_parameter("weight_hh_l0"))
    w = w if columns is None else w @ columns[0]
    r = r if recurrent is None else r @ recurrent
    like = module.get_parameter("weight_ih_l0")
    small = type(module)(
        w.shape[1], len(chosen), batch_first=bool(module.batch_first), bias=bool(module.bias), dropout=module.dropout,
        dtype=like.dtype, device=like.device,
    )  # fmt: skip
    before = getattr(module, KEPT_UNITS, tuple(range(hidden)))
    setattr(small, KEPT_UNITS, tuple(before[i] for i in chosen.tolist()))
    for name, value in (("weight_ih_l0", w[picked]), ("weight_hh_l0", r[picked])):
        setattr(small, name, _parameter(value, like))
    if module.bias:
        for name in ("bias_ih_l0", "bias_hh_l0"):
            setattr(small, name, _parameter(_double(module.get_parameter(name))[picked], like))
    return small


def _double(value: torch.Tensor) -> Array:
    return np.asarray(value.detach().double().cpu().numpy())


def _parameter(value: Array, like: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(np.ascontiguousarray(value), dtype=like.dtype, device=like.device))
