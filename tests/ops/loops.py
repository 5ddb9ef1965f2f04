"""The integer meaning of every non-recurrent operator, written again from docs/quantisation.md with Python integers.

Plain loops over one element at a time, no NumPy arithmetic and no code of projgen: the interpreter must give exactly
these integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from projgen.ir.graph import Array, Graph, Node

Element = Callable[[tuple[int, ...]], int]


def meaning(graph: Graph, node: Node, args: Mapping[str, Array]) -> Array:
    """The node's output for a batch, one sample and one element at a time."""
    constants = {r: a for r, a in args.items() if graph.arg(node, r).is_constant}
    moving = {r: a for r, a in args.items() if r not in constants}
    batch = len(next(iter(moving.values())))
    rows = []
    for i in range(batch):
        one = {**{r: a[i] for r, a in moving.items()}, **constants}
        ints = {r: one[r] for r in args}
        shape = tuple(next(iter(moving.values())).shape[1] if d == "T" else d for d in graph.type(node.output).shape)
        element = _RULES[node.op](node, ints)
        row = np.empty(shape, object)
        for index in np.ndindex(*shape):
            row[index] = element(index)
        rows.append(row)
    return np.stack(rows).astype(np.int64)


def rq(acc: int, m: int, p: int) -> int:
    shifted = acc * 2**p
    assert -(2**31) <= shifted < 2**31, "the accumulator leaves int32"
    return (shifted * m + 2**31) >> 32


def clamp(v: int, low: int, high: int) -> int:
    return max(low, min(high, v))


def finish(acc: int, m: int, q: Any) -> int:
    return clamp(q.zero_point + rq(acc, m, q.shift), q.low, q.high)


def linear(node: Node, a: Mapping[str, Array]) -> Element:
    x, w, b, m = a["x"].tolist(), a["w"].tolist(), a["b"].tolist(), a["m"].tolist()

    def element(i: tuple[int, ...]) -> int:
        row = x
        for j in i[:-1]:
            row = row[j]
        n = i[-1]
        return finish(sum(u * v for u, v in zip(w[n], row, strict=True)) + b[n], m[n], node.numerics.requant)

    return element


def conv2d(node: Node, a: Mapping[str, Array]) -> Element:
    x, w, b, m = a["x"].tolist(), a["w"].tolist(), a["b"].tolist(), a["m"].tolist()
    at, z = node.attrs, node.numerics.input_zero_point
    height, width, outputs = len(x), len(x[0]), len(w)
    per_group = len(w[0][0][0])

    def element(index: tuple[int, ...]) -> int:
        i, j, o = index
        first = o * at.groups // outputs * per_group
        acc = b[o] + (int(a["f"][o]) * int(a["residual"][index]) if "residual" in a else 0)
        for u, row in enumerate(w[o]):
            for v, taps in enumerate(row):
                y_at = i * at.stride[0] + u * at.dilation[0] - at.padding[0]
                x_at = j * at.stride[1] + v * at.dilation[1] - at.padding[2]
                inside = 0 <= y_at < height and 0 <= x_at < width
                for c, tap in enumerate(taps):
                    acc += tap * (x[y_at][x_at][first + c] if inside else z)
        return finish(acc, m[o], node.numerics.requant)

    return element


def conv_transpose2d(node: Node, a: Mapping[str, Array]) -> Element:
    """Every tap of the kernel adds to the sum: a pixel if it was laid at one, else the zero point."""
    x, w, b, m = a["x"].tolist(), a["w"].tolist(), a["b"].tolist(), a["m"].tolist()
    at, z = node.attrs, node.numerics.input_zero_point
    height, width, outputs = len(x), len(x[0]), len(w)
    per_group = len(w[0][0][0])

    def element(index: tuple[int, ...]) -> int:
        i, j, o = index
        first = o * at.groups // outputs * per_group
        acc = b[o]
        for u, row in enumerate(w[o]):
            for v, taps in enumerate(row):
                y_at, y_rest = divmod(i + at.padding[0] - u * at.dilation[0], at.stride[0])
                x_at, x_rest = divmod(j + at.padding[2] - v * at.dilation[1], at.stride[1])
                inside = y_rest == x_rest == 0 and 0 <= y_at < height and 0 <= x_at < width
                for c, tap in enumerate(taps):
                    acc += tap * (x[y_at][x_at][first + c] if inside else z)
        return finish(acc, m[o], node.numerics.requant)

    return element


