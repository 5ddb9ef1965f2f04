"""Readable, unique Python names for what an ONNX file calls ``/encoder/conv1/Conv`` or ``node_linear``."""

from __future__ import annotations

import ast
import keyword
import re
from collections import Counter
from collections.abc import Iterable

import onnx_ir as ir
from torch import fx, nn

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_TAKEN_BY_MODULES = {"meta", "graph", "code", "training", "_graph"}
WEIGHTED = frozenset({"Conv", "Gemm", "MatMul", "LSTM", "GRU", "BatchNormalization", "ProjectedLSTM", "ProjectedGRU"})
LONGEST = 48


def identifier(text: str) -> str:
    """Letters, digits and underscores of a name; never empty, never a keyword or an attribute of modules."""
    name = re.sub(r"_+", "_", re.sub(r"\W", "_", text, flags=re.ASCII)).strip("_")[-LONGEST:].strip("_")
    if not name or name[0].isdigit():
        name = f"n{name}"
    if keyword.iskeyword(name) or name in _TAKEN_BY_MODULES or hasattr(fx.GraphModule, name):
        name = f"{name}_"
    return name


class Namer:
    """Hands out each name once: ``fc``, ``fc_1``, ..."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def __call__(self, wanted: str) -> str:
        base = identifier(wanted)
        name, number = base, 0
        while name in self._taken:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name


def scope_of(node: ir.Node) -> str:
    """The PyTorch module path that an exporter recorded for a node, or the folder part of its name; or ''."""
    scopes = _literal(node.metadata_props.get(_SCOPES, ""))
    if scopes:
        return scopes[-2] if len(scopes) > 1 else ""
    return (node.name or "").strip("/").rpartition("/")[0].replace("/", ".")


def layer_name(node: ir.Node) -> str:
    """What to call the layer a node becomes.

    Names that a PyTorch exporter made up give the module's path (``fc`` for ``node_linear`` in the scope of
    ``fc`` and for ``/fc/Gemm``); any other name is the node's own.
    """
    name = node.name or ""
    if not name:
        return node.op_type.lower()
    if ";" in name:
        return _fused_name(name.split(";"), node)
    scopes = _literal(node.metadata_props.get(_SCOPES, ""))
    if name.startswith("node_"):
        own = name.removeprefix("node_")
        weight = node.inputs[1].name if node.op_type in WEIGHTED and len(node.inputs) > 1 and node.inputs[1] else None
        if weight is not None and weight.endswith(".weight"):
            return weight.removesuffix(".weight")
        path = scopes[-2] if len(scopes) > 1 else ""
        classes = _literal(node.metadata_props.get(_CLASSES, ""))
        is_layer = len(classes) > 1 and classes[-2].startswith(nn.__name__ + ".modules.")
        if path and (is_layer or node.op_type in WEIGHTED):
            return path
        return f"{path}.{own}" if path else own
    folder, _, last = name.strip("/").rpartition("/")
    if name.startswith("/") and folder and re.fullmatch(rf"{node.op_type}(_\d+)?", last):
        stem = folder.rpartition("/")[2].lower()
        if node.op_type in WEIGHTED or node.op_type.lower() in stem:
            return folder
    return name


def _fused_name(parts: list[str], node: ir.Node) -> str:
    """For a name that joins all the nodes a converter fused: the layer most of them belong to."""
    layers = Counter("/".join(part.split("/")[:2]) for part in reversed(parts))
    layer = layers.most_common(1)[0][0]
    return layer if node.op_type in WEIGHTED else f"{layer}/{node.op_type}"


def _literal(text: str) -> list[str]:
    try:
        value = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError):
        return []
    return [str(item) for item in value] if isinstance(value, list) else []
