"""Select and merge: keep the units that matter most for the output, let their consumers imitate the others.

For a group of units with features h read by consumers W, leaving units out and writing h ~ M h_S costs
sum over consumers of tr Om E, with Om = sum over taps of W^T G W and E the covariance of the residual. Units are
taken greedily, each time the one that lowers that sum most; M = C_:S C_SS^-1 then goes into the consumers'
columns. C is uncentred, so zero padding stays exact and biases stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from projgen.pca.collect import LayerStats
from projgen.pca.convolution import Convolution, in_own_order, is_convolution, rows_of
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


def rank_units(group: Group, model: nn.Module, stats: Mapping[tuple[str, int], LayerStats]) -> Ranking | None:
    """Rank the units of a group; None if a consumer's statistics (by module and cell) are missing."""
    covariances, weights = [], []
    for consumer in group.consumers:
        found = _consumer_statistics(consumer, group.size, model, stats)
        if found is None:
            return None
        ridge = _RIDGE * float(np.trace(found[0])) / group.size
        # Units that are zero on all data tell nothing of each other: none is merged into another.
        covariances.append(found[0] + (ridge if ridge > 0.0 else 1.0) * np.eye(group.size))
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
    consumer: Consumer, size: int, model: nn.Module, stats: Mapping[tuple[str, int], LayerStats]
) -> tuple[Array, Array] | None:
    """(covariance of the units, Om) at one consumer, Om per observation."""
    found = stats.get((consumer.module, consumer.cell))
    if found is None:
        return None
    module = model.get_submodule(consumer.module)
    scale = found.inputs[0].rows / max(found.samples, 1)
    second = found.inputs[0].second
    curvature = found.curvature
    if isinstance(module, nn.LSTM | nn.GRU):
        w, r = (_double(getattr(module, name)) for name in module._all_weights[consumer.cell][:2])
        first = found.layer.inputs if consumer.recurrent else consumer.offset
        g = curvature.get("z", curvature.get("h" if consumer.recurrent else "x"))
        covariance = second[first : first + size, first : first + size]
        taps = (r if consumer.recurrent else w[:, first : first + size])[:, :, None]
    elif isinstance(module, nn.Linear):
        part = slice(consumer.offset, consumer.offset + size * consumer.block)
        blocks = second[part, part].reshape(size, consumer.block, size, consumer.block)
        covariance = np.einsum("aubu->ab", blocks) / consumer.block
        g, taps = curvature.get("z"), _double(module.weight)[:, part].reshape(-1, size, consumer.block)
    elif is_convolution(module):
        part = slice(consumer.offset, consumer.offset + size)
        covariance, taps = second[part, part], _double(rows_of(module))[:, part].reshape(module.out_channels, size, -1)
        g = None if "z" not in curvature else curvature["z"][0]
        if found.patches:
            scale = found.patches[0].rows / max(found.samples, 1)
    else:
        return None
    weighted = taps if g is None else np.einsum("op,pct->oct", g, taps, optimize=True)
    return covariance, scale * np.einsum("oct,odt->cd", taps, weighted, optimize=True)


def narrowed(model: nn.Module, kept: list[tuple[Ranking, Array]]) -> nn.Module:
    """A copy of a model with only the chosen units, merged into their consumers.

    Args:
        kept: per group its ranking and the indices that stay (ascending).
    """
    own = copy.deepcopy(model)
    edits: dict[str, dict[int, _Edit]] = {}

    def edit(module: str, cell: int) -> _Edit:
        return edits.setdefault(module, {}).setdefault(cell, _Edit())

    for ranking, chosen in kept:
        for name in (*ranking.group.producers, *ranking.group.followers):
            edit(name, ranking.group.cells.get(name, 0)).rows = chosen
        for consumer, merge in zip(ranking.group.consumers, merges(ranking, chosen), strict=True):
            if consumer.recurrent:
                edit(consumer.module, consumer.cell).recurrent = merge
            else:
                edit(consumer.module, consumer.cell).columns.append((consumer.offset, merge, consumer.block))
    for name, cells in edits.items():
        module = own.get_submodule(name)
        small = _small_rnn(module, cells) if isinstance(module, nn.LSTM | nn.GRU) else _small(module, cells[0])
        small.train(module.training)
        parent, _, last = name.rpartition(".")
        setattr(own.get_submodule(parent), last, small)
    return own


def merges(ranking: Ranking, chosen: Array) -> list[Array]:
    """Per consumer the matrix M (size, k) of the best linear guess h ~ M h_S of all units from the chosen ones."""
    return [np.linalg.solve(c[np.ix_(chosen, chosen)], c[chosen]).T for c in ranking.covariances]


@dataclass(slots=True)
class _Edit:
    """What happens to one layer or cell: the rows that stay, the merges of its columns (first feature, M, features
    per unit), and that of the hidden state it reads."""

    rows: Array | None = None
    columns: list[tuple[int, Array, int]] = field(default_factory=list)
    recurrent: Array | None = None

    def merged(self, weight: Array) -> Array:
        """A weight (O, D, taps) with its columns merged."""
        parts, at = [], 0
        for first, merge, block in sorted(self.columns, key=lambda column: column[0]):
            stop = first + merge.shape[0] * block
            taken = weight[:, first:stop].reshape(weight.shape[0], merge.shape[0], -1)
            small = np.einsum("oct,ck->okt", taken, merge, optimize=True).reshape(weight.shape[0], -1, weight.shape[2])
            parts += [weight[:, at:first], small]
            at = stop
        return np.concatenate((*parts, weight[:, at:]), 1)


