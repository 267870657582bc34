"""The CUDA backend: the kernels' stacks of layers, for the arrays of any library that lie on a device.

Importing this package imports nothing of CUDA; the functions below do, when they are called.
"""

from __future__ import annotations

from ..arrays.devices import cupy_namespace as namespace
from ..arrays.devices import require_device, status, unavailable

_tf32_allowed = False


def set_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in the products of later float32 calls on a GPU. Off by default, as in torch.

    Sums stay float32.

    Parameters
    ----------
    allowed : bool
        Whether the inputs of products may be rounded to 10 bits of mantissa; for all threads.
    """
    global _tf32_allowed
    _tf32_allowed = bool(allowed)


def get_tf32() -> bool:
    """Return whether TF32 is allowed."""
    return _tf32_allowed


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
