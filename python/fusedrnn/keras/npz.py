"""Keras's other format of weights, npz, which it takes where h5py is missing: a pickle of its variables.

Nothing in it is called but what is listed here: rebuilding arrays, and reading the tensors of PyTorch, TensorFlow and
JAX as arrays.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..arrays.checks import Array
from ..interop.bounds import Budget
from .entries import OP
from .stores import Paths, entry_of

_Factory: TypeAlias = Callable[..., Any]
_DTYPES = {f"{order}{kind}{size}" for order in ("", "<", ">", "=") for kind in "fiu" for size in (1, 2, 4, 8)} | {"O8"}
_TORCH_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
}


class Npz(Paths):
    """An npz file in the layout of Keras 3."""

    def __init__(self, content: bytes, budget: Budget) -> None:
        self._parts: dict[str, Any] = {}
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            for name in archive.zip.namelist():
                self._parts[name.removesuffix(".npy")] = _part(entry_of(archive.zip, name, budget))

    def arrays(self, path: str) -> list[Array]:
        """Return the arrays at a path in their order."""
        part = self._parts.get(path.removesuffix("/vars"), {})
        if not isinstance(part, dict):
            raise ValueError(f"{OP}: {path} is no group of weights")
        return [_array(f"{path}/{key}", part[key]) for key in sorted(filter(str.isdigit, part), key=int)]


def _part(entry: bytes) -> Any:
    """Return what one file of the npz holds: an array of one object."""
    stream = io.BytesIO(entry)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = header(stream)
    if dtype.hasobject:
        return _plain(_Unpickler(stream).load())
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def _plain(value: Any) -> Any:
    while isinstance(value, _Stub):
        value = value.value
    return value


def _array(name: str, value: Any) -> Array:
    value = _plain(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise ValueError(f"{OP}: {name} is {type(value).__name__}; expected an array of floating-point weights")
    return value


class _Stub:
    """In the place of a variable: its value, from what it was made with or from its state."""

    value: Any = None

    def __init__(self, *_: Any, initial_value: Any = None, **__: Any) -> None:
        self.value = initial_value

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.value = state.get("_value", self.value)


class _Partial(_Stub):
    """``functools.partial(Variable, initial_value=...)`` of TensorFlow, called at once."""

    def __call__(self, *_: Any) -> Any:
        return self

    def __setstate__(self, state: Any) -> None:
        self.value = state[2].get("initial_value")


def _of_jax(rebuild: _Factory, arguments: tuple[Any, ...], state: Any, *_: Any) -> Any:
    array = rebuild(*arguments)
    array.__setstate__(state)
    return array


def _tensor(storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Array:
    """Return a tensor of PyTorch whose storage is a flat array; ValueError if it reaches beyond."""
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    lowest, size = min((offset, *shape, *strides), default=0), math.prod(shape)
    if not isinstance(storage, np.ndarray) or lowest < 0 or max(last, size - 1) >= storage.size:
        raise ValueError(f"{OP}: a tensor of shape {shape} does not fit its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()


def _storage(content: bytes) -> Any:
    """Return the storage in a file of ``torch.save``'s first format: pickles, then the bytes of each storage."""
    stream = io.BytesIO(content)
    found: dict[Any, Array] = {}

    class Reader(_Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            _, kind, key, _, size, *_ = pid
            return found.setdefault(key, np.zeros(_sized(size, len(content)), kind.dtype))

    held = [Reader(stream).load() for _ in range(4)][3]  # after the magic number, the version and the system
    for key in Reader(stream).load():
        size = int.from_bytes(stream.read(8), "little")
        array = found[key]
        array[:] = np.frombuffer(stream.read(size * array.itemsize), array.dtype)
    return held


def _sized(size: int, bound: int) -> int:
    if not 0 <= size <= bound:
        raise ValueError(f"{OP}: a storage of {size} values in {bound} bytes")
    return size


class _Dtype:
    """In the place of a dtype or a class of storages; of NumPy's, a state could change what memory means."""

    def __init__(self, dtype: str, *_: Any) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"{OP}: weights of the dtype {str(dtype)[:20]!r}; expected a float")
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        if dict(enumerate(state)).get(1) == ">":
            self.dtype = f">{self.dtype.lstrip('<>=')}"


class _Held(_Stub):
    """In the place of an array: made from its bytes, or the object in it."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):
            self.value = content[0] if len(content) == 1 else content
        else:
            flat = np.frombuffer(content, dtype.dtype)
            self.value = flat.reshape(shape, order="F" if fortran else "C")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Held,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Held,
    ("numpy._core.multiarray", "_reconstruct"): _Held,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("functools", "partial"): _Partial,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("jax._src.array", "_reconstruct_array"): _of_jax,
    **{("torch", name): _Dtype(dtype) for name, dtype in _TORCH_DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for; nothing is imported."""
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        if module.partition(".")[0] in ("keras", "tensorflow"):
            return _Stub
        raise ValueError(f"{OP}: the weights need {module}.{name}; expected arrays and Keras's variables")
