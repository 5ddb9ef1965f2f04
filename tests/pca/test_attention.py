"""Attention taken apart into layers: the same results in every form, and back again."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from projgen.errors import InputError
from projgen.pca.attention import Attention, joined_attention, split_attention
from projgen.pca.counting import count_learnables
from projgen.pca.discover import choose_layers, find_layers, owned_copy

ALL = settings(max_examples=60, deadline=None)
FLAG = st.booleans()


def attention(batch_first: bool, bias: bool, separate: bool, extra: bool, zero: bool) -> nn.MultiheadAttention:
    made = nn.MultiheadAttention(
        8, 2, bias=bias, kdim=6 if separate else None, vdim=5 if separate else None, batch_first=batch_first,
        add_bias_kv=extra, add_zero_attn=zero,
    ).eval()  # fmt: skip
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


@ALL
@given(
    flags=st.tuples(FLAG, FLAG, FLAG, FLAG, FLAG),
    batched=FLAG,
    mask=st.sampled_from(["none", "numbers", "truths", "per head"]),
    padded=FLAG,
    need=FLAG,
    average=FLAG,
)
def test_it_computes_what_the_whole_one_does(
    flags: tuple[bool, bool, bool, bool, bool], batched: bool, mask: str, padded: bool, need: bool, average: bool
) -> None:
    whole = attention(*flags)
    parts = split_attention(copy.deepcopy(whole))
    assert isinstance(parts, Attention)
    assert count_learnables(parts) == count_learnables(whole)
    batch = (3,) if batched else ()
    widths = (8, 6, 5) if flags[2] else (8, 8, 8)
    inputs = [torch.randn(*batch, length, width) for length, width in zip((4, 5, 5), widths, strict=True)]
    if batched and not flags[0]:
        inputs = [x.transpose(0, 1) for x in inputs]
    heads = 6 if batched else 2
    masks: dict[str, Any] = {
        "none": None,
        "numbers": torch.randn(4, 5),
        "truths": torch.arange(5) > torch.tensor([1, 2, 3, 4])[:, None],
        "per head": torch.rand(heads, 4, 5) * 2 - 1,
    }
    hidden = torch.zeros(*batch, 5, dtype=torch.bool)
    hidden[..., 4:] = True
    options = {
        "attn_mask": masks[mask],
        "key_padding_mask": hidden if padded else None,
        "need_weights": need,
        "average_attn_weights": average,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mask of truths beside one of numbers
        expected, found = whole(*inputs, **options), parts(*inputs, **options)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-4)
    assert (found[1] is None) == (expected[1] is None)
    if need:
        torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-4)
    again = joined_attention(nn.Sequential(parts))[0]
    assert type(again) is nn.MultiheadAttention
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in whole.state_dict().items()}
    torch.testing.assert_close(again(*inputs, **options)[0], expected[0])


def test_a_causal_hint_needs_its_mask() -> None:
    parts = split_attention(attention(True, True, False, False, False))
    x = torch.randn(2, 4, 8)
    with pytest.raises(InputError, match="is_causal without attn_mask"):
        parts(x, x, x, is_causal=True)


def test_names_sizes_and_copies() -> None:
    model = nn.ModuleDict({"self": nn.MultiheadAttention(8, 2), "cross": nn.MultiheadAttention(8, 2, kdim=6, vdim=5)})
    sizes = {x.name: (x.inputs, x.outputs, x.bias) for x in find_layers(model)}
    assert sizes == {
        "self.in_proj": (8, 24, True),
        "self.out_proj": (8, 8, True),
        "cross.q_proj": (8, 8, True),
        "cross.k_proj": (6, 8, True),
        "cross.v_proj": (5, 8, True),
        "cross.out_proj": (8, 8, True),
    }
    own = owned_copy(model)
    assert find_layers(own) == find_layers(model)
    assert type(model["self"]) is nn.MultiheadAttention
    assert own["self"].in_proj.weight.data_ptr() != model["self"].in_proj_weight.data_ptr()
    assert [x.name for x in find_layers(nn.MultiheadAttention(8, 2))] == ["in_proj", "out_proj"]


class Odd(nn.MultiheadAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x, x, x)[0]


def test_subclasses_and_tied_weights_are_refused_by_name() -> None:
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2), "b": nn.MultiheadAttention(8, 2), "odd": Odd(8, 2)})
    reasons = {x.name: x.reason for x in find_layers(model)}
    assert reasons["odd.in_proj"] == reasons["odd.out_proj"] == "it is used inside Odd, a form of nn.MultiheadAttention"
    model["b"].in_proj_weight = model["a"].in_proj_weight
    with pytest.raises(InputError, match=r"'a\.in_proj' \(with 'b\.in_proj'\)"):
        choose_layers(model, None)
    assert [x.name for x in choose_layers(model, ["*.out_proj"])] == ["a.out_proj", "b.out_proj"]
    model["fc"] = nn.Linear(8, 24)
    model["fc"].weight = model["a"].in_proj_weight
    with pytest.raises(InputError, match=r"'fc' \(with 'a\.in_proj'\)"):
        choose_layers(model, ["fc"])