def lut(node: Node, a: Mapping[str, Array]) -> Element:
    return lambda i: int(a["table"][int(a["x"][i]) + 128])


def binary(node: Node, a: Mapping[str, Array]) -> Element:
    n = node.numerics

    def element(i: tuple[int, ...]) -> int:
        p = int(a["a"][i])
        q = int(a["b"][tuple(0 if size == 1 else k for k, size in zip(i, a["b"].shape, strict=True))])
        if node.op == "add":
            acc = n.factor_a * (p - n.zero_a) + n.factor_b * (q - n.zero_b)
        else:
            acc = (p - n.zero_a) * (q - n.zero_b)
        return finish(acc, n.multiplier, n.requant)

    return element


def window(node: Node, x: Array, index: tuple[int, ...]) -> list[int]:
    """The values on the map that a pooling window covers."""
    at = node.attrs
    i, j, c = index
    found = []
    for u in range(at.kernel[0]):
        for v in range(at.kernel[1]):
            row, column = i * at.stride[0] + u - at.padding[0], j * at.stride[1] + v - at.padding[2]
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                found.append(int(x[row, column, c]))
    return found


def max_pool2d(node: Node, a: Mapping[str, Array]) -> Element:
    return lambda i: max(window(node, a["x"], i))


def avg_pool2d(node: Node, a: Mapping[str, Array]) -> Element:
    n = node.numerics

    def element(i: tuple[int, ...]) -> int:
        seen = window(node, a["x"], i)
        count = node.attrs.kernel[0] * node.attrs.kernel[1] if node.attrs.count_include_pad else len(seen)
        return finish(sum(v - n.input_zero_point for v in seen), n.multipliers[n.counts.index(count)], n.requant)

    return element


