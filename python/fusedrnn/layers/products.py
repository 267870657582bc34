"""Matrix products whose rows do not depend on each other."""

from __future__ import annotations

from .. import _core
from .arrays import Array


def row_products(x: Array, weight: Array) -> Array:
    """Compute x W^T from x (N, I) and W (O, I), so that the bits of a row depend on that row and W alone.

    A BLAS chooses its kernel, and with it the order of a sum, by the number of rows and threads: the same sample would
    get other bits in another batch.
    """
    return _core.row_products(x, weight)
