"""The arrays of a stand-in for CuPy on a machine without a GPU: NumPy cannot touch them.

They are those of array-api-strict on a device that NumPy cannot read, so that each function is one of the array API
standard, called as the standard says. On top is what layers may use beyond it because NumPy and CuPy share it: the
methods, and indices that are arrays. As with CuPy, an array cannot become a NumPy array by accident, and does not mix
with one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import array_api_strict as strict
import numpy as np
from numpy.typing import NDArray

DEVICE = strict.Device("device1")


def standard_dtype(dtype: Any) -> Any:
    """Return the dtype of array-api-strict for one of NumPy."""
    return getattr(strict, np.dtype(dtype).name)


class Array:
    """An array of the stand-in."""

    __slots__ = ("_strict",)
    __array_ufunc__ = None  # no ufunc of NumPy takes it
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any) -> None:
        self._strict = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {}

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise TypeError("implicit conversion to a NumPy array")

    def get(self) -> NDArray[Any]:
        """Return a copy as a NumPy array."""
        return np.array(self._strict._array, order="C")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._strict._array.dtype  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._strict.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def T(self) -> Array:
        return Array(self._strict.T)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._strict)

    def __int__(self) -> int:
        return int(self._strict)

    def __float__(self) -> float:
        return float(self._strict)

    def __getitem__(self, key: Any) -> Array:
        return on_device(self._strict._array[_key(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._strict._array[_key(key)] = value._strict._array if isinstance(value, Array) else _scalar(value)

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        return Array(strict.astype(self._strict, standard_dtype(dtype), copy=copy))

    def copy(self) -> Array:
        return Array(strict.asarray(self._strict, copy=True))

    def fill(self, value: float) -> None:
        self[...] = value

    def reshape(self, *shape: Any) -> Array:
        return Array(strict.reshape(self._strict, shape[0] if isinstance(shape[0], tuple) else shape))

    def transpose(self, *axes: int) -> Array:
        return Array(strict.permute_dims(self._strict, axes))

    def sum(self, axis: int | None = None, dtype: Any = None, keepdims: bool = False) -> Array:
        kind = None if dtype is None else standard_dtype(dtype)
        return Array(strict.sum(self._strict, axis=axis, dtype=kind, keepdims=keepdims))

    def mean(self, axis: int | None = None, dtype: Any = None, keepdims: bool = False) -> Array:
        values = self.astype(np.float64 if self.dtype == bool else dtype or self.dtype)
        return Array(strict.mean(values._strict, axis=axis, keepdims=keepdims))

    def max(self, axis: int | None = None, keepdims: bool = False) -> Array:
        assert self.size, "CuPy has no maximum of an empty array, whatever the axis"
        return Array(strict.max(self._strict, axis=axis, keepdims=keepdims))

    def any(self, axis: int | None = None) -> Array:
        return Array(strict.any(self._strict, axis=axis))

    def all(self, axis: int | None = None) -> Array:
        return Array(strict.all(self._strict, axis=axis))

    def argmax(self, axis: int | None = None) -> Array:
        assert self.size, "CuPy has no maximum of an empty array, whatever the axis"
        values = self.astype(np.int8) if self.dtype == bool else self
        return Array(strict.argmax(values._strict, axis=axis))

    def __neg__(self) -> Array:
        return Array(-self._strict)

    def __matmul__(self, other: Any) -> Array:
        return Array(self._strict @ other._strict) if isinstance(other, Array) else NotImplemented


def _binary(name: str, function: Callable[[Any, Any], Any]) -> None:
    """Give arrays an operator, its reflected form and, where there is one, its in-place form."""

    def forward(self: Array, other: Any) -> Any:
        left, right = _alike(self, other)
        return Array(function(left, right))

    def reflected(self: Array, other: Any) -> Any:
        assert not isinstance(other, np.generic), "NumPy's scalar, on the left, would decide what to do"
        right, left = _alike(self, other)
        return Array(function(left, right))

    def in_place(self: Array, other: Any) -> Array:
        value = forward(self, other)
        assert np.can_cast(value.dtype, self.dtype, "same_kind"), f"{value.dtype} into {self.dtype}"
        self._strict._array[...] = value._strict._array
        return self

    setattr(Array, f"__{name}__", forward)
    if name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Array, f"__r{name}__", reflected)
        setattr(Array, f"__i{name}__", in_place)


for _name in ("add", "sub", "mul", "truediv", "pow", "and", "or", "lt", "le", "gt", "ge", "eq", "ne"):
    _binary(_name, getattr(operator, f"__{_name}__"))


def _alike(array: Array, other: Any) -> tuple[Any, Any]:
    """Return both operands as the standard wants them: of one kind, or the second a Python scalar."""
    if isinstance(other, np.ndarray):
        raise TypeError(f"an array of a GPU does not mix with a NumPy array {other.shape}")
    if not isinstance(other, Array):
        if isinstance(other, np.generic) and other.dtype != array.dtype:
            raise TypeError(f"the result's dtype of {other.dtype} and {array.dtype} depends on the version of CuPy")
        return array._strict, _scalar(other)
    common = np.result_type(array.dtype, other.dtype)
    return array.astype(common, copy=False)._strict, other.astype(common, copy=False)._strict


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"a {type(value).__name__} does not mix with an array of a GPU")
    return value


def _key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(_key, key))
    if isinstance(key, Array):
        return key._strict._array
    if isinstance(key, (np.ndarray, list)):
        raise TypeError("an index on the host would be copied to the GPU")
    return key


def on_device(array: Any) -> Array:
    """Return NumPy values as an array of the stand-in that shares their memory."""
    return Array(strict.asarray(0, device=DEVICE)._new(np.asarray(array), device=DEVICE))
