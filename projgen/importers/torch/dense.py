"""Fully connected layers, convolutions and batch normalisation."""

from __future__ import annotations

import numpy as np

from projgen.importers.torch.context import Call, Handler, Importer, Operand, Tracked
from projgen.ir import attrs as ir
from projgen.ir.graph import Array


def _linear(imp: Importer, call: Call, x: Tracked, w: Array, b: Array | None) -> Tracked:
    """x times the transpose of w (N, K), plus b, over torch's last axis."""
    x = imp.features_last(call, x)
    bias = np.zeros(w.shape[0], np.float32) if b is None else np.broadcast_to(b, (w.shape[0],))
    return Tracked(imp.emit(call, "linear", ir.Linear(), {"x": x.value, "w": w, "b": bias}), x.order, x.batch)


def linear(imp: Importer, call: Call) -> Operand:
    return _linear(imp, call, call.activation("input"), call.constant("weight"), call.optional("bias"))


def matmul(imp: Importer, call: Call) -> Operand:
    """``mm`` and ``matmul`` of an activation with a constant matrix or vector on the right."""
    right = "mat2" if call.op == "mm" else "other"
    if not call.is_activation("self") or call.is_activation(right):
        raise call.refused("a product of this form", "an activation times a constant matrix")
    w = call.constant(right)
    if w.ndim != 2:
        raise call.refused(f"its constant has {w.ndim} axes", "a constant matrix (K, N)")
    return _linear(imp, call, call.activation("self"), w.T, None)


def addmm(imp: Importer, call: Call) -> Operand:
    """beta * bias + alpha * (x @ w)."""
    if not call.is_activation("mat1") or call.is_activation("mat2"):
        raise call.refused("a product of this form", "an activation times a constant matrix")
    b = call.constant("self") * np.float32(call.args["beta"])
    w = call.constant("mat2").T * np.float32(call.args["alpha"])
    if b.ndim == 2 and b.shape[0] == 1:
        b = b[0]
    if b.ndim > 1:
        raise call.refused(f"a bias of shape {b.shape}", "a bias (N,)")
    return _linear(imp, call, call.activation("mat1"), w, b)


def spatial(imp: Importer, call: Call, t: Tracked, axes: int) -> str:
    """A torch map (batch, C, L) or (batch, C, H, W) as the IR's (H, W, C), with H = 1 for one axis."""
    if t.rank != axes + 2:
        raise call.refused(f"its input has {t.rank} axes", f"{axes + 2} axes, the batch first")
    imp.batch_first(call, t)
    t = imp.ordered(call, t, (2, 1) if axes == 1 else (2, 3, 1))
    return imp.reshape(call, t.value, (1, *imp.shape(t))) if axes == 1 else t.value


def from_spatial(imp: Importer, call: Call, value: str, axes: int) -> Tracked:
    """The reverse of ``spatial``."""
    if axes == 2:
        return Tracked(value, (2, 3, 1))
    return Tracked(imp.reshape(call, value, imp.shape(value)[1:]), (2, 1))


def geometry(call: Call, name: str, axes: int, fill: int) -> tuple[int, int]:
    """A kernel-like argument per axis (height, width)."""
    numbers = call.pair(name, axes)
    return (numbers[0], numbers[1]) if axes == 2 else (fill, numbers[0])


def conv(imp: Importer, call: Call) -> Operand:
    w = call.constant("weight")
    axes = w.ndim - 2
    if axes not in {1, 2}:
        raise call.refused(f"a convolution over {axes} axes", "one or two axes")
    if call.args.get("transposed"):
        return conv_transpose(imp, call)
    dilation = geometry(call, "dilation", axes, 1)
    kernel = (w.shape[2], w.shape[3]) if axes == 2 else (1, w.shape[2])
    x = spatial(imp, call, call.activation("input"), axes)
    attrs = ir.Conv2d(
        stride=geometry(call, "stride", axes, 1),
        padding=_padding(call, kernel, dilation, axes),
        dilation=dilation,
        groups=int(call.args["groups"]),
    )
    kernels = w.reshape(w.shape[0], w.shape[1], *kernel).transpose(0, 2, 3, 1)
    b = call.optional("bias")
    bias = np.zeros(w.shape[0], np.float32) if b is None else b
    return from_spatial(imp, call, imp.emit(call, "conv2d", attrs, {"x": x, "w": kernels, "b": bias}), axes)


