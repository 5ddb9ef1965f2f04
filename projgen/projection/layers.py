"""The layers that projection puts in a network, and how to build and unpack them.

==================  =================================================================================
dense layer         the network inside its ``ProjectedLayer``
==================  =================================================================================
Linear              ``input_projector`` Linear(D, r, no bias) -> ``core`` Linear(r, O)
Conv1d, Conv2d      ``input_projector`` 1x1 (C, g*r_in) -> ``core`` k x k (g*r_in, g*r_out) with the stride,
                    dilation, padding and groups g of the dense layer -> ``output_projector`` 1x1
                    (g*r_out, O); g groups mean grouped projectors. Either projector may be missing.
                    Separable: ``input_projector`` kh x 1 and ``core`` 1 x kw, each with its axis' geometry.
ConvTranspose1d/2d  the same with a transposed ``core``, which also keeps the output padding
LSTM, GRU           ``ProjectedLSTM``, ``ProjectedGRU``
==================  =================================================================================
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from projgen.importers.spec import input_specs, remember_inputs
from projgen.pca.convolution import Convolution, in_own_order, is_transposed
from projgen.projection.recurrent import ProjectedGRU, ProjectedLSTM

__all__ = [
    "ProjectedGRU",
    "ProjectedLSTM",
    "ProjectedLayer",
    "projected_conv",
    "projected_linear",
    "unpack_projected_layers",
]

Size = int | tuple[int, ...]
ProjectorSize = int | None | tuple[int | None, ...]


class ProjectedLayer(nn.Module):
    """A layer replaced by its projection: ordinary layers in ``network``, and what it was before.

    It trains, copies, pickles and exports as the network inside; attributes it lacks (``hidden_size``, ...)
    are looked up there.

    Attributes:
        name: the layer's name in the model. original_class: such as ``torch.nn.modules.rnn.LSTM``.
        learnables_reduction: proportion of the layer's learnables that were removed.
        input_size, output_size: widths of the dense layer (features or channels; H for an RNN).
        input_projector_size, output_projector_size: ranks; None where that projector is left out; per group
            for a grouped convolution; a tuple in torch's cell order for several RNN layers or directions.
        network: the equivalent ordinary layers.
    """

    is_projection = True

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        original_class: str,
        learnables_reduction: float,
        input_size: Size,
        output_size: Size,
        input_projector_size: ProjectorSize,
        output_projector_size: ProjectorSize,
    ) -> None:
        super().__init__()
        self.name = name
        self.original_class = original_class
        self.learnables_reduction = learnables_reduction
        self.input_size = input_size
        self.output_size = output_size
        self.input_projector_size = input_projector_size
        self.output_projector_size = output_projector_size
        self.network = network

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network inside returns."""
        return self.network(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.__dict__.get("_modules", {}).get("network")
            if inner is None or name.startswith("__"):
                raise
            return getattr(inner, name)

    def extra_repr(self) -> str:
        return (
            f"name={self.name!r}, original_class={self.original_class!r}, "
            f"input_size={self.input_size}, output_size={self.output_size}, "
            f"input_projector_size={self.input_projector_size}, "
            f"output_projector_size={self.output_projector_size}, "
            f"learnables_reduction={self.learnables_reduction:.4f}"
        )


def unpack_projected_layers(model: nn.Module) -> nn.Module:
    """A copy of a model in which each ``ProjectedLayer`` is replaced by the network inside it.

    Args:
        model: any module; it is not modified. Without projected layers the result is a plain copy.
    """
    unpacked = copy.deepcopy(model)
    if isinstance(unpacked, ProjectedLayer):
        network = unpacked.network
        specs = input_specs(model)
        if specs is not None:
            remember_inputs(network, specs)
        return network
    done: dict[int, nn.Module] = {}
    for parent in list(unpacked.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ProjectedLayer):
                setattr(parent, name, done.setdefault(id(child), child.network))
    return unpacked


def projected_linear(a: Tensor, b: Tensor, bias: Tensor | None) -> nn.Sequential:
    """``x -> A (B x) + bias`` as two Linear layers. A: (O, r), B: (r, D), bias: (O) or None."""
    projector = nn.Linear(b.shape[1], b.shape[0], bias=False, dtype=b.dtype, device=b.device)
    core = nn.Linear(a.shape[1], a.shape[0], bias=bias is not None, dtype=a.dtype, device=a.device)
    _fill(projector.weight, b)
    _fill(core.weight, a)
    if bias is not None:
        _fill(core.bias, bias)
    return nn.Sequential(OrderedDict(input_projector=projector, core=core))


def projected_conv(
    like: Convolution,
    core: Tensor,
    input_projector: Tensor | None,
    output_projector: Tensor | None,
    *,
    core_bias: Tensor | None = None,
    bias: Tensor | None = None,
) -> nn.Sequential:
    """A convolution in up to three factors, with the geometry of ``like`` on the middle one.

    Args:
        like: the dense layer; its stride, padding, dilation, groups g and padding mode are carried over.
        core: (g*r_out, r_in, *kernel), or (O, r_in, *kernel) without output projector.
        input_projector: (g*r_in, C/g), row block per group, or None to read the channels directly. With four axes,
            (g*r_in, C/g, kh, 1), it is the first of a separable pair and the core, (.., r_in, 1, kw), the second.
        output_projector: (O, r_out), row block per group, or None.
        core_bias: added after the core. bias: added after the output projector (then after the core if there
            is none).
    """
    pointwise = nn.Conv1d if isinstance(like, nn.Conv1d | nn.ConvTranspose1d) else nn.Conv2d
    kernel_ones = (1,) * len(like.kernel_size)
    groups = like.groups
    factory: dict[str, Any] = {"dtype": core.dtype, "device": core.device}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inner_in = like.in_channels
    if input_projector is not None:
        inner_in = input_projector.shape[0]
        if input_projector.dim() == 2:
            layers["input_projector"] = pointwise(like.in_channels, inner_in, 1, groups=groups, bias=False, **factory)
            _fill(layers["input_projector"].weight, input_projector.reshape(*input_projector.shape, *kernel_ones))
        else:
            geometry = _geometry(like, 0)
            first = type(like)(like.in_channels, inner_in, groups=groups, bias=False, **geometry, **factory)
            _fill(first.weight, in_own_order(first, input_projector))
            layers["input_projector"] = first
    middle_bias = core_bias if output_projector is not None else (core_bias if bias is None else bias)
    geometry = _geometry(like, 1 if input_projector is not None and input_projector.dim() == 4 else None)
    middle = type(like)(inner_in, core.shape[0], groups=groups, bias=middle_bias is not None, **geometry, **factory)
    _fill(middle.weight, in_own_order(middle, core))
    if middle_bias is not None:
        _fill(middle.bias, middle_bias)
    layers["core"] = middle
    if output_projector is not None:
        last = pointwise(core.shape[0], like.out_channels, 1, groups=groups, bias=bias is not None, **factory)
        _fill(last.weight, output_projector.reshape(*output_projector.shape, *kernel_ones))
        if bias is not None:
            _fill(last.bias, bias)
        layers["output_projector"] = last
    return nn.Sequential(layers)


def _geometry(like: Convolution, axis: int | None) -> dict[str, Any]:
    """The settings of a convolution that say where its taps lie; along one axis only, the other one left alone."""
    names = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
    names |= {"output_padding": 0} if is_transposed(like) else {}
    found: dict[str, Any] = {"padding_mode": like.padding_mode}
    for name, neutral in names.items():
        value = getattr(like, name)
        if axis is not None and not isinstance(value, str):  # "same" and "valid" hold for each axis
            value = tuple(v if i == axis else neutral for i, v in enumerate(value))
        found[name] = value
    return found


def _fill(parameter: Any, value: Tensor) -> None:
    parameter.data.copy_(value)
