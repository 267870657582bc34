"""What counts as an array on a device, asked without importing anything of CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np

_DLPACK_CPU = 1


def speaks_protocol(array: Any) -> bool:
    """Say whether an object is an array of a library other than NumPy that shares its memory."""
    shares = hasattr(array, "__dlpack_device__") or hasattr(array, "__cuda_array_interface__")
    return shares and not isinstance(array, (np.ndarray, np.generic))


def is_device_array(array: Any) -> bool:
    """Say whether an object is such an array in the memory of a device."""
    if not speaks_protocol(array):
        return False
    return not hasattr(array, "__dlpack_device__") or array.__dlpack_device__()[0] != _DLPACK_CPU
