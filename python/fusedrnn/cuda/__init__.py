"""The CUDA backend: whether this machine can run it, and the arrays that layers hold on it.

Importing this package imports nothing of CUDA; the questions below do, when they are asked.
"""

from __future__ import annotations

from .presence import namespace, require_device, status, unavailable
from .tf32 import get_tf32, set_tf32


def release_memory() -> None:
    """Give device memory that the kernels keep for later calls back to the system; waits for the device.

    Raises
    ------
    ImportError
        If CUDA is not built.
    """
    from .. import _cuda

    _cuda.release_memory()


__all__ = ["get_tf32", "namespace", "release_memory", "require_device", "set_tf32", "status", "unavailable"]
