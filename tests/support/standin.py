"""A stand-in for CuPy and the CUDA kernels, so that layers on cuda can be tested on a machine without a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from numpy.typing import NDArray

from fusedrnn import _core
from fusedrnn.arrays import devices
from standin_arrays import DEVICE, Array, on_device, standard_dtype

_CREATE = {"arange", "empty", "full", "ones", "zeros"}
_NAMES = {"concatenate": "concat"}  # NumPy 1.24's and CuPy's name: the standard's


class Namespace:
    """The stand-in for the module cupy."""

    ndarray = Array

    def asarray(self, x: Any, dtype: Any = None) -> Array:
        if isinstance(x, Array):
            return x if dtype is None else x.astype(dtype, copy=False)
        return on_device(np.array(x, dtype))

    def from_dlpack(self, x: Any) -> Array:
        return x.shared()  # type: ignore[no-any-return]

    def ascontiguousarray(self, x: Array) -> Array:
        return on_device(np.ascontiguousarray(x._strict._array))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(strict, _NAMES.get(name, name))

        def call(*args: Any, out: Array | None = None, **kwargs: Any) -> Any:
            if "dtype" in kwargs:
                kwargs["dtype"] = standard_dtype(kwargs["dtype"])
            if name in _CREATE:
                kwargs["device"] = DEVICE
            result = function(*map(_standard, args), **kwargs)
            if out is None:
                return Array(result)
            out._strict._array[...] = result._array
            return out

        return call


def _standard(x: Any) -> Any:
    if isinstance(x, Array):
        return x._strict
    if isinstance(x, (tuple, list)):
        return type(x)(map(_standard, x))
    if isinstance(x, np.ndarray):
        raise TypeError("CuPy's functions take no NumPy array")
    return x.item() if isinstance(x, np.generic) else x


class Foreign:
    """An array of another library (torch, JAX) in the memory of the GPU."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = on_device(values)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {}

    def shared(self) -> Array:
        return self._values


class Tape:
    """The tape of the stand-in's kernels."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def backward(self, dy: Any, dh: Any, dc: Any, gradients: list[Array], want_dx: bool = True) -> tuple[Any, ...]:
        sums = [gradient.get() for gradient in gradients]
        results = self._core.backward(_numpy(dy), _numpy(dh), _numpy(dc), sums, want_dx)
        for gradient, total in zip(gradients, sums, strict=True):
            gradient[...] = on_device(total)
        return tuple(None if result is None else on_device(np.array(result)) for result in results)


class Stack:
    """The stand-in for the kernels on a GPU: the CPU's, between copies."""

    def __init__(self, cell: str, dtype: str, *, compute_dtype: str = "", **sizes: Any) -> None:
        # The CPU has no kernels of float16; what a layer makes of its arrays is the same with others.
        compute_dtype = "bfloat16" if compute_dtype == "float16" else compute_dtype
        self._core = _core.Stack(cell, dtype, **sizes, compute_dtype=compute_dtype)

    def forward(self, weights: list[Array], x: Any, h0: Any, c0: Any, *rest: Any) -> tuple[Any, ...]:
        values = [_numpy(weight) for weight in weights]
        *outputs, tape = self._core.forward(values, _numpy(x), _numpy(h0), _numpy(c0), *rest)  # type: ignore[arg-type]
        return *(None if each is None else on_device(np.array(each)) for each in outputs), tape and Tape(tape)


def _numpy(array: Array | None) -> NDArray[Any] | None:
    if array is not None and not isinstance(array, Array):
        raise TypeError(f"the kernels got a {type(array).__name__}")
    return None if array is None else array.get()


def install(monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """Let ``device="cuda"`` mean the stand-in until the test ends; return its namespace."""
    xp = Namespace()
    kernels = ModuleType("fusedrnn.cuda.stack")
    kernels.Stack = Stack  # type: ignore[attr-defined]
    monkeypatch.setattr(devices, "require_device", lambda: None)
    monkeypatch.setattr(devices, "cupy_namespace", lambda: xp)
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    mixed = ModuleType("fusedrnn.cuda.mixed")
    mixed.MixedStack = Stack  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, mixed.__name__, mixed)
    return xp


def to_numpy(x: Any) -> Any:
    """Return arrays of the stand-in as NumPy arrays, in tuples too, and all else as it is."""
    if isinstance(x, tuple):
        return tuple(map(to_numpy, x))
    return x.get() if isinstance(x, Array) else x


def to_device(x: Any) -> Any:
    """Return NumPy arrays as arrays of the stand-in, in tuples too, and all else as it is."""
    if isinstance(x, tuple):
        return tuple(map(to_device, x))
    return Namespace().asarray(x) if isinstance(x, np.ndarray) else x


def assert_alike(device: Any, cpu: Any, tolerance: float = 1e-12, what: object = "") -> None:
    """Demand arrays of the stand-in, in nested tuples, with the values of these NumPy arrays."""
    if isinstance(cpu, tuple):
        assert isinstance(device, tuple) and len(device) == len(cpu), what
        for index, (one, other) in enumerate(zip(device, cpu, strict=True)):
            assert_alike(one, other, tolerance, f"{what}[{index}]")
    elif cpu is None:
        assert device is None, what
    else:
        assert isinstance(device, Array), f"{what} is a {type(device).__name__}"
        assert device.shape == cpu.shape and device.dtype == cpu.dtype, f"{what}: {device.shape}, {device.dtype}"
        error = np.max(np.abs(device.get().astype(np.float64) - cpu), initial=0.0)
        assert error <= tolerance, f"{what}: {error}"