def mean_time(node: Node, a: Mapping[str, Array]) -> Element:
    n = node.numerics

    def element(i: tuple[int, ...]) -> int:
        steps = len(a["x"])
        total = sum(int(v) - n.input_zero_point for v in a["x"][:, i[0]])
        return finish((total * 2**n.fraction + steps // 2) // steps, n.multiplier, n.requant)

    return element


def softmax(node: Node, a: Mapping[str, Array]) -> Element:
    @cache
    def exponentials(lead: tuple[int, ...]) -> tuple[list[int], int]:
        row = [int(v) for v in a["x"][lead]]
        e = [int(a["table"][max(row) - v]) for v in row]
        assert sum(e) < 2**31
        return e, sum(e)

    def element(i: tuple[int, ...]) -> int:
        e, total = exponentials(i[:-1])
        return min((512 * e[i[-1]] + total) // (2 * total), 255) - 128

    return element


def attention(node: Node, a: Mapping[str, Array]) -> Element:
    n = node.numerics
    q, k, v = (a[role].tolist() for role in ("q", "k", "v"))

    @cache
    def row(t: int, h: int) -> tuple[list[int], int, int, int]:
        query = [x - n.query_zero_point for x in q[t][h]]
        acc = [sum(x * y for x, y in zip(query, key[h], strict=True)) for key in k]
        assert all(-(2**31) <= value < 2**31 for value in acc)
        weights = []
        for value in acc:
            distance = min(max(acc) - value, (2**31 - 1) >> n.score_shift)
            steps = rq(distance, n.score_multiplier, n.score_shift)
            octaves, rest = divmod(steps, 1024)
            coarse = int(32767 * 2.0 ** -(rest // 32 / 32) + 0.5)
            fine = int(32768 * 2.0 ** -(rest % 32 / 1024) + 0.5)
            shift = 15 + n.drop + octaves
            weights.append((coarse * fine + 2 ** (shift - 1)) // 2**shift if shift <= 30 else 0)
        total = sum(weights)
        assert 2**11 < total < 2**23
        up = 0
        while total * 2**up < 2**22:
            up += 1
        return weights, total, up, 2**47 // (total * 2**up)

    def element(i: tuple[int, ...]) -> int:
        weights, total, up, reciprocal = row(i[0], i[1])
        mean = sum(e * value[i[1]][i[2]] for e, value in zip(weights, v, strict=True)) - n.value_zero_point * total
        return finish(rq(mean * 2**up, reciprocal, 0), n.value_multiplier, n.requant)

    return element


def layer_norm(node: Node, a: Mapping[str, Array]) -> Element:
    n = node.numerics
    gamma, beta = a["gamma"].tolist(), a["beta"].tolist()

    @cache
    def row(lead: tuple[int, ...]) -> tuple[list[int], int, int, int]:
        x = a["x"][lead].tolist()
        total = sum(x)
        square = 256 * (len(x) * sum(v * v for v in x) - total**2) + n.epsilon
        assert 0 < square < 2**53
        e = 0
        while square >= 2**32:
            square, e = square // 4, e + 1
        while square < 2**30:
            square, e = 4 * square, e - 1
        return x, total, 2**45 // math.isqrt(square), 2 - e

    def element(i: tuple[int, ...]) -> int:
        x, total, reciprocal, up = row(i[:-1])
        centred = len(x) * x[i[-1]] - total
        t = rq(centred * 2**up, reciprocal, 0) if up >= 0 else rq(centred, reciprocal // 2**-up, 0)
        return finish(gamma[i[-1]] * t + beta[i[-1]], n.multiplier, n.requant)

    return element


def pad(node: Node, a: Mapping[str, Array]) -> Element:
    def element(i: tuple[int, ...]) -> int:
        at = tuple(k - before for k, (before, _) in zip(i, node.attrs.amounts, strict=True))
        inside = all(0 <= k < size for k, size in zip(at, a["x"].shape, strict=True))
        return int(a["x"][at]) if inside else node.numerics.value

    return element


def slice_(node: Node, a: Mapping[str, Array]) -> Element:
    s = node.attrs

    def element(i: tuple[int, ...]) -> int:
        return int(a["x"][(*i[: s.axis], s.start + i[s.axis] * s.step, *i[s.axis + 1 :])])

    return element


def select(node: Node, a: Mapping[str, Array]) -> Element:
    s = node.attrs
    at = s.index if s.index >= 0 else a["x"].shape[s.axis] - 1
    return lambda i: int(a["x"][(*i[: s.axis], at, *i[s.axis :])])


def reshape(node: Node, a: Mapping[str, Array]) -> Element:
    flat = [int(v) for v in a["x"].flat]
    order = {index: k for k, index in enumerate(np.ndindex(*node.attrs.shape))}
    return lambda i: flat[order[i]]


def transpose(node: Node, a: Mapping[str, Array]) -> Element:
    perm = node.attrs.perm

    def element(i: tuple[int, ...]) -> int:
        source = [0] * len(i)
        for k, axis in enumerate(perm):
            source[axis] = i[k]
        return int(a["x"][tuple(source)])

    return element


def concat(node: Node, a: Mapping[str, Array]) -> Element:
    axis = node.attrs.axis

    def element(i: tuple[int, ...]) -> int:
        k = i[axis]
        for part in a.values():
            if k < part.shape[axis]:
                return int(part[(*i[:axis], k, *i[axis + 1 :])])
            k -= part.shape[axis]
        raise AssertionError("outside every part")

    return element


_RULES: dict[str, Callable[[Node, Mapping[str, Array]], Element]] = {
    "linear": linear,
    "conv2d": conv2d,
    "conv2d_residual": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "lut": lut,
    "add": binary,
    "mul": binary,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "mean_time": mean_time,
    "softmax": softmax,
    "attention": attention,
    "layer_norm": layer_norm,
    "pad": pad,
    "slice": slice_,
    "select": select,
    "reshape": reshape,
    "transpose": transpose,
    "concat": concat,
}