class NarrowedStats(dict[str, LayerStats]):
    """Statistics per layer; after ``clear`` each is made anew when it is asked for."""

    def __init__(self, make: Callable[[Layer], LayerStats], layers: list[Layer]) -> None:
        super().__init__((layer.name, make(layer)) for layer in layers)
        self._make, self._layers = make, {layer.name: layer for layer in layers}

    def __missing__(self, name: str) -> LayerStats:
        self[name] = self._make(self._layers[name])
        return self[name]


def narrowed_stats(
    stats: Mapping[str, LayerStats], layers: list[Layer], kept: list[tuple[Ranking, Array]]
) -> NarrowedStats:
    """The statistics of a narrowed network as far as the original's moments tell: the kept features and rows.

    Args:
        stats: of the original. layers: those of the narrowed network, by the same names.
    """
    rows: dict[tuple[str, int], Array] = {}
    gone: dict[tuple[str, int], list[Array]] = {}
    back: dict[tuple[str, int], Array] = {}
    for ranking, chosen in kept:
        group = ranking.group
        rows.update({(name, group.cells.get(name, 0)): chosen for name in group.producers})
        left_out = np.setdiff1d(np.arange(group.size), chosen)
        for consumer, merge in zip(group.consumers, merges(ranking, chosen), strict=True):
            at = consumer.module, consumer.cell
            if consumer.recurrent:
                back[at] = merge
            else:
                features = left_out[:, None] * consumer.block + np.arange(consumer.block)
                gone.setdefault(at, []).append(consumer.offset + features.ravel())

    def make(layer: Layer) -> LayerStats:
        at = layer.module_name, layer.cell
        read = np.setdiff1d(np.arange(stats[layer.name].layer.inputs), np.concatenate(gone.get(at, [[]])))
        return _narrow_layer(stats[layer.name], layer, rows.get(at), read, back.get(at))

    return NarrowedStats(make, layers)


def _narrow_layer(found: LayerStats, layer: Layer, rows: Array | None, read: Array, back: Array | None) -> LayerStats:
    """Statistics of the ``rows`` and the features ``read`` that stay.

    An RNN's gates are reached through its hidden state, whose merge M (``back``) passes the influence of the units
    that went on to those that stayed: with M^T for the change of each gate's gradients, G becomes M^T G M.
    """
    old = found.layer
    patches = (read[:, None] * layer.taps + np.arange(layer.taps)).ravel()
    if old.hidden:
        units = np.arange(old.hidden) if rows is None else rows
        read = np.concatenate((read, old.inputs + units))
    if old.hidden and back is not None:
        spread = np.kron(np.eye(old.outputs // old.hidden), back)
        curvature = {key: spread.T @ g @ spread for key, g in found.curvature.items()}
        return LayerStats(layer, found.samples, tuple(m.pick(read) for m in found.inputs), curvature=curvature)
    made = np.arange(old.outputs) if rows is None else rows
    whole = old.groups > 1  # a grouped convolution is never narrowed
    return LayerStats(
        layer,
        found.samples,
        found.inputs if whole else tuple(m.pick(read) for m in found.inputs),
        found.outputs if whole or old.hidden else tuple(m.pick(made) for m in found.outputs),
        found.patches if whole else tuple(m.pick(patches) for m in found.patches),
        found.curvature if whole else {k: g[..., made[:, None], made] for k, g in found.curvature.items()},
    )


def _small(module: nn.Module, edit: _Edit) -> nn.Module:
    rows = edit.rows
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        assert rows is not None
        return _small_norm(module, rows)
    assert isinstance(module, nn.Linear | Convolution)
    weight = _double(module.weight if isinstance(module, nn.Linear) else rows_of(module))
    depthwise = not isinstance(module, nn.Linear) and module.groups > 1
    if edit.columns:
        flat = weight.reshape(*weight.shape[:2], -1)
        weight = edit.merged(flat).reshape(weight.shape[0], -1, *weight.shape[2:])
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
    if is_convolution(small):
        weight = in_own_order(small, torch.as_tensor(weight)).numpy()
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


def _small_rnn(module: nn.LSTM | nn.GRU, cells: Mapping[int, _Edit]) -> nn.Module:
    gates = 4 if isinstance(module, nn.LSTM) else 3
    hidden, directions = module.hidden_size, 2 if module.bidirectional else 1
    values: dict[str, Array] = {}
    chosen = []
    for cell, names in enumerate(module._all_weights):
        edit = cells.get(cell, _Edit())
        chosen.append(np.arange(hidden) if edit.rows is None else edit.rows)
        picked = np.concatenate([gate * hidden + chosen[-1] for gate in range(gates)])
        w, r, *biases = (_double(getattr(module, name)) for name in names)
        w, r = edit.merged(w[:, :, None])[:, :, 0], r if edit.recurrent is None else r @ edit.recurrent
        values.update(zip(names, (value[picked] for value in (w, r, *biases)), strict=True))
    like = module.get_parameter("weight_ih_l0")
    small = type(module)(
        values["weight_ih_l0"].shape[1], len(chosen[0]), num_layers=module.num_layers, bias=bool(module.bias),
        batch_first=bool(module.batch_first), dropout=module.dropout, bidirectional=bool(module.bidirectional),
        dtype=like.dtype, device=like.device,
    )  # fmt: skip
    before = getattr(module, KEPT_UNITS, tuple(range(hidden * directions)))
    emitted = [direction * hidden + unit for direction in range(directions) for unit in chosen[direction - directions]]
    setattr(small, KEPT_UNITS, tuple(before[unit] for unit in emitted))
    for name, value in values.items():
        setattr(small, name, _parameter(value, like))
    return small


def _double(value: torch.Tensor) -> Array:
    return np.asarray(value.detach().double().cpu().numpy())


def _parameter(value: Array, like: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(np.ascontiguousarray(value), dtype=like.dtype, device=like.device))
