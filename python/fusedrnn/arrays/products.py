"""Matrix products: with rows that do not depend on each other, and with those of a BLAS."""

from __future__ import annotations

import numpy as np

from .. import _core
from .checks import Array

_MOST_MULTIPLY_ADDS = 1e9  # of one call of a BLAS: 20 to 50 ms, in which nobody looks for Ctrl-C
_MOST_COPIED = 1 << 22  # elements


def product(a: Array, b: Array) -> Array:
    """Compute a (M, K) b (K, N): by a BLAS, or by the kernels where Ctrl-C would have to wait for that."""
    if type(a) is not np.ndarray or a.shape[0] * a.shape[1] * b.shape[1] <= _MOST_MULTIPLY_ADDS:
        y: Array = a @ b
        return y
    if not a.flags.c_contiguous:
        given: Array = a
        a = np.empty_like(given, order="C")
        step = max(1, _MOST_COPIED // given.shape[1])
        for i in range(0, len(a), step):
            a[i : i + step] = given[i : i + step]
    return _core.row_products(a, b.T)


def row_products(x: Array, weight: Array) -> Array:
    """Compute x W^T from x (N, I) and W (O, I), so that the bits of a row depend on that row and W alone.

    A BLAS chooses its kernel, and with it the order of a sum, by the number of rows and threads: the same sample would
    get other bits in another batch. On a GPU it is cuBLAS's, whose bits are the same for the same shapes.
    """
    if type(x) is not np.ndarray:
        y: Array = x @ weight.T
        return y
    return _core.row_products(x, weight)
