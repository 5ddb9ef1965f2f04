"""Drawn convolutions, poolings, paddings and reductions against torch."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from projgen.importers.torch_export import import_module
from projgen.passes import run_pipeline
from tests.importers.torch.checks import TOLERANCE, relative_error
from tests.importers.torch.nets import Fn

SMALL = settings(deadline=None, max_examples=20)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def _check(module: nn.Module, *shape: int) -> None:
    torch.manual_seed(sum(shape))
    x = torch.randn(3, *shape)
    canonical = run_pipeline(import_module(module.eval(), (x,)))
    assert relative_error(canonical, module, (x,)) <= TOLERANCE


@SMALL
@given(
    kernel=pairs, stride=pairs, dilation=pairs, padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.sampled_from([1, 2, 4]), per_group=st.integers(1, 2), out_per_group=st.integers(1, 3), bias=st.booleans(),
    size=st.tuples(st.integers(7, 10), st.integers(7, 10)), normalised=st.booleans(),
)  # fmt: skip
def test_conv2d(kernel, stride, dilation, padding, groups, per_group, out_per_group, bias, size, normalised) -> None:
    channels, outputs = groups * per_group, groups * out_per_group
    layer = nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias)
    norm = nn.BatchNorm2d(outputs) if normalised else nn.Identity()
    if normalised:
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    _check(nn.Sequential(layer, norm, nn.ReLU()), channels, *size)


@SMALL
@given(
    kernel=st.integers(1, 4), stride=st.integers(1, 3), dilation=st.integers(1, 3), before=st.integers(0, 3),
    after=st.integers(0, 3), groups=st.sampled_from([1, 3]), same=st.booleans(),
)  # fmt: skip
def test_conv1d(kernel: int, stride: int, dilation: int, before: int, after: int, groups: int, same: bool) -> None:
    layer = nn.Conv1d(3, 6, kernel, 1 if same else stride, "same" if same else 1, dilation, groups)
    _check(Fn(lambda m, x: m.conv(F.pad(x, (before, after))), conv=layer), 3, 14)


@SMALL
@given(
    kernel=pairs, stride=pairs, ceil=st.booleans(), counted=st.booleans(), padded=st.booleans(), largest=st.booleans(),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
)  # fmt: skip
def test_pooling(kernel, stride, ceil, counted, padded, largest, size) -> None:
    padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
    if largest:
        pool: nn.Module = nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    else:
        assume(not (ceil and counted and padded))
        pool = nn.AvgPool2d(kernel, stride, padding, ceil, counted)
    _check(pool, 2, *size)


@SMALL
@given(
    axes=st.sets(st.integers(1, 3), min_size=1), keep=st.booleans(), largest=st.booleans(),
    order=st.permutations([1, 2, 3]),
)  # fmt: skip
def test_reductions_in_any_layout(axes, keep, largest, order) -> None:
    def forward(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(x.permute(0, *order))
        return y.amax(tuple(axes), keep) if largest else y.mean(tuple(axes), keep)

    _check(Fn(forward), 2, 4, 5)


@SMALL
@given(order=st.permutations([1, 2, 3]), back=st.permutations([1, 2, 3]), offset=st.booleans())
def test_layout_changes_around_layers(order, back, offset) -> None:
    """Permutations, flattening and sums of differently laid out maps keep their meaning."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(m.conv(x))
        z = y.permute(0, *order)
        z = z + x[:, :1, :1, :1] if offset else z * 0.5
        return m.fc(torch.relu(z.permute(0, *back).flatten(1)))

    _check(Fn(forward, conv=nn.Conv2d(2, 3, 3, padding=1), fc=nn.Linear(60, 4)), 2, 4, 5)
