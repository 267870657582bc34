"""Derivatives by central differences, for what the reference does not cover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tolerance import DIFFERENCE_STEP

Array = NDArray[Any]


def slope(value: Callable[[], float], array: Array, along: Array) -> float:
    """Return the derivative of ``value()`` as a float64 array moves along ``along``; the array is put back."""
    start = array.copy()
    sides = []
    for sign in (1, -1):
        array[...] = start + sign * DIFFERENCE_STEP * along
        sides.append(value())
    array[...] = start
    return (sides[0] - sides[1]) / (2 * DIFFERENCE_STEP)


def gradient(value: Callable[[], float], array: Array) -> Array:
    """Return the derivatives of ``value()`` by every element of a float64 array."""
    result = np.zeros(array.shape)
    for index in np.ndindex(array.shape):
        along = np.zeros(array.shape)
        along[index] = 1
        result[index] = slope(value, array, along)
    return result
