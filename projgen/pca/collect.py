"""One pass over the data: second moments of what each layer reads and emits, and the outputs' curvature.

Per layer kind the pass gathers (rows are positions: observations, steps, or output pixels):

=============  ========================================================================================
Linear         inputs x (D)
Conv           input channels and output channels per group; with curvature also the patches (C*taps)
LSTM, GRU      joint vectors [x; h_prev] of each cell, h_prev the hidden state fed back (0 at first)
=============  ========================================================================================

Curvature: G = mean over rows of (1/K) sum_k g_k g_k^T with g_k the derivative of the normalised output k by the
layer's pre-activation z. It needs no labels. Up to 12 outputs are differentiated one by one, more by a few
random directions of the same expectation (Hutchinson). The gates of an LSTM are reached through an extra
input that the fused kernel multiplies by an identity.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from projgen.data import input_layout, place, run_model
from projgen.errors import InputError, UnsupportedError
from projgen.pca.convolution import is_convolution, patches_of, refuse_output_size
from projgen.pca.discover import Kind, Layer
from projgen.pca.moments import Moments, MomentSummary, summed
from projgen.pca.outputs import OutputScale
from projgen.progress import Clock

_EXACT_OUTPUTS = 12
_DIRECTIONS = 4
_FIRST_ROWS = 64
_CHUNK_VALUES = 4_000_000


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What one pass found for a layer.

    Attributes:
        samples: observations (axis 0 of the model's input) the rows belong to.
        inputs: moments of the inputs, one per group (RNNs: of [x; h_prev]).
        outputs: moments of a convolution's outputs with its bias, one per group; else empty.
        patches: moments of a convolution's input patches (channel major, as its weight), one per group; empty
            without curvature.
        curvature: {"z": G of the pre-activation (O, O)}; GRU: "x" for the input side and "h" for the hidden side
            (both (3H, 3H)); conv with groups: the blocks (g, O/g, O/g) under "z". Empty if not computed.
    """

    layer: Layer
    samples: int
    inputs: tuple[MomentSummary, ...]
    outputs: tuple[MomentSummary, ...] = ()
    patches: tuple[MomentSummary, ...] = ()
    curvature: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collected:
    """Statistics per layer name, and the variance of the normalised outputs (mean over the K outputs)."""

    layers: dict[str, LayerStats]
    samples: int
    output_variance: float
    input_shapes: tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Tap:
    """Running sums of one layer, and the tensors of the present batch to differentiate by."""

    layer: Layer
    inputs: list[Moments]
    clock: Clock
    group: Any = None
    outputs: list[Moments] = field(default_factory=list)
    patches: list[Moments] = field(default_factory=list)
    pending: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)
    curvature: dict[str, Tensor] = field(default_factory=dict)
    curvature_rows: int = 0

    def moments(self, width: int) -> Moments:
        """New moments that the process group shares."""
        return Moments(width, group=self.group)

    def add_curvature(self, key: str, gradients: Tensor) -> None:
        """Add sum of g g^T of rows (n, O), or of (g, n, O/g) blocks."""
        gram = (gradients.transpose(-1, -2) @ gradients).double()
        self.curvature[key] = self.curvature[key] + gram if key in self.curvature else gram


