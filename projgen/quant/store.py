"""A quantised graph as one deterministic file, and its hash.

The file is an uncompressed zip of ``graph.json`` and one ``.npy`` per constant, with fixed time stamps and no pickle:
the same graph gives the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import tempfile
import types
import typing
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from projgen.errors import InputError
from projgen.ir import attrs as attrs_module
from projgen.ir import numerics as numerics_module
from projgen.ir.graph import Array, Graph, Node, Port, Stage, Value
from projgen.ir.types import ADDED, DType, Quant, TensorType
from projgen.quant.notes import NONE, Notes

FORMAT: Final = "projgen-quantised-model"
VERSION: Final = 1
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_RECORDS: Final[Mapping[str, type]] = {
    cls.__name__: cls
    for cls in (
        *typing.get_args(attrs_module.Attrs),
        *typing.get_args(numerics_module.Numerics),
        numerics_module.Requant,
        numerics_module.LowRank,
        TensorType,
        Quant,
        Port,
    )
}


def save_graph(graph: Graph, path: str | Path, notes: Notes = NONE) -> None:
    """Write a quantised graph and the notes on it; the file appears whole or not at all.

    Raises:
        InputError: the folder does not exist or can't be written.
    """
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(f"{target} can't be written: {error.strerror}", "a writable folder", "path") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(to_bytes(graph, notes))
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{target} can't be written: {error.strerror}", "a writable file", "path") from error


def load_graph(path: str | Path) -> tuple[Graph, Notes]:
    """Read what ``save_graph`` wrote.

    Raises:
        InputError: the file is missing, damaged, or of another format version.
    """
    source = Path(path)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise InputError(f"{source} can't be read: {error.strerror}", "a saved quantised model", "path") from error
    try:
        return from_bytes(data)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{source} is damaged or no quantised model ({error})", "a file written by QuantizedModel.save", "path"
        ) from error


def to_bytes(graph: Graph, notes: Notes = NONE) -> bytes:
    """The file's bytes; the hash leaves out the notes."""
    constants = [(v.name, v.data) for v in graph.values.values() if v.data is not None]
    constants.sort(key=lambda item: item[0])
    members = {name: f"constants/{i:04d}.npy" for i, (name, _) in enumerate(constants)}
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "graph": _graph_json(graph, members)}
    header |= notes.to_json()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "graph.json", json.dumps(header, indent=1, sort_keys=True, allow_nan=False).encode())
        for name, data in constants:
            _add(archive, members[name], _npy(data))
    return buffer.getvalue()


