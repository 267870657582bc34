"""Where cuBLAS may lie."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .. import _cuda

_WHEEL_FOLDERS = ("cu13/lib", "cublas/lib")  # of nvidia-cublas, and of nvidia-cublas-cu12


def cublas_candidates() -> list[str]:
    """Return the files to try, in this order: FUSEDRNN_CUBLAS, the wheel, a toolkit.

    A copy that the process has loaded already goes before them, the system's own search comes after them.
    """
    named = os.environ.get("FUSEDRNN_CUBLAS")
    folders: list[Path] = []
    spec = find_spec("nvidia")
    for place in (spec.submodule_search_locations if spec else None) or ():
        folders += [Path(place) / folder for folder in _WHEEL_FOLDERS]
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            folders.append(Path(os.environ[variable]) / "lib64")
    folders.append(Path("/usr/local/cuda/lib64"))
    major = _cuda.status()["runtime"] // 1000
    files = [folder / f"libcublas.so.{major}" for folder in folders]
    return ([named] if named else []) + [str(file) for file in files if file.is_file()]


@cache
def prepare_cublas() -> None:
    """Tell the kernels where cuBLAS may lie; it is loaded when they first need it."""
    _cuda.set_cublas_candidates(cublas_candidates())
