"""A plugin of pytest that puts the emulated device where a GPU would be: its ``_cuda``, and a stand-in for CuPy.

FUSEDRNN_EMULATED is the folder in which it was built.
"""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import emulated_cupy

_FOLDER = Path(os.environ["FUSEDRNN_EMULATED"])


def _load_kernels() -> None:
    (file,) = _FOLDER.glob("python/_cuda*.so")
    spec = spec_from_file_location("fusedrnn._cuda", file)
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


def pytest_collection_finish() -> None:
    """Let the tests make arrays of another library's without torch."""
    if "test_cuda_device" in sys.modules:
        sys.modules["test_cuda_device"].foreign = emulated_cupy.foreign  # type: ignore[attr-defined]


os.environ["FUSEDRNN_CUBLAS"] = str(_FOLDER / "plain" / "libcublas.so.13")
_load_kernels()
sys.modules["cupy"] = emulated_cupy