def collect(
    model: nn.Module,
    layers: list[Layer],
    batches: Iterable[tuple[Tensor, ...]],
    *,
    curvature: bool,
    device: torch.device,
    required: bool = True,
    group: Any = None,
    seed: int = 0,
    clock: Clock | None = None,
) -> Collected:
    """Run an own copy of a model (it gets hooks) over the batches once.

    Args:
        model: in eval mode, without gradients; it is changed by this function.
        curvature: also differentiate the outputs and gather conv patches.
        group: torch process group over whose members the data is spread; all get the same result.
        required: refuse layers that the model never calls; else they are left out.
        clock: counts the stages "forward passes", "moments" and "curvature".
    """
    clock = clock or Clock()
    taps = {layer.name: _Tap(layer, [], clock, group) for layer in layers}
    batch_axis = 1 if input_layout(model).time_axis == 0 else 0
    outputs = _Outputs(torch.Generator(device="cpu").manual_seed(seed))
    stream = iter(batches)
    held = list(_first_batches(stream, batch_axis)) if curvature else []
    if held:
        with torch.no_grad():
            outputs.scale.calibrate(
                [run_model(model, place(b, model, device), i) for i, b in enumerate(held)], held, group
            )
    _install(model, taps, curvature)
    samples = 0
    shapes: tuple[tuple[int, ...], ...] = ()
    for index, batch in enumerate(chain(held, stream)):
        placed = place(batch, model, device)
        shapes = shapes or tuple(tuple(x.shape) for x in placed)
        with torch.set_grad_enabled(curvature), torch.backends.cudnn.flags(enabled=not curvature):
            with clock.stage("forward passes"):
                result = run_model(model, placed, index)
            if curvature:
                with clock.stage("curvature"):
                    outputs.look(result)
                    _differentiate(outputs, taps)
        samples += placed[0].shape[batch_axis if placed[0].dim() > batch_axis else 0]
    unreached = [name for name, tap in taps.items() if not tap.inputs]
    if unreached and (required or len(unreached) == len(taps)):
        raise InputError(
            f"the data never reached layer {unreached[0]!r}: the model does not call it",
            "layers that the model calls; leave others out of layer_names",
            "layer_names",
        )
    if group is not None:
        samples = int(summed(torch.tensor(samples, device=device), group))
        outputs.sum_over(group)
    with clock.stage("moments"):
        done = {name: _finish(tap, samples) for name, tap in taps.items() if tap.inputs}
    return Collected(done, samples, outputs.variance(), shapes)


def _first_batches(stream: Iterator[tuple[Tensor, ...]], axis: int) -> Iterator[tuple[Tensor, ...]]:
    """Enough batches to see how the outputs spread."""
    rows = 0
    for batch in stream:
        yield batch
        rows += batch[0].shape[axis if batch[0].dim() > axis else 0]
        if rows >= _FIRST_ROWS:
            return


def _finish(tap: _Tap, samples: int) -> LayerStats:
    rows = max(tap.curvature_rows, 1)
    if tap.group is not None and tap.curvature:
        device = next(iter(tap.curvature.values())).device
        rows = int(summed(torch.tensor(tap.curvature_rows, device=device), tap.group))
        for value in tap.curvature.values():
            summed(value, tap.group)
    return LayerStats(
        tap.layer,
        samples,
        tuple(m.finish() for m in tap.inputs),
        tuple(m.finish() for m in tap.outputs),
        tuple(m.finish() for m in tap.patches),
        {key: (value / rows).cpu().numpy() for key, value in tap.curvature.items()},
    )


class _Outputs:
    """The normalised outputs of the present batch, and their variance over all batches."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self.scale = OutputScale()
        self._sums: list[Tensor] = []
        self._rows = 0
        self.normalised: list[Tensor] = []

    def look(self, result: Any) -> None:
        """Take the outputs of one batch."""
        self.normalised = self.scale.normalise(result)
        for index, x in enumerate(self.normalised):
            rows = x.detach().reshape(-1, x.shape[-1]).double()
            if index == len(self._sums):
                self._sums.append(torch.zeros(2, x.shape[-1], dtype=torch.float64, device=x.device))
            self._sums[index] += torch.stack((rows.sum(0), (rows * rows).sum(0)))
            self._rows += rows.shape[0] * (index == 0)

    def sum_over(self, group: Any) -> None:
        """Add up the sums of a process group's members."""
        for sums in self._sums:
            summed(sums, group)
        if self._sums:
            self._rows = int(summed(torch.tensor(self._rows, device=self._sums[0].device), group))

    def variance(self) -> float:
        total = 0.0
        for sums in self._sums:
            mean, second = (sums / max(self._rows, 1)).unbind(0)
            total += float((second - mean * mean).mean())
        return total

    def directions(self) -> list[Tensor]:
        """Scalars whose gradients g give sum g g^T = (1/K) sum_k g_k g_k^T (in expectation if random)."""
        size = sum(x.shape[-1] for x in self.normalised)
        first = self.normalised[0]
        if len(self.normalised) == 1 and first.dim() == 2 and size <= _EXACT_OUTPUTS:
            return [first[:, k].sum() / size**0.5 for k in range(size)]
        scalars = []
        for _ in range(_DIRECTIONS):
            parts = [(torch.randn(x.shape, generator=self._generator).to(x) * x).sum() for x in self.normalised]
            scalars.append(torch.stack(parts).sum() / (size * _DIRECTIONS) ** 0.5)
        return scalars


