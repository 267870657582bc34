"""Which parts of CUDA are built and present, what counts as an array on a device, and the words for what is missing.

Nothing of CUDA is imported before it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

_DLPACK_CPU = 1
_NOT_BUILT = (
    "CUDA is not built: install from source where nvcc and a GPU are present, or with FUSEDRNN_CUDA=ON for any machine"
)


# Asking the driver takes milliseconds: what has answered well is not asked again.
_usable: set[Callable[[], dict[str, Any]]] = set()


def status() -> dict[str, Any]:
    """Return what the CUDA backend sees.

    Returns
    -------
    dict
        built : tuple of str, the architectures compiled in, such as ("90-real", "90-virtual"); empty if not built.
        driver : int or None, the CUDA version of the driver, such as 13000.
        devices : list of dict (name, capability (major, minor), memory in bytes).
        error : str or None, what the driver said.
    """
    try:
        # By name: the module is there only where it was built, which a type checker cannot know.
        module = import_module("fusedrnn._cuda")
    except ModuleNotFoundError as error:
        if error.name != "fusedrnn._cuda":
            raise
        return {"built": (), "driver": None, "devices": [], "error": None}
    except ImportError as error:
        return {"built": (), "driver": None, "devices": [], "error": f"fusedrnn._cuda cannot be loaded: {error}"}
    result: dict[str, Any] = module.status()
    return result


def covers(built: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Return whether code for these architectures runs on a device of this compute capability.

    Machine code runs on the same major version and an equal or higher minor one, unless it is for one chip alone (the
    suffix a, as in 90a); PTX ("virtual") is compiled by the driver for any capability that is not lower. A bare number
    is both. Of what CMake resolves itself (native, all, all-major) the best is assumed.
    """
    for entry in built:
        if entry in ("native", "all", "all-major"):
            return True
        match = re.fullmatch(r"(\d+)(\d)([af]?)(-real|-virtual)?", entry)
        if match is None:
            continue
        major, minor, suffix, kind = int(match[1]), int(match[2]), match[3], match[4]
        if suffix:
            if (major, minor) == capability:
                return True
        elif (kind != "-virtual" and major == capability[0] and minor <= capability[1]) or (
            kind != "-real" and (major, minor) <= capability
        ):
            return True
    return False


def unavailable(found: dict[str, Any] | None = None) -> str | None:
    """Return why no device can be used and what to do, or None if one can.

    Parameters
    ----------
    found : dict, optional
        What :func:`status` returned.
    """
    found = status() if found is None else found
    if not found["built"]:
        return found["error"] or _NOT_BUILT
    if not found["driver"]:
        return "there is no NVIDIA driver (libcuda.so.1 was not found): install one"
    if not found["devices"]:
        return (
            f"the driver shows no device ({found['error'] or 'none is visible'}): see nvidia-smi, CUDA_VISIBLE_DEVICES"
        )
    if not any(covers(found["built"], device["capability"]) for device in found["devices"]):
        missing = ", ".join(
            f"{device['name']} ({'.'.join(map(str, device['capability']))})" for device in found["devices"]
        )
        return (
            f"the kernels are built for {', '.join(found['built'])} and not for {missing}: "
            "build with CMAKE_CUDA_ARCHITECTURES set for it"
        )
    return None


def summary() -> dict[str, Any]:
    """Return built, driver, device and reason as ``fusedrnn.config`` shows them."""
    found = status()
    version = found["driver"]
    return {
        "built": ", ".join(found["built"]) or None,
        "driver": f"{version // 1000}.{version % 1000 // 10}" if version else None,
        "device": found["devices"][0]["name"] if found["devices"] else None,
        "reason": unavailable(found),
    }


def require_device() -> None:
    """Return if a device can be used.

    Raises
    ------
    RuntimeError
        Otherwise: which of not built, no driver, no device or architecture missing, and what to do.
    """
    if status in _usable:
        return
    reason = unavailable()
    if reason is None:
        _usable.add(status)
    else:
        raise RuntimeError(f"device='cuda' cannot be used: {reason}; or use device='cpu'")


def cupy_namespace() -> Any:
    """Return CuPy, whose arrays the layers hold on the device.

    Raises
    ------
    RuntimeError
        If CuPy is not installed.
    """
    try:
        return import_module("cupy")
    except ImportError as error:
        raise RuntimeError(
            f"device='cuda' needs CuPy ({error}); install the extra [cuda], or use device='cpu'"
        ) from error


def speaks_protocol(array: Any) -> bool:
    """Return whether an object is an array of a library other than NumPy that shares its memory."""
    shares = hasattr(array, "__dlpack_device__") or hasattr(array, "__cuda_array_interface__")
    return shares and not isinstance(array, (np.ndarray, np.generic))


def is_device_array(array: Any) -> bool:
    """Return whether an object is such an array in the memory of a device."""
    if not speaks_protocol(array):
        return False
    return not hasattr(array, "__dlpack_device__") or array.__dlpack_device__()[0] != _DLPACK_CPU
