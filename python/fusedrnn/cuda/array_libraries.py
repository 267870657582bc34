"""The arrays of any library as views for the kernels, without a copy, and results as arrays of the same library.

Each class below is one library: CuPy, torch, NumPy (for the twin of the kernels on the CPU), and every other one that
speaks DLPack or ``__cuda_array_interface__``, such as JAX.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from .. import _cuda
from ..arrays.checks import described
from ..arrays.devices import cupy_namespace, speaks_protocol

ON_THE_CPU = -1  # in place of the ordinal of a device


class Library(ABC):
    """What the kernels need of an array library."""

    name: ClassVar[str]

    @abstractmethod
    def view(self, array: Any, device: int | None = None) -> _cuda.View:
        """Return a view of an array of this library; ``device`` is where the call runs, if that is known."""

    @abstractmethod
    def dense(self, array: Any) -> Any:
        """Return the array in C order: itself, or a copy."""

    def owns(self, array: Any) -> bool:
        """Return whether the memory, once given up, is used again in the order of the current stream only."""
        return True

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        """Return an uninitialised array that the kernels can write."""

    def zeros(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        """Return an array of zeros that the kernels can write."""
        array = self.empty(shape, dtype, device)
        array[...] = 0
        return array

    def result(self, array: Any) -> Any:
        """Return what ``empty`` or ``zeros`` made as the caller should see it."""
        return array

    def stream(self, device: int) -> int:
        """Return the handle of the caller's current stream."""
        return 0

    def on(self, device: int) -> AbstractContextManager[Any]:
        """Return a context in which a device is the current one."""
        return nullcontext()

    def mark(self, device: int) -> Callable[[], bool] | None:
        """Mark this point of the current stream; what is returned says whether the device has come so far.

        None where no call has work on its way: on the CPU, and in a stream that is being captured.
        """
        return None if device == ON_THE_CPU else _cuda.mark(device, self.stream(device))

    def release_cached(self) -> None:  # noqa: B027 (most libraries keep nothing)
        """Give memory that the library keeps for later back to the device."""

    @abstractmethod
    def to_numpy(self, array: Any) -> Any:
        """Return a copy on the CPU; waits for the device."""


class _NumPy(Library):
    """Arrays of the CPU: the twin of the kernels computes on them, the device refuses them."""

    name = "numpy"

    def view(self, array: Any, device: int | None = None) -> _cuda.View:
        return _strided_view(array, array.__array_interface__["data"][0], ON_THE_CPU, not array.flags.writeable)

    def dense(self, array: Any) -> Any:
        return np.ascontiguousarray(array)

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        return np.empty(shape, _numpy_dtype(dtype))

    def to_numpy(self, array: Any) -> Any:
        return array


