"""How ``fusedrnn.functional`` calls the kernels of a device."""

from __future__ import annotations

from typing import Any

from .arrays import library_of
from .stack import Stack


class DeviceBackend:
    """The kernels and the array library of x. Made for one call and its backward."""

    Stack = Stack

    def __init__(self, op: str, x: Any) -> None:
        self._library = library_of(op, "x", x)
        view = self._library.view(x)
        self.dtype, self._device = view.dtype, view.device

    def zeros(self, like: Any) -> Any:
        """Return zeros of the shape of a weight, into which the kernels may add."""
        return self._library.zeros(tuple(like.shape), self.dtype, self._device)

    def result(self, array: Any) -> Any:
        """Return what ``zeros`` made as the caller should see it."""
        return self._library.result(array)
