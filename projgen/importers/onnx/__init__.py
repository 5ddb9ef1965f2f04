"""ONNX in: ``load_onnx`` reads a file into an ordinary PyTorch module.

reader.py reads the file, importer.py walks its nodes, ops/ holds one function per operator, fold.py computes
what is known from the file alone, views.py and sizes.py keep track of axes and their lengths.
"""

from __future__ import annotations

from projgen.importers.onnx.importer import load_onnx

__all__ = ["load_onnx"]
