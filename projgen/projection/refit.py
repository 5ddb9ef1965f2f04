"""Sequential refit: each feed-forward layer learns to make the original's pre-activation from what now reaches it.

Layer by layer in the order of execution, the original and the network compressed so far run side by side. With x
the layer's present input (patches for a convolution), z the original pre-activation of the rows that remain,
S = cov x and X = cov(x, z), the best dense weight is X^T S^-1; it takes the place of W in the closed forms, so
that a layer makes up for the errors of those before it. A ridge draws it towards the merged weight where the data
says nothing. RNN cells keep their closed form: refitting them in their own loop brought nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from projgen.data import place
from projgen.pca.collect import LayerStats
from projgen.pca.convolution import Convolution, in_own_order, is_convolution, patches_of, rows_of
from projgen.pca.discover import Kind, Layer
from projgen.pca.moments import Moments, MomentSummary
from projgen.projection.assemble import assemble
from projgen.projection.closed_form import output_factors, output_regressions, shared_factors
from projgen.projection.conv_form import conv_factors, conv_problems
from projgen.projection.factors import Array, DenseWeights, Factors, dense_weights
from projgen.projection.measure import evaluating
from projgen.projection.predict import Predictor
from projgen.projection.ranks import DENSE, Choice

_RIDGE = 1e-5
_ROUNDING = 1e-12
_CHUNK_VALUES = 4_000_000


class _Reached(Exception):  # noqa: N818 (no error)
    """The layer was reached: the rest of the network need not run."""


@dataclass(slots=True)
class _Seen:
    value: Tensor | None = None


def refitted(
    teacher: nn.Module,
    narrow: nn.Module,
    layers: list[Layer],
    chosen: Mapping[str, Choice],
    work: Predictor,
    stats: Mapping[str, LayerStats],
    rows: Mapping[str, Array],
    batches: Iterable[tuple[Tensor, ...]],
    device: torch.device,
) -> nn.Module:
    """The narrow network with the chosen factors, every feed-forward layer refitted to the teacher.

    Args:
        teacher: the original. narrow: after select-and-merge (a copy of the teacher without it); not modified.
        layers: the layers of the narrow net in order of execution, with ``chosen`` ranks and their ``stats``.
        rows: per module name the rows of the teacher that the narrow net kept; absent means all.
        batches: read once per refitted layer.
    """
    factors: dict[str, Factors] = {
        x.name: work.factors(x, chosen[x.name]) for x in layers if x.hidden and chosen[x.name] != DENSE
    }
    current = assemble(narrow, factors, layers)
    changed = bool(factors) or bool(rows)
    for layer in layers:
        if layer.hidden:
            continue
        choice = chosen[layer.name]
        if not changed and choice == DENSE:
            continue
        if changed:
            joint = _joint_moments(teacher, current, layer, rows.get(layer.module_name), batches, device)
            dense, seen = _refit(dense_weights(narrow, layer), stats[layer.name], joint)
        else:
            dense, seen = dense_weights(narrow, layer), stats[layer.name]
        changed = True
        if choice == DENSE:
            _write(current, layer, dense)
        else:
            factors = {layer.name: _factor(layer, choice, dense, seen, work)}
            current = assemble(current, factors, [layer])
    return current


def _factor(layer: Layer, choice: Choice, dense: DenseWeights, stats: LayerStats, work: Predictor) -> Factors:
    if choice.shared:
        return shared_factors(dense, stats, work.projector(layer, choice), work.source(layer))
    if layer.kind is Kind.CONV:
        return conv_factors(dense, stats, conv_problems(dense, stats), choice)
    return output_factors(dense, stats, output_regressions(dense, stats), choice)


def _write(model: nn.Module, layer: Layer, dense: DenseWeights) -> None:
    module = model.get_submodule(layer.module_name)
    assert isinstance(module, nn.Linear | Convolution)
    weight = torch.as_tensor(dense.weight)
    if not isinstance(module, nn.Linear):
        weight = in_own_order(module, weight.reshape(rows_of(module).shape))
    with torch.no_grad():
        module.weight.copy_(weight)
        if module.bias is not None and dense.bias is not None:
            module.bias.copy_(torch.as_tensor(dense.bias))


def _refit(dense: DenseWeights, stats: LayerStats, joint: list[MomentSummary]) -> tuple[DenseWeights, LayerStats]:
    """The least-squares layer and the statistics of what it reads now."""
    groups = len(joint)
    columns = dense.weight.shape[-1] * (dense.weight.shape[-2] if dense.weight.ndim == 4 else 1)
    flat = dense.weight.reshape(groups, -1, columns)
    weights, biases, seen = [], [], []
    for group, moments in enumerate(joint):
        read = moments.part(0, columns)
        if dense.bias is None:
            second = moments.second
            s, x = second[:columns, :columns], second[:columns, columns:]
        else:
            s, x = read.covariance, moments.covariance[:columns, columns:]
        # What hardly varies beside its mean has a covariance of rounding errors alone, which must not be inverted.
        scale = max(_RIDGE * float(np.trace(s)), _ROUNDING * float(np.trace(read.second)))
        ridge = scale / columns + 1e-300
        prior = flat[group]
        weight = np.linalg.solve(s + ridge * np.eye(columns), x + ridge * prior.T).T
        weights.append(weight)
        biases.append(moments.mean[columns:] - weight @ read.mean)
        seen.append(read)
    new = np.stack(weights).reshape(dense.weight.shape)
    bias = None if dense.bias is None else np.concatenate(biases)
    kind = stats.layer.kind
    if kind is Kind.CONV:
        return DenseWeights(new, None, bias, None), replace(stats, patches=tuple(seen))
    return DenseWeights(new, None, bias, None), replace(stats, inputs=tuple(seen))


def _joint_moments(
    teacher: nn.Module,
    current: nn.Module,
    layer: Layer,
    rows: Array | None,
    batches: Iterable[tuple[Tensor, ...]],
    device: torch.device,
) -> list[MomentSummary]:
    """Moments of [present input; original pre-activation], one per group."""
    ours, theirs = current.get_submodule(layer.module_name), teacher.get_submodule(layer.module_name)
    read, wanted = _Seen(), _Seen()
    handles = [
        ours.register_forward_pre_hook(partial(_keep_input, read)),
        theirs.register_forward_hook(partial(_keep_output, wanted)),
    ]
    moments: list[Moments] = []
    index = None if rows is None else torch.as_tensor(rows, device=device)
    try:
        with torch.no_grad(), evaluating(teacher), evaluating(current):
            for batch in batches:
                placed = place(batch, teacher, device)
                for model in (teacher, current):
                    with suppress(_Reached):
                        model(*placed)
                assert read.value is not None and wanted.value is not None
                _add(moments, ours, layer, read.value, wanted.value, index)
    finally:
        for handle in handles:
            handle.remove()
    return [m.finish() for m in moments]


def _add(moments: list[Moments], module: nn.Module, layer: Layer, x: Tensor, z: Tensor, rows: Tensor | None) -> None:
    if isinstance(module, nn.Linear):
        z = z if rows is None else z.index_select(-1, rows)
        pairs = torch.cat((x.reshape(-1, x.shape[-1]), z.reshape(-1, z.shape[-1])), 1)
        if not moments:
            moments.append(Moments(pairs.shape[1]))
        moments[0].update(pairs)
        return
    assert is_convolution(module)
    z = z if rows is None else z.index_select(1, rows)
    per_image = layer.taps * x.shape[1] * int(np.prod(z.shape[2:]))
    step = max(1, _CHUNK_VALUES // max(per_image, 1))
    for start in range(0, x.shape[0], step):
        patches = patches_of(module, x[start : start + step])
        part = z[start : start + step].flatten(2)
        targets = part.reshape(part.shape[0], module.groups, -1, part.shape[2]).permute(1, 0, 3, 2)
        targets = targets.reshape(module.groups, -1, targets.shape[-1])
        if not moments:
            width = patches.shape[-1] + targets.shape[-1]
            moments.extend(Moments(width) for _ in range(module.groups))
        for group in range(module.groups):
            moments[group].update(torch.cat((patches[group], targets[group]), 1))


def _keep_input(seen: _Seen, _module: nn.Module, args: Any) -> None:
    seen.value = args[0]
    raise _Reached


def _keep_output(seen: _Seen, _module: nn.Module, _args: Any, output: Tensor) -> None:
    seen.value = output.clone()
    raise _Reached
