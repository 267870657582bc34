"""Matrix products whose rows do not depend on each other."""

from __future__ import annotations

import numpy as np

from .. import _core
from .checks import Array


def row_products(x: Array, weight: Array) -> Array:
    """Compute x W^T from x (N, I) and W (O, I), so that the bits of a row depend on that row and W alone.

    A BLAS chooses its kernel, and with it the order of a sum, by the number of rows and threads: the same sample would
    get other bits in another batch. On a GPU it is cuBLAS's, whose bits are the same for the same shapes.
    """
    if type(x) is not np.ndarray:
        y: Array = x @ weight.T
        return y
    return _core.row_products(x, weight)
