"""What every choice of ranks costs on a target, layer by layer: sketches lowered with the kernels of a compilation."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from projgen.budget.predict import BYTES_A_LAYER, CALL, Footprint
from projgen.budget.sketch import layer_nodes, sketch
from projgen.ir.graph import Graph, Node
from projgen.kernels.code_size import code_units
from projgen.kernels.record import KernelChoice
from projgen.ops.common import need_quant
from projgen.options import Optimise
from projgen.pca.counting import dense_cost
from projgen.pca.discover import Layer
from projgen.projection.limits import Array
from projgen.projection.ranks import DENSE, Choice, output_cost
from projgen.schedule.choose import candidates, cost, table_bytes
from projgen.schedule.share import SHARE_A_BYTE, STEPS
from projgen.targets import Target

_MOST_CODE: Final = 6000.0  # bytes that one kernel takes more than another
COSTS: Final = ("instructions", "flash")


@dataclass(frozen=True, slots=True)
class Price:
    """Of a layer at some ranks: predicted instructions of an inference, bytes of constants, of code by its units, and
    of the maps, factors and scratch that are live at once."""

    instructions: float
    weight_bytes: int
    units: Mapping[str, float]
    calls: int
    ram: int

    def flash(self, shared: Set[str] = frozenset()) -> float:
        """Bytes of constants and code, without the units that other layers pay."""
        code = sum(size for unit, size in self.units.items() if unit not in shared)
        return self.weight_bytes + BYTES_A_LAYER * self.calls + code


class Prices:
    """Prices of the layers of one network of given widths, each worked out when it is first asked for.

    Args:
        graph: the network without projection, quantised. layers: those that may be projected.
        footprint: its own. steps: of an inference.
    """

    def __init__(
        self, graph: Graph, layers: list[Layer], footprint: Footprint, target: Target, steps: int, optimise: Optimise
    ) -> None:
        self._graph, self._target, self._steps, self._optimise = graph, target, steps, optimise
        self._nodes = layer_nodes(graph, layers)
        self._footprint = footprint
        repeats = STEPS / steps if graph.has_time else 1
        self._byte = 1.0 if optimise == "flash" else SHARE_A_BYTE * repeats * footprint.instructions
        self._shapes = {layer.name: self._shape(layer) for layer in layers if layer.name in self._nodes}
        self._known: dict[tuple[Any, ...], Price] = {}

    def _shape(self, layer: Layer) -> tuple[Any, ...]:
        """What decides a layer's prices beside ranks: many layers of a network are alike."""
        node = self._nodes[layer.name]
        x, y = (self._graph.type(name) for name in (node.inputs["x"], node.output))
        kernel = self._graph.data(node, "w").shape
        zeros = tuple(need_quant(t).zero_point == t.dtype.low for t in (x, y))
        return node.op, node.attrs, x.shape, y.shape, kernel, zeros

    def of(self, layer: Layer, choice: Choice) -> Price:
        """The price; where the graph has no node for the layer alone, its learnables' share of what it takes dense."""
        choice = Choice(choice.r_in, None) if choice.shared else choice
        if layer.name not in self._nodes:
            return self._share(layer, choice)
        key = *self._shapes[layer.name], choice
        if key not in self._known:
            self._known[key] = self._lowered(layer, choice)
        return self._known[key]

    def costs(self, layer: Layer, choice: Choice, shared: Set[str] = frozenset()) -> Array:
        """Instructions and flash, in the order of ``COSTS``."""
        price = self.of(layer, choice)
        return np.array([price.instructions, price.flash(shared)])

    def pays(self, layers: Mapping[Layer, Choice]) -> bool:
        """Whether layers together are neither slower nor larger than dense."""
        made = [self.of(layer, choice) for layer, choice in layers.items()]
        dense = [self.of(layer, DENSE) for layer in layers]
        faster = sum(p.instructions for p in made) <= sum(p.instructions for p in dense)
        return faster and sum(p.weight_bytes for p in made) <= sum(p.weight_bytes for p in dense)

    def _lowered(self, layer: Layer, choice: Choice) -> Price:
        graph = sketch(self._graph, self._nodes[layer.name], layer, choice)
        instructions, weights, ram = 0.0, 0, 0
        units: dict[str, float] = {}
        for node in graph.nodes:
            over_time = graph.type(node.output).has_time
            made = self._kernel(graph, node, STEPS if over_time else 1)
            times = self._steps if over_time else 1
            instructions += times * (made.instructions + CALL)
            weights += table_bytes(made)
            units |= code_units(made)
            live = [value.type.nbytes for _, value in graph.activations(node)]
            ram = max(ram, sum(live) + graph.type(node.output).nbytes + made.scratch_bytes + made.state_bytes)
        return Price(instructions, weights, units, len(graph.nodes), ram)

    def _kernel(self, graph: Graph, node: Node, calls: int) -> KernelChoice:
        """The kernel that a whole network's schedule takes: code costs a little where flash is not favoured."""
        able = candidates(graph, node, self._target, "fast")
        spent = {id(c): calls * cost(c, self._optimise, by_rows=False) for c in able}
        price = self._byte
        near = min(spent.values()) + price * _MOST_CODE
        few = [c for c in able if spent[id(c)] <= near]
        return few[0] if len(few) == 1 else min(few, key=lambda c: spent[id(c)] + price * sum(code_units(c).values()))

    def _share(self, layer: Layer, choice: Choice) -> Price:
        mine = [c for c in self._footprint.layers if c.belongs(layer.module_name)]
        share = output_cost(layer, choice) / dense_cost(layer)
        instructions, weights = sum(c.instructions for c in mine), sum(c.weight_bytes for c in mine)
        return Price(share * instructions, round(share * weights), {}, len(mine), 0)
