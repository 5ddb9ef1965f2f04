"""Small quantised nets of several operators, for the matrix and the faults around the kernels."""

from __future__ import annotations

from functools import cache

from projgen.ir.attrs import Gru, Lstm
from projgen.ir.graph import Graph
from projgen.ir.types import TIME
from projgen.ops.recurrent_samples import Case, sample
from tests.chain.support import Part, draw, part
from tests.schedule.nets import (
    Net,
    depthwise_pointwise,
    halves,
    recurrent,
    residual,
    sample_lut,
    sample_of,
    static_recurrent,
)


def _stacked() -> Graph:
    """Two LSTMs and a GRU, each on the one before, two of them with initial states, and an output at every step."""
    net = Net("stacked")
    y = net.input((TIME, 4))
    for case in (
        Case("stacked_first", Lstm, 4, 6, k=1, initial_state=True),
        Case("stacked_second", Lstm, 6, 5, fraction=10, zero_point=0, ranks=(3, 4)),
        Case("stacked_third", Gru, 5, 7, zero_point=0, initial_state=True),
    ):
        y = net.apply(sample(case), y)
    return net.graph(net.linear(y, 3))


def _two_inputs() -> Graph:
    net = Net("two")
    a, b = net.input((5,)), net.input((5,))
    a = net.apply(sample_lut(net, a), a)
    return net.graph(net.linear(a, 4), net.linear(b, 6))


@cache
def nets() -> dict[str, Part]:
    """Each net with its vectors, by name."""
    reverse = sample_of("lstm", "lstm_5_6_reverse")
    graphs = {
        "residual": residual(),
        "two_in_two_out": _two_inputs(),
        "joined": halves(),
        "streamed": depthwise_pointwise(9, 7, 8, 8),
        "lstm_rows": static_recurrent("lstm", "lstm_3_5_k2"),
        "gru_rows": static_recurrent("gru", "gru_3_5_k1", 7, last=False),
        "lstm_last": recurrent("lstm", "lstm_3_5_k2"),
        "lstm_every": recurrent("lstm", "lstm_3_5_k2", "every"),
        "lstm_projected": recurrent("lstm", "lstm_12_17_ranks_8_7"),
        "gru_mean": recurrent("gru", "gru_3_5_k1", "mean"),
        "stacked": _stacked(),
        "backwards": reverse.graph,
    }
    return {name: part(graph, draw(graph, 4), name) for name, graph in graphs.items()}
