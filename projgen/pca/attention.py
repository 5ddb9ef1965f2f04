"""nn.MultiheadAttention with its projections as layers, so that they are seen, projected and exported like others.

``nn.MultiheadAttention`` multiplies by parameters of its own and calls no layer. ``split_attention`` puts an equivalent
``Attention`` in its place, ``joined_attention`` takes back those whose projections are still dense.

============================  ==============================================================================
layer                         parameters of nn.MultiheadAttention
============================  ==============================================================================
``in_proj`` (3E, E)           ``in_proj_weight``, ``in_proj_bias``: query, key and value have E features
``q_proj``, ``k_proj``,       ``q_proj_weight``, ..., and a third of ``in_proj_bias`` each: kdim or vdim differs
``v_proj`` (E, its width)
``out_proj`` (E, E)           ``out_proj``
============================  ==============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projgen.errors import InputError

SEPARATE = ("q_proj", "k_proj", "v_proj")


class Attention(nn.Module):
    """What an nn.MultiheadAttention computes, from layers; same arguments, same results.

    Args:
        like: the attention; its parameters are taken over, not copied (a packed bias of separate weights is split).
    """

    # What nn.TransformerEncoderLayer looks at before it computes everything in one fused call, which it then does not.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    in_proj: nn.Module
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    def __init__(self, like: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = like.embed_dim, like.num_heads
        self.kdim, self.vdim = like.kdim, like.vdim
        self.dropout, self.batch_first, self.add_zero_attn = like.dropout, like.batch_first, like.add_zero_attn
        self.bias_k, self.bias_v = like.bias_k, like.bias_v
        bias = like.in_proj_bias
        if like._qkv_same_embed_dim:
            self.in_proj = _linear(like.in_proj_weight, bias)
        else:
            parts = [None] * 3 if bias is None else [nn.Parameter(b.clone(), b.requires_grad) for b in bias.chunk(3)]
            for name, part in zip(SEPARATE, parts, strict=True):
                setattr(self, name, _linear(getattr(like, f"{name}_weight"), part))
        self.out_proj = _linear(like.out_proj.weight, like.out_proj.bias)
        self.training = like.training

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(output, weights or None), as nn.MultiheadAttention; ``is_causal`` is a hint about ``attn_mask``."""
        if is_causal and attn_mask is None:
            raise InputError("is_causal without attn_mask", "the mask that it describes", "attn_mask")
        batched = query.dim() == 3
        q, k, v = (self._batch_first(x, batched) for x in self._projected(query, key, value))
        if not batched and key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        count, target = q.shape[0], q.shape[1]
        added = 0
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (torch.cat((x, b.expand(count, 1, -1)), 1) for x, b in ((k, self.bias_k), (v, self.bias_v)))
            added += 1
        if self.add_zero_attn:
            k, v = (torch.cat((x, x.new_zeros(count, 1, x.shape[-1])), 1) for x in (k, v))
            added += 1
        mask = self._mask(attn_mask, key_padding_mask, count, added, q)
        q, k, v = (x.reshape(count, x.shape[1], self.num_heads, -1).transpose(1, 2) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            attended = F.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        y = self.out_proj(attended.transpose(1, 2).reshape(count, target, self.embed_dim))
        if not batched:
            return y.squeeze(0), weights
        return (y if self.batch_first else y.transpose(0, 1)), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values; an input that plays several roles is multiplied once."""
        if "in_proj" not in self._modules:
            return self.q_proj(query), self.k_proj(key), self.v_proj(value)
        done: dict[int, tuple[Tensor, ...]] = {}
        for x in (query, key, value):
            if id(x) not in done:
                done[id(x)] = self.in_proj(x).chunk(3, -1)
        return tuple(done[id(x)][part] for part, x in enumerate((query, key, value)))

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        if not batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _mask(self, attn: Tensor | None, padding: Tensor | None, count: int, added: int, like: Tensor) -> Tensor | None:
        """Both masks as one that is added to the scores; the ``added`` last keys are seen by all."""
        whole: Tensor | None = None
        if attn is not None:
            whole = _additive(attn, like)
            whole = whole.reshape(count, self.num_heads, *whole.shape[1:]) if whole.dim() == 3 else whole[None, None]
        if padding is not None:
            keys = _additive(padding, like)[:, None, None]
            whole = keys if whole is None else whole + keys
        return whole if whole is None or not added else F.pad(whole, (0, added))


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """A mask of truths (what is hidden) as numbers to add."""
    if mask.dtype is not torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of these parameters, which stay the same objects."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = weight
    if bias is not None:
        layer.bias = bias  # type: ignore[assignment]
    return layer


def is_attention(module: nn.Module) -> bool:
    """Whether a module is an attention that ``split_attention`` takes apart (no subclass with other rules)."""
    return type(module) is nn.MultiheadAttention


def owner_of(module: nn.Module, name: str, parameter: str) -> str:
    """The name of the layer that a parameter belongs to, in a model whose attentions are whole or taken apart."""
    if not is_attention(module) or not parameter.endswith(("_proj_weight", "in_proj_bias")):
        return name
    packed = module._parameters["in_proj_weight"] is not None
    if parameter == "in_proj_bias" and not packed:
        return name
    last = parameter.removesuffix("_weight").removesuffix("_bias")
    return f"{name}.{last}" if name else last


def projections(module: nn.MultiheadAttention) -> Iterator[tuple[str, int, int]]:
    """(name, inputs, outputs) of the projections in front of an attention."""
    if module._qkv_same_embed_dim:
        yield "in_proj", module.embed_dim, 3 * module.embed_dim
    else:
        yield from zip(SEPARATE, (module.embed_dim, module.kdim, module.vdim), (module.embed_dim,) * 3, strict=True)


def split_attention(model: nn.Module) -> nn.Module:
    """The model, changed in place, with ``Attention`` wherever it has an nn.MultiheadAttention."""
    if is_attention(model):
        return Attention(model)  # type: ignore[arg-type]
    done: dict[int, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and is_attention(child):
                setattr(parent, name, done.setdefault(id(child), Attention(child)))  # type: ignore[arg-type]
        if isinstance(parent, nn.TransformerEncoder) and any(isinstance(m, Attention) for m in parent.modules()):
            parent.use_nested_tensor = False  # of the fused call
    return model


def joined_attention(model: nn.Module) -> nn.Module:
    """The model, changed in place, with nn.MultiheadAttention again wherever an ``Attention`` has dense layers only.

    One in a transformer's encoder layer stays if that has projected layers: its fused call reads their weights.
    """
    if isinstance(model, Attention):
        return _joined(model) if _is_dense(model) else model
    done: dict[int, nn.Module] = {}
    for parent in list(model.modules()):
        if isinstance(parent, nn.TransformerEncoderLayer) and not _is_dense(parent):
            continue
        for name, child in list(parent._modules.items()):
            if isinstance(child, Attention) and _is_dense(child):
                if id(child) not in done:
                    done[id(child)] = _joined(child)
                setattr(parent, name, done[id(child)])
    return model


def _is_dense(module: Attention | nn.TransformerEncoderLayer) -> bool:
    layers = module.children() if isinstance(module, Attention) else (module.linear1, module.linear2)
    return all(type(child) is nn.Linear for child in layers)


def _joined(module: Attention) -> nn.MultiheadAttention:
    like = module.out_proj.weight
    made = nn.MultiheadAttention(
        module.embed_dim, module.num_heads, dropout=module.dropout, bias=module.out_proj.bias is not None,
        add_zero_attn=module.add_zero_attn, kdim=module.kdim, vdim=module.vdim, batch_first=module.batch_first,
        device="meta", dtype=like.dtype,
    )  # fmt: skip
    made.bias_k, made.bias_v = module.bias_k, module.bias_v
    made.out_proj.weight, made.out_proj.bias = module.out_proj.weight, module.out_proj.bias
    if "in_proj" in module._modules:
        packed = module.in_proj
        assert isinstance(packed, nn.Linear)
        made.in_proj_weight = packed.weight  # type: ignore[assignment]
        made.in_proj_bias = packed.bias
    else:
        layers = [getattr(module, name) for name in SEPARATE]
        for name, layer in zip(SEPARATE, layers, strict=True):
            setattr(made, f"{name}_weight", layer.weight)
        if layers[0].bias is not None:
            biases = [layer.bias for layer in layers]
            made.in_proj_bias = nn.Parameter(torch.cat(biases).detach(), biases[0].requires_grad)
    return made.train(module.training)
