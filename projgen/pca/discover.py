"""Which layers of a model can be projected, under which names, and why the others can't."""

from __future__ import annotations

import copy
import fnmatch
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from projgen.errors import InputError, InputTypeError
from projgen.pca.attention import is_attention, owner_of, projections, split_attention
from projgen.pca.convolution import CONVOLUTIONS, is_convolution


class Kind(Enum):
    """Families of projectable layers."""

    LINEAR = "linear"
    CONV = "conv"
    LSTM = "lstm"
    GRU = "gru"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, or one cell of a recurrent layer.

    Attributes:
        name: as users write it: the module's name, with ``.l0_reverse`` and the like for cells of RNNs with
            several layers or directions.
        module_name: the module's name in ``model.named_modules()``.
        kind: the family; None when the layer can't be projected.
        cell: index of the cell in torch's order (0 for everything but RNNs).
        inputs: width D of what is multiplied first (features, channels of one group, or RNN inputs).
        outputs: number of rows O (features, channels of one group, or gates*H).
        hidden: H of an RNN, else 0.
        taps: kernel positions of a convolution (1 elsewhere); groups: its groups; columns: width of its kernel.
        bias: whether it has one.
        reason: why it can't be projected, empty if it can.
    """

    name: str
    module_name: str
    kind: Kind | None
    cell: int = 0
    inputs: int = 0
    outputs: int = 0
    hidden: int = 0
    taps: int = 1
    groups: int = 1
    bias: bool = True
    reason: str = ""
    columns: int = 1

    @property
    def separable(self) -> bool:
        """Whether its kernel has rows and columns, so that it can be one of rows and one of columns."""
        return self.kind is Kind.CONV and 1 < self.columns < self.taps


def cell_suffixes(num_layers: int, bidirectional: bool) -> list[str]:
    """Suffix of each cell in torch's order: ``["l0", "l0_reverse", "l1", ...]``."""
    directions = ("", "_reverse") if bidirectional else ("",)
    return [f"l{layer}{direction}" for layer in range(num_layers) for direction in directions]


def owned_copy(model: nn.Module) -> nn.Module:
    """A deep copy with pruning masks (torch.nn.utils.prune) applied for good and attentions taken apart into layers.

    The given model is untouched.
    """
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied = copy.deepcopy(model, dict(computed))
    for module in copied.modules():
        for name in [key.removesuffix("_orig") for key in module._parameters if key.endswith("_orig")]:
            if f"{name}_mask" in module._buffers:
                prune.remove(module, name)  # type: ignore[no-untyped-call]
    return split_attention(copied)


def as_module(model: nn.Module | str | Path) -> nn.Module:
    """A model as a module; a path is loaded as ONNX."""
    if isinstance(model, str | Path):
        if str(model).lower().endswith(".pt2"):
            raise InputError(
                f"{str(model)!r}: the layers of a .pt2 file are no modules any more",
                "an nn.Module or the path of an .onnx file",
                "model",
            )
        from projgen import load_onnx

        loaded: nn.Module = load_onnx(model)
        return loaded
    if not isinstance(model, nn.Module):
        raise InputTypeError(
            f"a model of type {type(model).__name__}", "a torch.nn.Module or the path of an ONNX file", "model"
        )
    return model


def as_device(device: torch.device | str | None, model: nn.Module) -> torch.device:
    """The device asked for; by default that of the model's parameters.

    Raises:
        InputError: torch knows no such device.
    """
    if device is None:
        first = next(model.parameters(), None)
        return torch.device("cpu") if first is None else first.device
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r}", "a torch device, e.g. 'cpu' or 'cuda:0'", "device") from error


def find_layers(model: nn.Module) -> list[Layer]:
    """Every layer with a weight matrix, in the model's order; those that can't be projected carry a reason."""
    closed = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention) and not is_attention(m)]
    inside = {id(child): type(m).__name__ for m in closed for child in m.modules()}
    projected = {id(child) for m in model.modules() if _is_projected(m) for child in m.modules() if child is not m}
    found: list[Layer] = []
    for name, module in model.named_modules():
        if id(module) in projected:
            continue
        found.extend(_layers_of(name or type(module).__name__.lower(), name, module, inside.get(id(module), "")))
    return found