def _differentiate(outputs: _Outputs, taps: dict[str, _Tap]) -> None:
    wanted = [(tap, z, scale) for tap in taps.values() for z, scale in tap.pending]
    scalars = [s for s in outputs.directions() if s.requires_grad] if wanted else []
    for position, scalar in enumerate(scalars):
        last = position == len(scalars) - 1
        grads = torch.autograd.grad(scalar, [z for _, z, _ in wanted], retain_graph=not last, allow_unused=True)
        for (tap, z, scale), grad in zip(wanted, grads, strict=True):
            _add_gradient(tap, torch.zeros_like(z) if grad is None else grad, scale)
    if wanted and not scalars:
        warnings.warn("the outputs can't be differentiated: the curvature is left out", stacklevel=2)
    for tap in taps.values():
        groups = len(tap.inputs)
        for z, _ in tap.pending:
            tap.curvature_rows += z.numel() // (tap.layer.outputs * groups)
        tap.pending.clear()


def _add_gradient(tap: _Tap, grad: Tensor, reset: Tensor | None) -> None:
    layer = tap.layer
    if layer.kind is Kind.CONV:
        groups = len(tap.inputs)
        blocks = grad.reshape(grad.shape[0], groups, layer.outputs, -1)  # (B, g, O/g, P)
        tap.add_curvature("z", blocks.permute(1, 0, 3, 2).reshape(groups, -1, layer.outputs))
    elif layer.kind is Kind.GRU and reset is not None:
        rows = grad.reshape(-1, layer.outputs)
        tap.add_curvature("x", rows)
        hidden = layer.hidden
        tap.add_curvature("h", torch.cat((rows[:, : 2 * hidden], rows[:, 2 * hidden :] * reset), 1))
    else:
        tap.add_curvature("z", grad.reshape(-1, layer.outputs))


def _install(model: nn.Module, taps: dict[str, _Tap], curvature: bool) -> None:
    cells: dict[str, dict[int, _Tap]] = {}
    for tap in taps.values():
        module = model.get_submodule(tap.layer.module_name)
        if tap.layer.kind in {Kind.LSTM, Kind.GRU}:
            cells.setdefault(tap.layer.module_name, {})[tap.layer.cell] = tap
        elif tap.layer.kind is Kind.LINEAR:
            module.register_forward_hook(partial(_linear_hook, tap, curvature))
        else:
            module.register_forward_hook(partial(_conv_hook, tap, curvature), with_kwargs=True)
    for name, of_module in cells.items():
        module = model.get_submodule(name)
        assert isinstance(module, nn.LSTM | nn.GRU)
        module.forward = partial(run_recurrent, module, of_module, curvature)  # type: ignore[assignment, method-assign]


def _watch(tap: _Tap, z: Tensor, curvature: bool, extra: Tensor | None = None) -> Tensor:
    """Mark a pre-activation for differentiation; the returned clone may be changed in place later."""
    if not curvature:
        return z
    if not z.requires_grad:
        z.requires_grad_(True)
    tap.pending.append((z, extra))
    return z.clone()


