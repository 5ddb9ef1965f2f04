"""Convolutions and transposed ones in one form: rows times patches give what the layer gives."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import projgen
from projgen.errors import UnsupportedError
from projgen.pca.convolution import CONVOLUTIONS, in_own_order, is_transposed, patches_of, rows_of

SMALL = st.integers(1, 3)


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    kind = draw(st.sampled_from(CONVOLUTIONS))
    axes = 1 if kind in (nn.Conv1d, nn.ConvTranspose1d) else 2
    groups = draw(SMALL)
    kernel, stride, dilation = (tuple(draw(SMALL) for _ in range(axes)) for _ in range(3))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(axes))
    extra = {}
    if kind in (nn.ConvTranspose1d, nn.ConvTranspose2d):
        extra["output_padding"] = tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        )
    else:
        extra["padding_mode"] = draw(st.sampled_from(["zeros", "circular", "replicate"]))
    return kind(
        groups * draw(SMALL), groups * draw(SMALL), kernel, stride=stride, padding=padding, dilation=dilation,
        groups=groups, bias=False, dtype=torch.float64, **extra,
    )  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(layer=layers(), size=st.tuples(st.integers(7, 9), st.integers(7, 9)))
def test_rows_times_patches_are_the_layer(layer: nn.Module, size: tuple[int, int]) -> None:
    x = torch.randn(2, layer.in_channels, *size[: len(layer.kernel_size)], dtype=torch.float64)
    y = layer(x).detach()
    rows = rows_of(layer).detach()
    assert rows.shape == (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    torch.testing.assert_close(in_own_order(layer, rows), layer.weight.detach())
    patches = patches_of(layer, x)
    flat = rows.reshape(layer.groups, layer.out_channels // layer.groups, -1)
    z = torch.einsum("gpk,gok->pgo", patches, flat).reshape(2, -1, layer.out_channels).movedim(2, 1)
    torch.testing.assert_close(z.reshape(y.shape), y)
    assert is_transposed(layer) == ("output_padding" in layer.__constants__ and layer.transposed)


class Sized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x, output_size=(10, 10))


def test_an_output_size_of_the_call_is_refused_by_name() -> None:
    model = Sized()
    assert copy.deepcopy(model)(torch.zeros(1, 4, 4, 4)).shape[-1] == 10
    with pytest.raises(UnsupportedError, match="layer 'up' is called with output_size"):
        projgen.NeuronPCA(model, torch.randn(8, 4, 4, 4), verbosity="off")
