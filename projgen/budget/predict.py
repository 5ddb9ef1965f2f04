"""What a quantised model will cost on a target, from the schedule that a compilation would emit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import nn

from projgen.kernels.code_size import code_units
from projgen.options import CompileOptions, Optimise
from projgen.quant.model import QuantizedModel, quantize
from projgen.schedule import Schedule, schedule
from projgen.schedule.records import Kind, Phase
from projgen.targets import Target

CALL: Final = 9.0  # instructions of a call from the run function
BYTES_A_LAYER: Final = 90.0  # its parameters, its call
_BYTES: Final = 60.0  # interface


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Predicted instructions and exact bytes of constants of one node, for one inference."""

    source: str
    kernel: str
    instructions: float
    weight_bytes: int

    def belongs(self, module: str) -> bool:
        """Whether the node stands for a module of this name, or for a part of it."""
        return self.source == module or self.source.startswith(f"{module}.")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model costs on a target.

    Attributes:
        instructions: predicted, of one inference. code_bytes: predicted.
        weight_bytes, arena_bytes, arena_with_input_bytes: exact.
        layers: by node.
    """

    target: str
    instructions: float
    weight_bytes: int
    code_bytes: float
    arena_bytes: int
    arena_with_input_bytes: int
    layers: tuple[LayerCost, ...]

    @property
    def flash(self) -> float:
        """Weights and code."""
        return self.weight_bytes + self.code_bytes

    @property
    def ram(self) -> float:
        return float(self.arena_with_input_bytes)

    def cost(self, name: str) -> float:
        """By the name that a budget gives it: flash, ram or instructions."""
        return {"flash": self.flash, "ram": self.ram, "instructions": self.instructions}[name]

    def fits(self, limits: Mapping[str, float]) -> bool:
        return all(self.cost(name) <= limit for name, limit in limits.items())

    @property
    def text(self) -> str:
        return (
            f"{self.instructions:,.0f} instructions, {self.flash:,.0f} bytes of flash "
            f"({self.weight_bytes:,} of weights), {self.ram:,.0f} bytes of RAM with the input"
        )


def footprint(q: QuantizedModel, target: Target, *, steps: int = 1, optimise: Optimise = "speed") -> Footprint:
    """The cost of a quantised model on a target, by the kernels that a compilation takes.

    Args:
        steps: of an inference, where the model runs over time.
    """
    planned = schedule(q.graph, target, CompileOptions(optimise=optimise))
    layers = []
    total = 20.0
    for segment in planned.segments:
        times = steps if segment.phase is Phase.STEP else 1
        total += times * (segment.instructions + CALL)
        alone = sum(c.choice.instructions for c in segment.calls) or 1.0
        for call in segment.calls:
            share = segment.instructions * call.choice.instructions / alone
            weights = sum(t.data.nbytes for t in call.choice.tables)
            layers.append(LayerCost(call.node.source or call.node.name, call.choice.kernel, times * share, weights))
    plan = planned.plan
    return Footprint(
        target.name,
        total,
        planned.weight_bytes,
        code_bytes(planned),
        plan.arena_bytes,
        plan.with_input_bytes,
        tuple(layers),
    )


def code_bytes(planned: Schedule) -> float:
    """Predicted code of a schedule: every unit once, and what each layer adds."""
    units: dict[str, float] = {}
    layers = 0
    for segment in planned.segments:
        for call in segment.calls:
            units |= code_units(call.choice, by_rows=segment.kind is Kind.ROWS)
            layers += 1
    return _BYTES + BYTES_A_LAYER * layers + sum(units.values())


def predict(
    model: nn.Module | QuantizedModel,
    target: Target,
    example: Any,
    *,
    calibration: Any = None,
    equalise: bool = False,
    optimise: Optimise = "speed",
) -> Footprint:
    """The cost of a float or quantised model on a target.

    Args:
        example: a batch of inputs (a tuple for several); it decides the steps of an inference.
        calibration: what the model will be quantised with; default: the example. Kernels depend on the ranges where a
            sum could overflow. Channels that only the data shows constant count in full.
        equalise: as when it is quantised for good; slower.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    q = model
    if not isinstance(q, QuantizedModel):
        data = [inputs] if calibration is None else calibration
        q = quantize(q, data, equalise=equalise, keep_dead_channels=True)
    return footprint(q, target, steps=steps_of(q, inputs), optimise=optimise)


def steps_of(q: QuantizedModel, inputs: tuple[Any, ...]) -> int:
    """The steps of an inference with these inputs, (N, ...) each: 1 where nothing runs over time."""
    steps = 1
    for port, x in zip(q.graph.inputs, inputs, strict=True):
        if q.graph.type(port.value).has_time:
            steps = max(steps, port.to_ir(np.asarray(x)).shape[1])
    return steps
