"""The parts of ``projgen.save`` that write ONNX; projgen/export.py is the entry."""
