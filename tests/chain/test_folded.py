"""An LSTM with a folded bias from compression to cores, byte for byte; there its bias is one per gate row again."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import projgen
from projgen.ir.types import DType
from projgen.projection.recurrent import ProjectedLSTM
from tests.chain.support import Part, build, compare, draw, part


class Net(nn.Module):
    """An LSTM, whose last step a linear layer reads."""

    def __init__(self, rnn: nn.Module, units: int) -> None:
        super().__init__()
        self.rnn, self.fc = rnn, nn.Linear(units, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.rnn(x)[0][:, -1])
        return y


@cache
def parts() -> tuple[Part, ...]:
    torch.manual_seed(4)
    data = torch.randn(24, 9, 6)
    rnn = ProjectedLSTM(6, 19, 5, 5, joint=True, fold_bias=True, batch_first=True)
    rnn.projector_bias.data.mul_(3.0)
    graph = projgen.quantize(Net(rnn, 19).eval(), data).graph
    return (part(graph, draw(graph, 3, 9), "folded"),)


def test_the_quantised_layer_has_the_product_of_factor_and_bias() -> None:
    graph = parts()[0].graph
    (node,) = (n for n in graph.nodes if n.op == "lstm")
    bias = graph.data(node, "b")
    assert node.attrs.joint and graph.arg(node, "b").type.dtype is DType.INT32
    assert bias.shape == (4 * 19,) and np.abs(bias).min() > 0


@pytest.mark.qemu
@pytest.mark.parametrize("target", ["host", "cortex-m4", "cortex-m55"])
def test_a_folded_lstm_gives_the_same_bytes(target: str, tmp_path: Path) -> None:
    assert compare(build(parts(), target, tmp_path), parts()).runs == 6  # whole and step by step