def _linear_hook(tap: _Tap, curvature: bool, _module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    if not tap.inputs:
        tap.inputs.append(tap.moments(tap.layer.inputs))
    with tap.clock.stage("moments"):
        tap.inputs[0].update(args[0].detach().reshape(-1, tap.layer.inputs))
    return _watch(tap, out, curvature)


def _conv_hook(
    tap: _Tap, curvature: bool, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> Tensor:
    assert is_convolution(module)
    args = args or (kwargs["input"],)
    refuse_output_size(tap.layer.name, (*args[1:], kwargs.get("output_size")))
    groups, layer = module.groups, tap.layer
    x, y = args[0].detach(), out.detach()
    batched = x.dim() == len(module.kernel_size) + 2
    x, y = (x, y) if batched else (x.unsqueeze(0), y.unsqueeze(0))
    taps = int(np.prod(module.kernel_size))
    if not tap.inputs:
        tap.inputs = [tap.moments(layer.inputs) for _ in range(groups)]
        tap.outputs = [tap.moments(layer.outputs) for _ in range(groups)]
        if curvature:
            tap.patches = [tap.moments(layer.inputs * taps) for _ in range(groups)]
    with tap.clock.stage("moments"):
        for moments, tensor in ((tap.inputs, x), (tap.outputs, y)):
            for group, part in enumerate(tensor.chunk(groups, 1)):
                moments[group].update(part.movedim(1, -1).reshape(-1, part.shape[1]))
        if curvature:
            per_image = taps * x.shape[1] * int(np.prod(y.shape[2:]))
            step = max(1, _CHUNK_VALUES // max(per_image, 1))
            for start in range(0, x.shape[0], step):
                columns = patches_of(module, x[start : start + step])  # (g, rows, C*taps)
                for group in range(groups):
                    tap.patches[group].update(columns[group])
    return _watch(tap, out, curvature)


def run_recurrent(
    module: nn.LSTM | nn.GRU,
    taps: dict[int, _Tap],
    curvature: bool,
    x: Any,
    state: Any = None,
) -> tuple[Tensor, Any]:
    """What ``module(x, state)`` returns, run cell by cell so that each one's [x; h_prev] is seen."""
    if not isinstance(x, Tensor):
        raise UnsupportedError(
            "the model runs an RNN on a packed sequence", "plain tensors: batches of equal length", "model"
        )
    single = x.dim() == 2
    sequence = x.unsqueeze(1) if single else (x.transpose(0, 1) if module.batch_first else x)  # (T, B, D)
    directions = 2 if module.bidirectional else 1
    lstm = isinstance(module, nn.LSTM)
    states = () if state is None else (tuple(state) if lstm else (state,))
    if single:
        states = tuple(s.unsqueeze(1) for s in states)
    finals: list[tuple[Tensor, ...]] = []
    for layer in range(module.num_layers):
        parts = []
        for direction in range(directions):
            index = layer * directions + direction
            initial = [s[index] for s in states]
            if not initial:
                zeros = sequence.new_zeros(sequence.shape[1], module.hidden_size)
                initial = [zeros] * (2 if lstm else 1)
            forward_in = sequence.flip(0) if direction else sequence
            hidden, final = _run_cell(module, index, taps.get(index), curvature, forward_in, initial)
            parts.append(hidden.flip(0) if direction else hidden)
            finals.append(final)
        sequence = torch.cat(parts, -1) if directions == 2 else parts[0]
    stacked = tuple(torch.stack([final[i] for final in finals]) for i in range(2 if lstm else 1))
    if single:
        output, stacked = sequence.squeeze(1), tuple(s.squeeze(1) for s in stacked)
    else:
        output = sequence.transpose(0, 1) if module.batch_first else sequence
    return output, (stacked if lstm else stacked[0])


def _run_cell(
    module: nn.LSTM | nn.GRU,
    index: int,
    tap: _Tap | None,
    curvature: bool,
    x: Tensor,
    initial: list[Tensor],
) -> tuple[Tensor, tuple[Tensor, ...]]:
    names = module._all_weights[index]
    w, r, *biases = (getattr(module, name) for name in names)
    rows = r.shape[0]
    probe = None
    fed = x
    if tap is not None and curvature:
        probe = x.new_zeros(*x.shape[:2], rows).requires_grad_(True)
        fed = torch.cat((x, probe), -1)
        w = torch.cat((w, torch.eye(rows, dtype=w.dtype, device=w.device)), 1)
    weights = [w, r, *biases]
    flags = (bool(biases), 1, 0.0, True, False, False)
    state = [s.unsqueeze(0) for s in initial]
    if isinstance(module, nn.LSTM):
        hidden, *final = torch.lstm(fed, state, weights, *flags)
    else:
        hidden, *final = torch.gru(fed, state[0], weights, *flags)
    if tap is not None:
        previous = torch.cat((initial[0].unsqueeze(0), hidden[:-1])).detach()
        joint = torch.cat((x.detach(), previous), -1)
        if not tap.inputs:
            tap.inputs.append(tap.moments(joint.shape[-1]))
        with tap.clock.stage("moments"):
            tap.inputs[0].update(joint.reshape(-1, joint.shape[-1]))
        if probe is not None:
            reset = None
            if isinstance(module, nn.GRU):
                size = module.hidden_size
                parts = [b[:size] for b in biases] or [0.0]
                z = joint @ torch.cat((w[:size, : x.shape[-1]], r[:size]), 1).T + sum(parts)
                reset = torch.sigmoid(z).reshape(-1, size)
            tap.pending.append((probe, reset))
    return hidden, tuple(f.squeeze(0) for f in final)