def _layers_of(shown: str, name: str, module: nn.Module, inside: str) -> Iterable[Layer]:
    if _is_projected(module):
        yield Layer(shown, name, None, reason="it is projected already")
    elif isinstance(module, nn.MultiheadAttention):
        reason = _inside(inside) if inside else _changed(module, nn.MultiheadAttention)
        for part, inputs, outputs in projections(module):
            inner = f"{name}.{part}" if name else part
            kind = None if reason else Kind.LINEAR
            yield Layer(inner, inner, kind, 0, inputs, outputs, bias=module.in_proj_bias is not None, reason=reason)
    elif isinstance(module, nn.Linear):
        reason = _inside(inside) if inside else _changed(module, nn.Linear)
        kind = None if reason else Kind.LINEAR
        sizes = (module.in_features, module.out_features)
        yield Layer(shown, name, kind, 0, *sizes, bias=module.bias is not None, reason=reason)
    elif is_convolution(module):
        reason = _changed(module, next(kind for kind in CONVOLUTIONS if isinstance(module, kind)))
        inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
        if not reason and inputs == 1 and outputs <= 2 and module.groups > 1:
            reason = "a depthwise convolution has no channels to combine"
        taps, bias, columns = math.prod(module.kernel_size), module.bias is not None, int(module.kernel_size[-1])
        kind = None if reason else Kind.CONV
        yield Layer(shown, name, kind, 0, inputs, outputs, 0, taps, module.groups, bias, reason, columns)
    elif isinstance(module, nn.Conv3d | nn.ConvTranspose3d | nn.Bilinear):
        yield Layer(shown, name, None, reason=f"{type(module).__name__} is not supported")
    elif isinstance(module, nn.LSTM | nn.GRU):
        kind, gates = (Kind.LSTM, 4) if isinstance(module, nn.LSTM) else (Kind.GRU, 3)
        reason = _changed(module, nn.LSTM if kind is Kind.LSTM else nn.GRU)
        if not reason and isinstance(module, nn.LSTM) and module.proj_size > 0:
            reason = "an LSTM with proj_size is projected already"
        suffixes = cell_suffixes(module.num_layers, bool(module.bidirectional))
        directions = 2 if module.bidirectional else 1
        for index, suffix in enumerate(suffixes):
            inputs = module.input_size if index < directions else module.hidden_size * directions
            cell_name = shown if len(suffixes) == 1 else f"{shown}.{suffix}"
            rows, hidden = gates * module.hidden_size, module.hidden_size
            usable = None if reason else kind
            yield Layer(cell_name, name, usable, index, inputs, rows, hidden, 1, 1, bool(module.bias), reason)
    elif isinstance(module, nn.RNN):
        yield Layer(shown, name, None, reason="nn.RNN is not supported")


def _inside(kind: str) -> str:
    return f"it is used inside {kind}, a form of nn.MultiheadAttention"


def _is_projected(module: nn.Module) -> bool:
    return bool(getattr(type(module), "is_projection", False))


def _changed(module: nn.Module, base: type[nn.Module]) -> str:
    """Why a subclass or a reparametrised layer can't be taken for its base; empty if it can."""
    if type(module).forward is not base.forward:
        return f"{type(module).__name__} has a forward of its own"
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        return "its weights are not initialised yet"
    if torch.nn.utils.parametrize.is_parametrized(module):
        return "its weight is reparametrised"
    return ""


def tied_layers(model: nn.Module, layers: Sequence[Layer]) -> dict[str, str]:
    """Projectable layers whose parameters another module also owns: {layer name: the other module's name}."""
    owners: dict[int, list[str]] = {}
    own: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                owner = owner_of(module, name, key)
                owners.setdefault(id(parameter), []).append(owner)
                own.setdefault(owner, []).append(parameter)
    tied: dict[str, str] = {}
    for layer in layers:
        if layer.kind is None:
            continue
        for parameter in own.get(layer.module_name, []):
            others = [n for n in owners[id(parameter)] if n != layer.module_name]
            if others:
                tied[layer.name] = others[0]
    return tied


def choose_layers(
    model: nn.Module, layer_names: Sequence[str] | str | None, *, where: str = "layer_names"
) -> list[Layer]:
    """The projectable layers among the named ones (wildcards allowed; None means all).

    Raises InputError for a name that matches nothing, a named layer that can't be projected, tied weights, and
    when nothing is left.
    """
    layers = find_layers(model)
    if layer_names is None:
        chosen = [layer for layer in layers if layer.kind is not None]
    else:
        chosen = []
        for pattern in [layer_names] if isinstance(layer_names, str) else list(layer_names):
            matches = [x for x in layers if fnmatch.fnmatchcase(x.name, pattern) or x.module_name == pattern]
            if not matches:
                names = ", ".join(layer.name for layer in layers if layer.kind is not None) or "none"
                raise InputError(f"no layer is called {pattern!r}", f"one of {names}; wildcards work", where)
            usable = [layer for layer in matches if layer.kind is not None]
            if not usable:
                raise InputError(
                    f"layer {matches[0].name!r} can't be projected: {matches[0].reason}",
                    "fully connected, convolutional (transposed too), LSTM and GRU layers, projections of attention",
                    where,
                )
            chosen.extend(layer for layer in usable if layer not in chosen)
        order = {layer.name: index for index, layer in enumerate(layers)}
        chosen.sort(key=lambda layer: order[layer.name])
    if not chosen:
        raise InputError(
            "the model has no layer that can be projected",
            "a model with fully connected, convolutional (1-D and 2-D, transposed too), LSTM or GRU layers",
            "model",
        )
    tied = tied_layers(model, chosen)
    if tied:
        pairs = ", ".join(f"{name!r} (with {other!r})" for name, other in tied.items())
        raise InputError(
            f"layers share their weights with other layers: {pairs}",
            "layers with weights of their own; leave the others out by naming the layers to project",
            where,
        )
    return chosen


def weight_digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and values of the model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(array.shape)}:{array.dtype};".encode())
        digest.update(array.view(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b"")
    return digest.hexdigest()