def from_bytes(data: bytes) -> tuple[Graph, Notes]:
    """The graph of a file's bytes, and the notes on it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        header = json.loads(archive.read("graph.json"))
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise InputError(
                f"the file has format {header['format']!r}, version {header['version']}",
                f"{FORMAT!r}, version {VERSION}",
                "the file, or the projgen that reads it",
            )
        return _graph_of(header["graph"], archive), Notes.from_json(header)


def digest(graph: Graph) -> str:
    """SHA-256 of the graph's meaning: names of values, nodes, ports, layers and the graph itself don't count."""
    names: dict[str, str] = {}
    for port in graph.inputs:
        names.setdefault(port.value, f"v{len(names)}")
    for node in graph.nodes:
        for value in (*node.inputs.values(), node.output):
            names.setdefault(value, f"v{len(names)}")
    nodes = [
        replace(
            node,
            name=f"n{i}",
            source="",
            inputs={role: names[value] for role, value in node.inputs.items()},
            output=names[node.output],
        )
        for i, node in enumerate(graph.nodes)
    ]
    values = {names[v.name]: replace(v, name=names[v.name]) for v in graph.values.values()}
    inputs = tuple(Port(names[p.value], "", p.perm) for p in graph.inputs)
    outputs = tuple(Port(names[p.value], "", p.perm) for p in graph.outputs)
    return hashlib.sha256(to_bytes(Graph("", graph.stage, inputs, outputs, tuple(nodes), values))).hexdigest()


def _graph_json(graph: Graph, members: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": graph.name,
        "stage": graph.stage.value,
        "inputs": [_encode(p) for p in graph.inputs],
        "outputs": [_encode(p) for p in graph.outputs],
        "nodes": [
            {
                "name": n.name,
                "op": n.op,
                "inputs": [[role, value] for role, value in n.inputs.items()],
                "output": n.output,
                "attrs": _encode(n.attrs),
                "source": n.source,
                "numerics": _encode(n.numerics),
            }
            for n in graph.nodes
        ],
        "values": [
            {"name": v.name, "type": _encode(v.type), "data": members.get(v.name)}
            for v in sorted(graph.values.values(), key=lambda v: v.name)
        ],
    }


def _graph_of(record: Mapping[str, Any], archive: zipfile.ZipFile) -> Graph:
    values = {}
    for v in record["values"]:
        t = _decode(TensorType, v["type"])
        data = None if v["data"] is None else _read_npy(archive.read(v["data"]))
        if data is not None and (data.shape != t.shape or data.dtype.name != t.dtype.value):
            raise ValueError(f"constant {v['name']!r} is no {t}")
        values[v["name"]] = Value(v["name"], t, data)
    nodes = tuple(
        Node(
            n["name"],
            n["op"],
            dict(n["inputs"]),
            n["output"],
            _decode(typing.cast(type, attrs_module.Attrs), n["attrs"]),
            n["source"],
            _decode(typing.cast(type, numerics_module.Numerics | None), n["numerics"]),
        )
        for n in record["nodes"]
    )
    for name in (v for n in nodes for v in (*n.inputs.values(), n.output)):
        if name not in values:
            raise ValueError(f"value {name!r} is missing")
    inputs, outputs = (tuple(_decode(Port, p) for p in record[side]) for side in ("inputs", "outputs"))
    return Graph(record["name"], Stage(record["stage"]), inputs, outputs, nodes, values)


def _encode(value: Any) -> Any:
    """Records as {"is": class, field: value}, enumerations by value, infinities as text.

    A field marked ``ADDED`` is left out at its default, so that files without it keep their hash.
    """
    if is_dataclass(value) and not isinstance(value, type):
        all_fields = {f: getattr(value, f.name) for f in fields(value)}
        kept = {f.name: _encode(v) for f, v in all_fields.items() if f.metadata != ADDED or v != f.default}
        return {"is": type(value).__name__, **kept}
    if isinstance(value, tuple):
        return [_encode(v) for v in value]
    if isinstance(value, DType):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _decode(hint: Any, value: Any) -> Any:
    """The value of an annotated type from its JSON form."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, dict):
        cls = _RECORDS[value["is"]]
        options = arguments if origin in (typing.Union, types.UnionType) else (hint,)
        if cls not in options:
            raise ValueError(f"a {value['is']} record where {hint} belongs")
        hints = typing.get_type_hints(cls)
        kept = [f.name for f in fields(cls) if f.name in value or f.metadata != ADDED]
        return cls(**{name: _decode(hints[name], value[name]) for name in kept})
    if isinstance(value, list):
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        if origin is not tuple or not (repeated or len(arguments) == len(value)):
            raise ValueError(f"{value} where {hint} belongs")
        each = [arguments[0]] * len(value) if repeated else arguments
        return tuple(_decode(h, v) for h, v in zip(each, value, strict=True))
    if hint is DType:
        return DType(value)
    if hint is float:
        return float(value)
    if not _is_plain(hint, value):
        raise ValueError(f"{value!r} where {hint} belongs")
    return value


def _is_plain(hint: Any, value: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_is_plain(h, value) for h in arguments)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)


def _npy(data: Array) -> bytes:
    buffer = io.BytesIO()
    little = np.ascontiguousarray(data.astype(data.dtype.newbyteorder("<")))
    np.lib.format.write_array(buffer, little.reshape(data.shape), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _read_npy(data: bytes) -> Array:
    return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
