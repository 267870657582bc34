"""Matrix products and sums whose elements do not depend on each other."""

from __future__ import annotations

import numpy as np

from .. import _core
from .checks import Array


def row_products(x: Array, weight: Array) -> Array:
    """Compute x W^T from x (N, I) and W (O, I), or item by item from x (B, N, I) and W (B, O, I), of any strides.

    Each element is one chain of fused multiply-adds, whose bits depend on its row of x and its row of W alone. A BLAS
    chooses its kernel, and with it the order of a sum, by the number of rows and threads: the same sample would get
    other bits in another batch. On a GPU it is cuBLAS's, whose bits are the same for the same shapes.
    """
    if type(x) is not np.ndarray:
        y: Array = x @ (weight.T if weight.ndim == 2 else weight.transpose(0, 2, 1))
        return y
    return _core.row_products(x, weight)


def row_sums(x: Array) -> Array:
    """Sum x (..., N) over its last axis to (...), first to last: zeros at the end of a row do not change its bits."""
    if type(x) is not np.ndarray:
        y: Array = x.sum(axis=-1)
        return y
    rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    return row_products(np.ones((1, x.shape[-1]), x.dtype), rows).reshape(x.shape[:-1])
