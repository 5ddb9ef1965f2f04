"""Reading an ONNX file: what is missing, cut off or no model at all is an ``InputError`` that names it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import google.protobuf.message  # type: ignore[import-untyped]
import onnx
import onnx_ir as ir

from projgen.errors import InputError, InputTypeError
from projgen.importers.onnx.values import Array

_ALLOWED = "a complete .onnx file"


def read_model(source: str | os.PathLike[str] | onnx.ModelProto) -> tuple[ir.Model, str]:
    """The model and what to call it in messages.

    Args:
        source: path of an ``.onnx`` file (external data beside it is found) or a ``ModelProto``.
    Raises:
        InputError: no such file, a folder, a cut-off or foreign file, or external data that is missing.
        InputTypeError: ``source`` is neither a path nor a ``ModelProto``.
    """
    if isinstance(source, onnx.ModelProto):
        proto, label, folder = source, "the given ModelProto", None
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        proto, label, folder = _parse(path), f"'{path}'", path.parent
    else:
        raise InputTypeError(f"a model of type {type(source).__name__}", "a path or an onnx.ModelProto", "model")
    if not proto.HasField("graph") or not proto.graph.output or not proto.opset_import:
        raise InputError(f"{label} is no complete ONNX model: its graph or opset is missing", _ALLOWED, "model")
    _check_external(proto, label, folder)
    try:
        model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, KeyError, TypeError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"{label} is no valid ONNX model ({reason})", _ALLOWED, "model") from error
    if folder is not None:
        ir.external_data.set_base_dir(model.graph, folder)
    return model, label


def _parse(path: Path) -> onnx.ModelProto:
    if path.is_dir():
        raise InputError(f"'{path}' is a folder", _ALLOWED, "model")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"there is no file '{path}'", _ALLOWED, "model") from error
    except OSError as error:
        raise InputError(f"'{path}' can't be read ({error.strerror})", _ALLOWED, "model") from error
    except google.protobuf.message.DecodeError as error:
        raise InputError(f"'{path}' is no ONNX file, or it is cut off", _ALLOWED, "model") from error
    return proto


def _check_external(proto: onnx.ModelProto, label: str, folder: Path | None) -> None:
    """External data must lie beside or below the file and be there in full."""
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = PurePosixPath(entries.get("location", ""))
        if folder is None or location.is_absolute() or ".." in location.parts:
            raise InputError(
                f"{label} keeps tensor '{tensor.name}' in external data '{location}' that does not lie beside it",
                "external data in the folder of the .onnx file, given by path",
                "model",
            )
        file = folder / location
        needed = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        if not file.is_file():
            raise InputError(f"external data '{file}' of {label} is missing", "the data file beside the model", "model")
        if file.stat().st_size < needed:
            raise InputError(f"external data '{file}' of {label} is cut off", "the complete data file", "model")


def array_of(tensor: ir.TensorProtocol, name: str) -> Array:
    """A tensor's elements; InputError if its data does not fit its shape."""
    try:
        array: Array = tensor.numpy()
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"tensor '{name}' can't be read ({error})", _ALLOWED, "model") from error
    return array
