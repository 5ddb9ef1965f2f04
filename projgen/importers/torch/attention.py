"""Attention: ``scaled_dot_product_attention``, and the two products with a softmax between that spell it out.

torch's own module puts batch and heads on one axis, and batch and time, so this is also where such axes are followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from projgen.importers.torch import dense, pointwise, shapes
from projgen.importers.torch.context import RESHAPES, Call, Handler, Importer, Operand, Tracked
from projgen.ir import attrs as ir

Live = "Tracked | Merged"


@dataclass(frozen=True, slots=True)
class Merged:
    """An activation with torch axes that hold several axes at once, among them the batch.

    Torch axis i is the next ``counts[i]`` axes of ``whole``, merged.
    """

    whole: Tracked
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """Products of queries and keys that have not been built: whole axes (..., queries, keys).

    ``q`` (..., T, D) and ``k`` (..., S, D) have the same axes in front, of which torch's axis i merges ``counts[i]``.
    """

    q: Tracked
    k: Tracked
    counts: tuple[int, ...]
    scale: float
    normalised: bool = False


UNBUILT = (Merged, Scores)


def attention(imp: Importer, call: Call) -> Operand:
    """``scaled_dot_product_attention`` without a mask."""
    if call.args["dropout_p"]:
        raise call.refused("attention with dropout that is active at inference", "a dropout probability of 0")
    if call.args["is_causal"]:
        raise call.refused("attention with a causal mask", _UNMASKED)
    if call.args["attn_mask"] is not None:
        _check_mask(call, call.args["attn_mask"])
    if call.args["enable_gqa"]:
        raise call.refused(
            "attention with fewer heads of keys than of queries (enable_gqa)", "as many heads everywhere"
        )
    q, k, v = (call.activation(name) for name in ("query", "key", "value"))
    given = call.args["scale"]
    scale = imp.torch_shape(q)[-1] ** -0.5 if given is None else float(given)
    return _emit(imp, call, q, k, v, scale)


_UNMASKED = "attention of every step to every step; a sequence of fixed length needs no padding mask"


def _check_mask(call: Call, mask: Operand) -> None:
    """Refuse a mask that hides something."""
    if not isinstance(mask, torch.Tensor):
        raise call.refused("attention with a mask that depends on the model's inputs", _UNMASKED)
    if not bool(mask.all() if mask.dtype is torch.bool else (mask == 0).all()):
        raise call.refused("attention with a mask", _UNMASKED)


def _emit(imp: Importer, call: Call, q: Tracked, k: Tracked, v: Tracked, scale: float) -> Tracked:
    """The operator on q (..., T, D), k (..., S, D), v (..., S, E), behind the batch and at most one axis of heads."""
    if len({(x.rank, x.batch) for x in (q, k, v)}) != 1 or q.batch >= q.rank - 2:
        raise call.refused(
            "attention with queries, keys and values of different axes", "(batch, heads, time, features)"
        )
    heads = [axis for axis in range(q.rank - 2) if axis != q.batch]
    if len(heads) > 1:
        raise call.refused(f"attention over {len(heads)} axes beside the batch", "one axis of heads")
    rows, features = q.rank - 2, q.rank - 1
    order = (rows, *heads, features)
    parts: dict[str, str] = {}
    for role, x in (("q", q), ("k", k), ("v", v)):
        value = imp.ordered(call, x, order).value
        parts[role] = value if heads else imp.reshape(call, value, _with_heads(imp.shape(value)))
    out = imp.emit(call, "attention", ir.Attention(scale), parts)
    if not heads:
        t, _, e = imp.shape(out)
        out = imp.reshape(call, out, (t, e))
    return Tracked(out, order, q.batch)


def _with_heads(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], 1, shape[1])


def product(imp: Importer, call: Call) -> Operand:
    """``bmm`` and ``matmul`` of two activations: queries times keys, or weights times values."""
    left, right = (call.args[name] for name in _OPERANDS[call.op])
    if call.op == "baddbmm":
        _check_mask(call, call.args["self"])
        if call.args["alpha"] != 1:
            raise call.refused("a product scaled by alpha", "alpha of 1")
    if call.op == "matmul" and not isinstance(right, UNBUILT) and not call.is_activation("other"):
        return dense.matmul(imp, call)
    if not isinstance(left, Tracked | Merged | Scores) or not isinstance(right, Tracked | Merged):
        raise call.refused("a product of this form", _PATTERN)
    b, counts = _whole(right)
    if isinstance(left, Scores):
        if not left.normalised:
            raise call.refused("a product with scores of attention that no softmax has made weights of", _PATTERN)
        _same_front(imp, call, left.q, b)
        return wrapped(_emit(imp, call, left.q, left.k, b, left.scale), left.counts)
    a, front = _whole(left)
    if front != counts or a.rank < 3:
        raise call.refused("a product of two activations of different axes", _PATTERN)
    _same_front(imp, call, a, b)
    keys = shapes.swapped(b, b.rank - 2, b.rank - 1)
    return Scores(a, keys, front, 1.0)


_OPERANDS = {"bmm": ("self", "mat2"), "matmul": ("self", "other"), "baddbmm": ("batch1", "batch2")}
_PATTERN = "an activation times a constant matrix; two activations only as softmax(scale q k^T) v, which is attention"


def _same_front(imp: Importer, call: Call, a: Tracked, b: Tracked) -> None:
    if a.batch != b.batch or imp.torch_shape(a)[:-2] != imp.torch_shape(b)[:-2]:
        raise call.refused("a product of two activations of different batch or head axes", _PATTERN)


def _whole(x: Tracked | Merged) -> tuple[Tracked, tuple[int, ...]]:
    return (x.whole, x.counts) if isinstance(x, Merged) else (x, (1,) * x.rank)


def wrapped(x: Tracked, counts: tuple[int, ...]) -> Tracked | Merged:
    return x if all(n == 1 for n in counts) else Merged(x, counts)


def unbuilt(imp: Importer, call: Call) -> Operand:
    """A call with merged axes or with scores among its arguments."""
    given = [value for value in call.args.values() if isinstance(value, UNBUILT)]
    if call.op in _OPERANDS:
        return product(imp, call)
    scores = next((value for value in given if isinstance(value, Scores)), None)
    if scores is not None:
        return _on_scores(imp, call, scores)
    first = next(value for value in given if isinstance(value, Merged))
    if call.op in RESHAPES:
        return regrouped(imp, call, first, call.shape)
    if call.op in pointwise.IDENTITIES:
        pointwise.identity(imp, replace(call, args=_unmerged(call, first.counts)))
        return first
    if call.op in shapes.PERMUTATIONS:
        return _permuted(call, first)
    if call.op in _BY_FEATURE and first.counts[-1] == 1:
        result = _BY_FEATURE[call.op](imp, replace(call, args=_unmerged(call, first.counts)))
        assert isinstance(result, Tracked)
        return wrapped(result, first.counts)
    raise call.refused("the batch is merged with another axis of its input", "the batch as an axis of its own")


# Operators that treat every vector of features alike, whatever axes are in front.
_BY_FEATURE: dict[str, Handler] = {
    **{op: dense.HANDLERS[op] for op in ("linear", "addmm", "mm", "layer_norm")},
    **{
        op: pointwise.HANDLERS[op]
        for op in ("add", "sub", "mul", "div", "neg", "relu", "relu6", "sigmoid", "tanh", "gelu")
    },
}


def _unmerged(call: Call, counts: tuple[int, ...]) -> dict[str, Operand]:
    args = dict(call.args)
    for name, value in args.items():
        if isinstance(value, Merged):
            if value.counts != counts:
                raise call.refused("the axes merged in its two inputs differ", "the same axes in both")
            args[name] = value.whole
        elif isinstance(value, Tracked):
            raise call.refused("the batch is merged with another axis of one input only", "the same axes in both")
    return args


def _permuted(call: Call, x: Merged) -> Merged | Tracked:
    dims = shapes.new_places(call, len(x.counts))
    starts = [sum(x.counts[:i]) for i in range(len(x.counts))]
    inner = [starts[d] + i for d in dims for i in range(x.counts[d])]
    return wrapped(shapes.permuted(x.whole, inner), tuple(x.counts[d] for d in dims))


def _on_scores(imp: Importer, call: Call, scores: Scores) -> Operand:
    """Scaling, softmax over the keys, reshapes that part or merge heads and batch, and what does nothing."""
    if call.op in pointwise.IDENTITIES:
        pointwise.identity(imp, replace(call, args={**call.args, "self": scores.q, "input": scores.q}))
        return scores
    if call.op in {"mul", "div"} and not scores.normalised:
        other = call.args["other"] if isinstance(call.args["self"], Scores) else call.args["self"]
        number = float(other) if isinstance(other, int | float) or _is_number(other) else math.nan
        if math.isfinite(number) and (call.op == "mul" or (number and isinstance(call.args["self"], Scores))):
            return replace(scores, scale=scores.scale * (number if call.op == "mul" else 1.0 / number))
    if call.op == "add" and not scores.normalised:
        _check_mask(call, call.args["other"] if isinstance(call.args["self"], Scores) else call.args["self"])
        return scores
    if call.op in {"softmax", "_softmax"} and not scores.normalised:
        if call.axis("dim", len(scores.counts)) != len(scores.counts) - 1:
            raise call.refused("attention with a softmax that is not over the keys", _PATTERN)
        return replace(scores, normalised=True)
    if call.op in RESHAPES:
        front = imp.torch_shape(scores.q)[:-2]
        tail = (imp.torch_shape(scores.q)[-2], imp.torch_shape(scores.k)[-2])
        if call.shape == (*front, *tail):
            return replace(scores, counts=(1,) * (len(front) + 2))
        if call.shape == (math.prod(front), *tail):
            return replace(scores, counts=(len(front), 1, 1))
    what = "weights" if scores.normalised else "scores"
    raise call.refused(f"the {what} of attention are used for more than its output (need_weights)", _PATTERN)


def _is_number(value: Operand) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1


def regrouped(imp: Importer, call: Call, x: Tracked | Merged, shape: Sequence[int]) -> Tracked | Merged:
    """An activation in a torch shape in which the batch may be merged with its neighbours, now or before."""
    whole, _ = _whole(x)
    parts = _split(imp.torch_shape(whole), shape, imp.batch)
    if parts is None:
        raise call.refused(f"the batch is merged with another axis (result shape {tuple(shape)})", "the batch apart")
    inner = tuple(size for part in parts for size in part)
    if inner != imp.torch_shape(whole):
        whole = shapes.reshaped(imp, call, whole, inner)
    return wrapped(whole, tuple(len(part) for part in parts))


def _split(old: Sequence[int], new: Sequence[int], batch: int) -> list[tuple[int, ...]] | None:
    """For each size of ``new`` the sizes whose product it is, the batch apart from what is not; None if it is cut."""
    left = [size for size in old if size != 1]
    parts: list[tuple[int, ...]] = []
    for size in new:
        part: list[int] = []
        while math.prod(part) != size:
            wanted = size // math.prod(part)
            if not left or (wanted % left[0] and left[0] % wanted):
                return None
            piece = math.gcd(left[0], wanted)
            left[0] //= piece
            if left[0] == 1:
                del left[0]
            elif piece == batch or left[0] == batch:
                return None
            if part and batch not in (part[-1], piece):
                part[-1] *= piece
            else:
                part.append(piece)
        parts.append(tuple(part) or (1,))
    return parts


HANDLERS: dict[str, Handler] = {
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(_OPERANDS, product),
}
