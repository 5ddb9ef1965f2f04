"""The ONNX operators projgen reads, by family: name -> function that adds the layer to the module being built."""

from __future__ import annotations

from projgen.importers.onnx.build import Handler
from projgen.importers.onnx.ops import convolution, layout, linear, pointwise, pooling, recurrent

OPERATORS: dict[str, Handler] = {
    **convolution.OPERATORS,
    **layout.OPERATORS,
    **linear.OPERATORS,
    **pointwise.OPERATORS,
    **pooling.OPERATORS,
    **recurrent.OPERATORS,
}
FUNCTIONS: dict[str, Handler] = {**recurrent.FUNCTIONS}

# What messages list: the operators, those only folded (Constant, Range, ...) left out.
SUPPORTED = (*sorted(OPERATORS), *(f"{recurrent.DOMAIN}::{name}" for name in sorted(FUNCTIONS)))