def conv_transpose(imp: Importer, call: Call) -> Operand:
    """Transposed convolutions; torch's weights are (C, O/groups, kernel)."""
    w = call.constant("weight")
    axes = w.ndim - 2
    if axes not in {1, 2}:
        raise call.refused(f"a transposed convolution over {axes} axes", "one or two axes")
    groups = int(call.args["groups"])
    x = spatial(imp, call, call.activation("input"), axes)
    high, wide = geometry(call, "padding", axes, 0)
    attrs = ir.ConvTranspose2d(
        stride=geometry(call, "stride", axes, 1),
        padding=(high, high, wide, wide),
        output_padding=geometry(call, "output_padding", axes, 0),
        dilation=geometry(call, "dilation", axes, 1),
        groups=groups,
    )
    kernel = (w.shape[2], w.shape[3]) if axes == 2 else (1, w.shape[2])
    blocks = w.reshape(groups, w.shape[0] // groups, w.shape[1], *kernel).transpose(0, 2, 3, 4, 1)
    kernels = blocks.reshape(groups * w.shape[1], *kernel, -1)
    b = call.optional("bias")
    bias = np.zeros(len(kernels), np.float32) if b is None else b
    value = imp.emit(call, "conv_transpose2d", attrs, {"x": x, "w": kernels, "b": bias})
    return from_spatial(imp, call, value, axes)


def _padding(call: Call, kernel: tuple[int, int], dilation: tuple[int, int], axes: int) -> tuple[int, int, int, int]:
    if call.args["padding"] == "valid":
        return (0, 0, 0, 0)
    if call.args["padding"] == "same":
        total_h, total_w = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return (total_h // 2, total_h - total_h // 2, total_w // 2, total_w - total_w // 2)
    high, wide = geometry(call, "padding", axes, 0)
    return (high, high, wide, wide)


def batch_norm(imp: Importer, call: Call) -> Operand:
    """Inference form; torch's channels are axis 1."""
    if call.args.get("training"):
        raise call.refused("batch normalisation with the statistics of the batch", "running statistics (eval mode)")
    x = call.activation("input")
    imp.batch_first(call, x)
    x = imp.ordered(call, x, (*(axis for axis in x.order if axis != 1), 1))
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    if not (variance + np.float32(call.args["eps"]) > 0).all():
        raise call.refused("running variances that are not positive", "a variance plus eps above 0")
    gamma, beta = call.optional("weight"), call.optional("bias")
    inputs: dict[str, str | Array] = {
        "x": x.value,
        "mean": mean,
        "variance": variance,
        "gamma": np.ones_like(mean) if gamma is None else gamma,
        "beta": np.zeros_like(mean) if beta is None else beta,
    }
    y = Tracked(imp.emit(call, "batch_norm", ir.BatchNorm(float(call.args["eps"])), inputs), x.order, x.batch)
    return y if call.op == "batch_norm" else (y, None, None)


def layer_norm(imp: Importer, call: Call) -> Operand:
    """Over torch's last axis."""
    x = imp.features_last(call, call.activation("input"))
    shape = tuple(call.args["normalized_shape"])
    if len(shape) != 1:
        raise call.refused(f"a layer norm over {len(shape)} axes", "the last axis alone")
    gamma, beta = call.optional("weight"), call.optional("bias")
    inputs: dict[str, str | Array] = {
        "x": x.value,
        "gamma": np.ones(shape, np.float32) if gamma is None else gamma,
        "beta": np.zeros(shape, np.float32) if beta is None else beta,
    }
    return Tracked(imp.emit(call, "layer_norm", ir.LayerNorm(float(call.args["eps"])), inputs), x.order, x.batch)


HANDLERS: dict[str, Handler] = {
    "linear": linear,
    "addmm": addmm,
    "mm": matmul,
    "matmul": matmul,
    "conv1d": conv,
    "conv2d": conv,
    "convolution": conv,
    "conv_transpose1d": conv_transpose,
    "conv_transpose2d": conv_transpose,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
}
