"""Models in ONNX files: their recurrent layers, whole models, and models written for other runtimes.

Needs the package onnx, which only reads and writes the files: ``pip install onnx``.
"""

try:
    import onnx as _installed  # noqa: F401
except ImportError as _error:
    raise ImportError("fusedrnn.onnx needs onnx: pip install onnx") from _error

from .chain import load
from .export import export
from .recurrent import layers

__all__ = ["export", "layers", "load"]


def __dir__() -> list[str]:
    return __all__