class _CuPy(Library):
    """CuPy."""

    name = "cupy"

    def __init__(self) -> None:
        self._cupy = cupy_namespace()

    def view(self, array: Any, device: int | None = None) -> _cuda.View:
        return _strided_view(array, array.data.ptr, array.device.id, False)

    def dense(self, array: Any) -> Any:
        with array.device:
            return self._cupy.ascontiguousarray(array)

    def owns(self, array: Any) -> bool:
        # What cupy.from_dlpack and cupy.asarray make of other libraries' arrays.
        return type(array.data.mem).__name__ not in ("DLPackMemory", "UnownedMemory")

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        with self.on(device):
            return self._cupy.empty(shape, _numpy_dtype(dtype))

    def zeros(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        with self.on(device):  # CuPy fills in the stream of the current device
            return self._cupy.zeros(shape, _numpy_dtype(dtype))

    def stream(self, device: int) -> int:
        return int(self._cupy.cuda.get_current_stream(device).ptr)

    def on(self, device: int) -> AbstractContextManager[Any]:
        return self._cupy.cuda.Device(device)  # type: ignore[no-any-return]

    def release_cached(self) -> None:
        self._cupy.get_default_memory_pool().free_all_blocks()

    def to_numpy(self, array: Any) -> Any:
        return array.get()


class _Torch(Library):
    """Torch tensors. The kernels take no part in torch's autograd: results carry no history."""

    name = "torch"

    def __init__(self) -> None:
        self._torch = import_module("torch")

    def view(self, array: Any, device: int | None = None) -> _cuda.View:
        if array.device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"the tensor is on {array.device}; expected a CUDA device")
        ordinal = ON_THE_CPU if array.device.type == "cpu" else array.device.index
        dtype = str(array.dtype).removeprefix("torch.")
        return _cuda.View(array.data_ptr(), tuple(array.shape), tuple(array.stride()), dtype, ordinal)

    def dense(self, array: Any) -> Any:
        return array.detach().contiguous()

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        place = "cpu" if device == ON_THE_CPU else f"cuda:{device}"
        return self._torch.empty(shape, dtype=getattr(self._torch, dtype), device=place)

    def stream(self, device: int) -> int:
        return 0 if device == ON_THE_CPU else int(self._torch.cuda.current_stream(device).cuda_stream)

    def on(self, device: int) -> AbstractContextManager[Any]:
        return nullcontext() if device == ON_THE_CPU else self._torch.cuda.device(device)

    def release_cached(self) -> None:
        self._torch.cuda.empty_cache()

    def to_numpy(self, array: Any) -> Any:
        return array.detach().cpu().numpy()


