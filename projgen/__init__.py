"""projgen: projects neural networks, quantises them and emits library-free C for microcontrollers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> module that defines it; imported on first use so that `projgen --help` stays quick.
_PUBLIC = {
    "Artifact": "projgen.artifact",
    "Budget": "projgen.budget.record",
    "Measurement": "projgen.harness.measurement",
    "NeuronPCA": "projgen.pca.neuron_pca",
    "ProjectedLayer": "projgen.projection.layers",
    "ProjgenError": "projgen.errors",
    "QuantizedModel": "projgen.quant.model",
    "analyze": "projgen.projection.analyze",
    "compile": "projgen.driver",
    "compress": "projgen.projection.compress",
    "distill": "projgen.projection.distill",
    "load_onnx": "projgen.importers.onnx",
    "quantize": "projgen.quant.model",
    "save": "projgen.export",
    "unpack_projected_layers": "projgen.projection.layers",
}

__all__ = [
    "Artifact",
    "Budget",
    "Measurement",
    "NeuronPCA",
    "ProjectedLayer",
    "ProjgenError",
    "QuantizedModel",
    "__version__",
    "analyze",
    "compile",
    "compress",
    "distill",
    "load_onnx",
    "quantize",
    "save",
    "unpack_projected_layers",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'projgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
