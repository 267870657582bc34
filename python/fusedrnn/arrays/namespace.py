"""Where arrays live, and the few operations that NumPy and the arrays of a GPU do not share.

A layer computes with ``self.xp``: NumPy on the cpu, and on cuda what ``fusedrnn.cuda.namespace`` returns, CuPy. What is
written with it uses the functions of the array API standard, by the names that NumPy 1.24 has, and of what is beyond
the standard only what NumPy and CuPy share: ``out=`` of elementwise functions, elements assigned by an array of
indices, and the arrays' methods. Small things that only describe a batch (lengths, permutations) stay on the host.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from . import devices

_NAMES = {np.dtype(name): name for name in ("float32", "float64")}


def namespace(device: str) -> Any:
    """Return the array namespace of a device, "cpu" or "cuda"."""
    if device == "cpu":
        return np
    return devices.cupy_namespace()


def on_gpu(x: Any) -> bool:
    """Return whether ``x`` is an array in the memory of a GPU: of CuPy, torch, JAX ..."""
    try:
        return type(x) is not np.ndarray and devices.is_device_array(x)
    except ValueError:  # a tensor that has no memory
        return False


def namespace_of(x: Any) -> Any:
    """Return the namespace that computes with ``x``: NumPy for all that is not in the memory of a GPU."""
    return namespace("cuda") if on_gpu(x) else np


def to_host(x: Any) -> NDArray[Any]:
    """Return an array, or anything array_like, as a NumPy array; a copy if it is in the memory of a GPU."""
    if not on_gpu(x):
        return np.asarray(x)
    xp = namespace("cuda")
    host: NDArray[Any] = (x if isinstance(x, xp.ndarray) else xp.from_dlpack(x)).get()
    return host


def host_copy(array: Any) -> NDArray[Any]:
    """Return a NumPy copy of an array of any device."""
    return array.copy() if type(array) is np.ndarray else to_host(array)


def from_host(xp: Any, array: NDArray[Any]) -> Any:
    """Return a NumPy array as an array of the namespace: itself for NumPy, else a copy."""
    return array if xp is np else xp.asarray(array)


def take_host(x: Any) -> Any:
    """Return a description of a batch, such as its lengths, without what may hold it in the memory of a GPU."""
    return to_host(x) if on_gpu(x) else x


def device_array(op: str, name: str, x: Any, xp: Any) -> Any:
    """Return an array in the memory of a GPU as one of CuPy's, without a copy.

    Raises
    ------
    RuntimeError
        If ``x`` is anything else; the message says what to do.
    """
    if isinstance(x, xp.ndarray):
        return x
    if on_gpu(x):
        return xp.from_dlpack(x)
    got = "a NumPy array" if isinstance(x, np.ndarray) else f"a {type(x).__name__} on the cpu"
    raise RuntimeError(
        f"{op}: {name} is {got}; the layer is on cuda: pass a CuPy or torch CUDA array, or layer.to('cpu')"
    )


def assign(array: Any, values: Any) -> None:
    """Copy NumPy values into an array of the same shape on any device."""
    if type(array) is np.ndarray:
        np.copyto(array, values)
    else:
        array[...] = namespace_of(array).asarray(values, dtype=array.dtype)


def subtract_where(xp: Any, a: Any, b: Any, valid: Any) -> Any:
    """Return a - b where ``valid``, and 0 where not, whatever a and b are there."""
    if xp is np:  # does not compute, nor warn of, inf - inf where not valid
        return np.subtract(a, b, where=valid, out=np.zeros(a.shape, a.dtype))
    return xp.where(valid, a - b, 0)


def square_sum(xp: Any, array: Any) -> Any:
    """Return the sum of squares in float64, a scalar where the array is."""
    if xp is np:
        flat = array.ravel(order="K")
        known = _core.square_sum(flat)
        if known is None:  # of another dtype or alignment: cast in small pieces, without a float64 copy
            known = np.einsum("i,i->", flat, flat, dtype=np.float64)
        return known
    wide = array.astype(np.float64)
    return (wide * wide).sum()


def all_finite(xp: Any, array: Any) -> bool:
    """Return whether no element is NaN or infinite."""
    if xp is np and array.dtype.kind == "f" and math.isfinite(square_sum(xp, array)):
        return True  # an overflow of the sum proves nothing
    return bool(xp.isfinite(array).all())


def empty(xp: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return an uninitialised array of floats.

    On the cpu it has memory that an earlier one has left (csrc/core/memory.h): in that of the system each page costs
    more, when it is first written to, than a pass over it.
    """
    # NumPy puts a dtype's name together at each look.
    return _core.empty(shape, _NAMES.get(dtype) or dtype.name) if xp is np else xp.empty(shape, dtype=dtype)


def distinct(xp: Any, numbers: Any) -> Any:
    """Return the numbers of an integer array, ascending, each once, as int64."""
    flat = numbers.reshape(-1).astype(np.int64)
    if xp is np:
        return np.unique(flat)
    ordered = xp.sort(flat)
    return ordered[xp.searchsorted(ordered, ordered) == xp.arange(len(ordered))]


def add_rows(xp: Any, table: Any, rows: Any, values: Any) -> None:
    """Add ``values`` (..., D) into the rows of ``table`` (N, D) whose numbers are ``rows`` (...), some several times.

    The same arguments give the same bits: on the cpu one is added after the other; on a GPU, where atomic additions
    come in any order, the values of each row are brought together by a stable sort and summed in a tree.
    """
    rows = rows.reshape(-1).astype(np.int64, copy=False)
    count = len(rows)
    if count == 0:
        return
    if xp is np:
        values = values.reshape(count, table.shape[1])
        if not _core.add_to_rows((table, rows, values), 0):  # not plain arrays
            np.add.at(table, rows, values)
        return
    order = xp.argsort(rows)  # CuPy's sort is always stable
    rows, sums = rows[order], values.reshape(count, -1)[order]
    # After k rounds an element holds the sum over the next 2^k elements of its row, so the first one that of all.
    distance = 1
    while distance < count:
        alike = rows[distance:] == rows[:-distance]
        if not bool(alike.any()):
            break
        sums[:-distance] += xp.where(alike[:, None], sums[distance:], 0)
        distance *= 2
    every = xp.arange(len(table))
    first = xp.searchsorted(rows, every)
    first = xp.where(first < count, first, 0)
    table += xp.where((rows[first] == every)[:, None], sums[first], 0)
