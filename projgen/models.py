"""What a MODEL argument may be: a file or an importable object, turned into what the compiler takes."""

from __future__ import annotations

import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from projgen.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

FORMS = "a .onnx file, a .pt2 file (torch.export), or module:attribute (an nn.Module or a callable that returns one)"


def resolve_attribute(spec: str, kind: str) -> Any:
    """The object that ``module:attribute`` names; the current folder is importable, as with ``python -m``."""
    module_name, _, attribute = spec.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"{kind} {spec!r}: no module {error.name!r} can be imported", FORMS, kind) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InputError(f"{kind} {spec!r}: {module_name!r} has no attribute {attribute!r}", FORMS, kind)
        found = getattr(found, part)
    return found


def load_program(path: Path) -> ExportedProgram:
    """A ``.pt2`` file as torch.export's program.

    Raises:
        InputError: the file is missing, truncated or not made by ``torch.export.save``.
    """
    import torch

    if not path.is_file():
        raise InputError(f"model file {path} does not exist", FORMS, "MODEL")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no torch.export file (truncated, or another format)", FORMS, "MODEL")
    try:
        return torch.export.load(path)
    except (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} can't be read as a torch.export file: {reason}", FORMS, "MODEL") from error


def load_module(spec: str | Path) -> nn.Module:
    """MODEL as an nn.Module: projection needs layers, so ``.pt2`` files are refused here.

    Raises:
        InputError: no such file or attribute, or a ``.pt2`` file.
        InputTypeError: the attribute is neither a module nor a callable that returns one.
    """
    from torch import nn

    text = str(spec)
    if text.endswith(".pt2"):
        raise InputError(
            f"{text}: the layers of a .pt2 file are no modules any more", ".onnx or module:attribute", "MODEL"
        )
    if ":" in text and not Path(text).exists():
        found = resolve_attribute(text, "MODEL")
        if not isinstance(found, nn.Module) and callable(found):
            found = found()
        if not isinstance(found, nn.Module):
            raise InputTypeError(f"MODEL {text!r} is a {type(found).__name__}", FORMS, "MODEL")
        return found
    if text.endswith(".onnx"):
        from projgen.importers.onnx import load_onnx

        return load_onnx(text)
    raise InputError(f"MODEL {text!r} is not understood", FORMS, "MODEL")


def load_model(spec: str | Path) -> nn.Module | ExportedProgram:
    """MODEL for compilation: like ``load_module``, and ``.pt2`` files too."""
    text = str(spec)
    return load_program(Path(text)) if text.endswith(".pt2") else load_module(text)
