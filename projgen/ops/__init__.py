"""The operators: one record each, one module a family."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from projgen.errors import UnsupportedError
from projgen.ops.record import OpDef

_FAMILIES = (
    "linear",
    "conv",
    "conv_residual",
    "conv_transpose",
    "recurrent",
    "elementwise",
    "pool",
    "softmax",
    "attention",
    "layer_norm",
    "shape",
)


@cache
def registry() -> dict[str, OpDef]:
    """Every operator by name. Each family module lists its records in ``OPS``."""
    records: dict[str, OpDef] = {}
    for family in _FAMILIES:
        for op in import_module(f"projgen.ops.{family}").OPS:
            if op.name in records:
                raise ValueError(f"operator {op.name!r} is registered twice")
            records[op.name] = op
    return records


def get(name: str) -> OpDef:
    """The record of one operator; ``UnsupportedError`` names what exists."""
    records = registry()
    if name not in records:
        raise UnsupportedError(f"unknown operator {name!r}", ", ".join(sorted(records)), "projgen/ops/")
    return records[name]