class _Other(Library):
    """Any library with ``__dlpack__`` or ``__cuda_array_interface__``. CuPy makes its results; DLPack hands them over.

    Parameters
    ----------
    example : object
        An array of it; its ``__array_namespace__().from_dlpack`` takes the results. Without one they stay CuPy arrays.
    consumer : Library, optional
        Whose current stream the call runs on, where that is another library's than CuPy's.
    """

    name = "other"

    def __init__(self, example: Any, consumer: Library | None = None) -> None:
        self._namespace = example.__array_namespace__() if hasattr(example, "__array_namespace__") else None
        self._consumer = consumer

    @staticmethod
    def _maker(device: int) -> Library:
        return _NumPy() if device == ON_THE_CPU else _CuPy()

    def view(self, array: Any, device: int | None = None) -> _cuda.View:
        if not hasattr(array, "__dlpack__"):
            return _interface_view(array.__cuda_array_interface__, self.stream)
        kind, ordinal = array.__dlpack_device__()
        if kind == 1:  # the CPU: has no streams
            return _cuda.View.from_dlpack(array.__dlpack__())
        # The producer makes the array ready in the stream of the call. DLPack writes 1 for the default stream.
        stream = self.stream(ordinal if device is None else device)
        with self.on(ordinal):  # the producers ask for that
            return _cuda.View.from_dlpack(array.__dlpack__(stream=stream or 1))

    def owns(self, array: Any) -> bool:
        return False

    def dense(self, array: Any) -> Any:
        if self._namespace is not None:
            return self._namespace.asarray(array, copy=True)
        if not hasattr(array, "__dlpack__"):
            return cupy_namespace().ascontiguousarray(cupy_namespace().asarray(array))
        # By DLPack also where the array has CuPy's own protocol, by which torch does not name its stream.
        maker = self._maker(array.__dlpack_device__()[1])
        with maker.on(array.__dlpack_device__()[1]):
            return maker.dense(cupy_namespace().from_dlpack(array))

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        return self._maker(device).empty(shape, dtype, device)

    def zeros(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        return self._maker(device).zeros(shape, dtype, device)

    def result(self, array: Any) -> Any:
        return array if self._namespace is None else self._namespace.from_dlpack(array)

    def stream(self, device: int) -> int:
        return (self._consumer or self._maker(device)).stream(device)

    def on(self, device: int) -> AbstractContextManager[Any]:
        return (self._consumer or self._maker(device)).on(device)

    def release_cached(self) -> None:
        _CuPy().release_cached()

    def to_numpy(self, array: Any) -> Any:
        return np.asarray(array)


class NarrowArray:
    """Elements of 16 bits in the memory of another library's array of integers: CuPy and NumPy have no bfloat16."""

    def __init__(self, library: Library, bits: Any) -> None:
        self.library, self.bits = library, bits


class _Narrow(Library):
    """The arrays above."""

    name = "narrow"

    def __init__(self, library: Library, dtype: str) -> None:
        self._library, self._dtype = library, dtype

    def view(self, array: Any, device: int | None = None) -> _cuda.View:
        bits = self._library.view(array.bits, device)
        return _cuda.View(bits.pointer, bits.shape, bits.strides, self._dtype, bits.device, bits.read_only)

    def dense(self, array: Any) -> Any:
        return NarrowArray(self, self._library.dense(array.bits))

    def owns(self, array: Any) -> bool:
        return self._library.owns(array.bits)

    def empty(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        return NarrowArray(self, self._library.empty(shape, "int16", device))

    def zeros(self, shape: tuple[int, ...], dtype: str, device: int) -> Any:
        return NarrowArray(self, self._library.zeros(shape, "int16", device))

    def stream(self, device: int) -> int:
        return self._library.stream(device)

    def on(self, device: int) -> AbstractContextManager[Any]:
        return self._library.on(device)

    def release_cached(self) -> None:
        self._library.release_cached()

    def to_numpy(self, array: Any) -> Any:
        return self._library.to_numpy(array.bits)


def narrow_library(library: Library, dtype: str) -> Library:
    """Return the library of arrays of dtype "bfloat16" or "float16" whose memory is that of arrays of ``library``."""
    return _Narrow(library, dtype)


def library_of(op: str, name: str, array: Any) -> Library:
    """Return the library of an array.

    Raises
    ------
    TypeError
        If it is not an array at all.
    """
    root = type(array).__module__.partition(".")[0]
    if isinstance(array, NarrowArray):
        return array.library
    if isinstance(array, np.ndarray):
        return _NumPy()
    if root == "cupy":
        return _CuPy()
    if root == "torch":
        return _Torch()
    if speaks_protocol(array):
        return _Other(array)
    raise TypeError(
        f"{op}: {name} is {described(array)}; expected an array with __dlpack__ or __cuda_array_interface__"
    )


def by_protocol(array: Any, consumer: Library) -> Library:
    """Return how an array is read by DLPack, which orders its library's work before the consumer's current stream."""
    return _Other(array, consumer)


def _strided_view(array: Any, pointer: int, device: int, read_only: bool) -> _cuda.View:
    """Return the view of an array with NumPy's attributes, whose strides are in bytes."""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    dtype = array.dtype.name if array.dtype.isnative else array.dtype.str
    return _cuda.View(pointer, array.shape, strides, dtype, device, read_only)


def _interface_view(interface: dict[str, Any], consumer_stream: Callable[[int], int]) -> _cuda.View:
    """Return the view of a ``__cuda_array_interface__``, ready in the consumer's stream on the device of the array."""
    pointer, read_only = interface["data"]
    dtype = np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None:
        strides = tuple(stride // dtype.itemsize for stride in strides)
    device = _cuda.device_of(pointer) if pointer else 0
    stream = interface.get("stream")
    if stream is not None:
        # The array is ready once this stream has come so far. It names the default streams 1 and 2, as CUDA does.
        cuda = cupy_namespace().cuda
        with cuda.Device(device):
            ready = cuda.Event(disable_timing=True)
            # Handles, and no ExternalStream around them: CuPy 14 warns of that.
            cuda.runtime.eventRecord(ready.ptr, stream)
            cuda.runtime.streamWaitEvent(consumer_stream(device), ready.ptr)
    name = dtype.name if dtype.isnative else dtype.str
    return _cuda.View(pointer, tuple(interface["shape"]), strides, name, device, read_only)


def _numpy_dtype(name: str) -> Any:
    """Return a dtype by name; NumPy itself has no bfloat16."""
    return np.dtype(import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)
