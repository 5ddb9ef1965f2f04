"""Readable, unique names for what an ONNX file calls ``/encoder/conv1/Conv``, ``node_linear`` or ``encoder.conv1``."""

from __future__ import annotations

import ast
import keyword
import re
from collections import Counter

import onnx_ir as ir
from torch import fx, nn

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_NO_SCOPE = "_empty_nn_module_stack"
_TAKEN_BY_MODULES = {"meta", "graph", "code", "training", "_graph"}
WEIGHTED = frozenset({"Conv", "Gemm", "MatMul", "LSTM", "GRU", "BatchNormalization", "ProjectedLSTM", "ProjectedGRU"})
HELPERS = frozenset(
    {"Cast", "Concat", "Constant", "ConstantOfShape", "Gather", "Shape", "Slice", "Squeeze", "Unsqueeze"}
)
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
    """Hands out module paths, each once: ``fc``, ``fc_1``, ``encoder.conv``; nothing lies inside a layer."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._parents: set[str] = set()

    def __call__(self, wanted: str) -> str:
        first, *rest = wanted.split(".")
        is_path = bool(re.fullmatch(r"\w+(\.\w+)*", wanted, flags=re.ASCII)) and len(wanted) <= 2 * LONGEST
        base = ".".join([first if first.isdigit() else identifier(first), *rest]) if is_path else identifier(wanted)
        if self._taken & set(_prefixes(base)):
            base = identifier(base)
        name, number = base, 0
        while name in self._taken or name in self._parents:
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        self._parents.update(_prefixes(name))
        return name


def _prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def scope_of(node: ir.Node) -> str:
    """The PyTorch module path that an exporter recorded for a node, or the folder part of its name; or ''."""
    scopes = _literal(node.metadata_props.get(_SCOPES, ""))
    if scopes:
        return scopes[-2] if len(scopes) > 1 else ""
    return _joined((node.name or "").strip("/").split("/")[:-1])


def module_path(node: ir.Node) -> str:
    """What to call the layer a node becomes.

    Names that a PyTorch exporter made up give the module's path (``fc`` for ``node_linear`` in the scope of
    ``fc`` and for ``/fc/Gemm``); any other name is the node's own.
    """
    name = node.name or ""
    if not name:
        return node.op_type.lower()
    if ";" in name:
        return _fused_name(name.split(";"), node)
    if name.startswith("node_") or re.fullmatch(r"n\d+", name):
        return _dynamo_name(name.removeprefix("node_"), node)
    *folders, last = name.strip("/").split("/")
    if name.startswith("/") and folders and re.fullmatch(rf"{node.op_type}(_\d+)?", last):
        path = _joined(folders)
        is_layer = node.op_type in WEIGHTED or _is_alone(node, f"/{'/'.join(folders)}/")
        return path if is_layer else f"{path}.{last.lower()}"
    return name.strip("/").lower() if re.fullmatch(rf"/{node.op_type}(_\d+)?", name) else name


def _is_alone(node: ir.Node, folder: str) -> bool:
    """Whether no other node that does something has a name in this folder, so that the folder is a layer's."""
    nodes = node.graph if node.graph is not None else ()
    inside = [other for other in nodes if (other.name or "").startswith(folder) and other.op_type not in HELPERS]
    return inside == [node]


def _joined(folders: list[str]) -> str:
    """``["features", "features.0"]``, as the TorchScript exporter writes it, is the path ``features.0``."""
    path: list[str] = []
    for folder in folders:
        if path and folder.startswith(f"{path[-1]}."):
            path.pop()
        path.append(folder)
    return ".".join(path)


def _dynamo_name(own: str, node: ir.Node) -> str:
    weight = node.inputs[1].name if node.op_type in WEIGHTED and len(node.inputs) > 1 and node.inputs[1] else None
    if weight is not None and weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    scopes = _literal(node.metadata_props.get(_SCOPES, ""))
    classes = _literal(node.metadata_props.get(_CLASSES, ""))
    path = scopes[-2] if len(scopes) > 1 else ""
    path = "" if path.startswith(_NO_SCOPE) else path
    own = node.op_type.lower() if own.strip("n").isdigit() else own
    is_layer = len(classes) > 1 and classes[-2].startswith(nn.__name__ + ".modules.")
    if path and (is_layer or node.op_type in WEIGHTED):
        return path
    return f"{path}.{own}" if path else own


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
