"""Matrix products whose rows do not depend on each other."""

from __future__ import annotations

import numpy as np

from .arrays import Array

_ROWS = 64  # of one product; fewer waste less on a short last tile, more read the weights less often


def row_products(x: Array, weight: Array) -> Array:
    """Compute x W^T from x (N, I) and W (O, I), so that the bits of a row depend on that row and W alone.

    A BLAS chooses its kernel, and with it the order of a sum, by the number of rows: the same sample would get other
    bits in another batch. Here every call has the same number of rows, the last one filled up with zeros.
    """
    x = np.ascontiguousarray(x)
    y = np.empty((len(x), len(weight)), x.dtype)
    whole = len(x) // _ROWS * _ROWS
    if whole:
        tiles = (whole // _ROWS, _ROWS)
        np.matmul(x[:whole].reshape(*tiles, -1), weight.T, out=y[:whole].reshape(*tiles, -1))
    if whole < len(x):
        last = np.zeros((_ROWS, x.shape[1]), x.dtype)
        last[: len(x) - whole] = x[whole:]
        y[whole:] = (last @ weight.T)[: len(x) - whole]
    return y
