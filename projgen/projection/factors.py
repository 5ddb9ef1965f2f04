"""Factors of one layer as plain float64 arrays, and the layers built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from projgen.pca.convolution import CONVOLUTIONS, Convolution, is_convolution, rows_of
from projgen.pca.counting import dense_cost, factored_cost
from projgen.pca.discover import Kind, Layer
from projgen.projection.layers import ProjectedLayer, projected_conv, projected_linear
from projgen.projection.recurrent import CELL_BIASES, CELL_WEIGHTS, ProjectedGRU, ProjectedLSTM
from projgen.projection.shared import shared_linear

Array = np.ndarray

# Attribute of a narrowed RNN: which hidden units of the original it kept, so that distillation can compare them.
KEPT_UNITS = "_projgen_kept_units"


@dataclass(frozen=True, slots=True)
class HiddenState:
    """The hidden state of one cell of a recurrent module."""

    module: str
    cell: int


@dataclass(frozen=True, slots=True)
class LinearFactors:
    """``x -> A (B x) + bias``: a (O, r), b (r, D), bias (O) or None.

    shared: B is the output projector of the RNN cell that makes x, one parameter of both layers.
    """

    a: Array
    b: Array
    bias: Array | None
    shared: HiddenState | None = None


@dataclass(frozen=True, slots=True)
class ConvFactors:
    """A convolution in up to three factors, as ``layers.projected_conv`` takes them.

    separable: the input projector (r_in, C * rows) spans the kernel's rows, the core (.., r_in, columns) its columns.
    """

    core: Array
    input_projector: Array | None
    output_projector: Array | None
    core_bias: Array | None
    bias: Array | None
    separable: bool = False


@dataclass(frozen=True, slots=True)
class CellFactors:
    """One RNN cell: a projector of None means the weight beside it is dense.

    weight_ih (gates*H, r_in or D), input_projector (D, r_in), weight_hh (gates*H, r_out or H),
    output_projector (H, r_out), bias_ih (gates*H) with both biases where they merge, bias_hn (H) for a GRU;
    joint: weight_ih and weight_hh are the same factor A of an LSTM; its bias may be folded then, projector_bias (r_in)
    instead of bias_ih: z = A (input_projector^T x + output_projector^T h + projector_bias).
    """

    weight_ih: Array
    input_projector: Array | None
    weight_hh: Array
    output_projector: Array | None
    bias_ih: Array | None
    bias_hn: Array | None
    joint: bool = False
    projector_bias: Array | None = None


Factors = LinearFactors | ConvFactors | CellFactors


@dataclass(frozen=True, slots=True)
class DenseWeights:
    """A layer's weights in float64: ``weight`` (O, D), conv (g, O/g, C/g, taps); RNN also ``hidden`` (gates*H, H).

    ``bias`` (O or gates*H, merged) and ``bias_hn`` (GRU) are None without bias.
    """

    weight: Array
    hidden: Array | None
    bias: Array | None
    bias_hn: Array | None


def dense_weights(model: nn.Module, layer: Layer) -> DenseWeights:
    """The weights of a layer (or cell) of a model."""
    module = model.get_submodule(layer.module_name)
    if isinstance(module, nn.LSTM | nn.GRU):
        w, r, *biases = (_numpy(getattr(module, name)) for name in module._all_weights[layer.cell])
        if not biases:
            return DenseWeights(w, r, None, None)
        b_ih, b_hh = biases
        if isinstance(module, nn.LSTM):
            return DenseWeights(w, r, b_ih + b_hh, None)
        gates = 2 * layer.hidden
        merged = np.concatenate((b_ih[:gates] + b_hh[:gates], b_ih[gates:]))
        return DenseWeights(w, r, merged, b_hh[gates:])
    assert isinstance(module, nn.Linear | Convolution)
    bias = None if module.bias is None else _numpy(module.bias)
    if isinstance(module, nn.Linear):
        weight = _numpy(module.weight)
    else:
        weight = _numpy(rows_of(module)).reshape(layer.groups, layer.outputs, layer.inputs, layer.taps)
    return DenseWeights(weight, None, bias, None)


def ranks_of(factors: Factors) -> tuple[int | None, int | None]:
    """(r_in, r_out) per group, None where a projector is left out."""
    if isinstance(factors, LinearFactors):
        return factors.b.shape[0], None
    if isinstance(factors, CellFactors):
        return _width(factors.input_projector), _width(factors.output_projector)
    r_in = None if factors.input_projector is None else factors.core.shape[1]
    return r_in, _width(factors.output_projector)


def cost_of(layer: Layer, factors: Factors | None) -> int:
    """Learnables of a layer with these factors (dense with None)."""
    if factors is None:
        return dense_cost(layer)
    core_bias = isinstance(factors, ConvFactors) and factors.core_bias is not None
    forms = {
        "joint": isinstance(factors, CellFactors) and factors.joint,
        "folded": isinstance(factors, CellFactors) and factors.projector_bias is not None,
        "shared": isinstance(factors, LinearFactors) and factors.shared is not None,
        "separable": isinstance(factors, ConvFactors) and factors.separable,
    }
    return factored_cost(layer, *ranks_of(factors), core_bias=core_bias, **forms)


def build(module: nn.Module, cells: list[tuple[Layer, Factors | None]], name: str) -> ProjectedLayer:
    """The projected form of a dense module.

    Args:
        cells: its layer with factors; an RNN with several layers or directions has one entry per projected cell.
        name: the module's name in the model.
    """
    before = sum(dense_cost(layer) for layer, _ in cells)
    after = sum(cost_of(layer, factors) for layer, factors in cells)
    if isinstance(module, nn.LSTM | nn.GRU):
        network, sizes = _recurrent(module, cells)
        missing = len(module._all_weights) - len(cells)
        if missing:
            whole = sum(p.numel() for n, p in module.named_parameters() if not n.startswith("bias_hh"))
            whole += (
                0 if isinstance(module, nn.LSTM) or not module.bias else len(module._all_weights) * module.hidden_size
            )
            before, after = whole, whole - before + after
    else:
        (layer, factors) = cells[0]
        assert factors is not None
        network = _feed_forward(module, factors)
        r_in, r_out = ranks_of(factors)
        sizes = (layer.inputs * layer.groups, layer.outputs * layer.groups, r_in, r_out)
    network.train(module.training)
    if hasattr(module, KEPT_UNITS):
        setattr(network, KEPT_UNITS, getattr(module, KEPT_UNITS))
    base = next(k for k in (nn.Linear, *CONVOLUTIONS, nn.LSTM, nn.GRU) if isinstance(module, k))
    layer_module = ProjectedLayer(
        network,
        name=name,
        original_class=f"{base.__module__}.{base.__qualname__}",
        learnables_reduction=1.0 - after / before,
        input_size=sizes[0],
        output_size=sizes[1],
        input_projector_size=sizes[2],
        output_projector_size=sizes[3],
    )
    layer_module.training = module.training
    return layer_module


def _feed_forward(module: nn.Module, factors: Factors) -> nn.Module:
    assert isinstance(module, nn.Linear | Convolution)
    like = module.weight

    def tensor(value: Array | None) -> Tensor | None:
        return None if value is None else _like(value, like)

    if isinstance(factors, LinearFactors) and factors.shared is not None:
        return shared_linear(_like(factors.a, like), _like(factors.b.T, like), tensor(factors.bias))
    if isinstance(factors, LinearFactors):
        return projected_linear(_like(factors.a, like), _like(factors.b, like), tensor(factors.bias))
    assert isinstance(factors, ConvFactors) and is_convolution(module)
    kernel = (1, module.kernel_size[-1]) if factors.separable else module.kernel_size
    projector = tensor(factors.input_projector)
    if projector is not None and factors.separable:
        projector = projector.reshape(len(projector), -1, module.kernel_size[0], 1)
    return projected_conv(
        module,
        _like(factors.core, like).reshape(*factors.core.shape[:2], *kernel),
        projector,
        tensor(factors.output_projector),
        core_bias=tensor(factors.core_bias),
        bias=tensor(factors.bias),
    )


def _recurrent(
    module: nn.LSTM | nn.GRU, cells: list[tuple[Layer, Factors | None]]
) -> tuple[nn.Module, tuple[Any, Any, Any, Any]]:
    count = len(module._all_weights)
    by_cell: dict[int, CellFactors] = {}
    for layer, factors in cells:
        if isinstance(factors, CellFactors):
            by_cell[layer.cell] = factors
    ranks = [ranks_of(by_cell[i]) if i in by_cell else (None, None) for i in range(count)]
    like = next(module.parameters())
    kind = ProjectedLSTM if isinstance(module, nn.LSTM) else ProjectedGRU
    network = kind(
        module.input_size,
        module.hidden_size,
        [r for r, _ in ranks],
        [r for _, r in ranks],
        num_layers=module.num_layers,
        bidirectional=bool(module.bidirectional),
        batch_first=bool(module.batch_first),
        bias=bool(module.bias),
        dropout=module.dropout,
        joint=[i in by_cell and by_cell[i].joint for i in range(count)],
        fold_bias=[i in by_cell and by_cell[i].projector_bias is not None for i in range(count)],
        dtype=like.dtype,
        device=like.device,
    )
    directions = 2 if module.bidirectional else 1
    widths = [module.input_size if i < directions else module.hidden_size * directions for i in range(count)]
    for index in range(count):
        factors = by_cell.get(index) or _dense_cell(module, index)
        for name in (*CELL_WEIGHTS, *CELL_BIASES):
            value = getattr(factors, name)
            if value is not None:
                slot = network.cell_tensor(name, index)
                assert slot is not None
                slot.data.copy_(_like(value, slot))
    if count == 1:
        return network, (module.input_size, module.hidden_size, *ranks[0])
    hidden = (module.hidden_size,) * count
    return network, (tuple(widths), hidden, tuple(r for r, _ in ranks), tuple(r for _, r in ranks))


def _dense_cell(module: nn.LSTM | nn.GRU, index: int) -> CellFactors:
    kind = Kind.LSTM if isinstance(module, nn.LSTM) else Kind.GRU
    layer = Layer("", "", kind, index, hidden=module.hidden_size)
    dense = dense_weights(module, layer)
    assert dense.hidden is not None
    return CellFactors(dense.weight, None, dense.hidden, None, dense.bias, dense.bias_hn)


def _width(projector: Array | None) -> int | None:
    return None if projector is None else int(projector.shape[1])


def _numpy(value: Tensor) -> Array:
    return np.asarray(value.detach().double().cpu().numpy())


def _like(value: Array, tensor: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)
