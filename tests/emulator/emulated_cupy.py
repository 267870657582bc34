"""As much of CuPy as the tests of the device use, over the emulated device.

Arrays have their memory from the device's pool and give it back in the order of the current stream, as CuPy's do. What
NumPy computes here waits for the current stream first.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

__version__ = "14.0.0"

_runtime = ctypes.CDLL(str(Path(os.environ["FUSEDRNN_EMULATED"]) / "libemulator_plain.so"))
_NON_BLOCKING = 1
_current: list[Stream] = []


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_runtime, name)(*arguments)
    if status == 2:
        raise MemoryError(f"{name}: out of memory")
    if status:
        raise runtime.CUDARuntimeError(f"{name}: error {status}")


class Stream:
    """A stream; as a context manager the current one."""

    def __init__(self, non_blocking: bool = False, handle: int | None = None) -> None:
        self._handle = ctypes.c_void_p(handle)
        if handle is None:
            _call("cudaStreamCreateWithFlags", ctypes.byref(self._handle), _NON_BLOCKING)

    @property
    def ptr(self) -> int:
        return self._handle.value or 0

    def __enter__(self) -> Stream:
        _current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.pop()

    def synchronize(self) -> None:
        _call("cudaStreamSynchronize", self._handle)

    def is_captured(self) -> bool:
        status = ctypes.c_int()
        _call("cudaStreamIsCapturing", self._handle, ctypes.byref(status))
        return status.value != 0

    def begin_capture(self, mode: int) -> None:
        _call("cudaStreamBeginCapture", self._handle, mode)

    def end_capture(self) -> None:
        _call("cudaStreamEndCapture", self._handle, ctypes.byref(ctypes.c_void_p()))


_default = Stream(handle=0)


def _stream() -> Stream:
    return _current[-1] if _current else _default


class _Memory:
    """A piece of the pool."""

    def __init__(self, nbytes: int) -> None:
        self.size, self._pointer = max(nbytes, 1), ctypes.c_void_p()
        self._stream = _default if _stream().is_captured() else _stream()  # CuPy has memory at hand for that
        pointer, size = ctypes.byref(self._pointer), ctypes.c_size_t(self.size)
        _call("cudaMallocFromPoolAsync", pointer, size, None, self._stream._handle)
        self.ptr = self._pointer.value or 0

    def __del__(self) -> None:
        if getattr(self, "ptr", 0):
            _runtime.cudaFreeAsync(self._pointer, self._stream._handle)


class ndarray:
    """An array on the device: a view of a piece of memory that NumPy computes with."""

    __module__ = "cupy"
    __array_ufunc__ = None

    def __init__(self, values: np.ndarray[Any, Any], memory: _Memory) -> None:
        self._values, self._memory = values, memory
        self.shape, self.dtype, self.strides = values.shape, values.dtype, values.strides
        self.ndim, self.size, self.itemsize = values.ndim, values.size, values.itemsize
        self.device = Device(0)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._values.__array_interface__["data"][0], mem=self._memory)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: object) -> Any:
        raise TypeError("there is no other library here")

    def __array__(self, *_: object, **__: object) -> Any:
        raise TypeError("implicit conversion to a NumPy array")

    def get(self) -> np.ndarray[Any, Any]:
        _stream().synchronize()
        return self._values.copy()

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(np.asarray(self._values[key]), self._memory)

    def __setitem__(self, key: Any, value: Any) -> None:
        _stream().synchronize()
        self._values[key] = value.get() if isinstance(value, ndarray) else value

    def __add__(self, other: Any) -> ndarray:
        return asarray(self.get() + (other.get() if isinstance(other, ndarray) else other))


def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
    dtype = np.dtype(dtype)
    size = int(np.prod(shape))
    memory = _Memory(size * dtype.itemsize)
    buffer = (ctypes.c_char * max(size * dtype.itemsize, 1)).from_address(memory.ptr)
    return ndarray(np.frombuffer(buffer, dtype, size).reshape(shape), memory)


def asarray(x: Any, dtype: Any = None) -> ndarray:
    if isinstance(x, ndarray):
        return x
    host = np.asarray(x, dtype)
    array = empty(host.shape, host.dtype)
    array[...] = host
    return array


class UnownedMemory(_Memory):
    """Memory of another library."""


def foreign(x: np.ndarray[Any, Any]) -> ndarray:
    array = asarray(x)
    array._memory.__class__ = UnownedMemory
    return array


def zeros(shape: Any, dtype: Any = np.float64) -> ndarray:
    return asarray(np.zeros(shape, dtype))


def ascontiguousarray(x: ndarray) -> ndarray:
    return x if x._values.flags.c_contiguous else asarray(np.ascontiguousarray(x.get()))


def broadcast_to(x: ndarray, shape: tuple[int, ...]) -> ndarray:
    return ndarray(np.broadcast_to(x._values, shape), x._memory)


class Device:
    """The only one."""

    def __init__(self, number: int = 0) -> None:
        self.id = number
        self.attributes = {"MultiProcessorCount": 12}

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None: ...

    def synchronize(self) -> None:
        _call("cudaDeviceSynchronize")


def _memory_info() -> tuple[int, int]:
    unused, total = ctypes.c_size_t(), ctypes.c_size_t()
    _call("cudaMemGetInfo", ctypes.byref(unused), ctypes.byref(total))
    return unused.value, total.value


def get_default_memory_pool() -> Any:
    return SimpleNamespace(free_all_blocks=lambda: _call("cudaMemPoolTrimTo", None, ctypes.c_size_t(0)))


runtime = ModuleType("cupy.cuda.runtime")
runtime.CUDARuntimeError = type("CUDARuntimeError", (RuntimeError,), {})  # type: ignore[attr-defined]
runtime.memGetInfo = _memory_info  # type: ignore[attr-defined]
runtime.streamCaptureModeGlobal, runtime.streamCaptureModeRelaxed = 0, 2  # type: ignore[attr-defined]
cuda = ModuleType("cupy.cuda")
cuda.Stream, cuda.Device, cuda.runtime = Stream, Device, runtime  # type: ignore[attr-defined]
cuda.get_current_stream = lambda device=0: _stream()  # type: ignore[attr-defined]
