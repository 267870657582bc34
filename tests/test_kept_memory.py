"""Arrays of Python in the memory that the kernels keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusedrnn import _core
from fusedrnn.arrays.namespace import empty


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (7,), (100, 200), (3, 1000, 1001)])
def test_they_are_plain_arrays(shape: tuple[int, ...], dtype: str) -> None:
    array = empty(np, shape, np.dtype(dtype))
    assert type(array) is np.ndarray and array.shape == shape and array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    array.fill(2)
    assert array.sum() == 2 * array.size


def test_memory_comes_back() -> None:
    """The next array of that size gets it; one that is still held keeps it."""
    first = empty(np, (500, 500), np.dtype("float64"))
    address = first.ctypes.data
    view = first[3:]
    del first
    second = empty(np, (500, 500), np.dtype("float64"))
    assert second.ctypes.data != address
    view.fill(1.0)
    second.fill(5.0)
    assert np.all(view == 1.0)
    del view
    assert empty(np, (500, 500), np.dtype("float64")).ctypes.data == address


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (((3, -1), "float32"), ValueError, r"empty: shape is \(3, -1\); expected sizes >= 0"),
        (((3,), "int64"), TypeError, "empty: dtype is 'int64'; expected float32 or float64"),
        (((2**40, 2**40), "float32"), MemoryError, "."),
        (((2**62,), "float64"), MemoryError, "."),
        ((("a",), "float64"), (TypeError, RuntimeError), "."),
    ],
)
def test_what_does_not_fit_is_refused(arguments: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        _core.empty(*arguments)
