"""Float meaning of the recurrent layers, and the traces that calibration needs.

Axes of every activation here: batch N, time T, features. Weights as in ``projgen.ir.attrs`` (float stage).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from projgen.ir.attrs import Gru, Lstm

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.floating]
Args = Mapping[str, Array]
Attrs = Lstm | Gru


def sigmoid(v: Floats) -> Floats:
    """Logistic function; exact at both ends for any finite argument."""
    half: Floats = 0.5 * np.tanh(0.5 * v) + 0.5
    return half


def lstm_reference(attrs: Lstm, args: Args) -> Array:
    """Hidden states (N, T, H) of x (N, T, D), in x's float type."""
    return _in_time(attrs, _lstm(attrs, args)["y"])


def gru_reference(attrs: Gru, args: Args) -> Array:
    """Hidden states (N, T, H) of x (N, T, D), in x's float type."""
    return _in_time(attrs, _gru(attrs, args)["y"])


def reference_traces(attrs: Attrs, args: Args) -> dict[str, Array]:
    """What calibration wants to know about the inside of the layer, each (N, T, .) in order of execution.

    "h" is the state fed back into each step (the initial state first), "c" the LSTM's cell after each step,
    "z_in" and "z_out" the low-rank intermediates where the layer has them, "z" the one of a joint layer.
    """
    traces = _lstm(attrs, args) if isinstance(attrs, Lstm) else _gru(attrs, args)
    del traces["y"]
    return traces


def is_joint(attrs: Attrs) -> bool:
    """Whether one low-rank vector stands for both operands of the gate products."""
    return isinstance(attrs, Lstm) and attrs.joint


def _in_time(attrs: Attrs, y: Array) -> Array:
    return y[:, ::-1] if attrs.reverse else y


def _floats(args: Args, role: str, like: Floats) -> Floats:
    return np.asarray(args[role], dtype=like.dtype)


def _operand(attrs: Attrs, args: Args) -> Floats:
    """The input sequence in order of execution, float."""
    x = np.asarray(args["x"])
    floats: Floats = x.astype(x.dtype if np.issubdtype(x.dtype, np.floating) else np.float64, copy=False)
    return floats[:, ::-1] if attrs.reverse else floats


def _input_part(attrs: Attrs, args: Args, x: Floats, traces: dict[str, Array]) -> Floats:
    """W x or W' (Q_in^T x) of every step at once: (N, T, gates*H)."""
    w = _floats(args, "w", x)
    if not attrs.input_projected:
        return x @ w.T
    z = x @ _floats(args, "q_in", x)
    traces["z_in"] = z
    return z @ w.T


def _start(attrs: Attrs, args: Args, x: Floats, role: str) -> Floats:
    state = np.zeros((x.shape[0], attrs.hidden), x.dtype)
    return state + _floats(args, role, x) if attrs.initial_state else state


def _lstm(attrs: Lstm, args: Args) -> dict[str, Array]:
    x = _operand(attrs, args)
    traces: dict[str, Array] = {}
    b = _floats(args, "b", x)
    from_input = x @ _floats(args, "q_in", x) if attrs.joint else _input_part(attrs, args, x, traces) + b
    last = _floats(args, "w" if attrs.joint else "r", x)
    q_out = _floats(args, "q_out", x) if attrs.recurrent_projected else None
    h, c = _start(attrs, args, x, "h0"), _start(attrs, args, x, "c0")
    fed, cells, latent, out = [], [], [], []
    for t in range(x.shape[1]):
        fed.append(h)
        z = h if q_out is None else h @ q_out
        z = from_input[:, t] + z if attrs.joint else z
        latent.append(z)
        i, f, g, o = np.split(z @ last.T + (b if attrs.joint else from_input[:, t]), 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        cells.append(c)
        out.append(h)
    traces |= {"h": np.stack(fed, 1), "c": np.stack(cells, 1), "y": np.stack(out, 1)}
    if q_out is not None:
        traces["z" if attrs.joint else "z_out"] = np.stack(latent, 1)
    return traces


def _gru(attrs: Gru, args: Args) -> dict[str, Array]:
    x = _operand(attrs, args)
    traces: dict[str, Array] = {}
    from_input = _input_part(attrs, args, x, traces) + _floats(args, "b", x)
    r, b_hn = _floats(args, "r", x), _floats(args, "b_hn", x)
    q_out = _floats(args, "q_out", x) if attrs.recurrent_projected else None
    h = _start(attrs, args, x, "h0")
    fed, latent, out = [], [], []
    for t in range(x.shape[1]):
        fed.append(h)
        z_out = h if q_out is None else h @ q_out
        latent.append(z_out)
        x_r, x_z, x_n = np.split(from_input[:, t], 3, axis=1)
        h_r, h_z, h_n = np.split(z_out @ r.T, 3, axis=1)
        n = np.tanh(x_n + sigmoid(x_r + h_r) * (h_n + b_hn))
        z = sigmoid(x_z + h_z)
        h = n + z * (h - n)
        out.append(h)
    traces |= {"h": np.stack(fed, 1), "y": np.stack(out, 1)}
    if q_out is not None:
        traces["z_out"] = np.stack(latent, 1)
    return traces
